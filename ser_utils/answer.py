"""An answer at once: the model that ships, asked about one recording, or about several of one speaker.

make predict FILE=my.wav                    one recording of a voice never heard before
make predict FILE=my.wav FILES=folder       and recordings of the same voice, without labels: the model adapts
make predict FILES=folder                   every recording of the folder, all of one speaker
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ser_utils import predict
from ser_utils.corpora.sources import find_recordings
from ser_utils.features.audio import AudioError, heard_seconds, load_with_remark
from ser_utils.features.utterance import RATE_HZ, utterance_statistics
from ser_utils.names import path_of
from ser_utils.progress import progress_bar
from ser_utils.systems.ready import ReadyModel, find_model, load_model
from ser_utils.workspace import MissingResult, Workspace, WorkspaceError

DATASET = "ravdess"  # whose model answers where none is named
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
    features : (n_pieces, n_features); a recording longer than `predict.PIECE_S` is heard in pieces
    remark : what is unusual about the file, in words; "" for nothing
    """

    name: str
    seconds: float
    features: np.ndarray
    remark: str = ""


def hear_clip(path: Path) -> HeardClip:
    """Load a recording and describe it.

    Raises
    ------
    ValueError : if it is silent, or shorter than `predict.SHORTEST_S` without the silence around the voice
    """
    samples, rate, remark = load_with_remark(path)
    try:
        signal = predict.hear_enough(samples, rate, RATE_HZ)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    n_pieces = int(np.ceil(len(signal) / (predict.PIECE_S * RATE_HZ)))
    pieces = [piece for piece in np.array_split(signal, n_pieces) if heard_seconds(piece, RATE_HZ) > 0]
    features = np.concatenate([utterance_statistics(piece, RATE_HZ) for piece in pieces])
    return HeardClip(path.name, len(signal) / RATE_HZ, features, remark)


def probabilities_of(model: ReadyModel, clip: HeardClip, known: list[HeardClip]) -> pd.Series:
    """Probabilities of emotions, most probable first; known : other clips of the speaker, or the same."""
    p = model.probabilities(clip.features, _features_of(known, clip)).mean(axis=0)
    return pd.Series(p, model.facts["emotions"]).sort_values(ascending=False)


def _features_of(known, clip):
    return np.concatenate([other.features for other in known]) if known else clip.features[:0]


def describe_model(model: ReadyModel, n_known: int) -> list[str]:
    """Tell what a model learned from, and what it reaches on new speakers of whom so many clips are known."""
    facts = model.facts
    learned = (
        f"This model learned from {facts['n_clips']:,} recordings of {facts['n_speakers']} speakers of {facts['title']} "
        f"(language: {facts['language'] or 'unknown'}; licence: {facts['licence'] or 'unknown'})."
    )
    rows = pd.DataFrame(facts["tested"]).query("known == 'random'").sort_values("n_known")
    without, reached = rows.iloc[0], rows[rows["n_known"] <= n_known].iloc[-1]
    guessing = f"guessing gives {1 / len(facts['emotions']):.0%}"
    lines = [learned, f"On speakers it had not learned from, it recognised {without['uar']:.0%} (UAR; {guessing})."]
    if n_known:
        known = f"With {int(reached['n_known'])} unlabelled recordings of each, it recognised {reached['uar']:.0%}."
        lines.append(f"{known} Here {n_known} are known. {MIXED}")
    return [*lines, "In another language, or with other microphones, it does worse."]


def report_clip(model: ReadyModel, clip: HeardClip, known: list[HeardClip]) -> str:
    """Write the answer about one recording as text."""
    p, n_pieces = probabilities_of(model, clip, known), len(clip.features)
    best = p.index[0]
    lines = [f"{clip.name}: {clip.seconds:.2f} s{f' ({clip.remark})' if clip.remark else ''}"]
    if n_pieces > 1:
        lines.append(f"It was heard in {n_pieces} pieces; the probabilities are their mean, and hide what changes.")
    lines += ["", *predict.draw_shares(p), ""]
    reasons = model.reasons(clip.features.mean(axis=0, keepdims=True), _features_of(known, clip), best)
    said = ", ".join(f"{group} {value:+.1f}" for group, value in reasons.items())
    lines += [f"What speaks for {best}, in log-odds: {said}", ""]
    return "\n".join([*lines, *describe_model(model, len(known)), predict.MEANING])


def report_folder(model: ReadyModel, clips: list[HeardClip]) -> str:
    """Write the answers about all recordings of one speaker, each a line; the model adapts to all of them."""
    lines, width = [], max(len(clip.name) for clip in clips)
    for clip in clips:
        first, second = list(probabilities_of(model, clip, clips).items())[:2]
        lines.append(f"  {clip.name:<{width}}  {first[0]:<10}{first[1]:6.1%}   then {second[0]:<10}{second[1]:6.1%}")
    return "\n".join([*lines, "", *describe_model(model, len(clips)), predict.MEANING])


def hear_folder(folder: Path) -> list[HeardClip]:
    """Hear every recording of a folder; those that cannot be heard are named and left out.

    Raises
    ------
    ValueError : if there is no recording that can be heard
    """
    if not folder.is_dir():
        raise ValueError(f"FILES must be a folder of recordings of one speaker. Received: FILES={folder}")
    clips = []
    for path in progress_bar(find_recordings(folder).recordings, desc="recordings", unit="file"):
        try:
            clips.append(hear_clip(folder / path))
        except (AudioError, ValueError) as error:
            print(f"left out: {error}", file=sys.stderr)
    if not clips:
        raise ValueError(f"{folder} has no recording that can be heard.")
    return clips


def answer(workspace: Workspace, file: str, folder: str) -> str:
    """The report on a file, a folder, or a file with the folder's recordings known."""
    if not file and not folder:
        raise ValueError("which recording? make predict FILE=my.wav, or FILES=folder for several of one speaker")
    model = load_model(find_model(workspace))
    known = hear_folder(path_of(folder)) if folder else []
    if not file:
        return report_folder(model, known)
    return report_clip(model, hear_clip(path_of(file)), known)


def main(arguments: list[str] | None = None) -> None:
    """Print an answer; what goes wrong is one line, and exit status 1.

    Where a dataset is named whose networks were trained here (notebook 05), these are asked about a single file.
    """
    parser = predict.make_parser("answer", __doc__, dataset="")
    parser.add_argument("--files", default="", help="a folder of recordings of one speaker")
    given = parser.parse_args(arguments)
    try:
        workspace = predict.open_workspace(given, given.dataset or DATASET)
        if given.dataset and not given.files and any(workspace.build.glob("predictions/feature_network-*-speaker-*")):
            options = ["--profile", given.profile, "--seed", given.seed, "--root", given.root]
            predict.main([given.file, "--dataset", given.dataset, *options])
            return
        print(answer(workspace, given.file, given.files))
    except (AudioError, MissingResult, WorkspaceError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
