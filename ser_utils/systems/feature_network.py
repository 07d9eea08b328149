"""Networks on frames of MFCC or log-mel: a deep CNN of four blocks, and a CNN–BiLSTM with attention."""

import keras
from keras import layers, ops

from ser_utils.systems.sigwavnet.waveforms import softmax_over_time, time_mask
from ser_utils.systems.spectrogram_cnn import ClipInput, ConvolutionBlock, clip_inputs

POOLS = ((2, 2), (2, 2), (2, 2), (1, 2))  # eight frames become one: 256 ms at a hop of 32 ms


@keras.saving.register_keras_serializable(package="ser_utils")
class AttentiveStatistics(layers.Layer):
    """Weighted mean and standard deviation over time, the weights learned: softmax of v · tanh(W x + b).

    Call: x (batch, time, features), n (batch,) -> statistics (batch, 2 · features), weights (batch, time),
    which sum to one over each clip's own steps and are zero beyond.
    Source: Okabe et al. 2018, Attentive Statistics Pooling.
    """

    def __init__(self, units=64, **kwargs):
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

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable(package="ser_utils")
class MaskedBiLSTM(layers.Layer):
    """An LSTM over each clip's own steps in both directions: (batch, time, features) -> (batch, time, 2 · units)."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.both = layers.Bidirectional(layers.LSTM(units, return_sequences=True))

    def build(self, x_shape, *_):
        self.both.build(x_shape)
        self.built = True

    def call(self, x, n, training=None):
        own = time_mask(x, n)
        return ops.where(own, self.both(x, mask=own[..., 0], training=training), 0.0)

    def get_config(self):
        return super().get_config() | {"units": self.units}


def deep_cnn(n_classes, n_features, *, filters=(32, 64, 96, 128), dropout=0.3):
    """Four convolution blocks, attentive statistics over time, one dense layer.

    n_features : of a frame: mel bands, or 41 for MFCC and energy
    filters, dropout : of the blocks (a third of `dropout` there), and before the dense layer
    Returns a keras.Model of (features (batch, frames, n_features), n_frames (batch,)) -> probabilities.
    """
    features, n_frames = clip_inputs(n_features)
    x, n = _blocks(features, n_frames, filters, dropout)
    return _classifier(features, n_frames, x, n, n_classes, dropout, "deep_cnn")


def cnn_bilstm(n_classes, n_features, *, filters=(32, 64, 96, 128), units=64, dropout=0.3):
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


def attention_over_time(model, features, n_frames):
    """How much each step of a clip counts in a model's decision.

    model : of this module; features (batch, frames, n_features); n_frames (batch,)
    Returns float32 (batch, steps), each row summing to one over its clip; a step is 8 frames.
    """
    weights = keras.Model(model.inputs, model.get_layer("attention").output[1])
    return ops.convert_to_numpy(weights([features, n_frames]))
