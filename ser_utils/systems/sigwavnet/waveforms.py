"""What networks on raw waveforms share: clips of unequal length in one batch, convolutions, PyTorch's conventions."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops


def leaky_relu(x: KerasTensor) -> KerasTensor:
    """Leaky ReLU with PyTorch's slope of 0.01."""
    return ops.leaky_relu(x, negative_slope=0.01)


def steps_after(n: Any, width: int, stride: int = 1, dilation: int = 1) -> Any:
    """Count the steps that a convolution without padding makes of `n` steps (int or array of int)."""
    return (n - (width - 1) * dilation - 1) // stride + 1


def time_mask(x: KerasTensor, n: KerasTensor) -> KerasTensor:
    """Which steps belong to the clip: bool (batch, time, 1) for x (batch, time, ...) and n (batch,)."""
    return ops.arange(ops.shape(x)[1])[None, :, None] < n[:, None, None]


def scale_weights(model: keras.Model, mean: float, std: float) -> tuple[keras.Variable, keras.Variable]:
    """Give a model the mean and deviation of its training signals as weights: one traced network then serves all folds."""
    return tuple(
        model.add_weight(initializer=keras.initializers.Constant(value), trainable=False, name=name)
        for name, value in (("mean", mean), ("std", std))
    )


def refuse_short(waveform: KerasTensor, minimum: int, who: str, advice: str) -> None:
    """Raise ValueError for clips (batch, samples) shorter than `minimum` samples, where their length is known."""
    if isinstance(waveform.shape[1], int) and waveform.shape[1] < minimum:
        raise ValueError(
            f"{who} clips of at least {minimum} samples. Received: waveform of shape {tuple(waveform.shape)}; {advice}."
        )


def split_lengths(inputs: Any) -> tuple[KerasTensor, KerasTensor]:
    """Waveform (batch, samples) and samples per clip (batch,), of either the waveform alone or a pair of them."""
    if isinstance(inputs, tuple | list):
        waveform, n_samples = inputs
        return waveform, ops.cast(ops.reshape(n_samples, (-1,)), "int32")
    return inputs, ops.full((ops.shape(inputs)[0],), ops.shape(inputs)[1], dtype="int32")


def reverse_time(x: KerasTensor, n: KerasTensor) -> KerasTensor:
    """Each clip backwards: (batch, time, features), steps beyond `n` stay at the end."""
    time = ops.arange(ops.shape(x)[1])[None]
    source = ops.where(time < n[:, None], n[:, None] - 1 - time, time)
    return ops.take_along_axis(x, source[:, :, None], axis=1)


def last_step(x: KerasTensor, n: KerasTensor) -> KerasTensor:
    """The last step of each clip: (batch, features)."""
    return ops.take_along_axis(x, ops.maximum(n - 1, 0)[:, None, None], axis=1)[:, 0]


def mean_over_time(x: KerasTensor, n: KerasTensor) -> KerasTensor:
    """Mean over each clip's own steps: (batch, features); 0 for a clip without any."""
    total = ops.sum(ops.where(time_mask(x, n), x, 0.0), axis=1)
    return total / ops.cast(ops.maximum(n, 1)[:, None], x.dtype)


def softmax_over_time(scores: KerasTensor, n: KerasTensor) -> KerasTensor:
    """Softmax of (batch, time, 1) over each clip's own steps; 0 beyond."""
    return ops.softmax(ops.where(time_mask(scores, n), scores, -1e9), axis=1)


