"""A recording of one's own: probabilities of emotions, the part of it they rest on, and what they do not mean."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.corpora import emotions_in_order
from ser_utils.features.audio import HEARD_DB, block_power, hear, heard_seconds
from ser_utils.profiles import settings
from ser_utils.workspace import MissingResult, Workspace, sealed

MODELS = ("deep_cnn_log_mel", "deep_cnn_mfcc", "cnn_bilstm_log_mel", "cnn_bilstm_mfcc")
SHORTEST_S = 0.25
PIECE_S = 10.0  # longer recordings are heard in pieces: memory and time then grow with the length, not its square
WINDOW_S = 0.25  # of the explanation, where there is one piece
FAR_LONGER = 2  # times the longest training clip
MEANING = (
    "What these numbers do not mean: they do not say what this person feels. The model learned how actors sound "
    "when asked to play an emotion; it must choose among the emotions above, whatever it hears, music and coughs "
    "included, and its probabilities are not calibrated. Do not use it to judge anybody, nor on a voice without "
    "its owner's consent."
)


@dataclass(frozen=True)
class Prediction:
    """What a model says about one recording.

    Parameters
    ----------
    probabilities : emotion → probability, most probable first, summing to one
    windows : table `start_s, end_s, support`: by how much the log-odds of the first emotion fall when this window is
        silenced, mean over the networks; for a recording heard in pieces, by how much the log-odds of each piece are
        above those of the whole
    tested : scores on speakers the networks had not heard (see `metrics.score_predictions`), and chance
    n_networks : how many were averaged, one per fold
    n_pieces : in how many the recording was heard
    remark : what is unusual about the recording, in words; "" for nothing
    """

    probabilities: pd.Series
    windows: pd.DataFrame
    tested: dict
    n_networks: int
    n_pieces: int = 1
    remark: str = ""


@dataclass(frozen=True)
class Network:
    """One trained network, and the scale its training clips had.

    Parameters
    ----------
    model : keras.Model of (frames (1, n_frames, n_features), n_frames (1,)) → probabilities (1, n_classes)
    mean, spread : (n_features,)
    """

    model: Any
    mean: np.ndarray
    spread: np.ndarray

    def inputs(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the model is given for frames (n_frames, n_features)."""
        return ((frames - self.mean) / self.spread)[None].astype("float32"), np.array([len(frames)], "int32")

    def probabilities(self, frames: np.ndarray, is_one_of_many: bool = False) -> np.ndarray:
        """Probabilities (n_classes,) for frames (n_frames, n_features); compiled if more of that length follow."""
        from keras import ops

        if is_one_of_many:
            return self.model.predict_on_batch(list(self.inputs(frames)))[0]
        return ops.convert_to_numpy(self.model(list(self.inputs(frames)), training=False))[0]

    def falls(self, frames: np.ndarray, label: int, width: int) -> np.ndarray:
        """By how much the log-odds of a class fall when `width` frames around each are silenced, (n_frames,)."""
        from ser_utils.explanation.attribution import class_score, occlusion

        x, n_frames = self.inputs(frames)
        patch, score = (width, x.shape[2]), class_score(self.model, label, n_frames)
        return occlusion(score, x, patch=patch, stride=patch, fill=x[0].min(axis=0))[0, :, 0]


@dataclass(frozen=True)
class Ensemble:
    """The networks that notebook 05 trained without some of the speakers, one per fold.

    Parameters
    ----------
    networks : in the order of the folds
    classes : emotions, in the order of the networks' outputs
    tested : scores on speakers the networks had not heard (see `metrics.score_predictions`), and chance
    longest_frames : of the clips they learned from
    """

    networks: list[Network]
    classes: list[str]
    tested: dict
    longest_frames: int


