"""Attributions: which part of the input a decision rests on, in plain Keras, on any backend.

A method takes a score, which is a function of the input alone, and the input; it returns one value per input point.
`class_score` makes a score. A `Subject` is a network with everything that the methods need to know about it.

The methods are written in plain Keras because today's libraries need something else: captum needs PyTorch, quantus
Keras below 3, xplique TensorFlow up to 2.20, innvestigate TensorFlow below 2.15.
"""

import functools
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import keras
import librosa
import numpy as np
import pandas as pd
from keras import ops
from scipy.fft import dct
from scipy.ndimage import zoom

from ser_utils.corpora import emotions_in_order
from ser_utils.training.fit import compiled
from ser_utils.training.folds import clip_scale
from ser_utils.workspace import MissingResult, atomic_path, seal, sealed

EPSILON = 1e-6
SMALLEST = 1e-30  # of a probability
BASELINES = ("energy", "random")  # maps that know nothing of the model, to be beaten
AT_ONCE = 64  # patched copies a model hears at a time

Score = Callable[[Any], Any]
Maps = dict[str, np.ndarray]  # method -> (1, ...), as the input


class Clip(NamedTuple):
    """One input of a network: its utterance, x (1, ...) as the network sees it, and the class that is explained."""

    utterance: str
    x: np.ndarray
    label: int


@dataclass(frozen=True)
class Subject:
    """A network to be explained: a keras.Model of x (batch, ...) that gives probabilities. Subclasses ask differently.

    Parameters
    ----------
    model : the network
    silence : float, broadcast to x: what stands for absence
    patch, stride : sizes of occlusion along each axis of x, -1 for all of it
    layer : whose channels Grad-CAM weighs, "" for none
    attention : of attentive pooling, "" for none
    spread : (n_features,), what the features were divided by
    most_steps : gradients that integrated gradients may ask for; 0 leaves it at its 50 equal steps
    """

    model: keras.Model
    silence: Any
    patch: tuple[int, ...]
    stride: tuple[int, ...]
    layer: str = ""
    attention: str = ""
    spread: Any = 1.0
    most_steps: int = 400

    log_probabilities = False  # whether the model gives logarithms

    def others(self, x: np.ndarray) -> list[np.ndarray]:
        """What the model wants beside x (1, ...)."""
        return []

    @property
    def network(self) -> Callable[[Any], Any]:
        """The model as a function of its inputs."""
        return compiled(self.model)

    def score(self, label: int, x: np.ndarray) -> Score:
        """`class_score` of one class for inputs as long as x (1, ...)."""
        return class_score(self.network, label, *self.others(x), log_probabilities=self.log_probabilities)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Probabilities (n_classes,) of one input (1, ...)."""
        others = self.others(x)
        p = ops.convert_to_numpy(self.network([x, *others] if others else x))
        return np.exp(p[0]) if self.log_probabilities else p[0]

    def absence(self, x: np.ndarray) -> np.ndarray:
        """Silence as long as x (1, ...)."""
        return np.broadcast_to(np.asarray(self.silence, np.float32), np.shape(x))

    def other_speech(self, x: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Another clip in place of x (1, ...): as long, repeated where it is shorter, and at the level of x."""
        filled = np.resize(other[0], x[0].shape)[None]
        return self._at_level(filled, x).astype(np.float32)

    def _at_level(self, filled, x):
        return filled + x.mean() - filled.mean()

    def methods(self, x: np.ndarray, label: int, *, seed: int = 0) -> dict[str, Callable[[], np.ndarray]]:
        """Every method that suits the network, for one input and one class: functions () -> (1, ...), as x.

        Gradients and SmoothGrad are given by their size. Attention and Grad-CAM know no feature: all features of a
        frame get the same value.
        """
        score, others, absence = self.score(label, x), self.others(x), self.absence(x)
        size = np.shape(x)[1:]
        patch, stride = (
            [n if p < 0 else p for n, p in zip(size, sizes, strict=True)] for sizes in (self.patch, self.stride)
        )
        named = {
            "gradient": lambda: np.abs(gradient(score, x)),
            "gradient_times_input": lambda: gradient_times_input(score, x, absence),
            "smooth_grad": lambda: np.abs(smooth_grad(score, x, seed=seed)),
            "integrated_gradients": lambda: integrated_gradients(score, x, absence, most_steps=self.most_steps),
            "occlusion": lambda: occlusion(score, x, patch=patch, stride=stride, fill=absence),
        }
        if self.layer:
            named["grad_cam"] = lambda: stretch(grad_cam(self.model, self.layer, label, x, *others), size)
        if self.attention:
            named["attention"] = lambda: stretch(attention_weights(self.model, self.attention, x, *others), size)
        return named

    def maps(self, x: np.ndarray, label: int, *, seed: int = 0) -> dict[str, np.ndarray]:
        """What every method of `methods` says: method -> float (1, ...), as x."""
        return {name: method() for name, method in self.methods(x, label, seed=seed).items()}


