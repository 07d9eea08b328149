"""What listens to a speech encoder: heads on its frozen embeddings, and its last layers trained on.

Every network takes (features (batch, rows, n_features), n_frames (batch,)) as `training.folds.ClipBatches` gives
them and returns class probabilities. A row is a 20 ms frame, or all statistics of a clip (then there is one).
"""

import math

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

from ser_utils.systems.feature_network import MaskedBiLSTM
from ser_utils.systems.sigwavnet.waveforms import mean_over_time, time_mask
from ser_utils.systems.spectrogram_cnn import clip_inputs
from ser_utils.systems.speech_transformer.encoder import (
    Architecture,
    SpeechTransformer,
    TopLayers,
    checkpoint_names,
    copy_weights,
)


@keras.saving.register_keras_serializable(package="ser_utils")
class OverTime(layers.Layer):
    """Mean and standard deviation over each clip's own rows: (batch, rows, n), (batch,) -> (batch, 2 · n)."""

    def call(self, x, n_frames):
        mean = mean_over_time(x, n_frames)
        variance = mean_over_time(ops.square(x - mean[:, None]), n_frames)
        # the square root has no slope at zero, where a clip of one row is
        return ops.concatenate([mean, ops.sqrt(variance + 1e-7)], axis=-1)


@keras.saving.register_keras_serializable(package="ser_utils")
class OwnRows(layers.Layer):
    """Zero beyond each clip's end, so that the next convolution does not hear its padding."""

    def call(self, x, n_frames):
        return ops.where(time_mask(x, n_frames), x, 0.0)


@keras.saving.register_keras_serializable(package="ser_utils")
class LayerWeighting(layers.Layer):
    """One mixture of all hidden states, its weights learned: Σ softmax(w)ᵢ · xᵢ, (batch, n_layers, n) -> (batch, n).

    Source: Peters et al. 2018 (ELMo); Yang et al. 2021 (SUPERB).
    """

    def build(self, input_shape):
        self.scores = self.add_weight(shape=(input_shape[1],), initializer="zeros", name="scores")

    @property
    def weights_of_layers(self) -> np.ndarray:
        """float (n_layers,), summing to one, embeddings first."""
        return ops.convert_to_numpy(ops.softmax(self.scores))

    def call(self, x):
        return ops.sum(ops.softmax(self.scores)[None, :, None] * x, axis=1)


def pooled(n_classes: int, n_features: int, *, units: int = 128, dropout: float = 0.3) -> keras.Model:
    """Mean and standard deviation of the last hidden state (one row), one dense layer in between."""
    features, n_frames = clip_inputs(n_features)
    x = layers.GlobalAveragePooling1D(name="the_row")(features)
    return _classifier(features, n_frames, x, n_classes, units, dropout, "pooled")