def predict_emotion(
    workspace: Workspace, signal: np.ndarray, sample_rate: int, model: str = "deep_cnn_log_mel"
) -> Prediction:
    """Ask the networks that notebook 05 trained without some of the speakers, and average what they say.

    A recording longer than PIECE_S is heard in pieces, whose probabilities are averaged by their length.

    Parameters
    ----------
    workspace : where notebook 05 wrote
    signal : float32 (n_samples,)
    sample_rate : Hz, any
    model : one of MODELS

    Returns
    -------
    Prediction

    Raises
    ------
    MissingResult : if notebook 05 has not run
    ValueError : for an unknown model, or a recording that is silent or, without the silence around the voice, shorter
        than SHORTEST_S
    """
    _refuse_unknown(model)
    of_frames = settings("feature_network", workspace.profile)
    rate = of_frames["sample_rate_hz"]
    signal = hear_enough(signal, sample_rate, rate)
    ensemble = load_ensemble(workspace, model)
    bounds, n_silent = _cut(signal, of_frames)
    kind = "mfcc" if model.endswith("mfcc") else "log_mel"
    p, windows = _listen(ensemble.networks, signal, bounds, of_frames, kind)
    ranked = pd.Series(p / p.sum(), ensemble.classes).sort_values(ascending=False)
    longest_s = ensemble.longest_frames * of_frames["hop_length"] / rate
    remark = _describe_length(len(signal) / rate, longest_s, len(bounds), n_silent)
    return Prediction(ranked, windows, ensemble.tested, len(ensemble.networks), len(bounds), remark)


def hear_enough(signal: np.ndarray, sample_rate: int, wanted_hz: int) -> np.ndarray:
    """Bring a recording (n_samples,) to the rate of a model, Hz; raises ValueError if it is silent or too short."""
    signal = hear(np.asarray(signal, np.float32)[:, None], sample_rate, wanted_hz)
    if (heard := heard_seconds(signal, wanted_hz)) < SHORTEST_S:
        length = f"a recording of {len(signal) / wanted_hz:.2f} s, {heard:.2f} s of it sound,"
        raise ValueError(f"{length} is too short: at least {SHORTEST_S} s are needed")
    return signal


def load_ensemble(workspace: Workspace, model: str = "deep_cnn_log_mel") -> Ensemble:
    """Load the networks of notebook 05's folds over speakers, and how well they did.

    Parameters
    ----------
    workspace : where notebook 05 wrote
    model : one of MODELS

    Returns
    -------
    Ensemble

    Raises
    ------
    MissingResult : if notebook 05 has not run, or a model is gone or damaged
    ValueError : for an unknown model
    """
    from ser_utils.evaluation.metrics import score_predictions

    _refuse_unknown(model)
    predictions = _predictions_of(workspace, model)
    folds = f"folds/feature_network-speaker-{predictions.split('-')[-1]}"  # a folder may keep earlier ones
    tested = workspace.load_table(predictions, "05")
    networks, longest = _load_networks(workspace, model, workspace.load_table(folds, "05"))
    classes = emotions_in_order(column.removeprefix("p_") for column in tested if column.startswith("p_"))
    scores = score_predictions(tested) | {"chance": 1 / len(classes)}
    return Ensemble(networks, classes, scores, longest)


def _refuse_unknown(model):
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}. Received: model={model!r}")


def _cut(signal, of_frames):
    """Where each piece to be heard starts and ends, in samples, and how many are left out since they are silent."""
    import librosa

    first, last, rate = 0, len(signal), of_frames["sample_rate_hz"]
    if of_frames["trim_db"]:  # as in training, but here one wants to know where the voice begins
        grid = {"frame_length": of_frames["n_fft"], "hop_length": of_frames["hop_length"]}
        first, last = librosa.effects.trim(signal, top_db=of_frames["trim_db"], **grid)[1]
    n_pieces = math.ceil((last - first) / (PIECE_S * rate))
    step = math.ceil((last - first) / n_pieces)
    bounds = [(start, min(start + step, last)) for start in range(first, last, step)]
    power = np.array([block_power(signal[start:end], rate).max() for start, end in bounds])
    loud = power >= power.max() * 10 ** (-HEARD_DB / 10)
    return [bound for bound, is_loud in zip(bounds, loud, strict=True) if is_loud], int((~loud).sum())