class FrameSubject(Subject):
    """A network of (features (batch, n_frames, n_features), n_frames (batch,)): spectrograms, MFCC or embeddings."""

    def others(self, x):
        return [np.array([np.shape(x)[1]], "int32")]


class WaveformSubject(Subject):
    """A network of samples (batch, n_samples) that gives logarithms of probabilities."""

    log_probabilities = True

    def _at_level(self, filled, x):
        return filled * (np.std(x) / max(np.std(filled), EPSILON))


@dataclass(frozen=True)
class Material:
    """What a network over frames learned from and was tested on.

    Parameters
    ----------
    tested : held-out clips as the network sees them, with their true class
    classes : names of the classes
    training, labels : its training clips, unscaled, and int (n_clips,)
    mean, spread : (n_features,), its scale
    """

    tested: list[Clip]
    classes: list[str]
    training: list[np.ndarray]
    labels: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    def silence(self, kind: str = "log_mel") -> np.ndarray:
        """The lowest level in training as the network sees it, (n_features,).

        kind : "log_mel", or "mfcc" with energy last, where silence has a first coefficient, an energy, and no shape
        """
        lowest = np.min([clip.min(axis=0) for clip in self.training], axis=0)
        if kind == "mfcc":
            lowest[1:-1] = 0
        return (lowest - self.mean) / self.spread


@dataclass
class Explained:
    """One network of one fold with the clips it is explained on.

    Parameters
    ----------
    name : of the network; the networks of several folds share it
    subject : the network
    clips : held-out clips it gets right
    fold : number of its fold
    material : what it learned from, where it hears frames
    is_slow : whether a map takes many seconds, so that it gets few clips
    """

    name: str
    subject: Subject
    clips: list[Clip]
    fold: int = 0
    material: Material | None = None
    is_slow: bool = False


def held_out(frames_of: dict[str, np.ndarray], emotion_of: dict[str, str], roles: dict[str, str]) -> Material:
    """Clips that a network was tested on, scaled as it was trained ("training" of `clip_scale`).

    Parameters
    ----------
    frames_of : name -> (n_frames, n_features)
    emotion_of : name -> emotion
    roles : name -> role in one fold
    """
    names = [name for name in frames_of if roles.get(name)]
    classes = emotions_in_order(emotion_of[name] for name in names)
    of_training = [name for name in names if roles[name] == "train"]
    clips = [frames_of[name] for name in of_training]
    about = pd.DataFrame({"corpus": "", "speaker": ""}, index=range(len(clips)))
    mean, spread = (values[0] for values in clip_scale(clips, about, "training", np.ones(len(clips), bool)))
    tested = [
        Clip(name, ((frames_of[name] - mean) / spread)[None].astype(np.float32), classes.index(emotion_of[name]))
        for name in names
        if roles[name] == "test"
    ]
    labels = np.array([classes.index(emotion_of[name]) for name in of_training])
    return Material(tested, classes, clips, labels, mean, spread)


def choose_clips(subject: Subject, candidates: Sequence[Clip], *, most: int) -> list[Clip]:
    """Choose clips to be explained: those the model gets right, one class after another; if there are none, any.

    Returns
    -------
    at most `most` of the candidates, the label what the model says
    """

    def answer(clip):
        return int(subject.predict(clip.x).argmax())

    def right_of(wanted):  # lazily: no more clips are asked about than it takes
        return (clip for clip in candidates if clip.label == wanted and answer(clip) == wanted)

    waiting = {label: right_of(label) for label in sorted({clip.label for clip in candidates})}
    clips = []
    while waiting and len(clips) < most:
        for label in list(waiting):
            if (clip := next(waiting[label], None)) is None:
                del waiting[label]
            elif len(clips) < most:
                clips.append(clip)
    return clips or [clip._replace(label=answer(clip)) for clip in candidates[:most]]


