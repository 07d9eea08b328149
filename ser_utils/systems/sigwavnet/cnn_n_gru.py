"""CNN-n-GRU: convolutions over the raw waveform and a GRU, SigWavNet's predecessor."""

import keras
from keras import ops

from ser_utils.systems.sigwavnet.waveforms import (
    last_step,
    mean_over_time,
    split_lengths,
    steps_after,
    time_mask,
)

# Channels of each convolution in multiples of `channels`; | is a max-pool of 4
LAYOUTS = {3: "2|2|", 5: "1|1|2|4|", 11: "1|11|22|444|88", 18: "1|1111|2222|4444|8888"}
FIRST_WIDTH, STRIDE, POOL = 160, 4, 4


def leaky_relu(x):
    return ops.leaky_relu(x, negative_slope=0.01)


@keras.saving.register_keras_serializable(package="ser_utils")
class CnnGru(keras.Model):
    """Log-probabilities of emotions from the raw waveform.

    classes : int; n : 3, 5, 11 or 18, counting the convolutions and the dense layer
    channels : int, of the narrowest convolution; gru_units, gru_layers, dropout : of the recurrent part
    over_time : False averages over time before the GRU, which then sees one step, as published; True lets it
        hear the sequence
    mean, std : of the training signals; the waveform is standardised with them
    Call: waveform (batch, samples), or (waveform, samples per clip (batch,)) where clips are padded at the
    end, which changes nothing -> (batch, classes). Every convolution has a batch norm of its own; the
    reference's n = 11 uses one twice.
    """

    def __init__(
        self,
        classes,
        n=18,
        channels=64,
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
        self.settings = {
            "classes": classes, "n": n, "channels": channels, "gru_units": gru_units, "gru_layers": gru_layers,
            "dropout": dropout, "over_time": over_time, "mean": float(mean), "std": float(std),
        }  # fmt: skip
        widths = [int(part) * channels for part in LAYOUTS[n].replace("|", "")]
        self.convolutions = [
            keras.layers.Conv1D(widths[0], FIRST_WIDTH, strides=STRIDE, name="convolution_0")
        ]
        self.convolutions += [
            keras.layers.Conv1D(width, 3, padding="same", name=f"convolution_{i}")
            for i, width in enumerate(widths[1:], 1)
        ]
        # PyTorch's momentum and epsilon, in Keras's way of counting
        self.norms = [
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm_{i}")
            for i in range(len(widths))
        ]
        self.pool = keras.layers.MaxPooling1D(POOL, name="pool")
        self.reduce = keras.layers.Dense(channels // 2, name="reduce")
        self.grus = [
            keras.layers.GRU(gru_units, return_sequences=True, name=f"gru_{i}") for i in range(gru_layers)
        ]
        self.drop = keras.layers.Dropout(dropout, name="drop")
        self.head = keras.layers.Dense(classes, name="head")

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
    def minimum_samples(self):
        """Samples a clip needs for one step to be left after all pools."""
        return (POOL ** LAYOUTS[self.settings["n"]].count("|") - 1) * STRIDE + FIRST_WIDTH

    def call(self, inputs, training=False):
        waveform, n = split_lengths(inputs)
        samples = waveform.shape[1]
        if isinstance(samples, int) and samples < self.minimum_samples:
            raise ValueError(
                f"n={self.settings['n']} needs clips of at least {self.minimum_samples} samples. "
                f"Received: waveform of shape {tuple(waveform.shape)}; append silence."
            )
        x = ((waveform - self.settings["mean"]) / self.settings["std"])[:, :, None]
        n = steps_after(n, FIRST_WIDTH, STRIDE)
        layers = iter(zip(self.convolutions, self.norms, strict=True))
        for mark in LAYOUTS[self.settings["n"]]:
            if mark == "|":
                x, n = self.pool(x), n // POOL
                continue
            convolution, norm = next(layers)
            x = convolution(x)
            mask = time_mask(x, n)
            # silent beyond the end, as the padding of the next convolution is
            x = ops.where(mask, leaky_relu(norm(x, training=training, mask=mask[..., 0])), 0.0)
        if not self.settings["over_time"]:
            x, n = mean_over_time(x, n)[:, None], ops.ones_like(n)
        x = self.reduce(leaky_relu(x))
        for gru in self.grus:
            x = gru(x)
        x = self.drop(leaky_relu(last_step(x, n)), training=training)
        return ops.log_softmax(self.head(x))

    def get_config(self):
        return super().get_config() | dict(self.settings)