def _listen(networks, signal, bounds, of_frames, kind):
    """Probabilities (n_classes,) of the whole, and the table of windows they rest on."""
    from tqdm import tqdm

    from ser_utils.features.frames import clip_frames

    rate, hop = of_frames["sample_rate_hz"], of_frames["hop_length"]
    grid = {key: of_frames[key] for key in ("n_mels", "n_fft", "hop_length", "n_mfcc", "deltas")}
    said = []
    for start, end in tqdm(bounds, desc=f"{len(networks)} networks listen", unit="piece", mininterval=1):
        frames = clip_frames(signal[start:end], rate, kind=kind, **grid)
        answers = [network.probabilities(frames, len(bounds) > 1) for network in networks]
        said.append(np.mean(answers, axis=0))
    lengths = np.array([end - start for start, end in bounds])
    p = np.average(said, axis=0, weights=lengths)
    if len(bounds) > 1:
        start_s, end_s = np.array(bounds).T / rate
        support = _log_odds(np.array(said), p.argmax()) - _log_odds(p, p.argmax())
        return p, pd.DataFrame({"start_s": start_s, "end_s": end_s, "support": support})
    width = min(len(frames), max(1, round(WINDOW_S * rate / hop)))
    falls = np.mean([network.falls(frames, int(p.argmax()), width) for network in networks], axis=0)
    starts = np.arange(0, len(frames), width)
    first, last = np.array(bounds[0]) / rate
    ends = np.minimum(first + (starts + width) * hop / rate, last)
    support = [falls[start : start + width].mean() for start in starts]
    return p, pd.DataFrame({"start_s": first + starts * hop / rate, "end_s": ends, "support": support})


def _log_odds(p, label):
    return np.log(p[..., label]) - np.log(p.sum(axis=-1) - p[..., label])


def _describe_length(seconds, longest_s, n_pieces, n_silent):
    """What to say of a recording far longer than anything the networks learned from; "" otherwise."""
    said = []
    if seconds > FAR_LONGER * longest_s:
        said.append(
            f"This recording is {seconds:.1f} s long, far longer than anything the networks learned from (at most "
            f"{longest_s:.1f} s): what they say of it is less certain than the test below suggests."
        )
    if n_pieces > 1:
        said.append(f"It was heard in {n_pieces} pieces; the probabilities are their mean, and hide what changes.")
    if n_silent:
        said.append(f"{n_silent} more pieces are silent and were left out.")
    return " ".join(said)


def _predictions_of(workspace, model):
    paths = sorted((workspace.build / "predictions").glob(f"feature_network-{model}-speaker-*.parquet"))
    if not paths:
        raise MissingResult(
            f"No model was trained for {workspace.dataset}, profile {workspace.profile}, seed {workspace.seed}: "
            f"{workspace.command('05')} trains it."
        )
    return f"predictions/{paths[0].stem}"


def _load_networks(workspace, model, folds):
    """The Network of each fold, and how many frames the longest training clip has."""
    import keras

    from ser_utils.features.store import load_store
    from ser_utils.systems import feature_network  # noqa: F401  registers the layers
    from ser_utils.training.folds import clip_scale

    kind = "mfcc" if model.endswith("mfcc") else "log_mel"
    store = load_store(workspace.build / "features" / "feature_network" / kind)
    models = workspace.build / "models"
    paths = [models / f"feature_network-{model}-speaker-{fold}.keras" for fold in folds["fold"].unique()]
    if store is None or any(sealed(path) is None for path in paths):
        raise MissingResult(
            f"A model of {workspace.build} is gone or damaged: {workspace.command('05')} makes it again."
        )
    networks = []
    for path, (_, rows) in zip(paths, folds.groupby("fold", sort=False), strict=True):
        trained = store.table["utterance_id"].isin(rows.loc[rows["role"] == "train", "utterance_id"])
        table = store.table[trained]
        clips = [store.array[a : a + n] for a, n in zip(table["first_row"], table["n_rows"], strict=True)]
        mean, spread = clip_scale(clips, table.assign(corpus=""), "training", np.ones(len(clips), bool))
        network = keras.saving.load_model(path, safe_mode=True, compile=False)
        networks.append(Network(network, mean[0], spread[0]))
    return networks, int(store.table["n_rows"].max())
