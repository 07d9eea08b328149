"""What networks on raw waveforms do differently from those on frames in the one loop over folds."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from ser_utils.features.store import FeatureStore, build_store
from ser_utils.systems.sigwavnet.cnn_n_gru import CnnGru
from ser_utils.systems.sigwavnet.wavelet import SigWavNet
from ser_utils.training.fit import class_weights, code_of, compile_for_lengths
from ser_utils.training.folds import (
    ClipBatches,
    FoldData,
    FoldTask,
    UnweightedAverageRecall,
    epochs_of,
    predict_clips,
)
from ser_utils.workspace import Workspace

NETWORKS = {"sigwavnet": SigWavNet, "cnn_n_gru": CnnGru}
OPTIMIZERS = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}
SCHEDULES = ("step", "cosine", "constant")


def waveform_store(folder: Path, table: pd.DataFrame, settings: dict[str, Any]) -> FeatureStore:
    """A feature store of waveforms at settings["sample_rate_hz"]; settings["longest_s"] cuts them, 0 does not."""
    longest, rate = settings["longest_s"], settings["sample_rate_hz"]

    def extract(signal, rate):  # defined here, it travels to workers that then need not import TensorFlow
        return signal[: int(longest * rate) or None]

    key = f"waveforms {longest}"
    return build_store(folder, table, extract, key=key, sample_rate_hz=rate, title="waveforms")


def build_network(
    system: str,
    n_classes: int,
    settings: dict[str, Any],
    *,
    n_steps: int = 1,
    weights: dict[int, float] | None = None,
    mean: float = 0.0,
    std: float = 1.0,
) -> keras.Model:
    """A compiled network; every setting named by its constructor, and those of training, is used.

    Parameters
    ----------
    system : "sigwavnet" or "cnn_n_gru"
    n_steps : training steps an epoch
    weights : of the classes
    mean, std : of the training signals

    The loss is the focal loss of each clip, weighted by its class, and then averaged.
    """
    model = _network(system, n_classes, settings, mean=mean, std=std)
    model.build()
    alpha = [weights[label] for label in range(n_classes)] if weights else 1.0
    optimizer = OPTIMIZERS[settings["optimizer"]]
    return compile_for_lengths(
        model,
        optimizer(_learning_rate(settings, n_steps), weight_decay=settings["weight_decay"]),
        keras.losses.CategoricalFocalCrossentropy(alpha=alpha, gamma=settings["gamma"], from_logits=True),
        metrics=[UnweightedAverageRecall(n_classes)],
    )


def _network(system, n_classes, settings, **options):
    known = inspect.signature(NETWORKS[system]).parameters
    return NETWORKS[system](n_classes, **{k: v for k, v in settings.items() if k in known}, **options)


def _learning_rate(settings, n_steps):
    rate, schedule = settings["learning_rate"], settings["schedule"]
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}. Received: {schedule=}")
    if schedule == "step":  # a tenth every `decay_epochs`
        steps = settings["decay_epochs"] * n_steps
        return keras.optimizers.schedules.ExponentialDecay(rate, steps, 0.1, staircase=True)
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(rate, epochs_of(settings, n_steps) * n_steps)
    return rate


@dataclass(frozen=True)
class WaveformTask(FoldTask):
    """One network on waveforms to train and test on one fold, see `FoldTask`.

    Parameters
    ----------
    network : "sigwavnet" or "cnn_n_gru"
    store : folder of a feature store of waveforms
    settings : a table of a profile; those the network's constructor knows go there
    """

    def scale(self, clips, table):
        return None  # the network itself standardises

    def batches(self, data, role):
        multiple = self.settings["sample_rate_hz"] // 4  # a quarter of a second, not a sample
        return data.batches(role, seed=self.seed, batch_size=self.settings["batch_size"], multiple=multiple)

    def build(self, data, n_batches):
        weights, (mean, std) = class_weights(data.labels("train"), len(data.classes)), _mean_and_std(data)
        return build_network(
            self.network,
            len(data.classes),
            self.settings,
            n_steps=n_batches,
            weights=weights,
            mean=mean,
            std=std,
        )

    def built_from(self, data, n_batches):
        code = code_of(NETWORKS[self.network], ClipBatches)
        weights = class_weights(data.labels("train"), len(data.classes))
        weights = [weights[label] for label in sorted(weights)]
        return self.network, code, self.settings, weights, _mean_and_std(data), n_batches

    def fit_options(self, data):
        _refuse_short_clips(self.network, self.settings, data)
        return {}  # the loss weighs the classes

    def predict(self, model: keras.Model, batches: ClipBatches) -> np.ndarray:
        return np.exp(predict_clips(model, batches))

    def learned_from(self, data):
        return {"scaler": ["train"], "encoder": [], "augmentation": [], "selection": [data.watched]}


def _mean_and_std(data: FoldData) -> tuple[float, float]:
    """Of all samples of the training part."""
    signals = data.signals("train")
    n = sum(map(len, signals))
    mean = sum(signal.sum(dtype=np.float64) for signal in signals) / n
    variance = sum(np.square(signal - mean, dtype=np.float64).sum() for signal in signals) / n
    return mean, float(np.sqrt(variance))


def _refuse_short_clips(system, settings, data):
    needed = _network(system, len(data.classes), settings).minimum_samples
    if (shortest := min(map(len, data.clips))) < needed:
        raise ValueError(
            f"{system} of these settings needs clips of at least {needed} samples, the "
            f"shortest has {shortest}: choose fewer levels (a smaller n) or a higher sample_rate_hz."
        )


def waveform_models(
    workspace: Workspace, system: str, store: FeatureStore, settings: dict[str, Any]
) -> dict[str, WaveformTask]:
    """The tasks of one system: `network` as published, and for CNN-n-GRU `over_time`, whose GRU hears the sequence."""
    changes = {"network": {}} | ({"over_time": {"over_time": True}} if system == "cnn_n_gru" else {})
    folder, seed = workspace.folder("models"), workspace.seed
    return {
        model: WaveformTask(f"{system}-{model}", system, store.folder, None, settings | change, folder, seed)
        for model, change in changes.items()
    }
