"""Attributions: which part of the input a decision rests on, in plain Keras, on any backend.

Every method takes a score, a function of the input alone, and the input; it returns one value per input point.
A score is made by `class_score`.
"""

import keras
import numpy as np
from keras import ops

EPSILON = 1e-6


def class_score(model, label, *others):
    """How sure a model is of one class, as a function of its first input: the log-odds of its probability.

    model : keras.Model that gives probabilities (batch, n_classes)
    label : int, the class; others : further inputs of the model, the same for every clip of the batch
    Returns a function x (batch, ...) -> (batch,). Log-odds do not saturate where the probability is near one.
    """

    def score(x):
        fixed = [ops.repeat(ops.convert_to_tensor(one)[:1], ops.shape(x)[0], axis=0) for one in others]
        p = ops.clip(model([x, *fixed] if others else x, training=False)[:, label], EPSILON, 1 - EPSILON)
        return ops.log(p) - ops.log1p(-p)

    return score


def gradient(score, x):
    """d score / d x. x : float (batch, ...). Returns an array of the same shape."""
    x = ops.convert_to_tensor(x, "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            total = ops.sum(score(x))
        return ops.convert_to_numpy(tape.gradient(total, x))
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda inputs: ops.sum(score(inputs)))(x))
    raise NotImplementedError(f"No gradients on backend {keras.backend.backend()!r}: use tensorflow or jax.")


def gradient_times_input(score, x):
    """Gradient · x: what each point adds, to first order, against silence at 0."""
    return gradient(score, x) * np.asarray(x)


def smooth_grad(score, x, *, n=24, noise=0.15, seed=0):
    """Mean gradient over noisy copies of one input (Smilkov et al. 2017).

    x : (1, ...); noise : standard deviation as a share of the input's range
    """
    x = np.asarray(x, np.float32)
    spread = noise * (x.max() - x.min())
    copies = x + np.random.default_rng(seed).normal(0, spread, (n, *x.shape[1:])).astype(np.float32)
    return gradient(score, copies).mean(axis=0, keepdims=True)


def integrated_gradients(score, x, baseline, *, steps=50):
    """Path integral of the gradient from a baseline to x (Sundararajan et al. 2017), by the midpoint rule.

    x, baseline : (1, ...)
    The values sum to score(x) − score(baseline); `completeness_gap` says how nearly.
    """
    x, baseline = np.asarray(x, np.float32), np.asarray(baseline, np.float32)
    share = ((np.arange(steps) + 0.5) / steps).reshape(-1, *[1] * (x.ndim - 1)).astype(np.float32)
    path = baseline + share * (x - baseline)
    return (x - baseline) * gradient(score, path).mean(axis=0, keepdims=True)


def completeness_gap(score, x, baseline, attribution):
    """How far an attribution is from summing to the score's change, as a share of that change."""
    both = ops.convert_to_numpy(
        score(ops.convert_to_tensor(np.concatenate([x, baseline]).astype(np.float32)))
    )
    change = float(both[0] - both[1])
    return abs(float(attribution.sum()) - change) / max(abs(change), EPSILON)


def occlusion(score, x, *, patch, stride, fill):
    """Fall of the score when a patch is replaced; overlapping patches are averaged (Zeiler & Fergus 2014).

    x : (1, rows, columns) or (1, samples); patch, stride : sizes along each axis; fill : the value put there
    """
    x = np.asarray(x, np.float32)
    axes = [
        sorted({*range(0, max(1, size - p + 1), s), max(0, size - p)})
        for size, p, s in zip(x.shape[1:], patch, stride, strict=True)
    ]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(patch))
    regions = [tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True)) for corner in corners]
    hidden = np.repeat(x, len(regions), axis=0)
    for copy, region in zip(hidden, regions, strict=True):
        copy[region] = fill
    whole = float(ops.convert_to_numpy(score(ops.convert_to_tensor(x)))[0])
    falls = whole - np.concatenate(
        [
            ops.convert_to_numpy(score(ops.convert_to_tensor(part)))
            for part in np.array_split(hidden, -(-len(hidden) // 64))
        ]
    )
    total, count = np.zeros(x.shape[1:], np.float32), np.zeros(x.shape[1:], np.float32)
    for fall, region in zip(falls, regions, strict=True):
        total[region] += fall
        count[region] += 1
    return (total / np.maximum(count, 1))[None]


def grad_cam(model, layer, label, x, *others):
    """Grad-CAM: a layer's channels, weighted by their mean gradient, what speaks for the class kept.

    model : functional keras.Model; layer : name of a layer whose (first) output is (batch, *positions, channels);
        two position axes give a map, one (a recurrent or waveform network) a curve over time
    x : (1, ...); others : further inputs of the model, (1, ...)
    Returns float32 (1, *positions), at least 0. Source: Selvaraju et al. 2017.
    """
    outputs = model.get_layer(layer).output
    outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    front = keras.Model(model.inputs, outputs)
    reached = front(
        [ops.convert_to_tensor(one) for one in (x, *others)] if others else ops.convert_to_tensor(x)
    )
    reached = list(reached) if isinstance(reached, list | tuple) else [reached]
    head = keras.Model([*outputs, *model.inputs[1:]] if others else outputs, model.output)
    activation = ops.convert_to_numpy(reached[0])
    slope = gradient(class_score(head, label, *reached[1:], *others), activation)
    positions = tuple(range(1, activation.ndim - 1))
    weights = slope.mean(axis=positions, keepdims=True)
    return np.maximum((weights * activation).sum(axis=-1), 0)


def stretch(attribution, shape):
    """A coarse map (1, *positions) at the resolution `shape` of the input, linearly between its points."""
    from scipy.ndimage import zoom

    factors = [wanted / had for wanted, had in zip(shape, attribution.shape[1:], strict=True)]
    return zoom(attribution[0], factors, order=1, grid_mode=True, mode="nearest")[None]
