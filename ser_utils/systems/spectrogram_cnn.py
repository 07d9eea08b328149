"""CNNs on mel spectrograms: clips of their own length with global pooling, and clips resized to one shape."""

import keras
from keras import layers, ops

from ser_utils.systems.sigwavnet.waveforms import time_mask


@keras.saving.register_keras_serializable(package="ser_utils")
class ConvolutionBlock(layers.Layer):
    """3 × 3 convolution, max-pool, batch norm, ReLU, dropout of whole channels; silent beyond each clip's end.

    Since everything beyond the end is zero before each convolution, as its own padding is, and no maximum before
    each pooling, how far a clip was padded never reaches its features. Pooled first, because norm and ReLU then
    cost a quarter; ReLU and maximum may change places.

    pool : (frames, bands) made one. batch_norm : False convolves with a bias instead
    Call: x (batch, frames, bands, channels), n_frames (batch,) -> both after the block.
    """

    def __init__(self, filters, pool=(2, 2), batch_norm=True, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.pool, self.batch_norm, self.dropout = filters, tuple(pool), batch_norm, dropout
        self.convolution = layers.Conv2D(filters, 3, padding="same", use_bias=not batch_norm)
        self.norm = layers.BatchNormalization(momentum=0.9) if batch_norm else None
        self.pooling = layers.MaxPooling2D(self.pool, padding="same")
        self.drop = layers.SpatialDropout2D(dropout)

    def build(self, x_shape, *_):
        self.convolution.build(x_shape)
        if self.norm:
            self.norm.build((*x_shape[:-1], self.filters))
        self.built = True

    def call(self, x, n_frames, training=None):
        x = self.convolution(x)
        x = self.pooling(ops.where(clip_mask(x, n_frames), x, -1e9))
        n_frames = -(-n_frames // self.pool[0])
        own = clip_mask(x, n_frames)
        if self.norm:
            x = self.norm(ops.where(own, x, 0.0), training=training)
        return self.drop(ops.where(own, ops.relu(x), 0.0), training=training), n_frames

    def get_config(self):
        config = {"filters": self.filters, "pool": self.pool, "batch_norm": self.batch_norm}
        return super().get_config() | config | {"dropout": self.dropout}


def clip_mask(x, n_frames):
    """Which frames belong to the clip: bool (batch, frames, 1, 1) for x (batch, frames, bands, channels)."""
    return time_mask(x, n_frames)[..., None]


@keras.saving.register_keras_serializable(package="ser_utils")
class GlobalPooling(layers.Layer):
    """Mean over all bands and the clip's own frames: (batch, frames, bands, channels) -> (batch, channels)."""

    def call(self, x, n_frames):
        total = ops.sum(ops.where(clip_mask(x, n_frames), x, 0.0), axis=(1, 2))
        return total / ops.cast(n_frames[:, None] * ops.shape(x)[2], x.dtype)


@keras.saving.register_keras_serializable(package="ser_utils")
class ClipInput(layers.Layer):
    """Clear what stands beyond each clip's end and add a channel axis: (batch, frames, bands[, 1])."""

    def call(self, x, n_frames):
        return ops.where(time_mask(x, n_frames), x, 0.0)[..., None]


def clip_cnn(n_classes, n_bands=128, *, filters=(16, 32, 64), dropout=0.25):
    """CNN for clips of any length: convolutions without norm, global average, dropout, one dense layer.

    n_bands : of the input, mel bands
    filters : of each convolution; the source has 3 or 4 layers
    Returns a keras.Model of (features (batch, frames, n_bands), n_frames (batch,)) -> probabilities. As
    published it is trained on one clip at a time; in a batch padding changes nothing, see ConvolutionBlock.
    Sizes are ours, the source's text gives none.
    """
    features, n_frames = clip_inputs(n_bands)
    x, n = ClipInput(name="clip")(features, n_frames), n_frames
    for number, size in enumerate(filters, 1):
        x, n = ConvolutionBlock(size, batch_norm=False, name=f"block_{number}")(x, n)
    x = layers.Dropout(dropout)(GlobalPooling(name="pooling")(x, n))
    probabilities = layers.Dense(n_classes, activation="softmax", name="classes")(x)
    return keras.Model([features, n_frames], probabilities, name=f"clip_cnn_{len(filters)}_layers")


def image_cnn(n_classes, n_bands=128, *, n_frames=256, filters=(16, 32, 64), dropout=0.25):
    """CNN for spectrograms of one shape: batch norm, max-pooling, flatten, dropout, one dense layer.

    Returns a keras.Model of (batch, n_frames, n_bands) -> probabilities.
    """
    image = keras.Input((n_frames, n_bands), name="image")
    x = layers.Reshape((n_frames, n_bands, 1))(image)
    for number, size in enumerate(filters, 1):
        x = layers.Conv2D(size, 3, padding="same", use_bias=False, name=f"convolution_{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(dropout)(layers.Flatten()(x))
    probabilities = layers.Dense(n_classes, activation="softmax", name="classes")(x)
    return keras.Model(image, probabilities, name=f"image_cnn_{len(filters)}_layers")


def clip_inputs(n_bands):
    """The two inputs of a network for clips: features (batch, frames, n_bands) and frames per clip (batch,)."""
    return keras.Input((None, n_bands), name="features"), keras.Input((), dtype="int32", name="n_frames")
