"""What emotion a recording shows, and what that does not mean: the report that `make predict` prints.

make predict FILE=my.wav                    one recording of a voice never heard before
make predict FILE=my.wav FILES=folder       and recordings of the same voice, without labels: the model adapts
make predict FILES=folder                   every recording of the folder, all of one speaker
make predict FILE=my.wav DATASET=emodb      the networks of notebook 05, if they were trained here
make predict FILE=my.wav MODEL=ensemble     the ensemble of notebook 11; it needs the corpus

The model that ships answers at once; networks take longer and also say what part of the recording they rest on.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from ser_utils import predict
from ser_utils.corpora import CORPORA
from ser_utils.corpora.loading import inspect_corpus, refuse_unknown
from ser_utils.corpora.sources import find_recordings
from ser_utils.features.audio import AudioError, heard_seconds, load_with_remark
from ser_utils.features.utterance import RATE_HZ, utterance_statistics
from ser_utils.names import path_of
from ser_utils.progress import progress_bar
from ser_utils.systems.ready import ReadyModel, find_model, load_model
from ser_utils.tables import CorpusError
from ser_utils.workspace import Workspace, WorkspaceError, content_key
from tools.ready_ensemble import ReadyEnsemble, extract, fit_ready_ensemble

DATASET = "ravdess"  # whose model answers where none is named
ENSEMBLE = "ensemble"
MOST_WINDOWS = 40  # that a report shows
FEWEST_KNOWN = 10  # recordings of a speaker, from which the adapted ensemble answers; see notebooks/choices.md
CAUTION = "In another language, or with other microphones, it does worse."
WANTED = "a recording of speech in a format that libsndfile reads (wav, flac, ogg, mp3 …)"
MIXED = (
    "The known recordings should be mixed: the model takes what they have in common for the voice, and if most express one "
    "emotion they help less or do harm."
)


@dataclass(frozen=True)
class HeardClip:
    """A recording as the model hears it.

    Parameters
    ----------
    name : of the file
    seconds : its length
    features : (n_pieces, …), a row for each piece as `describe` of `hear_clip` gives it; a recording longer than
        `predict.PIECE_S` is heard in pieces
    content : key of what is heard: the same recording has the same, whatever its file is called
    remark : what is unusual about the file, in words; "" for nothing
    """

    name: str
    seconds: float
    features: np.ndarray
    content: str
    remark: str = ""


def hear_clip(path: Path, describe: Callable = utterance_statistics, rate_hz: int = RATE_HZ) -> HeardClip:
    """Load a recording and describe it.

    Parameters
    ----------
    describe : function (signal, sample_rate) -> array of one row, such as (1, n_features)
    rate_hz : at which it wants the signal

    Raises
    ------
    ValueError : if it is silent, or shorter than `predict.SHORTEST_S` without the silence around the voice
    """
    samples, rate, remark = load_with_remark(path)
    try:
        signal = predict.hear_enough(samples, rate, rate_hz)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    n_pieces = int(np.ceil(len(signal) / (predict.PIECE_S * rate_hz)))
    pieces = [piece for piece in np.array_split(signal, n_pieces) if heard_seconds(piece, rate_hz) > 0]
    features = np.concatenate([describe(piece, rate_hz) for piece in pieces])
    return HeardClip(path.name, len(signal) / rate_hz, features, content_key(signal), remark)


def probabilities_of(model: ReadyModel, clip: HeardClip, known: list[HeardClip]) -> pd.Series:
    """Probabilities of emotions, most probable first; known : other clips of the speaker, or the same."""
    p = model.probabilities(clip.features, _features_of(known, clip)).mean(axis=0)
    return pd.Series(p, model.facts["emotions"]).sort_values(ascending=False)


def _features_of(known, clip):
    return np.concatenate([other.features for other in known]) if known else clip.features[:0]


def _guessing(share: float) -> str:
    return f"guessing gives {100 * share:.3g}%"


def describe_model(model: ReadyModel, n_known: int) -> list[str]:
    """Tell what a model learned from, and what it reaches on new speakers of whom so many clips are known."""
    facts = model.facts
    learned = (
        f"This model learned from {facts['n_clips']:,} recordings of {facts['n_speakers']} speakers of {facts['title']} "
        f"(language: {facts['language'] or 'unknown'}; licence: {facts['licence'] or 'unknown'})."
    )
    rows = pd.DataFrame(facts["tested"]).query("known == 'random'").sort_values("n_known")
    without, reached = rows.iloc[0], rows[rows["n_known"] <= n_known].iloc[-1]
    guessing = _guessing(1 / len(facts["emotions"]))
    tested = "Models made in the same way were tested on speakers that they had not learned from"
    lines = [learned, f"{tested}: they recognised {without['uar']:.0%} (UAR; {guessing})."]
    if n_known:
        known = f"With {int(reached['n_known'])} unlabelled recordings of each, they recognised {reached['uar']:.0%}."
        lines.append(f"{known} Here {n_known} are known. {MIXED}")
    return [*lines, CAUTION]


def describe_ensemble(ensemble: ReadyEnsemble, table: pd.DataFrame, n_known: int) -> list[str]:
    """Tell who answers, who does not, and what both reach on new speakers; n_known : clips of the speaker."""
    titles = [CORPORA[name].title if name in CORPORA else name for name in table["corpus"].unique()]
    n_members, n_all = len(ensemble.weights), len(ensemble.weights) + len(ensemble.missing)
    guessing, whole = _guessing(1 / len(ensemble.emotions)), f"; all {n_all} together recognised {ensemble.whole:.0%}"
    lines = [
        f"This is the ensemble {ensemble.model} of notebook 11, fitted to {len(table):,} recordings of {' + '.join(titles)}. "
        f"{n_members} of its {n_all} members answer.",
        *(
            f"Not asked: {', '.join(names)}: {why}."
            for why, names in ensemble.missing.groupby(ensemble.missing).groups.items()
        ),
        f"On speakers they had not learned from, these members recognised {ensemble.tested:.0%} (UAR; "
        f"{guessing}){whole if n_members < n_all else ''}.",
    ]
    if ensemble.model == "adapted":
        known = (
            f"There, all recordings of each speaker were known, about {ensemble.n_known:.0f}. Here {n_known} are known."
        )
        lines.append(f"{known} With fewer known recordings, it recognises less. {MIXED}")
    elif n_known > 1:
        lines.append(f"{n_known} recordings of a speaker are too few to adapt to: at least {FEWEST_KNOWN} are needed.")
    return [*lines, CAUTION]


def report_clip(clip: HeardClip, p: pd.Series, reasons: pd.Series, about: list[str]) -> str:
    """Write the answer about one recording as text.

    Parameters
    ----------
    p : probabilities of emotions, most probable first
    reasons : what speaks for the first emotion, in log-odds
    about : lines about the model
    """
    lines = [f"{clip.name}: {clip.seconds:.2f} s{f' ({clip.remark})' if clip.remark else ''}"]
    if len(clip.features) > 1:
        lines.append(
            f"It was heard in {len(clip.features)} pieces; the probabilities are their mean, and hide what changes."
        )
    said = ", ".join(f"{name} {value:+.1f}" for name, value in reasons.items())
    lines += ["", *draw_shares(p), "", f"What speaks for {p.index[0]}, in log-odds: {said}", ""]
    return "\n".join([*lines, *about, predict.MEANING])


def report_folder(clips: list[HeardClip], answers: list[pd.Series], about: list[str]) -> str:
    """Write the answers about all recordings of one speaker, each a line; answers, about : as in `report_clip`."""
    lines, width = [], max(len(clip.name) for clip in clips)
    for clip, p in zip(clips, answers, strict=True):
        first, second = list(p.items())[:2]
        lines.append(f"  {clip.name:<{width}}  {first[0]:<10}{first[1]:6.1%}   then {second[0]:<10}{second[1]:6.1%}")
    return "\n".join([*lines, "", *about, predict.MEANING])


def hear_folder(folder: Path, hear: Callable[[Path], HeardClip] = hear_clip) -> list[HeardClip]:
    """Hear every recording of a folder; those that cannot be heard, or are there twice, are named and left out.

    Raises
    ------
    ValueError : if there is no recording that can be heard
    """
    if not folder.is_dir():
        raise ValueError(f"FILES must be a folder of recordings of one speaker. Received: FILES={folder}")
    clips, found = {}, find_recordings(folder)
    for file in found.left_out:
        print(f"left out: {file.path!r}: {file.reason}", file=sys.stderr)
    for path in progress_bar(found.recordings, desc="recordings", unit="file"):
        try:
            clip = hear(folder / path)
        except (AudioError, ValueError) as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if (first := clips.setdefault(clip.content, clip)) is not clip:
            print(f"left out: {path!r}: the same recording as {first.name!r}", file=sys.stderr)
    if not clips:
        there = f"{len(found.recordings)} could not be heard; other files: {found.others or 'none'}"
        raise ValueError(f"{folder} has no recording that can be heard (wav, flac, ogg, mp3 …): {there}.")
    return list(clips.values())


def answer(workspace: Workspace, file: str, folder: str) -> str:
    """The report of the model that ships, on a file, a folder, or a file with the folder's recordings known."""
    model = load_model(find_model(workspace))
    known = hear_folder(path_of(folder)) if folder else []
    about = describe_model(model, len(known))
    if not file:
        return report_folder(known, [probabilities_of(model, clip, known) for clip in known], about)
    clip = hear_clip(path_of(file))
    p = probabilities_of(model, clip, known)
    reasons = model.reasons(clip.features.mean(axis=0, keepdims=True), _features_of(known, clip), p.index[0])
    return report_clip(clip, p, reasons, about)


