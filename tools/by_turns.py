"""Trainings of one network by turns, for an accelerator: some epochs of one are one program (JAX).

Data and weights stay on the accelerator. An epoch of a small network is over before Python could begin its next step.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

ROOM = 2048  # arrays are padded to a multiple of so many rows, so that trainings of other sizes need no other program
AT_ONCE = 512  # rows watched at a time


@dataclass
class Training:
    """What one of several trainings learns from, and what became of it.

    Parameters
    ----------
    name : of the training
    train, watched : (inputs, targets), float32 arrays of the same rows; the rows of `watched` choose the epoch
    weights : of the best epoch, in the order of the network's trainable variables
    history : epoch by epoch, columns as Keras names them
    seconds : wall time of its turns
    has_stopped : whether its patience or the number of epochs ended it, and not the clock
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    watched: tuple[np.ndarray, np.ndarray]
    weights: list[np.ndarray] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    has_stopped: bool = False


class ByTurns:
    """Trainings of one network with one table of settings.

    Parameters
    ----------
    build : function () -> compiled network without state besides its weights
    sums : function (targets, outputs, extra losses, there) -> dict of sums over the rows that are there (float, 1 or
        0), "loss" among them
    figures : function (sums, n) -> dict of an epoch's figures
    monitor, sign : the watched figure ("loss" of the watched rows is "val_loss"), and 1 where more is better, else -1
    epochs, patience : at most so many, and without a better one
    passes : over the rows in an epoch
    forward : function (weights, inputs) -> outputs, where the network's own is slow on an accelerator
    describe : function (weights) -> figures that need no data; those of the first weights are in the history as `start_…`
    per_turn : epochs of a turn
    seed : of the first weights and of the order of rows
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        sums: Callable,
        figures: Callable,
        *,
        monitor: str,
        sign: int,
        batch_size: int,
        epochs: int,
        patience: int,
        passes: int = 1,
        forward: Callable | None = None,
        describe: Callable[[list], dict[str, Any]] = lambda weights: {},
        per_turn: int = 10,
        seed: int = 0,
    ):
        import jax

        keras.utils.set_random_seed(seed)
        self.model = build()
        self.model.optimizer.build(self.model.trainable_variables)
        self.sums, self.figures, self.describe, self.forward = sums, figures, describe, forward
        self.monitor, self.sign, self.batch_size, self.passes = monitor, sign, batch_size, passes
        self.epochs, self.patience, self.per_turn, self.seed = epochs, patience, min(per_turn, epochs), seed
        self.turn = jax.jit(self._turn, donate_argnums=0)

    def fit(
        self, trainings: list[Training], *, until: float = np.inf, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        """Train all, a turn of each after a turn of the others, until each has stopped or time is up.

        Parameters
        ----------
        until : time.monotonic() after which no turn begins
        tell : is told now and then how far they are
        """
        import jax

        states = [self._first_state() for _ in trainings]
        data = [self._placed(training) for training in trainings]
        start = {
            f"start_{name.removeprefix('prototype_')}": float(value)
            for name, value in self.describe(states[0]["weights"]).items()
        }
        told = 0.0
        while time.monotonic() < until and not all(training.has_stopped for training in trainings):
            for place, training in enumerate(trainings):
                if training.has_stopped or time.monotonic() > until:
                    continue
                began, done = time.monotonic(), len(training.history.get("loss", ()))
                states[place], turn = self.turn(states[place], data[place], done)
                self._note(training, jax.device_get(turn), start)
                training.seconds += time.monotonic() - began
            if time.monotonic() - told > 10:
                told = time.monotonic()
                tell("; ".join(map(self._told, trainings)))
        for training, state in zip(trainings, states, strict=True):
            training.weights = [np.asarray(values) for values in state["best"]]
        tell("; ".join(map(self._told, trainings)))

    def _told(self, training):
        values = [self.sign * value for value in training.history.get(self.monitor, ())]
        best = (
            f"{self.monitor} {self.sign * max(values):.5g} at {int(np.argmax(values)) + 1}" if values else "not begun"
        )
        end = " stopped" if training.has_stopped else ""
        return f"{training.name} {len(values)} epochs {training.seconds:.1f} s, {best}{end}"

    def _first_state(self):
        import jax.numpy as jnp

        # a turn takes its state's memory for its own: nothing may be in it twice
        weights, moments = self.model.trainable_variables, self.model.optimizer.variables
        return {
            "weights": [jnp.array(variable.value) for variable in weights],
            "moments": [jnp.array(variable.value) for variable in moments],
            "best": [jnp.array(variable.value) for variable in weights],
            "value": jnp.array(-jnp.inf),
            "waited": jnp.array(0),
        }

    def _placed(self, training):
        """The rows of a training on the accelerator, and how many there are."""
        import jax.numpy as jnp

        placed = []
        for x, y in (training.train, training.watched):
            rows = np.resize(np.arange(len(x)), -(-len(x) // ROOM) * ROOM)
            inputs = jnp.asarray(x[rows])
            placed.append((inputs, inputs if y is x else jnp.asarray(y[rows]), len(x)))
        return tuple(placed)

    def _note(self, training, turn, start):
        for number in range(self.per_turn):
            row = {name: float(values[number]) for name, values in turn.items() if name != "waited"}
            for name, value in (row | start).items():
                training.history.setdefault(name, []).append(value)
            done = len(training.history["loss"])
            if turn["waited"][number] >= self.patience or done == self.epochs:
                training.has_stopped = True
                return

    def _turn(self, state, data, done):
        """`per_turn` epochs -> the new state, and the figures of each."""
        import jax
        import jax.numpy as jnp

        def epoch(state, number):
            key = jax.random.fold_in(jax.random.key(self.seed), number)
            weights, moments, seen = self._pass(state["weights"], state["moments"], data[0], key)
            watched = self.figures(self._watch(weights, data[1]), data[1][2])
            figures = self.figures(seen, self.passes * data[0][2])
            figures |= {f"val_{name}": value for name, value in watched.items()} | self.describe(weights)
            value = self.sign * figures[self.monitor]
            # what is learned after the end of patience, within a turn, is not kept
            better = (value > state["value"]) & (state["waited"] < self.patience)
            best = [jnp.where(better, new, old) for new, old in zip(weights, state["best"], strict=True)]
            waited = jnp.where(better, 0, state["waited"] + 1)
            value = jnp.where(better, value, state["value"])
            new = {"weights": weights, "moments": moments, "best": best, "value": value, "waited": waited}
            return new, figures | {"waited": waited}

        return jax.lax.scan(epoch, state, done + jnp.arange(self.per_turn))

    def _pass(self, weights, moments, rows, key):
        """The passes of an epoch -> weights, the optimizer's moments and the sums over all rows seen."""
        import jax
        import jax.numpy as jnp

        x, y, n = rows
        last = (jnp.arange(len(x)) >= n) * 2.0  # rows that only fill the array come last
        draws = jax.random.uniform(key, (self.passes, len(x)))
        order = jnp.argsort(draws + last, axis=1)

        def loss(weights, rows, there):
            sums = self._sums(weights, x[rows], y[rows], there)
            return sums["loss"] / there.sum(), sums

        def step(number, carry):
            weights, moments, seen = carry
            places = number * self.batch_size + jnp.arange(self.batch_size)
            rows = order[(places // n) % self.passes, places % n]
            there = (places < self.passes * n).astype(jnp.float32)
            slopes, sums = jax.grad(loss, has_aux=True)(weights, rows, there)
            weights, moments = self.model.optimizer.stateless_apply(moments, slopes, weights)
            return weights, moments, jax.tree.map(jnp.add, seen, sums)

        nothing = self._nothing(weights, rows)
        n_steps = -(-self.passes * n // self.batch_size)
        return jax.lax.fori_loop(0, n_steps, step, (weights, moments, nothing))

    def _watch(self, weights, rows):
        import jax
        import jax.numpy as jnp

        x, y, n = rows

        def look(number, seen):
            places = number * AT_ONCE + jnp.arange(AT_ONCE)
            there = (places < n).astype(jnp.float32)
            places = jnp.minimum(places, len(x) - 1)
            return jax.tree.map(jnp.add, seen, self._sums(weights, x[places], y[places], there))

        return jax.lax.fori_loop(0, -(-n // AT_ONCE), look, self._nothing(weights, rows))

    def _sums(self, weights, x, y, there):
        if self.forward:
            return self.sums(y, self.forward(weights, x), 0.0, there)
        outputs, _, losses = self.model.stateless_call(weights, [], x, training=True, return_losses=True)
        return self.sums(y, outputs, sum(losses), there)

    def _nothing(self, weights, rows):
        import jax
        import jax.numpy as jnp

        x, y, _ = rows
        shapes = jax.eval_shape(self._sums, weights, x[:1], y[:1], jnp.ones(1))
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
