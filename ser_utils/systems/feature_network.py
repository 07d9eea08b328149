"""Networks on frames of MFCC or log-mel: a deep CNN of four blocks, and a CNN–BiLSTM with attention."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

from ser_utils.features.frames import frame_store
from ser_utils.features.store import FeatureStore
from ser_utils.systems.sigwavnet.waveforms import softmax_over_time, time_mask
from ser_utils.systems.spectrogram_cnn import ClipInput, ConvolutionBlock, clip_inputs
from ser_utils.training.folds import FoldTask
from ser_utils.workspace import Workspace

KINDS = ("log_mel", "mfcc")
BY_SPEAKER = "deep_cnn_log_mel_by_speaker"
TRAINING = (
    "scale",
    "batch_size",
    "epochs",
    "patience",
    "least_updates",
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "mask_bands",
    "mask_frames",
)
STEP_FRAMES = 8  # frames of one step of `attention_over_time`
FILTERS = (32, 64, 96, 128)
POOLS = ((2, 2), (2, 2), (2, 2), (1, 2))  # eight frames become one: 256 ms at a hop of 32 ms


@keras.saving.register_keras_serializable(package="ser_utils")
class AttentiveStatistics(layers.Layer):
    """Weighted mean and standard deviation over time, the weights learned: softmax of v · tanh(W x + b).

    Call: x (batch, time, features), n (batch,) -> statistics (batch, 2 · features), weights (batch, time),
    which sum to one over each clip's own steps and are zero beyond.
    Source: Okabe et al. 2018, Attentive Statistics Pooling.
    """

    def __init__(self, units: int = 64, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden, self.score = layers.Dense(units, activation="tanh"), layers.Dense(1, use_bias=False)

    def build(self, x_shape, *_):
        self.hidden.build(x_shape)
        self.score.build((*x_shape[:-1], self.units))
        self.built = True

    def call(self, x, n):
        weights = softmax_over_time(self.score(self.hidden(x)), n)  # (batch, time, 1)
        x = ops.where(time_mask(x, n), x, 0.0)
        mean = ops.sum(weights * x, axis=1)
        variance = ops.sum(weights * ops.square(x - mean[:, None]), axis=1)
        # the square root has no slope at zero, where a clip of one step is
        return ops.concatenate([mean, ops.sqrt(variance + 1e-5)], axis=-1), weights[..., 0]


@keras.saving.register_keras_serializable(package="ser_utils")
class MaskedBiLSTM(layers.Layer):
    """An LSTM over each clip's own steps in both directions: (batch, time, features) -> (batch, time, 2 · units)."""

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.both = layers.Bidirectional(layers.LSTM(units, return_sequences=True))

    def build(self, x_shape, *_):
        self.both.build(x_shape)
        self.built = True

    def call(self, x, n, training=None):
        mask = time_mask(x, n)
        return ops.where(mask, self.both(x, mask=mask[..., 0], training=training), 0.0)


def deep_cnn(n_classes: int, n_features: int, *, filters: Sequence[int] = FILTERS, dropout: float = 0.3) -> keras.Model:
    """Four convolution blocks, attentive statistics over time, one dense layer.

    Parameters
    ----------
    n_features : of a frame: mel bands, or 41 for MFCC and energy
    filters : of the blocks
    dropout : before the dense layer, and a third of it in the blocks

    Returns
    -------
    model of (features (batch, frames, n_features), n_frames (batch,)) -> probabilities
    """
    features, n_frames = clip_inputs(n_features)
    x, n = _blocks(features, n_frames, filters, dropout)
    return _classifier(features, n_frames, x, n, n_classes, dropout, "deep_cnn")


def cnn_bilstm(
    n_classes: int, n_features: int, *, filters: Sequence[int] = FILTERS, units: int = 64, dropout: float = 0.3
) -> keras.Model:
    """The same blocks, a BiLSTM over what they leave of time, attention, one dense layer; see `deep_cnn`."""
    features, n_frames = clip_inputs(n_features)
    x, n = _blocks(features, n_frames, filters, dropout)
    x = layers.Dropout(dropout)(x)
    x = MaskedBiLSTM(units, name="bilstm")(x, n)
    return _classifier(features, n_frames, x, n, n_classes, dropout, "cnn_bilstm")


def _blocks(features, n_frames, filters, dropout):
    x, n = ClipInput(name="clip")(features, n_frames), n_frames
    for number, (size, pool) in enumerate(zip(filters, POOLS, strict=True), 1):
        x, n = ConvolutionBlock(size, pool, dropout=dropout / 3, name=f"block_{number}")(x, n)
    return layers.Reshape((-1, x.shape[2] * x.shape[3]), name="flatten_bands")(x), n


def _classifier(features, n_frames, x, n, n_classes, dropout, name):
    x, _ = AttentiveStatistics(name="attention")(x, n)
    x = layers.Dropout(dropout)(layers.BatchNormalization(momentum=0.9, name="statistics")(x))
    probabilities = layers.Dense(n_classes, activation="softmax", name="classes")(x)
    return keras.Model([features, n_frames], probabilities, name=name)


def attention_over_time(model: keras.Model, features: np.ndarray, n_frames: np.ndarray) -> np.ndarray:
    """How much each step of a clip counts in a model's decision.

    Parameters
    ----------
    model : of this module
    features : (batch, frames, n_features)
    n_frames : (batch,)

    Returns
    -------
    float32 (batch, steps), each row summing to one over its clip; a step is 8 frames
    """
    weights = keras.Model(model.inputs, model.get_layer("attention").output[1])
    return ops.convert_to_numpy(weights([features, n_frames]))


def frame_stores(workspace: Workspace, table: pd.DataFrame, settings: dict[str, Any]) -> dict[str, FeatureStore]:
    """Frames of every utterance of `table`, of both KINDS."""
    grid = {key: settings[key] for key in ("n_mels", "n_fft", "hop_length", "n_mfcc", "deltas", "trim_db")}
    folder, rate = workspace.folder("features", "feature_network"), settings["sample_rate_hz"]
    return {kind: frame_store(folder / kind, table, grid | {"kind": kind}, sample_rate_hz=rate) for kind in KINDS}


def networks_of(settings: dict[str, Any]) -> dict[str, Callable[[int, int], keras.Model]]:
    """Both networks in the sizes of a profile: functions (n_classes, n_features) -> keras.Model."""
    sizes = {"filters": tuple(settings["filters"]), "dropout": settings["dropout"]}
    return {
        "deep_cnn": functools.partial(deep_cnn, **sizes),
        "cnn_bilstm": functools.partial(cnn_bilstm, units=settings["units"], **sizes),
    }


def models_of(workspace: Workspace, stores: dict[str, FeatureStore], settings: dict[str, Any]) -> dict[str, FoldTask]:
    """Each network on each kind of frames, and the deep CNN on log-mel scaled by speaker."""

    def task(name, network, kind, **changes):
        store, name = stores[kind].folder, f"feature_network-{name}"
        return FoldTask(name, network, store, None, options | changes, workspace.folder("models"), workspace.seed)

    options = {key: settings[key] for key in TRAINING} | {"one_cycle": True, "resized_frames": 0}
    networks = networks_of(settings)
    models = {f"{name}_{kind}": (network, kind) for name, network in networks.items() for kind in stores}
    tasks = {name: task(name, *about) for name, about in models.items()}
    return tasks | {BY_SPEAKER: task(BY_SPEAKER, networks["deep_cnn"], "log_mel", scale="speaker")}