def answer_by_ensemble(workspace: Workspace, file: str, folder: str) -> str:
    """The report of the ensemble, as in `answer`; it is adapted where FEWEST_KNOWN recordings of the speaker are there."""
    cache = workspace.folder("features") / "recordings"
    table = inspect_corpus(workspace.dataset, workspace.data_dir, cache=cache).table
    hear = functools.partial(hear_clip, describe=extract, rate_hz=table.attrs["sample_rate_hz"])
    asked = [hear(path_of(file))] if file else []
    known = hear_folder(path_of(folder), hear) if folder else []
    # the folder may hold the file
    clips = asked + [clip for clip in known if clip.content not in {other.content for other in asked}]
    ensemble = fit_ready_ensemble(workspace, table, "adapted" if len(clips) >= FEWEST_KNOWN else "new_speaker")
    about = describe_ensemble(ensemble, table, len(clips))
    pieces = np.cumsum([len(clip.features) for clip in clips])[:-1]
    shares = np.split(ensemble.shares(np.concatenate([clip.features for clip in clips])), pieces, axis=1)
    answers = [
        pd.Series(softmax(share.sum(axis=0), axis=1).mean(axis=0), ensemble.emotions).sort_values(ascending=False)
        for share in shares
    ]
    if not file:
        return report_folder(clips, answers, about)
    said = pd.DataFrame(shares[0].mean(axis=1), list(ensemble.classifiers), ensemble.emotions)
    reasons = (said[answers[0].index[0]] - said.mean(axis=1)).sort_values(ascending=False)
    return report_clip(clips[0], answers[0], reasons, about)