def layer_weighting(
    n_classes: int, n_features: int, *, n_layers: int, units: int = 128, dropout: float = 0.3
) -> keras.Model:
    """The same on a learned mixture of all hidden states' statistics.

    The mixture is of means and standard deviations: exact for the mean, near for the deviation of mixed frames,
    and a clip is n_layers numbers a dimension instead of that many frames.
    """
    features, n_frames = clip_inputs(n_features)
    x = layers.GlobalAveragePooling1D(name="the_row")(features)
    x = layers.Reshape((n_layers, n_features // n_layers), name="by_layer")(x)
    x = LayerWeighting(name="mixture")(x)
    return _classifier(features, n_frames, x, n_classes, units, dropout, "layer_weighting")


def cnn(n_classes: int, n_features: int, *, units: int = 128, dropout: float = 0.3) -> keras.Model:
    """Two convolutions over the frames of the last hidden state, 100 ms wide each; mean and deviation over time."""
    features, n_frames = clip_inputs(n_features)
    x = features
    for number in (1, 2):
        x = layers.Conv1D(units // 2, 5, padding="same", activation="relu", name=f"convolution_{number}")(x)
        x = OwnRows(name=f"own_rows_{number}")(x, n_frames)
    x = OverTime(name="over_time")(x, n_frames)
    return _classifier(features, n_frames, x, n_classes, 0, dropout, "cnn")


def rnn(n_classes: int, n_features: int, *, units: int = 128, dropout: float = 0.3) -> keras.Model:
    """A BiLSTM over the last hidden state, four frames (80 ms) a step; mean and deviation over time."""
    features, n_frames = clip_inputs(n_features)
    # "same" would begin its steps elsewhere in clips of another length
    x = layers.ZeroPadding1D((0, 3), name="whole_steps")(features)
    x = layers.Conv1D(units // 2, 4, strides=4, activation="relu", name="steps")(x)
    n_steps = (n_frames + 3) // 4
    x = MaskedBiLSTM(units // 4, name="bilstm")(x, n_steps)
    x = OverTime(name="over_time")(x, n_steps)
    return _classifier(features, n_frames, x, n_classes, 0, dropout, "rnn")


def fine_tuned(
    n_classes: int, n_features: int, *, encoder: SpeechTransformer, top: int, dropout: float = 0.3
) -> keras.Model:
    """The encoder's last `top` layers, trained on from its own weights; mean and deviation, one dense layer.

    Parameters
    ----------
    n_features : the encoder's hidden size; the rows are hidden state num_hidden_layers - top
    """
    features, n_frames = clip_inputs(n_features)
    layer = TopLayers(encoder.architecture, top, name="top")
    x = OverTime(name="over_time")(layer(features, n_frames), n_frames)
    copy_weights(encoder, layer)
    return _classifier(features, n_frames, x, n_classes, 0, dropout, "fine_tuned")


def _classifier(features, n_frames, x, n_classes, units, dropout, name):
    if units:
        x = layers.Dense(units, activation="relu", name="hidden")(layers.Dropout(dropout)(x))
    probabilities = layers.Dense(n_classes, activation="softmax", name="classes")(layers.Dropout(dropout)(x))
    return keras.Model([features, n_frames], probabilities, name=name)


HEADS = {head.__name__: head for head in (pooled, layer_weighting, cnn, rnn, fine_tuned)}


def rates_by_layer(
    architecture: Architecture, top: int, *, learning_rate: float, top_learning_rate: float, decay: float
) -> dict[str, float]:
    """Discriminative learning rates: the head fastest, each encoder layer `decay` times the one above it.

    Returns
    -------
    learning rate of each part of the encoder, 0 for what is frozen; "classes" is the head

    Source: Howard & Ruder 2018 (ULMFiT).
    """
    last = architecture.num_hidden_layers - 1
    rates = {"feature_extractor": 0.0, "feature_projection": 0.0, "encoder.pos_conv_embed": 0.0}
    for i in range(last + 1):
        rates[f"encoder.layers.{i}"] = top_learning_rate * decay ** (last - i) if i > last - top else 0.0
    rates["encoder.layer_norm"] = top_learning_rate if architecture.do_stable_layer_norm else 0.0
    return rates | {"classes": learning_rate}


@keras.saving.register_keras_serializable(package="ser_utils")
class LayerwiseAdam(keras.optimizers.Adam):
    """Adam with a learning rate for each part of a model.

    Parameters
    ----------
    learning_rate : of every weight whose path names none of the parts
    rates : dict part -> learning rate, a part being a component of the weight's path, e.g. "encoder.layers.11"

    Scaling gradients instead would do nothing: Adam divides by their size.
    """

    def __init__(self, learning_rate=1e-3, rates=None, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.rates = dict(rates or {})
        self._highest = learning_rate

    def build(self, variables):
        super().build(variables)
        self._factors = [self._factor(variable.path.split("/")) for variable in variables]

    def _factor(self, parts):
        return next((rate / self._highest for part, rate in self.rates.items() if part in parts), 1.0)

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self._factors[self._get_variable_index(variable)])

    def get_config(self):
        return super().get_config() | {"rates": self.rates}


def changes_by_part(encoder: SpeechTransformer, top_layers: TopLayers, rates: dict[str, float]) -> pd.DataFrame:
    """How far fine-tuning moved each part of an encoder, to show what was frozen.

    Parameters
    ----------
    encoder : as it was before
    top_layers : after training
    rates : as `rates_by_layer` gives them

    Returns
    -------
    table part, parameters, learning_rate, largest_change
    """
    before, trained = checkpoint_names(encoder), checkpoint_names(top_layers)
    rows = []
    for part, rate in rates.items():
        names = [name for name in before if name.startswith(part + ".")]
        changes = [float(ops.max(ops.abs(trained[name] - before[name]))) if name in trained else 0.0 for name in names]
        if names:
            size = sum(math.prod(before[name].shape) for name in names)
            rows.append([part, size, rate, max(changes)])
    return pd.DataFrame(rows, columns=["part", "parameters", "learning_rate", "largest_change"])
