"""What networks on raw waveforms share: clips of unequal length in one batch, without padding being heard."""

from keras import ops


def steps_after(n, width, stride=1, dilation=1):
    """Steps that a convolution without padding makes of `n` steps (int or array of int)."""
    return (n - (width - 1) * dilation - 1) // stride + 1


def time_mask(x, n):
    """Which steps belong to the clip: bool (batch, time, 1) for x (batch, time, ...) and n (batch,)."""
    return ops.arange(ops.shape(x)[1])[None, :, None] < n[:, None, None]


def split_lengths(inputs):
    """Waveform (batch, samples) and samples per clip (batch,), of either one array or both in a tuple."""
    if isinstance(inputs, tuple | list):
        waveform, n_samples = inputs
        return waveform, ops.cast(ops.reshape(n_samples, (-1,)), "int32")
    return inputs, ops.full((ops.shape(inputs)[0],), ops.shape(inputs)[1], dtype="int32")


def reverse_time(x, n):
    """Each clip backwards: (batch, time, features), steps beyond `n` stay at the end."""
    time = ops.arange(ops.shape(x)[1])[None]
    source = ops.where(time < n[:, None], n[:, None] - 1 - time, time)
    return ops.take_along_axis(x, source[:, :, None], axis=1)


def last_step(x, n):
    """The last step of each clip: (batch, features)."""
    return ops.take_along_axis(x, ops.maximum(n - 1, 0)[:, None, None], axis=1)[:, 0]


def mean_over_time(x, n):
    """Mean over each clip's own steps: (batch, features)."""
    total = ops.sum(ops.where(time_mask(x, n), x, 0.0), axis=1)
    return total / ops.cast(n[:, None], x.dtype)


def softmax_over_time(scores, n):
    """Softmax of (batch, time, 1) over each clip's own steps; 0 beyond."""
    return ops.softmax(ops.where(time_mask(scores, n), scores, -1e9), axis=1)
