"""Attributions: which part of the input a decision rests on, in plain Keras, on any backend.

Every method takes a score, a function of the input alone, and the input; it returns one value per input point.
A score is made by `class_score`; a `Subject` is a model with all that `maps` has to know of it.

Plain Keras, since the libraries of today want something else: captum PyTorch, quantus Keras below 3, xplique
TensorFlow up to 2.20, innvestigate below 2.15.
"""

from dataclasses import dataclass
from itertools import chain, pairwise

import keras
import librosa
import numpy as np
import pandas as pd
from keras import ops
from scipy.fft import dct
from scipy.ndimage import zoom

from ser_utils.corpora.loading import EMOTIONS
from ser_utils.training.folds import clip_scale

EPSILON = 1e-6
SMALLEST = 1e-30  # of a probability
AT_ONCE = 64  # patched copies a model hears at a time


def class_score(model, label, *others, log_probabilities=False):
    """How sure a model is of one class, as a function of its first input: the log-odds of its probability.

    model : keras.Model that gives probabilities (batch, n_classes), or their logarithms
    label : int, the class; others : further inputs of the model, the same for every clip of the batch
    Returns a function x (batch, ...) -> (batch,). Log-odds do not saturate where the probability is near one, nor
    do they here: what is left for the other classes is summed, since 1 - p would be rounded to 0 and have no slope.
    """

    def score(x):
        fixed = [ops.repeat(ops.convert_to_tensor(one)[:1], ops.shape(x)[0], axis=0) for one in others]
        p = model([x, *fixed] if others else x, training=False)
        p = ops.maximum(ops.exp(p) if log_probabilities else p, SMALLEST)
        return ops.log(p[:, label]) - ops.log(
            ops.sum(p[:, :label], axis=1) + ops.sum(p[:, label + 1 :], axis=1)
        )

    return score


@dataclass(frozen=True)
class Subject:
    """A model to be explained, and what has to be known of it.

    model : keras.Model of x (batch, ...) or, with `has_lengths`, of (x, n_frames (batch,))
    silence : float, broadcast to x: what stands for absence
    patch, stride : sizes of occlusion along each axis of x, -1 for all of it
    layer : whose channels Grad-CAM weighs, "" for none; attention : of attentive pooling, "" for none
    log_probabilities : whether the model gives logarithms
    spread : (n_features,), what the features were divided by
    most_steps : of integrated gradients
    more : function (subject, x, label) -> dict method -> function () -> (1, ...), methods of its own
    """

    model: keras.Model
    silence: object
    patch: tuple
    stride: tuple
    layer: str = ""
    attention: str = ""
    has_lengths: bool = True
    log_probabilities: bool = False
    spread: object = 1.0
    most_steps: int = 400
    more: object = None

    def others(self, x):
        return [np.array([np.shape(x)[1]], "int32")] if self.has_lengths else []

    def score(self, label, x):
        """`class_score` of one class for inputs as long as x (1, ...)."""
        return class_score(self.model, label, *self.others(x), log_probabilities=self.log_probabilities)

    def predict(self, x):
        """Probabilities (n_classes,) of one input (1, ...)."""
        p = ops.convert_to_numpy(self.model([x, *self.others(x)] if self.has_lengths else x, training=False))
        return np.exp(p[0]) if self.log_probabilities else p[0]

    def absence(self, x):
        """Silence as long as x (1, ...)."""
        return np.broadcast_to(np.asarray(self.silence, np.float32), np.shape(x))


def methods(subject, x, label, *, seed=0):
    """Every method that suits a model, for one input and one class: a dict method -> function () -> (1, ...), as x.

    Gradients and SmoothGrad by their size; attention and Grad-CAM, which know no feature, alike for all of a frame.
    """
    score, others, absence = subject.score(label, x), subject.others(x), subject.absence(x)
    size = np.shape(x)[1:]
    patch, stride = ([n if p < 0 else p for n, p in zip(size, sizes, strict=True)]
                     for sizes in (subject.patch, subject.stride))  # fmt: skip
    found = {
        "gradient": lambda: np.abs(gradient(score, x)),
        "gradient_times_input": lambda: gradient_times_input(score, x, absence),
        "smooth_grad": lambda: np.abs(smooth_grad(score, x, seed=seed)),
        "integrated_gradients": lambda: integrated_gradients(
            score, x, absence, most_steps=subject.most_steps
        ),
        "occlusion": lambda: occlusion(score, x, patch=patch, stride=stride, fill=absence),
    }
    if subject.layer:
        found["grad_cam"] = lambda: stretch(grad_cam(subject.model, subject.layer, label, x, *others), size)
    if subject.attention:
        found["attention"] = lambda: stretch(
            attention_weights(subject.model, subject.attention, x, *others), size
        )
    return found | (subject.more(subject, x, label) if subject.more else {})


