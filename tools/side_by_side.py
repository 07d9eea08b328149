"""Many trainings of one network at once, for an accelerator: a step of all of them is one program (JAX).

Folds, draws and learning rates differ in what they learn from, not in what is computed. Each of their networks is far
too small to fill an accelerator, and SigWavNet's GRUs wait for their own last step: side by side, ten take
hardly longer than one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ser_utils.systems.sigwavnet.recipe import learning_rate, make_optimizer, monitoring


@dataclass(frozen=True)
class Training:
    """What one of several trainings learns from.

    Parameters
    ----------
    rows : role -> int (n,), the clips of `train`, `validation` and `test`
    seed : of the first weights and of the order of clips
    rate : multiplies the learning rate of the settings
    """

    rows: dict[str, np.ndarray]
    seed: int = 0
    rate: float = 1.0


@dataclass
class Trained:
    """What became of a `Training`.

    Parameters
    ----------
    weights : of the epoch that was best on validation, in the order of `variables_of` the network
    history : epoch by epoch loss, uar, val_loss, val_uar, learning_rate and seconds, each training's share of them
    probabilities : float32 (n_test, n_classes)
    mean, std : of the training signals
    """

    mean: float
    std: float
    weights: list = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    probabilities: np.ndarray | None = None


def variables_of(model: keras.Model) -> list:
    """What training changes in a network: its trainable variables, then the others."""
    return [*model.trainable_variables, *model.non_trainable_variables]


def deal(lengths, rows, batch_size: int, jitter: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of clips of like lengths, the shortest first; see `ClipBatches`."""
    order = rows[np.argsort(lengths[rows] * np.exp(rng.normal(0, jitter, len(rows))), kind="stable")]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return sorted(batches, key=lambda batch: lengths[batch].max())


