"""CNN-n-GRU: convolutions over the raw waveform and a GRU, SigWavNet's predecessor."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from ser_utils.systems.sigwavnet.waveforms import (
    DilatedConvolution,
    last_step,
    leaky_relu,
    load_torch_gru,
    load_torch_layer,
    mean_over_time,
    refuse_short,
    scale_weights,
    split_lengths,
    time_mask,
    torch_uniform,
)

# Channels of each convolution in multiples of `channels`; | is a max-pool of 4
LAYOUTS = {3: "2|2|", 5: "1|1|2|4|", 11: "1|11|22|444|88", 18: "1|1111|2222|4444|8888"}
FIRST_WIDTH, STRIDE, POOL = 160, 4, 4


@keras.saving.register_keras_serializable(package="ser_utils")
class CnnGru(keras.Model):
    """Log-probabilities of emotions from the raw waveform.

    [shape=(batch, samples) or ((batch, samples), samples per clip (batch,)) -> (batch, classes)]. Clips that are
    padded at the end need their lengths; the padding then changes nothing.

    Parameters
    ----------
    classes : int
    n : 3, 5, 11 or 18, counting the convolutions and the dense layer
    channels : int, of the narrowest convolution; 0 is n, as published: width and depth are one number
    gru_units, gru_layers, dropout : of the recurrent part
    over_time : False averages over time before the GRU, which then sees one step, as published; True lets it
        hear the sequence
    mean, std : of the training signals; the waveform is standardised with them

    Every convolution has a batch norm of its own; the reference's n = 11 uses its first one twice.
    Source: Nfissi et al., ICMLA 2022, and its code.
    """

    def __init__(
        self,
        classes,
        n=18,
        channels=0,
        gru_units=64,
        gru_layers=1,
        dropout=0.0,
        over_time=False,
        mean=0.0,
        std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if n not in LAYOUTS:
            raise ValueError(f"n must be one of {', '.join(map(str, LAYOUTS))}. Received: {n=}")
        channels = channels or n
        sizes = dict(n=n, channels=channels, gru_units=gru_units, gru_layers=gru_layers, dropout=dropout)
        self.settings = dict(classes=classes, **sizes, over_time=over_time, mean=float(mean), std=float(std))
        self.n, self.layout, self.over_time = n, LAYOUTS[n], over_time
        self.mean, self.std = scale_weights(self, mean, std)
        widths = [int(multiple) * channels for multiple in self.layout.replace("|", "")]
        self.convolutions = [
            DilatedConvolution(width, 3, padding="same", name=f"convolution_{i}")
            if i
            else DilatedConvolution(width, FIRST_WIDTH, stride=STRIDE, name="convolution_0")
            for i, width in enumerate(widths)
        ]
        # PyTorch's momentum and epsilon, in Keras's way of counting
        self.norms = [
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm_{i}") for i in range(len(widths))
        ]
        self.reduce = keras.layers.Dense(widths[-1] // 2, kernel_initializer=torch_uniform(), name="reduce")
        self.grus = [keras.layers.GRU(gru_units, return_sequences=True, name=f"gru_{i}") for i in range(gru_layers)]
        self.drop = keras.layers.Dropout(dropout, name="drop")
        self.head = keras.layers.Dense(classes, kernel_initializer=torch_uniform(), name="head")

    def build(self, *_):
        width = 1
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build((None, None, width))
            width = convolution.filters
            norm.build((None, None, width))
        self.reduce.build((None, None, width))
        width = self.reduce.units
        for gru in self.grus:
            gru.build((None, None, width))
            width = gru.units
        self.head.build((None, width))
        self.built = True

    @property
    def minimum_samples(self) -> int:
        """Samples a clip needs for one step to be left after all pools."""
        return (POOL ** self.layout.count("|") - 1) * STRIDE + FIRST_WIDTH

    def call(self, inputs, training=False):
        waveform, n = split_lengths(inputs)
        refuse_short(waveform, self.minimum_samples, f"n={self.n} needs", "append silence")
        x = ((waveform - self.mean) / self.std)[:, :, None]
        layers = iter(zip(self.convolutions, self.norms, strict=True))
        for mark in self.layout:
            if mark == "|":
                x, n = max_pool(x), n // POOL
                continue
            convolution, norm = next(layers)
            x, n = convolution(x), convolution.steps(n)
            mask = time_mask(x, n)
            # silent beyond the end, as the padding of the next convolution is
            x = ops.where(mask, leaky_relu(norm(x, training=training, mask=mask[..., 0])), 0.0)
        if not self.over_time:
            x, n = mean_over_time(x, n)[:, None], ops.ones_like(n)
        x = self.reduce(leaky_relu(x))
        for gru in self.grus:
            x = gru(x)
        x = self.drop(leaky_relu(last_step(x, n)), training=training)
        return ops.log_softmax(self.head(x))

    def get_config(self):
        return super().get_config() | self.settings


def max_pool(x: keras.KerasTensor) -> keras.KerasTensor:
    """The largest of every four steps; an incomplete rest is dropped. (batch, time, channels)"""
    # by pairs: the gradient of a maximum over an axis goes where x equals it, which a compiler's rounding can move
    span = ops.shape(x)[1] // POOL * POOL
    a, b, c, d = (x[:, start:span:POOL] for start in range(POOL))
    return ops.maximum(ops.maximum(a, b), ops.maximum(c, d))


def load_reference_weights(model: CnnGru, arrays: Mapping[str, np.ndarray]) -> None:
    """Give a CNN-n-GRU, built or not, the weights of the reference implementation.

    Parameters
    ----------
    model : of the reference's sizes
    arrays : names as in the reference's PyTorch state dict (no prefix) -> arrays

    Raises
    ------
    KeyError : for a missing array
    ValueError : for one of another shape
    """
    if not model.built:
        model.build()
    for i, (convolution, norm) in enumerate(zip(model.convolutions, model.norms, strict=True), 1):
        load_torch_layer(convolution, arrays, f"conv{i}")
        norm.gamma.assign(arrays[f"bn{i}.weight"])
        norm.beta.assign(arrays[f"bn{i}.bias"])
        norm.moving_mean.assign(arrays[f"bn{i}.running_mean"])
        norm.moving_variance.assign(arrays[f"bn{i}.running_var"])
    load_torch_layer(model.reduce, arrays, "fc1")
    for layer, gru in enumerate(model.grus):
        load_torch_gru(gru, arrays, "gru1", f"l{layer}")
    load_torch_layer(model.head, arrays, "fc2")