def convolve(
    x: KerasTensor, kernel: KerasTensor, *, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> KerasTensor:
    """Correlation over time of (batch, time, channels) with a kernel (width, channels, filters).

    Where several networks train side by side (see `tools.side_by_side`), each has kernels of its own. A product of
    matrices then stays one; a convolution of the backend becomes a grouped one, which is slow. TensorFlow's
    has no stride and dilation together.
    """
    width = kernel.shape[0]
    if keras.backend.backend() != "jax" and 1 in (stride, dilation):
        return ops.conv(x, kernel, strides=stride, padding=padding, dilation_rate=dilation)
    if padding == "same":
        before = (width - 1) * dilation // 2
        x = ops.pad(x, ((0, 0), (before, (width - 1) * dilation - before), (0, 0)))
    steps = steps_after(ops.shape(x)[1], width, stride, dilation)
    if dilation == 1 and stride > 1 and width % stride == 0:  # `stride` steps side by side are one
        rows = steps - 1 + width // stride
        x = ops.reshape(x[:, : rows * stride], (-1, rows, stride * x.shape[-1]))
        width, stride = width // stride, 1
    span = (steps - 1) * stride + 1
    starts = [tap * dilation for tap in range(width)]
    taps = ops.concatenate([x[:, start : start + span : stride] for start in starts], axis=-1)
    return ops.matmul(taps, ops.reshape(kernel, (-1, kernel.shape[-1])))


def torch_uniform() -> keras.initializers.Initializer:
    """U(-1/√fan_in, 1/√fan_in), where PyTorch's convolutions and dense layers start."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


@keras.saving.register_keras_serializable(package="ser_utils")
class DilatedConvolution(keras.layers.Layer):
    """Convolution over time, with both stride and dilation where wanted.

    [shape=(batch, time, channels) -> (batch, steps, filters)]

    Parameters
    ----------
    filters, width, stride, dilation : int
    padding : "valid", no padding, or "same", zeros around, for a stride of 1
    """

    def __init__(self, filters, width, stride=1, dilation=1, padding="valid", **kwargs):
        super().__init__(**kwargs)
        self.filters, self.width, self.stride, self.dilation = filters, width, stride, dilation
        self.padding = padding

    def build(self, input_shape):
        shape = (self.width, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer=torch_uniform(), name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        self.built = True

    def steps(self, n):
        """Steps that are left of `n`."""
        return n if self.padding == "same" else steps_after(n, self.width, self.stride, self.dilation)

    def call(self, x):
        options = {"stride": self.stride, "dilation": self.dilation, "padding": self.padding}
        return convolve(x, self.kernel.value, **options) + self.bias


class _L2:
    """Weight decay added to the gradient as L2, as PyTorch's optimizers do; Keras subtracts it from the weights."""

    def _apply_weight_decay(self, variables):
        pass

    def update_step(self, gradient, variable, learning_rate):
        decay = self.weight_decay or 0.0
        super().update_step(gradient + decay * ops.cast(variable, gradient.dtype), variable, learning_rate)


@keras.saving.register_keras_serializable(package="ser_utils")
class L2Adam(_L2, keras.optimizers.Adam):
    """Adam whose `weight_decay` is an L2 penalty, PyTorch's Adam."""


@keras.saving.register_keras_serializable(package="ser_utils")
class L2SGD(_L2, keras.optimizers.SGD):
    """SGD whose `weight_decay` is an L2 penalty, PyTorch's SGD."""


def load_torch_layer(layer: keras.Layer, arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Give a convolution or dense layer the weight and bias of a PyTorch state dict, (out, in, …) -> (…, in, out)."""
    layer.kernel.assign(np.asarray(arrays[f"{name}.weight"]).T)
    layer.bias.assign(arrays[f"{name}.bias"])


def load_torch_gru(gru: keras.layers.GRU, arrays: Mapping[str, np.ndarray], name: str, suffix: str) -> None:
    """Give a GRU the weights of a PyTorch state dict, whose gates are reset, update, new; `suffix` such as l0."""

    def keras_gates(kind):
        reset, update, new = np.split(np.asarray(arrays[f"{name}.{kind}_{suffix}"]), 3)
        return np.concatenate([update, reset, new]).T

    gru.cell.kernel.assign(keras_gates("weight_ih"))
    gru.cell.recurrent_kernel.assign(keras_gates("weight_hh"))
    gru.cell.bias.assign(np.stack([keras_gates("bias_ih"), keras_gates("bias_hh")]))
