"""The prototype paper's high-resolution autoencoder, and the loss that keeps its edges sharp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

FILTERS = (64, 32, 16, 8, 4)
STRIDES = (2, 1, 1, 1, 1)
WARM_UP = 0.05  # share of all steps in which a cosine schedule rises


def sobel_edges(images: Any) -> tuple[Any, Any]:
    """Compute Sobel's two derivatives of each image, borders reflected.

    Parameters
    ----------
    images : float (batch, n_mels, n_frames), both sizes at least 2

    Returns
    -------
    two float tensors of that shape : the change along mel bands, and along frames
    """
    x = ops.pad(images, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    slope = x[:, 2:] - x[:, :-2]
    smooth = x[:, 2:] + 2 * x[:, 1:-1] + x[:, :-2]
    return slope[..., 2:] + 2 * slope[..., 1:-1] + slope[..., :-2], smooth[..., 2:] - smooth[..., :-2]


def edge_strength(picture: np.ndarray) -> np.ndarray:
    """Compute the length of Sobel's two derivatives at each point of a picture (n_mels, n_frames)."""
    down, along = (ops.convert_to_numpy(edges)[0] for edges in sobel_edges(ops.convert_to_tensor(picture[None])))
    return np.hypot(down, along)


@keras.saving.register_keras_serializable(package="ser_utils")
class HighFrequencyErrorNorm(keras.Loss):
    """Mean |Sobel(true) − Sobel(pred)|: how much edge a reconstruction lost (HFENN).

    y_true, y_pred : float (batch, n_mels, n_frames)
    Source: the prototype paper's autoencoder loss.
    """

    def call(self, y_true, y_pred):
        # Sobel is linear, so the edges of the difference are the difference of the edges, at half the cost.
        down, along = sobel_edges(y_true - y_pred)
        return ops.mean((ops.abs(down) + ops.abs(along)) / 2, axis=(1, 2))