def report_networks(workspace: Workspace, path: Path, model: str) -> str:
    """Write what the networks of notebook 05 say about a recording as text; model : one of `predict.MODELS`."""
    signal, sample_rate, remark = load_with_remark(path)
    prediction = predict.predict_emotion(workspace, signal, sample_rate, model)
    corpus = CORPORA[workspace.dataset].title if workspace.dataset in CORPORA else workspace.dataset
    tested, best = prediction.tested, prediction.probabilities.index[0]
    means = ("fall by so much when a part is silenced", "in each piece, above those of the whole")
    synthetic = " The demo corpus is synthetic: on a real voice it says nothing at all."
    return "\n".join(
        [
            f"{path.name}: {len(signal) / sample_rate:.2f} s{f' ({remark})' if remark else ''}",
            f"{model}, trained on {corpus}, profile {workspace.profile}, seed {workspace.seed}; "
            f"mean of {prediction.n_networks} network{'s' if prediction.n_networks > 1 else ''}",
            *filter(None, [prediction.remark]),
            "",
            *draw_shares(prediction.probabilities),
            "",
            f"What {best} rests on: its log-odds {means[prediction.n_pieces > 1]}",
            *_draw_windows(prediction.windows),
            "This is only a hint: notebook 10 fully trusts occlusion on none of the networks that it checked (10_verdicts.csv).",
            "",
            f"On {tested['n_speakers']} speakers they had not heard, these networks recognised {tested['uar']:.0%} (UAR; "
            f"{_guessing(tested['chance'])}).{synthetic if workspace.dataset == 'demo' else ''}",
            predict.MEANING,
        ]
    )