def maps(subject, x, label, *, seed=0):
    """What every method of `methods` says: a dict method -> float (1, ...), as x."""
    return {name: method() for name, method in methods(subject, x, label, seed=seed).items()}


@dataclass(frozen=True)
class Material:
    """What a network over frames learned from and was tested on.

    tested : list of (name, x (1, n_frames, n_features) as the network sees it, label); classes : their names
    training, labels : its training clips, unscaled, and int (n_clips,); mean, spread : (n_features,), its scale
    """

    tested: list
    classes: list
    training: list
    labels: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    def silence(self, kind="log_mel"):
        """The lowest level in training as the network sees it, (n_features,).

        kind : "log_mel", or "mfcc" with energy last, where silence has a first coefficient, an energy, and no shape
        """
        lowest = np.min([clip.min(axis=0) for clip in self.training], axis=0)
        if kind == "mfcc":
            lowest[1:-1] = 0
        return (lowest - self.mean) / self.spread


def held_out(frames_of, emotion_of, roles):
    """Clips that a network was tested on, scaled as it was trained (`clips.clip_scale`, "training").

    frames_of : dict name -> (n_frames, n_features); emotion_of : name -> emotion; roles : name -> role in one fold
    Returns Material.
    """
    names = [name for name in frames_of if roles.get(name)]
    classes = [emotion for emotion in EMOTIONS if emotion in {emotion_of[name] for name in names}]
    of_training = [name for name in names if roles[name] == "train"]
    clips = [frames_of[name] for name in of_training]
    about = pd.DataFrame({"corpus": "", "speaker": ""}, index=range(len(clips)))
    mean, spread = (one[0] for one in clip_scale(clips, about, "training", np.ones(len(clips), bool)))
    tested = [
        (name, ((frames_of[name] - mean) / spread)[None].astype(np.float32), classes.index(emotion_of[name]))
        for name in names
        if roles[name] == "test"
    ]
    labels = np.array([classes.index(emotion_of[name]) for name in of_training])
    return Material(tested, classes, clips, labels, mean, spread)


def choose_clips(subject, candidates, *, most):
    """Clips to be explained: such as the model gets right, one class after another; where there are none, any.

    candidates : list of (name, x (1, ...), label). Returns at most `most` of them, the label what the model says.
    """

    def said(x):
        return int(subject.predict(x).argmax())

    def right_of(wanted):  # lazily: no more clips are asked about than it takes
        return (one for one in candidates if one[2] == wanted and said(one[1]) == wanted)

    right = {label: right_of(label) for label in sorted({label for _, _, label in candidates})}
    chosen = []
    while right and len(chosen) < most:
        for label in list(right):
            if (one := next(right[label], None)) is None:
                del right[label]
            elif len(chosen) < most:
                chosen.append(one)
    return chosen or [(name, x, said(x)) for name, x, _ in candidates[:most]]


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


def gradient_times_input(score, x, baseline):
    """Gradient · (x − baseline): what each point adds, to first order. x, baseline : (1, ...)"""
    return gradient(score, x) * (np.asarray(x) - baseline)


def smooth_grad(score, x, *, n=24, noise=0.15, seed=0):
    """Mean gradient over noisy copies of one input (Smilkov et al. 2017).

    x : (1, ...); noise : standard deviation as a share of the input's range
    """
    x = np.asarray(x, np.float32)
    spread = noise * (x.max() - x.min())
    copies = x + np.random.default_rng(seed).normal(0, spread, (n, *x.shape[1:])).astype(np.float32)
    return gradient(score, copies).mean(axis=0, keepdims=True)