def baselines(subject: Subject, x: np.ndarray, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Maps that know nothing of the model: how far each point of x (1, ...) is from absence, unscaled, and chance."""
    rng = np.random.default_rng(seed)
    return {"energy": np.abs(x - subject.absence(x)) * subject.spread, "random": rng.random(np.shape(x))}


def all_maps(networks: Sequence[Explained], *, seed: int = 0) -> tuple[list[list[Maps]], pd.DataFrame]:
    """Explain every clip of every network by every method and by the baselines.

    Returns
    -------
    maps[network][clip], each a dict method -> (1, ...); and the time each took, `model, method, s, cpu_s`
    """
    seconds = []

    def explain(network, clip):
        maps = {}
        for method, function in network.subject.methods(clip.x, clip.label, seed=seed).items():
            start, busy = time.perf_counter(), time.process_time()
            maps[method] = function()
            took = time.perf_counter() - start, time.process_time() - busy
            seconds.append((network.name, method, *took))
        return maps | baselines(network.subject, clip.x, seed=seed)

    maps = [[explain(network, clip) for clip in network.clips] for network in networks]
    return maps, pd.DataFrame(seconds, columns=["model", "method", "s", "cpu_s"])


def save_maps(folder: Path, networks: Sequence[Explained], maps: Sequence[Sequence[Maps]]) -> None:
    """Write the maps of each network to `folder` as an npz file, with the names of its clips."""
    for network, of_network in zip(networks, maps, strict=True):
        arrays = {f"{i} {method}": m for i, clip in enumerate(of_network) for method, m in clip.items()}
        names = np.array([clip.utterance for clip in network.clips])
        path = folder / _file_of(network)
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, names=names, labels=[clip.label for clip in network.clips], **arrays)
        seal(path, model=network.name, fold=int(network.fold))


def _file_of(network):
    """The name of the file of a network's maps: "cnn_log_mel-0.npz"."""
    return f"{re.sub(r'[^a-z0-9]+', '_', network.name.lower())}-{network.fold}.npz"


def load_maps(folder: Path, networks: Sequence[Explained]) -> list[list[Maps]]:
    """Read what `save_maps` wrote.

    Raises
    ------
    MissingResult : if a file is absent, damaged, or of other clips
    """
    maps = []
    for network in networks:
        path = folder / _file_of(network)
        if (sealed(path) or {}).get("model") != network.name:
            raise MissingResult(f"{path} is absent or damaged: run notebook 09 first.")
        with np.load(path, allow_pickle=False) as file:
            if list(file["names"]) != [clip.utterance for clip in network.clips]:
                raise MissingResult(f"{path} explains other clips of {network.name}: run notebook 09 again.")
            of_network = [{} for _ in network.clips]
            for key in file.files[2:]:
                number, method = key.split(" ")
                of_network[int(number)][method] = file[key]
        maps.append(of_network)
    return maps


def class_score(model: Callable[[Any], Any], label: int, *others: Any, log_probabilities: bool = False) -> Score:
    """Make a score: how sure a model is of one class, as the log-odds of its probability.

    Log-odds do not saturate where the probability is near one. What is left for the other classes is summed, since
    1 - p would be rounded to 0 and have no slope.

    Parameters
    ----------
    model : gives probabilities (batch, n_classes), or their logarithms
    label : the class
    others : further inputs of the model, the same for every clip of the batch

    Returns
    -------
    function x (batch, ...) -> (batch,)
    """

    def score(x):
        fixed = [ops.repeat(ops.convert_to_tensor(other)[:1], ops.shape(x)[0], axis=0) for other in others]
        p = model([x, *fixed] if others else x)
        p = ops.maximum(ops.exp(p) if log_probabilities else p, SMALLEST)
        rest = ops.sum(p[:, :label], axis=1) + ops.sum(p[:, label + 1 :], axis=1)
        return ops.log(p[:, label]) - ops.log(rest)

    return score


def gradient(score: Score, x: np.ndarray) -> np.ndarray:
    """d score / d x, for x (batch, ...)."""
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


def gradient_times_input(score: Score, x: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Gradient · (x − baseline): what each point of x (1, ...) adds, to first order."""
    return gradient(score, x) * (np.asarray(x) - baseline)


def smooth_grad(score: Score, x: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Mean gradient over 24 copies of one input x (1, ...), with noise of 15 % of its range as standard deviation.

    Source: Smilkov et al. 2017.
    """
    x = np.asarray(x, np.float32)
    spread = 0.15 * (x.max() - x.min())
    copies = x + np.random.default_rng(seed).normal(0, spread, (24, *x.shape[1:])).astype(np.float32)
    return gradient(score, copies).mean(axis=0, keepdims=True)


def path_gradient(
    score: Score, x: np.ndarray, baseline: np.ndarray, *, steps: int = 50, within: float = 0.01, most_steps: int = 400
) -> np.ndarray:
    """Mean gradient on the straight way from a baseline to x: the midpoint rule, finer where the score turns.

    Parameters
    ----------
    x, baseline : (1, ...)
    steps : pieces of the way to begin with, all of the same length
    within : while the pieces are further than this share from summing to score(x) − score(baseline), the worst of
        them are halved
    most_steps : gradients that may be asked for
    """
    x, baseline = np.asarray(x, np.float32), np.asarray(baseline, np.float32)
    way = (x - baseline)[0]

    def ask(function, shares):
        shares = np.reshape(shares, (-1, *[1] * way.ndim)).astype(np.float32)
        batches = np.array_split(shares, -(-len(shares) // AT_ONCE))
        answers = [function(ops.convert_to_tensor(baseline + batch * way)) for batch in batches]
        return np.concatenate([ops.convert_to_numpy(answer) for answer in answers])

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
        if abs(sum(errors.values())) <= within * max(abs(values[1] - values[0]), EPSILON):
            return mean
        halves = [((start, (start + end) / 2), ((start + end) / 2, end)) for start, end in worst]
        pieces = [piece for piece in pieces if piece not in worst] + list(chain(*halves))


def integrated_gradients(score: Score, x: np.ndarray, baseline: np.ndarray, **options) -> np.ndarray:
    """Path integral of the gradient from a baseline to x (1, ...): `path_gradient` times the way.

    The values sum to score(x) − score(baseline), see `completeness_gap`. Source: Sundararajan et al. 2017.
    """
    return (np.asarray(x, np.float32) - baseline) * path_gradient(score, x, baseline, **options)


def completeness_gap(score: Score, x: np.ndarray, baseline: np.ndarray, attribution: np.ndarray) -> float:
    """How far an attribution is from summing to the score's change, as a share of that change."""
    ends = ops.convert_to_tensor(np.concatenate([x, baseline]).astype(np.float32))
    at_x, at_baseline = map(float, ops.convert_to_numpy(score(ends)))
    change = at_x - at_baseline
    return abs(float(attribution.sum()) - change) / max(abs(change), EPSILON)


def occlusion(score: Score, x: np.ndarray, *, patch: Sequence[int], stride: Sequence[int], fill: Any) -> np.ndarray:
    """Fall of the score when a patch is replaced; overlapping patches are averaged.

    Parameters
    ----------
    x : (1, rows, columns) or (1, samples)
    patch, stride : sizes along each axis
    fill : float, broadcast to x, what is put there

    Source: Zeiler & Fergus 2014.
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
    batches = [x, *np.array_split(hidden, -(-len(hidden) // AT_ONCE))]
    scores = [ops.convert_to_numpy(score(ops.convert_to_tensor(batch))) for batch in batches]
    falls = scores[0][0] - np.concatenate(scores[1:])
    total, count = np.zeros(x.shape[1:], np.float32), np.zeros(x.shape[1:], np.float32)
    for fall, region in zip(falls, regions, strict=True):
        total[region] += fall
        count[region] += 1
    return (total / np.maximum(count, 1))[None]


def grad_cam(model: keras.Model, layer: str, label: int, x: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Grad-CAM: a layer's channels, weighted by their mean gradient; what speaks for the class is kept.

    Parameters
    ----------
    model : functional
    layer : whose (first) output is (batch, *positions, channels); two position axes give a map, one (of a recurrent
        or waveform network) a curve over time
    x, others : inputs of the model, (1, ...)

    Returns
    -------
    float32 (1, *positions), at least 0

    Source: Selvaraju et al. 2017.
    """
    copy, before, after = _cut(model, layer)
    copy.set_weights(model.get_weights())
    reached = _as_list(compiled(before)([x, *others] if others else x))
    activation = ops.convert_to_numpy(reached[0])
    slope = gradient(class_score(compiled(after), label, *reached[1:]), activation)
    channels = slope.mean(axis=tuple(range(1, activation.ndim - 1)), keepdims=True)
    return np.maximum((channels * activation).sum(axis=-1), 0)


@functools.lru_cache(maxsize=32)
def _cut(model, layer):
    """A copy of a model, and the copy's two parts: up to the output of a layer, and from there."""
    copy = keras.models.clone_model(model)  # where Keras cuts a graph, it leaves nodes behind in the layers
    outputs = _as_list(copy.get_layer(layer).output)
    cut = [*outputs, *_beside(copy, outputs)]
    return copy, keras.Model(copy.inputs, cut), keras.Model(cut, copy.output)


def _as_list(tensors):
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


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


def attention_weights(model: keras.Model, layer: str, x: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """The weights (1, steps) that an attentive pooling, whose second output they are, gave to each step of x."""
    weights = compiled(_attention(model, layer))
    return ops.convert_to_numpy(weights([x, *others] if others else x))


@functools.lru_cache(maxsize=32)
def _attention(model, layer):
    return keras.Model(model.inputs, model.get_layer(layer).output[1])


def stretch(attribution: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Bring a coarse map (1, *positions) to the resolution `shape` of the input, linearly between its points.

    A curve over time is repeated for every feature where `shape` has any.
    """
    known = attribution.shape[1:]
    factors = [wanted / had for wanted, had in zip(shape, known, strict=False)]
    fine = zoom(attribution[0], factors, order=1, grid_mode=True, mode="nearest")
    fine = fine.reshape(*fine.shape, *[1] * (len(shape) - len(known)))
    return np.broadcast_to(fine, shape)[None]


def mean_map(attributions: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of maps (n_frames, n_features), each first brought to 64 frames: what a class looks like."""
    return np.mean([stretch(values[None], (64, values.shape[1]))[0] for values in attributions], axis=0)


def over_windows(attribution: np.ndarray, n: int) -> np.ndarray:
    """An attribution of samples or frames (n_steps, ...) summed over `n` windows of equal length: (n,)."""
    return np.array([window.sum() for window in np.array_split(attribution, n)])


def mel_of_cepstra(slope: np.ndarray, n_mels: int) -> np.ndarray:
    """Turn a gradient with respect to MFCC (..., n_mfcc) into one with respect to the log-mel bands, (..., n_mels).

    MFCC are the first rows of an orthonormal DCT-II of the bands: its transpose leads back. With it an MFCC network is
    drawn on the same axes as a log-mel one.
    """
    return np.asarray(slope) @ dct(np.eye(n_mels), axis=0, norm="ortho")[: np.shape(slope)[-1]]


def part_and_rest(
    signal: np.ndarray, sample_rate: int, attribution: np.ndarray, *, share: float, n_fft: int, hop_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a recording into the part that a map points at and the rest, to be heard.

    Parameters
    ----------
    signal : float (n_samples,)
    sample_rate : Hz
    attribution : (n_frames, n_mels) on the grid of `features.spectral.log_mel`
    share : of the points that count as the part, those with the most

    Returns
    -------
    two float32 (n_samples,) whose sum is the signal: phases are the recording's own
    """
    wanted = attribution >= np.quantile(attribution, 1 - share)
    filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=wanted.shape[1], fmax=min(8000, sample_rate / 2))
    # a bin between two bands belongs to each by its filter's weight; outside all bands it is rest
    belongs = (filters / np.maximum(filters.sum(axis=0), 1e-12)).T @ wanted.T
    spectrum = librosa.stft(np.asarray(signal, np.float32), n_fft=n_fft, hop_length=hop_length)
    pointed_at = librosa.istft(spectrum * belongs, n_fft=n_fft, hop_length=hop_length, length=len(signal))
    return pointed_at.astype(np.float32), (signal - pointed_at).astype(np.float32)
