"""A recording of one's own: probabilities of emotions, the part of it they rest on, and what they do not mean."""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ser_utils.corpora.loading import CORPORA, EMOTIONS
from ser_utils.features.audio import AudioError, load_audio, resample
from ser_utils.profiles import settings
from ser_utils.workspace import MissingResult, Workspace, WorkspaceError, sealed

MODELS = ("deep_cnn_log_mel", "deep_cnn_mfcc", "cnn_bilstm_log_mel", "cnn_bilstm_mfcc")
SHORTEST_S = 0.25
WINDOW_S = 0.25  # of the explanation
MEANING = (
    "What these numbers do not mean: they do not say what this person feels. The model learned how actors sound "
    "when asked to play an emotion; it must choose among the emotions above, whatever it hears, music and coughs "
    "included, and its probabilities are not calibrated. Do not use it to judge anybody, nor on a voice without "
    "its owner's consent."
)


@dataclass(frozen=True)
class Prediction:
    """What a model says about one recording.

    probabilities : Series, emotion → probability, most probable first, summing to one
    windows : table `start_s, end_s, support`: by how much the log-odds of the first emotion fall when this window
        is silenced, mean over the networks
    tested : dict of scores on speakers the networks had not heard (see `metrics.score_predictions`), chance
    n_networks : how many were averaged, one per fold
    """

    probabilities: pd.Series
    windows: pd.DataFrame
    tested: dict
    n_networks: int


