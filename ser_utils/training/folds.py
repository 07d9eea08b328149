"""One loop over models and folds, whatever they hear: frames, embeddings or waveforms of whole utterances."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from ser_utils.corpora import emotions_in_order
from ser_utils.features.augmentation import mask_bands, mask_frames
from ser_utils.features.store import FeatureStore, load_store
from ser_utils.training.fit import best_epoch, class_weights, code_of, compile_for_lengths, compiled, fit_or_load
from ser_utils.training.parallel import run_tasks
from ser_utils.workspace import Workspace, content_key, read_json

SCALES = ("training", "corpus", "speaker", "utterance", "clip")
COSTS = ("parameters", "seconds_to_train", "ms_per_utterance")


def clip_scale(
    clips: Sequence[np.ndarray], table: pd.DataFrame, how: str, training: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation that put each clip on a common scale.

    Parameters
    ----------
    clips : each (n_frames, n_features)
    table : their rows of the utterance table
    how : "training" takes those of all training clips, per feature; "corpus" those of each corpus's training
        clips; "speaker" those of all clips of a speaker, test clips included (it uses no label, but needs
        several clips of whoever is to be recognised); "utterance" each clip's own; "clip" one number for all
        features of each clip, as the spectrogram CNN's source has it
    training : bool (n_clips,)

    Returns
    -------
    mean and standard deviation, float32 (n_clips, n_features) each

    Raises
    ------
    ValueError : for an unknown scale, and where a corpus has no training clip
    """
    if how not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}. Received: {how!r}")
    if how in ("utterance", "clip"):
        axis = 0 if how == "utterance" else None
        moments = [np.reshape([np.mean(clip, axis), np.std(clip, axis) + 1e-3], (2, -1)) for clip in clips]
        moments = np.stack([np.broadcast_to(pair, (2, clips[0].shape[1])) for pair in moments])
        return moments[:, 0].astype(np.float32), moments[:, 1].astype(np.float32)
    speakers = table["corpus"] + "/" + table["speaker"]
    groups = {"training": pd.Series("", table.index), "corpus": table["corpus"], "speaker": speakers}[how]
    fitted = np.ones(len(clips), bool) if how == "speaker" else np.asarray(training, bool)
    scale = {}
    for group in groups.unique():
        members = np.flatnonzero((groups == group) & fitted)
        if not len(members):
            raise ValueError(f"No training clip to scale {how} {group!r} by: use scale='training'.")
        scale[group] = _moments([clips[i] for i in members])
    moments = np.stack([scale[group] for group in groups]).astype(np.float32)
    return moments[:, 0], moments[:, 1]


def _moments(clips):
    n = sum(map(len, clips))
    mean = sum(clip.sum(axis=0, dtype=np.float64) for clip in clips) / n
    square = sum(np.square(clip - mean).sum(axis=0) for clip in clips) / n
    return np.stack([mean, np.sqrt(square) + 1e-3])


