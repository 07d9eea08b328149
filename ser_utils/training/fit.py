"""The one fit loop: seeds, early stopping, finished models kept, progress."""

import functools
import inspect
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight

from ser_utils.progress import progress_bar
from ser_utils.workspace import atomic_path, content_key, made_by, seal, sealed


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it came about.

    Parameters
    ----------
    model : with the weights of the best epoch
    history : one row per epoch, columns as Keras names them
    seconds : wall time of the training, also when the model was found finished
    path : of the model's file
    learned_from : what was fitted or chosen on what, as `audit_leakage` takes it in `fit`
    """

    model: keras.Model
    history: pd.DataFrame
    seconds: float
    path: Path
    learned_from: dict[str, Any] = field(default_factory=dict)


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and the backend, and make TensorFlow's operations repeatable."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def fit_or_load(
    path: str | Path,
    build: Callable[[], keras.Model],
    train: tuple | keras.utils.PyDataset,
    *,
    key: str,
    seed: int,
    epochs: int,
    learned_from: dict[str, Any] | None = None,
    reuse: str = "",
    title: str = "",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **options: Any,
) -> Fitted:
    """Train a model, or open it if exactly this training was finished before.

    Parameters
    ----------
    path : where the model goes, ending in .keras; written atomically, with its history and checksum
    build : gives a compiled model; called after the seed is set
    train : (inputs, targets) arrays, or batches of them
    key : `content_key` of what the result depends on: data, labels, folds, settings and `code_of` the model.
        Seed, epochs, options and the backend are added here.
    learned_from : what was fitted or chosen on what; kept beside the model and returned with it
    reuse : `content_key` of all that `build` depends on: see `built_once`; "" builds anew
    options : `validation` (from training data only), `patience` (epochs without a better `monitor` before
        stopping; the best epoch's weights are restored), `monitor`, `mode`, and those of `keras.Model.fit`

    Returns
    -------
    Fitted. A damaged or different model at `path` is trained again.
    """
    path = Path(path)
    key = _full_key(key, options | {"epochs": epochs, "seed": seed})
    if (facts := sealed(path)) and facts["key"] == key:
        model = keras.saving.load_model(path, safe_mode=True)
        return Fitted(model, pd.DataFrame(facts["history"]), facts["seconds"], path, facts.get("learned_from", {}))
    model = built_once(f"{reuse} {seed}", build, seed) if reuse else _seeded(build, seed)
    _make_state(model, train)
    start = time.perf_counter()
    history = _train(model, train, epochs, title, callbacks, **options)
    return _keep(model, path, key, history, time.perf_counter() - start, made_by(), learned_from or {})


def as_kept(fitted: Fitted) -> Fitted:
    """The model once more, from its file: no later training with the same `reuse` changes it."""
    return replace(fitted, model=keras.saving.load_model(fitted.path, safe_mode=True))


@dataclass(frozen=True)
class TrainedElsewhere:
    """What came back of a training on another machine.

    Parameters
    ----------
    weights : of the best epoch, in the order of `keras.Model.get_weights`
    history : column -> one value per epoch, as Keras names them
    seconds : wall time of the training
    made_by : where and with what it was trained, kept beside the model
    """

    weights: list[np.ndarray]
    history: dict[str, list[float]]
    seconds: float
    made_by: dict[str, Any]


def adopt(
    trained: TrainedElsewhere,
    path: str | Path,
    build: Callable[[], keras.Model],
    *,
    key: str,
    seed: int,
    epochs: int,
    learned_from: dict[str, Any] | None = None,
    **options: Any,
) -> Fitted:
    """Keep a model that was trained elsewhere where `fit_or_load`, asked for this training, finds it finished.

    Parameters
    ----------
    path, build, key, seed, epochs, learned_from, options : as `fit_or_load` takes them
    """
    named = ("title", "callbacks", "reuse")
    recipe = {name: value for name, value in options.items() if name not in named}
    model = _seeded(build, seed)
    model.set_weights(trained.weights)
    model.optimizer.build(model.trainable_variables)  # or opening it would warn of what an optimizer lacks
    key = _full_key(key, recipe | {"epochs": epochs, "seed": seed})
    return _keep(model, Path(path), key, trained.history, trained.seconds, trained.made_by, learned_from or {})


def _full_key(key, recipe):
    recipe = {name: value for name, value in recipe.items() if name not in ("validation", "steps_per_epoch")}
    return content_key(key, repr(sorted(recipe.items())), keras.backend.backend(), inspect.getsource(_train))


def _keep(model, path, key, history, seconds, made_by, learned_from):
    with atomic_path(path) as temporary:
        model.save(temporary)
    seal(path, key=key, history=history, seconds=seconds, learned_from=learned_from, made_by=made_by)
    return Fitted(model, pd.DataFrame(history), seconds, path, learned_from)


def _train(
    model, train, epochs, title, callbacks, *, validation=None, patience=None, monitor="val_loss", mode="min", **options
):
    callbacks = [Progress(title, epochs, monitor), *callbacks]
    if patience is not None:
        stopping = keras.callbacks.EarlyStopping(monitor, mode=mode, patience=patience, restore_best_weights=True)
        callbacks.append(stopping)
    arrays = {"x": train} if isinstance(train, keras.utils.PyDataset) else {"x": train[0], "y": train[1]}
    fitting = {"validation_data": validation, "epochs": epochs, "callbacks": callbacks, "verbose": 0}
    log = model.fit(**arrays, **fitting, **options)
    return {name: [float(value) for value in values] for name, values in log.history.items()}


def _make_state(model, train):
    """Let optimizer and metrics make their variables now: TensorFlow traces a first step that makes any twice."""
    if keras.backend.backend() != "tensorflow":
        return
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    targets = (train[0] if isinstance(train, keras.utils.PyDataset) else train)[1]
    example = keras.ops.convert_to_tensor(targets[:1])
    model.compute_metrics(None, example, example)
    model.reset_metrics()


def _seeded(build, seed):
    keras.utils.clear_session(free_memory=False)
    set_seed(seed)
    return build()


_built: dict[str, tuple] = {}  # of this process: key -> (model, its variables, their values, Python's random state)
KEPT = 8


def built_once(key: str, build: Callable[[], keras.Model], seed: int) -> keras.Model:
    """Build a compiled model, or bring back the one that this process built for `key`, as it was then.

    A compiled model keeps TensorFlow's traced functions, so a network is traced once and not once a fold.
    Training goes on as it would after `build`. The model of an earlier call is the same object and loses what
    it learned. Other backends build anew.

    Parameters
    ----------
    key : of all that `build` depends on, the seed included
    """
    if keras.backend.backend() != "tensorflow":  # Keras deals batches otherwise in a model's second training there
        return _seeded(build, seed)
    if key not in _built:
        if len(_built) == KEPT:  # memory does not grow with the number of networks
            del _built[next(iter(_built))]
        model = _seeded(build, seed)
        if not model.optimizer.built:  # the first step would build it, and be traced twice
            model.optimizer.build(model.trainable_variables)
        variables = [*model.variables, *model.optimizer.variables]
        values = [keras.ops.convert_to_numpy(variable) for variable in variables]
        # building draws seeds, and Keras deals the batches of an epoch by Python's generator
        _built[key] = model, variables, values, random.getstate()
    model, variables, values, random_state = _built[key]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    random.setstate(random_state)  # not `set_seed`, after which TensorFlow would prepare every function again
    return model


def compile_for_lengths(model: keras.Model, optimizer: keras.Optimizer, loss: Any, **options: Any) -> keras.Model:
    """Compile a model of clips of many lengths so that TensorFlow traces it once; options as of `compile`."""
    # XLA compiles anew for each length: TensorFlow's graph does not
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile(optimizer, loss, jit_compile=jit, **options)
    model.optimizer.build(model.trainable_variables)  # or the first step builds it, and is traced twice
    return model


def compiled(model: keras.Model) -> Callable[[Any], Any]:
    """A model as a function of its input, or of a list of its inputs, which are batches.

    On TensorFlow it is traced once, for clips of any length. Keras's `predict` traces once for every shape of a batch,
    and called directly a recurrence runs step by step.
    """
    call = functools.partial(model, training=False)
    if keras.backend.backend() != "tensorflow":
        return call
    import tensorflow as tf

    kept = vars(model)  # beside the weights, so that it lives as long as they do
    if "_traced_call" in kept:
        return kept["_traced_call"]
    known, traced = getattr(model, "inputs", None), []

    def ask(inputs):
        given = inputs if isinstance(inputs, list) else [inputs]
        if not traced:  # a model written as a class tells no shapes: batches and lengths vary, features do not
            shapes = [x.shape if known else (None, None, *x.shape[2:])[: len(x.shape)] for x in known or given]
            wanted = [tf.TensorSpec(shape, x.dtype) for shape, x in zip(shapes, known or given, strict=True)]
            traced.append(tf.function(call, input_signature=[wanted if len(wanted) > 1 else wanted[0]]))
        return traced[0](inputs)

    kept["_traced_call"] = ask
    return ask


class Progress(keras.callbacks.Callback):
    """One bar per training: epochs done and the watched value."""

    def __init__(self, title: str, epochs: int, monitor: str):
        super().__init__()
        self.title, self.epochs, self.watched = title, epochs, monitor

    def on_train_begin(self, logs=None):
        self.bar = progress_bar(total=self.epochs, desc=self.title or "training", unit="epoch", mininterval=2)

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.watched, (logs or {}).get("loss", np.nan))
        self.bar.set_postfix_str(f"{self.watched} {value:.4f}", refresh=False)
        self.bar.update()

    def on_train_end(self, logs=None):
        self.bar.close()


def class_weights(labels: np.ndarray, n_classes: int) -> dict[int, float]:
    """Weights that make every class count the same.

    Parameters
    ----------
    labels : int (n,), in 0 … n_classes - 1

    Returns
    -------
    dict class -> weight whose mean over the labels is 1; absent classes get 0
    """
    present = np.unique(labels)
    balanced = compute_class_weight("balanced", classes=present, y=labels)
    return dict.fromkeys(range(n_classes), 0.0) | dict(zip(present.tolist(), balanced.tolist(), strict=True))


def code_of(*objects: Any) -> str:
    """Content of the modules that define `objects`, for a model's key."""
    return content_key(*[sys.modules[obj.__module__] for obj in objects])


def best_epoch(history: pd.DataFrame, monitor: str = "val_loss", mode: str = "min") -> int:
    """Number of the epoch whose weights were kept, counted from 1."""
    values = history[monitor].to_numpy()
    return int(np.argmin(values) if mode == "min" else np.argmax(values)) + 1