def predict_emotion(workspace, signal, sample_rate, model="deep_cnn_log_mel"):
    """Ask the networks that notebook 05 trained without some of the speakers, and average what they say.

    signal : float32 (n_samples,); sample_rate : Hz, any; model : one of MODELS
    Returns a Prediction. Raises MissingResult if notebook 05 has not run, ValueError for an unknown model or a
    recording shorter than SHORTEST_S.
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}. Received: model={model!r}")
    if len(signal) < SHORTEST_S * sample_rate:
        raise ValueError(
            f"a recording of {len(signal) / sample_rate:.2f} s is too short: at least {SHORTEST_S} s are wanted"
        )
    predictions = _predictions_of(workspace, model)
    folds = f"folds/feature_network-speaker-{predictions.split('-')[-1]}"  # a folder may keep earlier ones
    tested = workspace.load_table(predictions, "05")
    networks = _load_networks(workspace, model, workspace.load_table(folds, "05"))

    import keras  # the errors above should not wait for it
    import librosa

    from ser_utils.explanation.attribution import class_score, occlusion
    from ser_utils.features.frames import clip_frames

    chosen = settings("feature_network", workspace.profile)
    signal = resample(signal, sample_rate, chosen["sample_rate_hz"])
    sample_rate = chosen["sample_rate_hz"]
    kind = "mfcc" if model.endswith("mfcc") else "log_mel"
    grid = {k: chosen[k] for k in ("n_mels", "n_fft", "hop_length", "n_mfcc", "deltas")}
    first, last = 0, len(signal)
    if chosen["trim_db"]:  # as in training, but here one wants to know where the voice begins
        how = {
            "top_db": chosen["trim_db"],
            "frame_length": chosen["n_fft"],
            "hop_length": chosen["hop_length"],
        }
        first, last = librosa.effects.trim(signal, **how)[1]
    signal = signal[first:last]
    frames = clip_frames(signal, sample_rate, kind=kind, **grid)
    n_frames = np.array([len(frames)], "int32")
    scaled = [((frames - mean) / spread)[None].astype("float32") for _, mean, spread in networks]
    p = np.mean(
        [keras.ops.convert_to_numpy(network([x, n_frames], training=False))[0]
         for (network, _, _), x in zip(networks, scaled, strict=True)], axis=0,
    )  # fmt: skip
    classes = [emotion for emotion in EMOTIONS if f"p_{emotion}" in tested]
    width = min(len(frames), max(1, round(WINDOW_S * sample_rate / chosen["hop_length"])))
    falls = [
        occlusion(class_score(network, int(p.argmax()), n_frames), x, patch=(width, x.shape[2]),
                  stride=(width, x.shape[2]), fill=x[0].min(axis=0))[0, :, 0]
        for (network, _, _), x in zip(networks, scaled, strict=True)
    ]  # fmt: skip
    starts = np.arange(0, len(frames), width)
    seconds = chosen["hop_length"] / sample_rate
    windows = pd.DataFrame(
        {
            "start_s": first / sample_rate + starts * seconds,
            "end_s": np.minimum(first / sample_rate + (starts + width) * seconds, last / sample_rate),
            "support": [np.mean([fall[i : i + width].mean() for fall in falls]) for i in starts],
        }
    )
    ranked = pd.Series(p / p.sum(), classes).sort_values(ascending=False)
    return Prediction(ranked, windows, _tested(tested, len(classes)), len(networks))


def _predictions_of(workspace, model):
    found = sorted((workspace.build / "predictions").glob(f"feature_network-{model}-speaker-*.parquet"))
    if not found:
        raise MissingResult(
            f"No model was trained for {workspace.dataset}, profile {workspace.profile}, seed {workspace.seed}: "
            f"make 05 DATASET={workspace.dataset} PROFILE={workspace.profile} SEED={workspace.seed} trains it."
        )
    return f"predictions/{found[0].stem}"


def _load_networks(workspace, model, folds):
    """The network of each fold with the mean and spread of its training frames: a list of triples."""
    import keras

    from ser_utils.features.store import load_store
    from ser_utils.systems import feature_network  # noqa: F401  registers the layers
    from ser_utils.training.folds import clip_scale

    kind = "mfcc" if model.endswith("mfcc") else "log_mel"
    store = load_store(workspace.build / "features" / "feature_network" / kind)
    paths = [
        workspace.build / "models" / f"feature_network-{model}-speaker-{n}.keras"
        for n in folds["fold"].unique()
    ]
    if store is None or any(sealed(path) is None for path in paths):
        raise MissingResult(
            f"A model of {workspace.build} is gone or damaged: make 05 DATASET={workspace.dataset} PROFILE={workspace.profile} "
            f"SEED={workspace.seed} makes it again."
        )
    networks = []
    for path, (_, rows) in zip(paths, folds.groupby("fold", sort=False), strict=True):
        trained = store.table["utterance_id"].isin(rows.loc[rows["role"] == "train", "utterance_id"])
        table = store.table[trained]
        clips = [store.array[a : a + n] for a, n in zip(table["first_row"], table["n_rows"], strict=True)]
        mean, spread = clip_scale(clips, table.assign(corpus=""), "training", np.ones(len(clips), bool))
        networks.append((keras.saving.load_model(path, safe_mode=True, compile=False), mean[0], spread[0]))
    return networks


def _tested(predictions, n_classes):
    from ser_utils.evaluation.metrics import score_predictions

    return score_predictions(predictions, n_resamples=500) | {"chance": 1 / n_classes}


def report(workspace, name, signal, sample_rate, model):
    """The prediction as text for a reader; arguments as in `predict_emotion`, name : of the recording."""
    found = predict_emotion(workspace, signal, sample_rate, model)
    corpus = CORPORA[workspace.dataset].title if workspace.dataset in CORPORA else workspace.dataset
    tested, best = found.tested, found.probabilities.index[0]
    lines = [
        f"{name}: {len(signal) / sample_rate:.2f} s",
        f"{model}, trained on {corpus}, profile {workspace.profile}, seed {workspace.seed}; "
        f"mean of {found.n_networks} network{'s' if found.n_networks > 1 else ''}",
        "",
        *(f"  {emotion:<10}{p:6.1%}  {'█' * round(30 * p)}" for emotion, p in found.probabilities.items()),
        "",
        f"What {best} rests on: its log-odds fall by so much when a part is silenced",
    ]
    largest = max(found.windows["support"].abs().max(), 1e-9)
    for row in found.windows.itertuples():
        bar = ("█" if row.support > 0 else "░") * round(20 * abs(row.support) / largest)
        lines.append(f"  {row.start_s:5.2f}–{row.end_s:5.2f} s {row.support:+6.2f}  {bar}")
    synthetic = (
        " The demo corpus is synthetic: on a real voice it says nothing at all."
        if workspace.dataset == "demo"
        else ""
    )
    lines += [
        "",
        f"On {tested['n_speakers']} speakers they had not heard, these networks recognised {tested['uar']:.0%} (UAR; "
        f"guessing gives {tested['chance']:.0%}).{synthetic}",
        MEANING,
    ]
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m ser_utils.predict", description=__doc__)
    parser.add_argument("file", help="a recording: wav, flac, ogg, mp3 …")
    parser.add_argument("--dataset", default="demo", help="what the model was trained on")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--root", default="")
    parser.add_argument("--model", default=MODELS[0], help=f"one of {', '.join(MODELS)}")
    given = parser.parse_args(arguments)
    try:
        if not given.file:
            raise ValueError("which recording? make predict FILE=my.wav DATASET=emodb")
        if not given.seed.isdigit():
            raise ValueError(f"SEED must be an integer of at least 0. Received: SEED={given.seed}")
        workspace = Workspace(given.dataset, given.profile, int(given.seed), given.root)
        print(report(workspace, Path(given.file).name, *load_audio(given.file), given.model))
    except (AudioError, WorkspaceError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
