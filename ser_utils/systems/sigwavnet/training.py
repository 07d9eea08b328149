"""What networks on raw waveforms do differently from those on frames in the one loop over folds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from ser_utils.features.store import FeatureStore, build_store
from ser_utils.systems.sigwavnet import recipe
from ser_utils.training.fit import class_weights, code_of, compile_for_lengths
from ser_utils.training.folds import ClipBatches, FoldTask, UnweightedAverageRecall, epochs_of, predict_clips
from ser_utils.workspace import Workspace


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
    weights: dict[int, float] | None = None,
    mean: float = 0.0,
    std: float = 1.0,
) -> keras.Model:
    """A compiled network; every setting named by its constructor, and those of training, is used.

    Parameters
    ----------
    system : "sigwavnet" or "cnn_n_gru"
    weights : of the classes
    mean, std : of the training signals

    The loss is the focal loss of each clip, weighted by its class, and then averaged.
    """
    model = recipe.make_network(system, n_classes, settings, mean=mean, std=std)
    model.build()
    alpha = [weights[label] for label in range(n_classes)] if weights else 1.0
    return compile_for_lengths(
        model,
        recipe.make_optimizer(settings),
        keras.losses.CategoricalFocalCrossentropy(alpha=alpha, gamma=settings["gamma"], from_logits=True),
        metrics=[UnweightedAverageRecall(n_classes)],
    )


class Standardise(keras.callbacks.Callback):
    """Gives a network the mean and standard deviation of all samples of the training signals, (n,) each."""

    def __init__(self, signals: list[np.ndarray]):
        super().__init__()
        n = sum(map(len, signals))
        self.mean = sum(signal.sum(dtype=np.float64) for signal in signals) / n
        self.variance = sum(np.square(signal - self.mean, dtype=np.float64).sum() for signal in signals) / n

    def on_train_begin(self, logs=None):
        self.model.mean.assign(self.mean)
        self.model.std.assign(np.sqrt(self.variance))


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
        return data.batches(
            role,
            seed=self.seed,
            batch_size=self.settings["batch_size"],
            jitter=self.settings["length_jitter"],
            multiple=self.settings["sample_rate_hz"] // 4,  # a quarter of a second, not a sample
        )

    def build(self, data, n_batches):
        weights = self._class_weights(data)
        return build_network(self.network, len(data.classes), self.settings, weights=weights)

    def _class_weights(self, data):
        if not self.settings["class_weights"]:
            return None
        return class_weights(data.labels("train"), len(data.classes))

    def built_from(self, data, n_batches):
        code = code_of(recipe.NETWORKS[self.network], recipe.make_optimizer, ClipBatches)
        weights = list((self._class_weights(data) or {}).values())
        return self.network, code, self.settings, len(data.classes), weights

    def fit_options(self, data):
        _refuse_short_clips(self.network, self.settings, data)
        n_batches = -(-len(data.labels("train")) // self.settings["batch_size"])
        planned = self.settings | {"epochs": epochs_of(self.settings, n_batches)}
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: recipe.learning_rate(planned, epoch))
        callbacks = [schedule, Standardise(data.signals("train"))]
        return recipe.monitoring(self.settings) | {"callbacks": callbacks}  # the loss weighs the classes

    def predict(self, model: keras.Model, batches: ClipBatches) -> np.ndarray:
        return np.exp(predict_clips(model, batches))

    def learned_from(self, data):
        return {"scaler": ["train"], "encoder": [], "augmentation": [], "selection": [data.watched]}


def _refuse_short_clips(system, settings, data):
    needed = recipe.make_network(system, len(data.classes), settings).minimum_samples
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