def path_gradient(score, x, baseline, *, steps=50, within=0.01, most_steps=400):
    """Mean gradient on the straight way from a baseline to x: the midpoint rule, finer where the score turns.

    x, baseline : (1, ...); steps : pieces of the way to begin with, all as long
    within : while the pieces are further than this share from summing to score(x) − score(baseline), the worst of
        them are halved; most_steps : gradients that may be asked for
    """
    x, baseline = np.asarray(x, np.float32), np.asarray(baseline, np.float32)
    way = (x - baseline)[0]

    def ask(function, shares):
        shares = np.reshape(shares, (-1, *[1] * way.ndim)).astype(np.float32)
        parts = np.array_split(shares, -(-len(shares) // AT_ONCE))
        found = [function(ops.convert_to_tensor(baseline + part * way)) for part in parts]
        return np.concatenate([ops.convert_to_numpy(one) for one in found])

    slopes, values = {}, {}  # by piece (start, end) and by place, in shares of the way
    halved = -(-steps // 8)  # pieces at a time
    pieces = list(pairwise(np.linspace(0, 1, steps + 1)))
    while True:
        new = [piece for piece in pieces if piece not in slopes]
        slopes |= zip(new, ask(lambda v: gradient(score, v), np.mean(new, axis=1)), strict=True)
        mean = sum((end - start) * slopes[start, end] for start, end in pieces)[None]
        if len(slopes) + 2 * halved > most_steps:
            return mean
        places = sorted({*chain(*new)} - values.keys())
        values |= zip(places, ask(score, places), strict=True)
        errors = {
            (start, end): (end - start) * np.vdot(slopes[start, end], way) - (values[end] - values[start])
            for start, end in pieces
        }
        worst = sorted(errors, key=lambda piece: -abs(errors[piece]))[:halved]
        wanted = within * max(abs(values[1] - values[0]), EPSILON)
        if abs(sum(errors.values())) <= wanted:
            return mean
        halves = [((start, (start + end) / 2), ((start + end) / 2, end)) for start, end in worst]
        pieces = [piece for piece in pieces if piece not in worst] + list(chain(*halves))


def integrated_gradients(score, x, baseline, **options):
    """Path integral of the gradient from a baseline to x (Sundararajan et al. 2017): `path_gradient` times the way.

    x, baseline : (1, ...); the values sum to score(x) − score(baseline), see `completeness_gap`
    """
    return (np.asarray(x, np.float32) - baseline) * path_gradient(score, x, baseline, **options)


def completeness_gap(score, x, baseline, attribution):
    """How far an attribution is from summing to the score's change, as a share of that change."""
    both = ops.convert_to_numpy(
        score(ops.convert_to_tensor(np.concatenate([x, baseline]).astype(np.float32)))
    )
    change = float(both[0] - both[1])
    return abs(float(attribution.sum()) - change) / max(abs(change), EPSILON)


def occlusion(score, x, *, patch, stride, fill):
    """Fall of the score when a patch is replaced; overlapping patches are averaged (Zeiler & Fergus 2014).

    x : (1, rows, columns) or (1, samples); patch, stride : sizes along each axis
    fill : float, broadcast to x, what is put there
    """
    x = np.asarray(x, np.float32)
    fill = np.broadcast_to(np.asarray(fill, np.float32), x.shape)[0]
    axes = [
        sorted({*range(0, max(1, size - p + 1), s), max(0, size - p)})
        for size, p, s in zip(x.shape[1:], patch, stride, strict=True)
    ]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(patch))
    regions = [tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True)) for corner in corners]
    hidden = np.repeat(x, len(regions), axis=0)
    for copy, region in zip(hidden, regions, strict=True):
        copy[region] = fill[region]
    whole = float(ops.convert_to_numpy(score(ops.convert_to_tensor(x)))[0])
    falls = whole - np.concatenate(
        [
            ops.convert_to_numpy(score(ops.convert_to_tensor(part)))
            for part in np.array_split(hidden, -(-len(hidden) // AT_ONCE))
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
    weights, model = model.get_weights(), keras.models.clone_model(model)
    model.set_weights(weights)  # a copy: where Keras cuts a graph, it leaves nodes behind in the layers
    outputs = model.get_layer(layer).output
    outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    cut = [*outputs, *_beside(model, outputs)]
    given = [ops.convert_to_tensor(one) for one in (x, *others)]
    reached = keras.Model(model.inputs, cut)(given if others else given[0])
    reached = list(reached) if isinstance(reached, list | tuple) else [reached]
    activation = ops.convert_to_numpy(reached[0])
    slope = gradient(class_score(keras.Model(cut, model.output), label, *reached[1:]), activation)
    positions = tuple(range(1, activation.ndim - 1))
    weights = slope.mean(axis=positions, keepdims=True)
    return np.maximum((weights * activation).sum(axis=-1), 0)


def _beside(model, outputs):
    """Tensors that what follows `outputs` in a model takes from elsewhere, such as the clips' lengths."""
    known, after, needed = {id(t) for t in model.inputs}, {id(t) for t in outputs}, {}
    for operation in model.operations:  # in the order of the graph
        for node in operation._inbound_nodes:
            if not all(id(t) in known for t in node.input_tensors):
                continue  # of another model that shares the layer
            known |= {id(t) for t in node.output_tensors}
            if any(id(t) in after for t in node.input_tensors):
                after |= {id(t) for t in node.output_tensors}
                needed |= {id(t): t for t in node.input_tensors}
    return [tensor for key, tensor in needed.items() if key not in after]


def attention_weights(model, layer, x, *others):
    """The weights (1, steps) that an attentive pooling, whose second output they are, gave to each step of x."""
    weights = keras.Model(model.inputs, model.get_layer(layer).output[1])
    return ops.convert_to_numpy(weights([x, *others] if others else x))


def stretch(attribution, shape):
    """A coarse map (1, *positions) at the resolution `shape` of the input, linearly between its points.

    A curve over time is repeated for every feature where `shape` has any.
    """
    known = attribution.shape[1:]
    factors = [wanted / had for wanted, had in zip(shape, known, strict=False)]
    fine = zoom(attribution[0], factors, order=1, grid_mode=True, mode="nearest")
    fine = fine.reshape(*fine.shape, *[1] * (len(shape) - len(known)))
    return np.broadcast_to(fine, shape)[None]


def mean_map(attributions, *, n_frames=64):
    """Mean of maps (n_frames_i, n_features), each first brought to `n_frames`: what a class looks like."""
    return np.mean([stretch(one[None], (n_frames, one.shape[1]))[0] for one in attributions], axis=0)


def over_windows(attribution, n):
    """An attribution of samples or frames (n_steps, ...) summed over `n` windows of equal length: (n,)."""
    return np.array([part.sum() for part in np.array_split(attribution, n)])


def mel_of_cepstra(slope, n_mels):
    """A gradient with respect to MFCC as one with respect to the log-mel bands they are made of.

    slope : (..., n_mfcc). MFCC are the first rows of an orthonormal DCT-II of the bands: its transpose leads back.
    Returns (..., n_mels), with which an MFCC network is drawn on the same axes as a log-mel one.
    """
    return np.asarray(slope) @ dct(np.eye(n_mels), axis=0, norm="ortho")[: np.shape(slope)[-1]]


def part_and_rest(signal, sample_rate, attribution, *, share, n_fft, hop_length, fmax=8000):
    """The part of a recording that a map points at, and the rest, to be heard.

    signal : float (n_samples,); attribution : (n_frames, n_mels) on the grid of `features.log_mel`
    share : of the points that count as the part, those with the most; fmax : Hz, upper end of the bands
    Returns two float32 (n_samples,) whose sum is the signal: phases are the recording's own.
    """
    wanted = attribution >= np.quantile(attribution, 1 - share)
    filters = librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=wanted.shape[1], fmax=min(fmax, sample_rate / 2)
    )
    # a bin between two bands belongs to each by its filter's weight; outside all bands it is rest
    belongs = (filters / np.maximum(filters.sum(axis=0), 1e-12)).T @ wanted.T
    spectrum = librosa.stft(np.asarray(signal, np.float32), n_fft=n_fft, hop_length=hop_length)
    part = librosa.istft(spectrum * belongs, n_fft=n_fft, hop_length=hop_length, length=len(signal))
    return part.astype(np.float32), (signal - part).astype(np.float32)
