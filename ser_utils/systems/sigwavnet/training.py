"""Networks on raw waveforms, trained fold by fold: one task per model and fold, on whatever engine."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from ser_utils.corpora.loading import EMOTIONS
from ser_utils.features.store import build_store, load_store
from ser_utils.systems.sigwavnet.cnn_n_gru import CnnGru
from ser_utils.systems.sigwavnet.wavelet import SigWavNet
from ser_utils.training.fit import class_weights, code_of, compile_for_lengths, fit_or_load
from ser_utils.training.folds import (
    ClipBatches,
    UnweightedAverageRecall,
    ask,
    epochs_of,
    run_folds,
    save_result,
)
from ser_utils.workspace import content_key, read_json

NETWORKS = {"sigwavnet": SigWavNet, "cnn_n_gru": CnnGru}
OPTIMIZERS = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}
SCHEDULES = ("step", "cosine", "constant")


@dataclass(frozen=True)
class WaveformTask:
    """One network to train and test: all that a worker needs to know.

    system : "sigwavnet" or "cnn_n_gru"; name : of the model's file
    store : folder of a feature store of waveforms; fold : one fold of a fold table
    settings : a table of a profile; those the network's constructor knows go there
    models : folder; seed : int
    """

    system: str
    name: str
    store: Path
    fold: pd.DataFrame
    settings: dict
    models: Path
    seed: int = 0


def waveform_store(folder, table, settings):
    """A feature store of waveforms at settings["sample_rate_hz"]; settings["longest_s"] cuts them, 0 does not."""
    longest = settings["longest_s"]

    def extract(
        signal, rate
    ):  # defined here, it travels to the workers without TensorFlow being imported there
        return signal[: int(longest * rate) or None]

    rate = settings["sample_rate_hz"]
    return build_store(
        folder, table, extract, key=f"waveforms {longest}", sample_rate_hz=rate, title="waveforms"
    )


def build_network(system, n_classes, settings, *, n_steps=1, weights=None, mean=0.0, std=1.0):
    """A compiled network of `system`; every setting named by its constructor, and those of training, is used.

    n_steps : training steps an epoch; weights : dict class -> weight
    The loss is the focal loss of each clip, weighted by its class, and then averaged.
    """
    model = _network(system, n_classes, settings, mean=mean, std=std)
    model.build()
    alpha = [weights[label] for label in range(n_classes)] if weights else 1.0
    optimizer = OPTIMIZERS[settings["optimizer"]]
    return compile_for_lengths(
        model,
        optimizer(_learning_rate(settings, n_steps), weight_decay=settings["weight_decay"]),
        keras.losses.CategoricalFocalCrossentropy(alpha=alpha, gamma=settings["gamma"], from_logits=True),
        metrics=[UnweightedAverageRecall(n_classes)],
    )


def _network(system, n_classes, settings, **options):
    known = inspect.signature(NETWORKS[system]).parameters
    chosen = {name: value for name, value in settings.items() if name in known}
    return NETWORKS[system](n_classes, **chosen, **options)


def _learning_rate(settings, n_steps):
    rate, schedule = settings["learning_rate"], settings["schedule"]
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}. Received: {schedule=}")
    if schedule == "step":  # a tenth every `decay_epochs`
        steps = settings["decay_epochs"] * n_steps
        return keras.optimizers.schedules.ExponentialDecay(rate, steps, 0.1, staircase=True)
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(rate, epochs_of(settings, n_steps) * n_steps)
    return rate


@dataclass(frozen=True)
class FoldData:
    """One fold's clips: batches of every role, classes, and what was learned from the training part."""

    batches: dict
    tables: dict
    classes: list
    weights: dict
    mean: float
    std: float


