"""The one fit loop: seeds, early stopping, finished models kept, progress."""

import inspect
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from ser_utils.progress import progress_bar
from ser_utils.workspace import atomic_path, content_key, seal, sealed


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it came about.

    model : keras.Model with the weights of the best epoch
    history : DataFrame, one row per epoch, columns as Keras names them
    seconds : wall time of the training, also when the model was found finished
    """

    model: keras.Model
    history: pd.DataFrame
    seconds: float
    path: Path


def set_seed(seed):
    """Seed Python, NumPy and the backend, and make TensorFlow's operations repeatable."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def fit_or_load(
    path,
    build,
    train,
    *,
    key,
    seed,
    epochs,
    validation=None,
    patience=None,
    monitor="val_loss",
    mode="min",
    batch_size=None,
    callbacks=(),
    title="",
    **fit_options,
):
    """Train a model, or open it if exactly this training was finished before.

    path : where the model goes, ending in .keras; written atomically, with its history and checksum
    build : function () -> compiled keras.Model
    train : (inputs, targets) arrays, or a keras PyDataset; validation : the same, from training data only
    key : content_key of what the result depends on: data, folds, settings and `code_of` the model (seed,
        epochs, options and the backend are added here)
    patience : epochs without a better `monitor` before stopping; the best epoch's weights are restored
    fit_options : passed to keras.Model.fit, e.g. class_weight
    Returns Fitted. A damaged or different model at `path` is trained again.
    """
    path = Path(path)
    recipe = {**{k: v for k, v in fit_options.items() if k != "steps_per_epoch"}, "epochs": epochs}
    recipe |= {"patience": patience, "monitor": monitor, "batch_size": batch_size, "seed": seed}
    key = content_key(
        key, repr(sorted(recipe.items())), keras.backend.backend(), inspect.getsource(fit_or_load)
    )
    if (facts := sealed(path)) and facts["key"] == key:
        model = keras.saving.load_model(path, safe_mode=True)
        return Fitted(model, pd.DataFrame(facts["history"]), facts["seconds"], path)

    keras.utils.clear_session()
    set_seed(seed)
    model = build()
    callbacks = [Progress(title, epochs, monitor), *callbacks]
    if patience is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping(monitor, mode=mode, patience=patience, restore_best_weights=True)
        )
    inputs = {"x": train} if isinstance(train, keras.utils.PyDataset) else {"x": train[0], "y": train[1]}
    start = time.perf_counter()
    log = model.fit(
        **inputs, validation_data=validation, epochs=epochs, batch_size=batch_size, callbacks=callbacks, verbose=0,
        **fit_options,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    history = {name: [float(value) for value in values] for name, values in log.history.items()}
    with atomic_path(path) as temporary:
        model.save(temporary)
    seal(path, key=key, history=history, seconds=seconds)
    return Fitted(model, pd.DataFrame(history), seconds, path)


def compile_for_lengths(model, optimizer, loss, **options):
    """Compile a model of clips of many lengths so that TensorFlow traces it once. Returns the model.

    options : of keras.Model.compile
    """
    # XLA compiles anew for each length: TensorFlow's graph does not
    model.compile(
        optimizer, loss, jit_compile=False if keras.backend.backend() == "tensorflow" else "auto", **options
    )
    model.optimizer.build(model.trainable_variables)  # or the first step builds it, and is traced twice
    return model


class Progress(keras.callbacks.Callback):
    """One bar per training: epochs done and the watched value."""

    def __init__(self, title, epochs, monitor):
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


def class_weights(labels, n_classes):
    """Weights that make every class count the same; absent classes get 0.

    labels : int (n,), in 0 … n_classes - 1
    Returns a dict class -> weight whose mean over the labels is 1.
    """
    counts = np.bincount(labels, minlength=n_classes)
    present = (counts > 0).sum()
    return {label: len(labels) / (present * count) if count else 0.0 for label, count in enumerate(counts)}


def code_of(*objects):
    """Content of the modules that define `objects`, for a model's key."""
    return content_key(*[sys.modules[obj.__module__] for obj in objects])


def best_epoch(history, monitor="val_loss", mode="min"):
    """Number of the epoch whose weights were kept, counted from 1."""
    values = history[monitor].to_numpy()
    return int(np.argmin(values) if mode == "min" else np.argmax(values)) + 1