class SideBySide:
    """Trainings of one network with one table of settings, on the same clips.

    Parameters
    ----------
    build : function () -> new network that does not standardise (mean 0, deviation 1)
    clips : of float (n_samples,); labels : int (n_clips,), in 0 … n_classes - 1
    trainings : see `Training`
    settings : a table of a profile
    shapes : samples to which batches are padded, beside those of the longest clip; each is compiled once
    at_once : samples of all trainings' batches that memory has room for; more take turns
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        clips: Sequence[np.ndarray],
        labels: np.ndarray,
        trainings: Sequence[Training],
        settings: dict[str, Any],
        *,
        shapes: Sequence[int] = (),
        at_once: float = np.inf,
    ):
        self.trainings, self.settings, self.labels = trainings, settings, np.asarray(labels)
        self.at_once = at_once
        self.lengths = np.array([len(clip) for clip in clips], np.int32)
        padded = np.zeros((len(clips), self.lengths.max()), np.float32)
        for row, clip in zip(padded, clips, strict=True):
            row[: len(clip)] = clip
        self.trained = [Trained(*_mean_and_std([clips[i] for i in each.rows["train"]])) for each in trainings]
        self._start(build, padded)
        self.shapes = sorted({*(int(shape) for shape in shapes if shape < padded.shape[1]), padded.shape[1]})

    def _start(self, build, padded):
        import jax
        import jax.numpy as jnp

        def stack(trees):
            return jax.tree.map(lambda *values: jnp.stack(values), *trees)

        firsts = {}
        for seed in {each.seed for each in self.trainings}:
            keras.utils.set_random_seed(seed)
            self.model = build()
            self.model.build()
            firsts[seed] = [jnp.asarray(variable.value) for variable in variables_of(self.model)]
        self.optimizer = make_optimizer(self.settings)
        self.optimizer.build(self.model.trainable_variables)
        weights = stack([firsts[each.seed] for each in self.trainings])
        n = len(self.model.trainable_variables)
        moments = [jnp.asarray(variable.value) for variable in self.optimizer.variables]
        self.state = (weights[:n], weights[n:], stack([moments] * len(self.trainings)))
        self.best = jax.tree.map(jnp.copy, self.state[:2])  # a step takes the state's memory for its own
        self.rate_at = [variable.path.endswith("learning_rate") for variable in self.optimizer.variables].index(True)
        n_classes = self.labels.max() + 1
        alphas = [_class_weights(self.labels[each.rows["train"]], n_classes) for each in self.trainings]
        if not self.settings["class_weights"]:
            alphas = [np.ones(n_classes)] * len(self.trainings)
        scales = np.array([[each.mean, each.std] for each in self.trained], np.float32)
        self.fold_data = (jnp.asarray(scales), jnp.asarray(np.array(alphas, np.float32)))
        self.clips = (jnp.asarray(padded), jnp.asarray(self.lengths), jnp.asarray(self.labels))
        self.train_step = jax.jit(self._train_step, static_argnames="length", donate_argnums=0)
        self.ask_step = jax.jit(self._ask_step)
        self.keep = jax.jit(
            lambda better, new, old: jax.tree.map(lambda a, b: jnp.where(_as(better, a), a, b), new, old)
        )

    def _steps(self, epoch):
        """Rows of every step of an epoch, int (steps, trainings, batch_size), -1 for none; and their order."""
        size, jitter = self.settings["batch_size"], self.settings["length_jitter"]
        dealt = [
            deal(self.lengths, each.rows["train"], size, jitter, np.random.default_rng([each.seed, epoch]))
            for each in self.trainings
        ]
        steps = np.full((max(map(len, dealt)), len(dealt), size), -1, np.int32)
        for i, batches in enumerate(dealt):
            for place, batch in enumerate(batches, len(steps) - len(batches)):
                steps[place, i, : len(batch)] = batch
        return steps, np.random.default_rng([epoch]).permutation(len(steps))

    def _inputs(self, rows, clips, scale, length):
        import jax.numpy as jnp

        waves, lengths, labels = clips
        n = jnp.where(rows >= 0, lengths[rows], 0)
        return ((waves[rows, :length] - scale[0]) / scale[1], n), labels[rows], rows >= 0

    def _train_step(self, state, rows, rates, clips, fold_data, *, length):
        """One step of all trainings -> their new state, and log-probabilities (trainings, batch, classes)."""
        import jax
        import jax.numpy as jnp

        def step(trainable, other, moments, rows, rate, scale, alpha):
            inputs, labels, there = self._inputs(rows, clips, scale, length)

            def loss(trainable):
                said, new_other = self.model.stateless_call(trainable, other, inputs, training=True)
                return _loss(said, labels, there, alpha, self.settings["gamma"], jnp), (said, new_other)

            (_, (said, new_other)), gradients = jax.value_and_grad(loss, has_aux=True)(trainable)
            moments = [rate if i == self.rate_at else value for i, value in enumerate(moments)]
            new_trainable, new_moments = self.optimizer.stateless_apply(moments, gradients, trainable)
            new, old = (new_trainable, new_other, new_moments), (trainable, other, moments)
            return jax.tree.map(lambda a, b: jnp.where(there.any(), a, b), new, old), said

        return self._over_trainings(step, (*state, rows, rates, *fold_data), length)

    def _over_trainings(self, function, arguments, length):
        import jax

        n = len(self.trainings)
        room = self.at_once / (self.settings["batch_size"] * length)
        together = max(k for k in range(1, n + 1) if n % k == 0 and (k == 1 or k <= room))
        if together == n:
            return jax.vmap(function)(*arguments)
        return jax.lax.map(lambda each: function(*each), arguments, batch_size=together)

    def _ask_step(self, weights, rows, clips, fold_data):
        def ask(trainable, other, rows, scale):
            inputs, _, _ = self._inputs(rows, clips, scale, None)
            return self.model.stateless_call(trainable, other, inputs, training=False)[0]

        return self._over_trainings(ask, (*weights, rows, fold_data[0]), clips[0].shape[1] / 4)

    def ask(self, role: str, weights) -> list[np.ndarray]:
        """Log-probabilities (n_clips, n_classes) of the clips of a role, for every training."""
        rows = [each.rows[role] for each in self.trainings]
        size = self.settings["batch_size"]
        steps = np.full((-(-max(map(len, rows)) // size) * size, len(rows)), -1, np.int32)
        for i, own in enumerate(rows):
            steps[: len(own), i] = own
        said = [
            self.ask_step(weights, batch.T, self.clips, self.fold_data) for batch in np.split(steps, len(steps) // size)
        ]
        said = np.concatenate([np.asarray(each) for each in said], axis=1)
        return [each[: len(own)] for each, own in zip(said, rows, strict=True)]

    def compile(self) -> None:
        """Compile every shape, several at a time: an accelerator's compiler uses a core each."""
        from concurrent.futures import ThreadPoolExecutor

        rows = self._steps(0)[0][0]
        rates = np.ones(len(rows), np.float32)

        def of(length):
            arguments = (self.state, rows, rates, self.clips, self.fold_data)
            return length, self.train_step.lower(*arguments, length=length).compile()

        with ThreadPoolExecutor() as threads:
            asking = threads.submit(lambda: self.ask_step.lower(self.best, rows, self.clips, self.fold_data).compile())
            self.compiled = dict(threads.map(of, map(int, self.shapes)))
            self.ask_step = asking.result()

    def epoch(self, number: int) -> list[dict[str, float]]:
        """One pass over the training clips of every training, and its validation."""
        start = time.perf_counter()
        steps, order = self._steps(number)
        rate = learning_rate(self.settings, number)
        rates = np.array([rate * each.rate for each in self.trainings], np.float32)
        said = []
        for place in order:
            rows = steps[place]
            length = next(shape for shape in self.shapes if shape >= self.lengths[rows[rows >= 0]].max())
            self.state, answer = self.compiled[int(length)](self.state, rows, rates, self.clips, self.fold_data)
            said.append(answer)
        said, rows = np.stack([np.asarray(answer) for answer in said], axis=1), steps[order].swapaxes(0, 1)
        validation = self.ask("validation", self.state[:2])
        seconds = time.perf_counter() - start
        figures = []
        for i, each in enumerate(self.trainings):
            of_training = self._figures(i, said[i][rows[i] >= 0], rows[i][rows[i] >= 0])
            of_validation = self._figures(i, validation[i], each.rows["validation"])
            figures.append(of_training | {f"val_{name}": value for name, value in of_validation.items()})
            figures[-1] |= {"learning_rate": float(rates[i]), "seconds": seconds / len(self.trainings)}
        return figures

    def _figures(self, i, said, rows):
        labels, alpha = self.labels[rows], np.asarray(self.fold_data[1][i])
        loss = float(_loss(said, labels, np.ones(len(rows), bool), alpha, self.settings["gamma"], np))
        hits = said.argmax(axis=1) == labels
        return {"loss": loss, "uar": float(np.mean([hits[labels == label].mean() for label in set(labels)]))}

    def fit(self, *, until: float = np.inf, tell: Callable[[str], None] = lambda line: None) -> list[Trained]:
        """Train all, keep each one's best epoch on validation, and test it.

        Parameters
        ----------
        until : time.monotonic() after which no epoch begins
        tell : is told how each epoch went
        """
        watched, patience = monitoring(self.settings), self.settings["patience"]
        monitor, sign = watched["monitor"], -1 if watched["mode"] == "min" else 1
        best, waited = np.full(len(self.trainings), -np.inf), np.zeros(len(self.trainings), int)
        for number in range(self.settings["epochs"]):
            if time.monotonic() > until or (waited > patience).all():
                break
            figures = self.epoch(number)
            value = np.nan_to_num(sign * np.array([each[monitor] for each in figures]), nan=-np.inf)
            better = (value > best) & (waited <= patience)
            best, waited = np.where(better, value, best), np.where(better, 0, waited + 1)
            self.best = self.keep(better, self.state[:2], self.best)
            for trained, each in zip(self.trained, figures, strict=True):
                for name, figure in each.items():
                    trained.history.setdefault(name, []).append(figure)
            means = {name: np.mean([each[name] for each in figures]) for name in figures[0]}
            tell(f"epoch {number + 1}: " + ", ".join(f"{name} {mean:.4g}" for name, mean in means.items()))
        weights = [np.asarray(values) for part in self.best for values in part]
        for i, (trained, said) in enumerate(zip(self.trained, self.ask("test", self.best), strict=True)):
            trained.weights = [values[i] for values in weights]
            trained.probabilities = np.exp(said)
        return self.trained


def _as(better, values):
    return better.reshape(-1, *[1] * (values.ndim - 1))


def _loss(said, labels, there, alpha, gamma, xp):
    """Mean focal loss of the clips that are there; said : log-probabilities (batch, classes), xp : NumPy or JAX's."""
    true = xp.take_along_axis(said, labels[:, None], axis=1)[:, 0]
    easy = (1 - xp.exp(true)) ** gamma if gamma else 1.0
    return xp.sum(xp.where(there, -alpha[labels] * easy * true, 0.0)) / xp.maximum(there.sum(), 1)


def _mean_and_std(signals):
    n = sum(map(len, signals))
    mean = sum(signal.sum(dtype=np.float64) for signal in signals) / n
    variance = sum(np.square(signal - mean, dtype=np.float64).sum() for signal in signals) / n
    return mean, float(np.sqrt(variance))


def _class_weights(labels, n_classes):
    counts = np.bincount(labels, minlength=n_classes)
    return len(labels) / ((counts > 0).sum() * np.maximum(counts, 1)) * (counts > 0)