@keras.saving.register_keras_serializable(package="ser_utils")
class AutoencoderLoss(keras.Loss):
    """Mean squared error + hfenn_weight · HFENN, one value per segment.

    y_true, y_pred : float (batch, n_mels, n_frames) in [0, 1]
    """

    def __init__(self, hfenn_weight: float = 1e-4, name: str = "autoencoder_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        if hfenn_weight < 0:
            raise ValueError(f"hfenn_weight must not be negative. Received: hfenn_weight={hfenn_weight}")
        self.hfenn_weight = hfenn_weight
        self.hfenn = HighFrequencyErrorNorm()

    def call(self, y_true, y_pred):
        loss = ops.mean(ops.square(y_true - y_pred), axis=(1, 2))
        return loss + self.hfenn_weight * self.hfenn.call(y_true, y_pred) if self.hfenn_weight else loss

    def get_config(self):
        return super().get_config() | {"hfenn_weight": self.hfenn_weight}


@keras.saving.register_keras_serializable(package="ser_utils")
class Autoencoder(keras.Model):
    """Encoder and mirrored decoder for log-mel segments scaled to [0, 1].

    `encoder` maps (batch, n_mels, n_frames) to (batch, height, width, filters[-1]); `decoder` maps it back.
    A stride of 2 and back needs an even size: odd ones are padded with silence (0) before the first
    convolution and cropped after the last, so any number of frames comes back as it went in.
    Source: the prototype paper; padding is ours.
    """

    def __init__(self, n_mels, n_frames, filters=FILTERS, strides=STRIDES, name="autoencoder", **kwargs):
        filters, strides = tuple(filters), tuple(strides)
        if len(filters) != len(strides) or not filters:
            raise ValueError(
                f"filters and strides need the same length. Received: filters={filters}, strides={strides}"
            )
        encoder = build_encoder(n_mels, n_frames, filters, strides)
        decoder = build_decoder(encoder.output_shape[1:], n_mels, n_frames, filters, strides)
        segment = keras.Input((n_mels, n_frames), name="log_mel")
        super().__init__(segment, decoder(encoder(segment)), name=name, **kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.settings = dict(n_mels=n_mels, n_frames=n_frames, filters=filters, strides=strides)

    def get_config(self):
        return {"name": self.name, **self.settings}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def build_encoder(n_mels: int, n_frames: int, filters: Sequence[int], strides: Sequence[int]) -> keras.Model:
    """Build the convolutions from a segment to its embedding."""
    segment = keras.Input((n_mels, n_frames), name="log_mel")
    x = layers.Reshape((n_mels, n_frames, 1))(segment)
    missing = missing_rows_and_frames(n_mels, n_frames, strides)
    if any(missing):
        x = layers.ZeroPadding2D([(0, n) for n in missing], name="pad")(x)
    for n, (width, stride) in enumerate(zip(filters, strides, strict=True), 1):
        x = _convolve(layers.Conv2D, width, stride, f"conv_{n}")(x)
    return keras.Model(segment, x, name="encoder")


def build_decoder(
    embedding_shape: Sequence[int], n_mels: int, n_frames: int, filters: Sequence[int], strides: Sequence[int]
) -> keras.Model:
    """Build the mirror image of `build_encoder`, ending in one channel within [0, 1]."""
    embedding = keras.Input(embedding_shape, name="embedding")
    x = embedding
    for n, (width, stride) in enumerate(zip(filters[::-1], strides[::-1], strict=True), 1):
        x = _convolve(layers.Conv2DTranspose, width, stride, f"deconv_{n}")(x)
    x = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="pixels")(x)
    missing = missing_rows_and_frames(n_mels, n_frames, strides)
    if any(missing):
        x = layers.Cropping2D([(0, n) for n in missing], name="crop")(x)
    return keras.Model(embedding, layers.Reshape((n_mels, n_frames))(x), name="decoder")


def _convolve(layer, filters, stride, name):
    common = {"padding": "same", "activation": "relu", "kernel_initializer": "he_uniform"}
    return layer(filters, 3, stride, name=name, **common)


def missing_rows_and_frames(n_mels: int, n_frames: int, strides: Sequence[int]) -> tuple[int, int]:
    """Count the rows and frames that padding must add before the strides divide both."""
    step = math.prod(strides)
    return -n_mels % step, -n_frames % step


def build_autoencoder(
    n_mels: int,
    n_frames: int,
    *,
    filters: Sequence[int] = FILTERS,
    strides: Sequence[int] = STRIDES,
    hfenn_weight: float = 1e-4,
    learning_rate: float = 1e-3,
    cosine_steps: int = 0,
) -> Autoencoder:
    """Build a compiled autoencoder, by default with the paper's settings: MSE + 1e-4 · HFENN, Adam 1e-3.

    Parameters
    ----------
    n_mels, n_frames : the segments' size; any number of frames
    cosine_steps : all steps of a training whose rate rises to `learning_rate` and falls to 0 along a cosine;
        0 keeps the rate constant, as published

    Returns
    -------
    an Autoencoder; `.encoder` and `.decoder` are models of their own, also after save → load
    """
    model = Autoencoder(n_mels, n_frames, filters, strides)
    if cosine_steps:
        rising = math.ceil(WARM_UP * cosine_steps)
        learning_rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, cosine_steps - rising), warmup_target=learning_rate, warmup_steps=rising
        )
    model.compile(keras.optimizers.Adam(learning_rate), AutoencoderLoss(hfenn_weight), metrics=["mae"])
    return model


def reconstruction_errors(true: np.ndarray, returned: np.ndarray, range_db: float) -> dict[str, float]:
    """Measure how far reconstructions are off, in points and in edges.

    Parameters
    ----------
    true, returned : float (n, n_mels, n_frames) in [0, 1]
    range_db : dB between 0 and 1

    Returns
    -------
    `mae` and `mse` of the points, `mae_db` in dB, `hfenn` of the Sobel edges
    """
    difference = true - returned
    edges = HighFrequencyErrorNorm()(ops.convert_to_tensor(true), ops.convert_to_tensor(returned))
    mae = float(abs(difference).mean())
    squares = float((difference**2).mean())
    return {"mae": mae, "mae_db": mae * range_db, "mse": squares, "hfenn": float(edges)}