def draw_shares(probabilities: pd.Series) -> list[str]:
    """Draw the probability of each emotion as a bar of text."""
    return [f"  {emotion:<10}{p:6.1%}  {'█' * round(30 * p)}" for emotion, p in probabilities.items()]


def _draw_windows(windows):
    size = windows["support"].abs()
    shown = windows.loc[size.nlargest(MOST_WINDOWS).index.sort_values()]
    lines = []
    for row in shown.itertuples():
        bar = ("█" if row.support > 0 else "░") * round(20 * abs(row.support) / max(size.max(), 1e-9))
        lines.append(f"  {row.start_s:5.2f}–{row.end_s:5.2f} s {row.support:+6.2f}  {bar}")
    if len(shown) < len(windows):
        lines.append(f"  (the {len(shown)} of {len(windows)} parts that count most)")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Print an answer; what goes wrong is one line, and exit status 1.

    Where a dataset is named whose networks were trained here (notebook 05), these are asked about a single file.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.answer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", default="", help="a recording: wav, flac, ogg, mp3 …")
    parser.add_argument("--files", default="", help="a folder of recordings of one speaker")
    parser.add_argument("--dataset", default="", help="what the model was trained on")
    models = ", ".join((ENSEMBLE, *predict.MODELS))
    parser.add_argument("--model", default="", help=f"one of {models}; nothing for the model that ships")
    for option, default in (("profile", "quick"), ("seed", "0"), ("root", "")):
        parser.add_argument(f"--{option}", default=default)
    given = parser.parse_args(arguments)
    try:
        print(_answer_as_given(given))
    except AudioError as error:
        sys.exit(f"{error}\nWanted: {'FILES, for a folder' if os.path.isdir(error.path) else WANTED}.")
    except (CorpusError, WorkspaceError, OSError, ValueError) as error:
        sys.exit(str(error))


def _answer_as_given(given):
    if not given.seed.isdecimal():
        raise ValueError(f"SEED must be an integer of at least 0. Received: SEED={given.seed}")
    if not given.file and not given.files:
        raise ValueError("which recording? make predict FILE=my.wav, or FILES=folder for several of one speaker")
    if given.model not in ("", ENSEMBLE, *predict.MODELS):
        networks = ", ".join(predict.MODELS)
        raise ValueError(
            f"MODEL must be {ENSEMBLE}, or networks of notebook 05 ({networks}), or not given. Received: MODEL={given.model}"
        )
    refuse_unknown(given.dataset or DATASET)
    workspace = Workspace(given.dataset or DATASET, given.profile, int(given.seed), given.root)
    if given.model == ENSEMBLE:
        return answer_by_ensemble(workspace, given.file, given.files)
    trained_here = workspace.build.glob("predictions/feature_network-*-speaker-*")
    if given.file and (given.model or (given.dataset and not given.files and any(trained_here))):
        return report_networks(workspace, path_of(given.file), given.model or predict.MODELS[0])
    return answer(workspace, given.file, given.files)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