class ClipBatches(keras.utils.PyDataset):
    """Batches of clips of like lengths, each padded with zeros to its own longest.

    Parameters
    ----------
    clips : each float (n_frames, n_features), or (n_samples,); arrays or views of a feature store
    targets : (n_clips, ...), or None
    scale : (mean, deviation) as `clip_scale` gives them; None leaves the clips as they are
    batch_size : 1 gives each clip at its own length, nothing padded
    shuffle : new batches every epoch; False sorts by length, see `order`
    jitter : of shuffled clips' lengths, standard deviation of its logarithm: 0.1 brings lengths together that are
        alike within a tenth, 10 makes batches of any lengths
    resized_frames : every clip is brought to so many frames, see `resize_clip`; 0 keeps its length
    augment : function (frames, rng) -> frames, on the scaled clip
    multiple : lengths are padded to multiples of it on JAX, which compiles once per shape

    Each batch is ((features (batch, frames, n_features), n_frames (batch,)), targets), resized without
    n_frames. Its content depends on seed, epoch and place alone.
    """

    def __init__(
        self,
        clips: Sequence[np.ndarray],
        targets: np.ndarray | None = None,
        *,
        scale: tuple[np.ndarray, np.ndarray] | None = None,
        batch_size: int = 32,
        shuffle: bool = False,
        jitter: float = 0.1,
        resized_frames: int = 0,
        augment: Callable | None = None,
        multiple: int = 32,
        seed: int = 0,
    ):
        super().__init__()
        self.clips, self.targets, self.scale, self.batch_size = clips, targets, scale, batch_size
        self.shuffle, self.resized_frames, self.augment = shuffle, resized_frames, augment
        self.seed, self.epoch, self.jitter = seed, 0, jitter
        self.lengths = np.array([len(clip) for clip in clips])
        varies = batch_size > 1 and not resized_frames
        self.multiple = multiple if keras.backend.backend() == "jax" and varies else 1
        self._deal()

    @property
    def order(self) -> np.ndarray:
        """Which clip each row of all batches is, int (n_clips,)."""
        return np.concatenate(self.batches)

    def __len__(self):
        return len(self.batches)

    def on_epoch_end(self):
        self.epoch += 1
        self._deal()

    def _deal(self):
        rng = np.random.default_rng([self.seed, self.epoch])
        jitter = np.exp(rng.normal(0, self.jitter, len(self.lengths))) if self.shuffle else 1
        order = np.argsort(self.lengths * jitter, kind="stable")
        self.batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        if self.shuffle:
            self.batches = [self.batches[i] for i in rng.permutation(len(self.batches))]
        # TensorFlow takes a dimension that the first two batches share for fixed: they are made to differ
        frames = np.array([self.lengths[batch].max() for batch in self.batches])
        if (other := np.flatnonzero(frames != frames[0])).size:
            self.batches[1], self.batches[other[0]] = self.batches[other[0]], self.batches[1]
        self.one_more = not other.size and np.ptp(self.lengths) > 0

    def __getitem__(self, place):
        batch = self.batches[place]
        clips = [self._clip(i, np.random.default_rng([self.seed, self.epoch, i])) for i in batch]
        n_frames = np.array([len(clip) for clip in clips], np.int32)
        longest = -(-n_frames.max() // self.multiple) * self.multiple + (place == 1 and self.one_more)
        padded = np.zeros((len(clips), longest, *clips[0].shape[1:]), np.float32)
        for row, clip in zip(padded, clips, strict=True):
            row[: len(clip)] = clip
        inputs = padded if self.resized_frames else (padded, n_frames)
        return (inputs,) if self.targets is None else (inputs, self.targets[batch])

    def _clip(self, i, rng):
        clip = np.asarray(self.clips[i], np.float32)
        if self.scale is not None:
            clip = (clip - self.scale[0][i]) / self.scale[1][i]
        if self.resized_frames:
            clip = resize_clip(clip, self.resized_frames)
        return clip if self.augment is None else self.augment(clip, rng)


def resize_clip(clip: np.ndarray, n_frames: int) -> np.ndarray:
    """Bring a clip (any number of frames, n_features) to `n_frames`.

    A shorter clip gets zeros behind. A longer one is squeezed by linear interpolation over time, so that it
    seems spoken faster.
    """
    if len(clip) <= n_frames:
        return np.pad(clip, ((0, n_frames - len(clip)), (0, 0)))
    place = np.linspace(0, len(clip) - 1, n_frames)
    below = np.minimum(place.astype(int), len(clip) - 2)
    share = (place - below)[:, None].astype(clip.dtype)
    return clip[below] * (1 - share) + clip[below + 1] * share


def predict_clips(model: keras.Model, batches: ClipBatches) -> np.ndarray:
    """Probabilities float32 (n_clips, n_classes) in the clips' own order, from unshuffled `batches`."""
    if keras.backend.backend() == "tensorflow":
        inputs = (batches[place][0] for place in range(len(batches)))
        answers = (compiled(model)(list(x) if isinstance(x, tuple) else x) for x in inputs)
        rows = np.concatenate([ops.convert_to_numpy(answer) for answer in answers])
    else:
        rows = model.predict(batches, verbose=0)
    return rows[np.argsort(batches.order)]


@keras.saving.register_keras_serializable(package="ser_utils")
class UnweightedAverageRecall(keras.metrics.Metric):
    """Mean recall over the classes that occurred, of one-hot truth (batch, n_classes)."""

    def __init__(self, n_classes: int, name: str = "uar", **kwargs):
        super().__init__(name=name, **kwargs)
        self.n_classes = n_classes
        self.hits = self.add_variable((n_classes,), "zeros", name="hits")
        self.total = self.add_variable((n_classes,), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        truth, prediction = ops.argmax(y_true, axis=-1), ops.argmax(y_pred, axis=-1)
        members = ops.one_hot(truth, self.n_classes)
        right = ops.cast(truth == prediction, members.dtype)
        self.total.assign(self.total + ops.sum(members, axis=0))
        self.hits.assign(self.hits + ops.sum(members * right[:, None], axis=0))

    def result(self):
        occurred = ops.sum(ops.cast(self.total > 0, "float32"))
        return ops.sum(self.hits / ops.maximum(self.total, 1)) / ops.maximum(occurred, 1)

    def get_config(self):
        return super().get_config() | {"n_classes": self.n_classes}


class EpochSeconds(keras.callbacks.Callback):
    """Puts the time that each epoch trained, validation not counted, into the history as `seconds`."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.perf_counter() - self.start

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = self.seconds


@dataclass(frozen=True)
class FoldData:
    """The clips of one fold.

    Parameters
    ----------
    clips : what the network hears of each clip, (rows, n_features) or (n_samples,)
    table : their rows of the utterance table, with `role`: train, validation or test
    scale : as `clip_scale` gives it, or None
    """

    clips: list[np.ndarray]
    table: pd.DataFrame
    scale: tuple[np.ndarray, np.ndarray] | None

    @property
    def classes(self) -> list[str]:
        return emotions_in_order(self.table["emotion"])

    @property
    def watched(self) -> str:
        """The role that chooses the epoch: test where the protocol has no validation, which its folds say."""
        return "validation" if (self.table["role"] == "validation").any() else "test"

    def labels(self, role: str) -> np.ndarray:
        """Places in `classes`, int (n_clips of the role,)."""
        return self.table.loc[self.table["role"] == role, "emotion"].map(self.classes.index).to_numpy()

    def signals(self, role: str) -> list[np.ndarray]:
        """The clips of one role."""
        return [self.clips[i] for i in np.flatnonzero(self.table["role"] == role)]

    def batches(self, role: str, **options: Any) -> ClipBatches:
        """Batches of the clips of one role, of training in new order every epoch; options as of `ClipBatches`."""
        members = (self.table["role"] == role).to_numpy()
        scale = self.scale and tuple(moment[members] for moment in self.scale)
        targets = np.eye(len(self.classes), dtype="float32")[self.labels(role)]
        if role != "train":  # two batches at least: of one, TensorFlow would take the length for fixed
            options["batch_size"] = min(options.get("batch_size", 32), -(-int(members.sum()) // 2))
        return ClipBatches(self.signals(role), targets, scale=scale, shuffle=role == "train", **options)


@dataclass(frozen=True)
class FoldTask:
    """One model to train and test: all that a worker process needs to know.

    This one hears frames. A system that hears something else says in a subclass what it does differently.

    Parameters
    ----------
    name : of the model's file
    network : importable function, or a functools.partial of one: (n_classes, n_features) -> keras.Model
    store : folder of a feature store
    fold : one fold of a fold table; None in a model that `tasks_of` gives its folds
    settings : scale, batch_size, epochs, least_updates (more epochs where they make fewer steps in all: few
        clips need as many steps as many), patience, learning_rate, one_cycle, weight_decay, label_smoothing,
        mask_bands, mask_frames, and resized_frames (0: clips keep their length)
    models : folder
    copies : folders of the stores of artificial copies, used for training alone
    """

    name: str
    network: Any
    store: Path
    fold: pd.DataFrame | None
    settings: dict[str, Any]
    models: Path
    seed: int = 0
    copies: tuple = ()

    def stores(self, roles: pd.Series) -> list[tuple[Path, pd.Series]]:
        """Folders of feature stores, and the roles (by utterance) of those of their clips that are used."""
        return [(self.store, roles), *((copy, roles[roles == "train"]) for copy in self.copies)]

    def clips(self, store: FeatureStore, rows: pd.DataFrame) -> list[np.ndarray]:
        """What the network hears of the utterances in `rows`, in their order."""
        return [store.array[i : i + n] for i, n in zip(rows["first_row"], rows["n_rows"], strict=True)]

    def scale(self, clips: list, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
        return clip_scale(clips, table, self.settings["scale"], table["role"] == "train")

    def batches(self, data: FoldData, role: str) -> ClipBatches:
        options = self.settings
        sizes = {"batch_size": options["batch_size"], "augment": _masks(options)} if role == "train" else {}
        return data.batches(role, seed=self.seed, resized_frames=options["resized_frames"], **sizes)

    def build(self, data: FoldData, n_batches: int) -> keras.Model:
        """The compiled network; n_batches : steps of an epoch."""
        options = self.settings
        model = self.network(len(data.classes), data.clips[0].shape[1])
        return compile_for_lengths(
            model,
            keras.optimizers.AdamW(_rate(options, n_batches), weight_decay=options["weight_decay"]),
            keras.losses.CategoricalCrossentropy(label_smoothing=options["label_smoothing"]),
            metrics=[UnweightedAverageRecall(len(data.classes))],
        )

    def built_from(self, data: FoldData, n_batches: int) -> tuple:
        """All that `build` depends on, for `content_key`."""
        options = [self.settings[key] for key in ("learning_rate", "weight_decay", "label_smoothing")]
        n_steps = n_batches * epochs_of(self.settings, n_batches) if self.settings["one_cycle"] else 0
        return network_key(self.network), len(data.classes), data.clips[0].shape[1:], options, n_steps

    def fit_options(self, data: FoldData) -> dict[str, Any]:
        """Options of `fit_or_load`: what depends on the data, and `monitor`, `mode` and callbacks where they are others."""
        weights = class_weights(data.labels("train"), len(data.classes))
        return {"class_weight": weights}

    def predict(self, model: keras.Model, batches: ClipBatches) -> np.ndarray:
        """Probabilities (n_clips, n_classes)."""
        return predict_clips(model, batches)

    def learned_from(self, data: FoldData) -> dict[str, Any]:
        """The roles that scaler, encoder, augmentation and choice of epoch were given, for `audit_leakage`."""
        scaler = {"speaker": ["train", "validation", "test"], "utterance": [], "clip": []}
        augmented = self.copies or self.settings["mask_bands"] or self.settings["mask_frames"]
        return {
            "scaler": scaler.get(self.settings["scale"], ["train"]),
            "encoder": [],
            "augmentation": ["train"] if augmented else [],
            "selection": [data.watched],
        }

    def costs(self, model: keras.Model, milliseconds: float) -> dict[str, float]:
        """What the model costs, what stands before it included; milliseconds : of the model, per utterance."""
        return {"parameters": model.count_params(), "ms_per_utterance": milliseconds}


def fold_data(task: FoldTask) -> FoldData:
    """The clips of a task's fold; the scale is of training alone, unless the task says otherwise."""
    roles = task.fold.set_index("utterance_id")["role"]
    clips, tables = [], []
    for folder, role_of in task.stores(roles):
        store = load_store(folder)
        rows = store.table[store.table["utterance_id"].isin(role_of.index)]
        clips += task.clips(store, rows)
        tables.append(rows.assign(role=rows["utterance_id"].map(role_of)))
    table = pd.concat(tables, ignore_index=True)
    return FoldData(clips, table, task.scale(clips, table))


def train_fold(task: FoldTask, callbacks: Sequence[keras.callbacks.Callback] = ()) -> dict[str, Any]:
    """Train the model of one fold, or open it if it was finished before, and test it.

    The weights of the epoch with the best UAR on validation are kept, unless the task's `fit_options` say otherwise.

    Returns
    -------
    dict of predictions (table), history (DataFrame), kept (the epoch whose weights were), seconds, path,
    parameters, ms_per_utterance, fold (its number) and learned_from
    """
    data, options = fold_data(task), task.settings
    train, watched, test = (task.batches(data, role) for role in ("train", data.watched, "test"))
    built_from = content_key(task.built_from(data, len(train)), code_of(type(task), FoldTask))
    fitting = {"monitor": "val_uar", "mode": "max", "callbacks": ()} | task.fit_options(data)
    callbacks = [EpochSeconds(), *fitting.pop("callbacks"), *callbacks]
    fitted = fit_or_load(
        Path(task.models) / f"{task.name}.keras",
        lambda: task.build(data, len(train)),
        train,
        validation=watched,
        seed=task.seed,
        reuse=built_from,
        title=task.name,
        key=content_key(built_from, options, _content_of(task, data)),
        epochs=epochs_of(options, len(train)),
        patience=options["patience"],
        learned_from=task.learned_from(data),
        callbacks=callbacks,
        **fitting,
    )
    predictions, milliseconds = _test(lambda: task.predict(fitted.model, test), data, task.fold)
    return {
        "predictions": predictions,
        "history": fitted.history,
        "kept": best_epoch(fitted.history, fitting["monitor"], fitting["mode"]),
        "seconds": fitted.seconds,
        "path": fitted.path,
        "fold": int(task.fold["fold"].iloc[0]),
        "learned_from": fitted.learned_from,
        **task.costs(fitted.model, milliseconds),
    }


def _content_of(task, data):
    """What a model learns from: the stores' recordings and settings, who is on which side, and every label."""
    made_from = [read_json(Path(folder) / "made_from.json") for folder in (task.store, *task.copies)]
    rows = data.table[["utterance_id", "corpus", "speaker", "emotion", "role"]]
    return content_key(made_from, task.fold, rows)


def _test(predict, data, fold):
    """The table of predictions, and milliseconds per clip: asked twice, as the first time may compile."""
    rows = data.table[data.table["role"] == "test"]
    predict()
    start = time.perf_counter()
    probabilities = predict()
    milliseconds = 1000 * (time.perf_counter() - start) / len(rows)
    predictions = rows[["utterance_id", "speaker", "emotion"]].assign(
        start_ms=np.nan,
        prediction=np.array(data.classes)[probabilities.argmax(axis=1)],
        fold=int(fold["fold"].iloc[0]),
        **{f"p_{emotion}": probabilities[:, i] for i, emotion in enumerate(data.classes)},
    )
    return predictions, milliseconds


def epochs_of(options: dict[str, Any], n_batches: int) -> int:
    """Epochs of a training: those of its settings, or more where they make fewer than `least_updates` steps."""
    return max(options["epochs"], -(-options.get("least_updates", 0) // n_batches))


def _masks(options):
    """SpecAugment: two masks of each kind, at the training mean; the lowest of a clip's MFCC is no silence."""
    bands, frames = options["mask_bands"], options["mask_frames"]
    if not bands and not frames:
        return None

    def masked(clip, rng):
        for _ in range(2):
            clip = mask_bands(clip, rng, width=(0, bands), floor=0.0)
            clip = mask_frames(clip, rng, width=(0, frames), floor=0.0)
        return clip

    return masked


def _rate(options, n_batches):
    rate = options["learning_rate"]
    if not options["one_cycle"]:
        return rate
    # up in the first fifth, then down a cosine to zero (Smith & Topin 2018)
    n_steps = epochs_of(options, n_batches) * n_batches
    up = n_steps // 5
    return keras.optimizers.schedules.CosineDecay(rate / 25, n_steps - up, warmup_target=rate, warmup_steps=up)


def network_key(network: Callable) -> str:
    """Content of a FoldTask's network, equal in every process: its `repr` tells where in memory it lies."""
    network = functools.partial(network)  # of a partial: the same one
    code = code_of(network.func, ClipBatches)
    return content_key(network.func.__qualname__, network.args, network.keywords, code)


def tasks_of(model: FoldTask, folds: pd.DataFrame, protocol: str) -> list[FoldTask]:
    """One task per fold of a fold table, the model's files named after protocol and fold."""
    return [
        replace(model, name=f"{model.name}-{protocol}-{number}", fold=fold.reset_index(drop=True))
        for number, fold in folds.groupby("fold")
    ]


def run_folds(
    plan: dict[Any, list[FoldTask]],
    *,
    train: Callable = train_fold,
    title: str = "",
    jobs: int | None = None,
    engine: str | None = None,
) -> dict[Any, dict[str, Any]]:
    """Train and test models side by side, one task per model and fold.

    Parameters
    ----------
    plan : list of tasks, one per fold, under the name of each model
    train : function of a task
    jobs, engine : as of `parallel.run_tasks`

    Returns
    -------
    dict of the same names -> dict of predictions (table), histories, kept and paths (one per fold), parameters,
    seconds_to_train (of all folds together), ms_per_utterance, and learned_from, which `audit_leakage` takes
    as `fit`: {"scaler": {fold: roles}, …}
    """
    outcomes = iter(
        run_tasks(train, [task for tasks in plan.values() for task in tasks], jobs=jobs, engine=engine, progress=title)
    )
    return {name: _joined([next(outcomes) for _ in tasks]) for name, tasks in plan.items()}


def _joined(outcomes):
    """The folds of one model together."""
    kinds = outcomes[0]["learned_from"]
    return {
        "predictions": pd.concat([outcome["predictions"] for outcome in outcomes], ignore_index=True),
        "histories": [outcome["history"] for outcome in outcomes],
        "kept": [outcome["kept"] for outcome in outcomes],
        "paths": [outcome["path"] for outcome in outcomes],
        "parameters": outcomes[0]["parameters"],
        "seconds_to_train": sum(outcome["seconds"] for outcome in outcomes),
        "ms_per_utterance": float(np.mean([outcome["ms_per_utterance"] for outcome in outcomes])),
        "learned_from": {
            kind: {outcome["fold"]: outcome["learned_from"][kind] for outcome in outcomes} for kind in kinds
        },
    }


def averaged(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Several models asked at once: the mean of their probabilities, the sum of their costs.

    Parameters
    ----------
    results : what `run_folds` gives for each model, on the same folds

    Returns
    -------
    dict of the same kind, without histories and paths
    """
    first = results[0]["predictions"]
    names = [name for name in first if name.startswith("p_")]
    keys = ["fold", "utterance_id"]
    order = first.set_index(keys).index
    probabilities = np.mean([result["predictions"].set_index(keys).loc[order, names] for result in results], axis=0)
    classes = np.array([name.removeprefix("p_") for name in names])
    columns = dict(zip(names, probabilities.T, strict=True))
    predictions = first.assign(prediction=classes[probabilities.argmax(axis=1)], **columns)
    costs = {key: sum(result[key] for result in results) for key in COSTS}
    learned_from = results[0].get("learned_from", {})
    return {"predictions": predictions, "histories": [], "paths": [], "learned_from": learned_from, **costs}


def save_result(workspace: Workspace, result: dict[str, Any], audit: pd.DataFrame, **name: str) -> None:
    """Save what a model of `run_folds` predicted, its audit and its costs; name : see `Workspace`."""
    workspace.save_audit(audit, **name)
    if set(COSTS) <= result.keys():
        workspace.save_costs({key: result[key] for key in COSTS}, **name)
    workspace.save_predictions(result["predictions"], **name)