def fold_data(task):
    """Clips of one fold, dealt into batches by role; mean, deviation and class weights are of training alone."""
    store = load_store(task.store)
    roles = task.fold.set_index("utterance_id")["role"]
    table = store.table[store.table["utterance_id"].isin(roles.index)]
    classes = [emotion for emotion in EMOTIONS if emotion in set(table["emotion"])]
    targets = np.eye(len(classes), dtype="float32")
    batches, tables, signals, labels = {}, {}, {}, {}
    for role, rows in table.groupby(table["utterance_id"].map(roles)):
        places = zip(rows["first_row"], rows["n_rows"], strict=True)
        signals[role] = [store.array[first : first + count] for first, count in places]
        labels[role] = rows["emotion"].map(classes.index).to_numpy()
        options = {"batch_size": task.settings["batch_size"], "shuffle": role == "train", "seed": task.seed}
        batches[role] = ClipBatches(signals[role], targets[labels[role]], **options)
        if keras.backend.backend() == "jax":  # one compilation per length: quarters of a second, not samples
            batches[role].multiple = task.settings["sample_rate_hz"] // 4
        tables[role] = rows
    n = sum(len(signal) for signal in signals["train"])
    mean = sum(signal.sum(dtype=np.float64) for signal in signals["train"]) / n
    variance = sum(np.square(signal - mean, dtype=np.float64).sum() for signal in signals["train"]) / n
    weights = class_weights(labels["train"], len(classes))
    return FoldData(batches, tables, classes, weights, mean, float(np.sqrt(variance)))


def train_waveforms(task, callbacks=()):
    """Train the network of one fold from new weights, or open it if it was finished before, and test it.

    The weights of the epoch with the best validation UAR are kept.
    Returns a dict: predictions (table), history (DataFrame), seconds, parameters, ms_per_utterance, path.
    """
    options, data = task.settings, fold_data(task)
    train, test = data.batches["train"], data.batches["test"]
    _refuse_short_clips(task, data)
    fitted = fit_or_load(
        Path(task.models) / f"{task.name}.keras",
        lambda: build_network(
            task.system, len(data.classes), options, n_steps=len(train), weights=data.weights,
            mean=data.mean, std=data.std,
        ),
        train,
        key=content_key(
            read_json(Path(task.store) / "made_from.json"), task.fold, options, task.system,
            code_of(NETWORKS[task.system], ClipBatches, WaveformTask),
        ),
        validation=data.batches["validation"],
        seed=task.seed, epochs=epochs_of(options, len(train)), patience=options["patience"], monitor="val_uar", mode="max",
        callbacks=callbacks, title=task.name,
    )  # fmt: skip
    predictions, milliseconds = ask(
        lambda: _predict(fitted.model, test), data.tables["test"], data.classes, task.fold
    )
    return {
        "predictions": predictions, "history": fitted.history, "seconds": fitted.seconds, "path": fitted.path,
        "parameters": fitted.model.count_params(), "ms_per_utterance": milliseconds,
    }  # fmt: skip


def _refuse_short_clips(task, data):
    network = _network(task.system, len(data.classes), task.settings)
    shortest = min(batches.lengths.min() for batches in data.batches.values())
    if shortest < network.minimum_samples:
        raise ValueError(
            f"{task.system} of these settings needs clips of at least {network.minimum_samples} samples, the "
            f"shortest has {shortest}: choose fewer levels (a smaller n) or a higher sample_rate_hz."
        )


def _predict(model, batches):
    """Probabilities (n_clips, n_classes) of every clip, the last incomplete batch included, in their own order."""
    return np.exp(model.predict(batches, verbose=0))[np.argsort(batches.order)]


def run_waveforms(workspace, plan, *, jobs=None, engine=None):
    """Train and test side by side, one task per model and fold, and save what was predicted.

    plan : dict (system, model, protocol) -> (fold table, its audit, list of WaveformTask)
    Returns a dict of the same keys -> dict of predictions (table), histories and paths (one per fold),
    parameters, seconds_to_train (of all folds together), ms_per_utterance.
    """
    tasks = {key: own for key, (_, _, own) in plan.items()}
    results = run_folds(tasks, train=train_waveforms, title="waveform networks", jobs=jobs, engine=engine)
    for (system, model, protocol), (folds, audit, _) in plan.items():
        name = {"system": system, "model": model, "protocol": protocol, "folds": folds.attrs["folds"]}
        save_result(workspace, results[system, model, protocol], audit, **name)
    return results
