"""Whole utterances for networks: their frames, one scale, batches of like lengths, and a model for every fold."""

import functools
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops

from ser_utils.corpora.loading import EMOTIONS
from ser_utils.features.augmentation import mask_bands, mask_frames
from ser_utils.features.store import load_store
from ser_utils.training.fit import class_weights, code_of, compile_for_lengths, fit_or_load
from ser_utils.training.parallel import run_tasks
from ser_utils.workspace import content_key, read_json

SCALES = ("training", "corpus", "speaker", "utterance", "clip")


def clip_scale(clips, table, how, training):
    """Mean and standard deviation that put each clip on a common scale.

    clips : sequence of (n_frames, n_features); table : their rows of the utterance table
    how : "training" those of all training clips, per feature; "corpus" of each corpus's training clips;
        "speaker" of all clips of a speaker, test speakers included: it uses no label, but wants several clips
        of whoever is to be recognised (transductive); "utterance" each clip's own; "clip" one number for all
        features of each clip, as the spectrogram CNN's source has it
    training : bool (n_clips,)
    Returns two float32 (n_clips, n_features). Raises ValueError where a corpus has no training clip.
    """
    if how not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}. Received: {how!r}")
    if how in ("utterance", "clip"):
        axis = 0 if how == "utterance" else None
        both = [[np.mean(clip, axis), np.std(clip, axis) + 1e-3] for clip in clips]
        both = np.stack([np.broadcast_to(np.reshape(one, (2, -1)), (2, clips[0].shape[1])) for one in both])
        return both[:, 0].astype(np.float32), both[:, 1].astype(np.float32)
    of_speaker = table["corpus"] + "/" + table["speaker"]
    groups = {"training": pd.Series("", table.index), "corpus": table["corpus"], "speaker": of_speaker}[how]
    fitted = np.ones(len(clips), bool) if how == "speaker" else np.asarray(training, bool)
    scale = {}
    for group in groups.unique():
        chosen = np.flatnonzero((groups == group) & fitted)
        if not len(chosen):
            raise ValueError(f"No training clip to scale {how} {group!r} by: use scale='training'.")
        n = sum(len(clips[i]) for i in chosen)
        mean = sum(clips[i].sum(axis=0, dtype=np.float64) for i in chosen) / n
        square = sum(np.square(clips[i] - mean).sum(axis=0) for i in chosen) / n
        scale[group] = np.stack([mean, np.sqrt(square) + 1e-3])
    both = np.stack([scale[group] for group in groups]).astype(np.float32)
    return both[:, 0], both[:, 1]


class ClipBatches(keras.utils.PyDataset):
    """Batches of clips of like lengths, each padded with zeros to its own longest.

    clips : sequence of float (n_frames, n_features), arrays or views of a feature store
    targets : (n_clips, ...) or None
    scale : (mean, spread) as `clip_scale` gives them; None leaves the clips as they are
    batch_size : 1 gives each clip at its own length, nothing padded
    shuffle : new batches every epoch, lengths alike within a tenth; False sorts by length, see `order`
    resized_frames : every clip is brought to so many frames, see `resize_clip`; 0 keeps its length
    augment : function (frames, rng) -> frames, on the scaled clip
    Each batch is ((features (batch, frames, n_features), n_frames (batch,)), targets),
    resized without n_frames. Its content depends on seed, epoch and place alone.
    """

    def __init__(
        self, clips, targets=None, *, scale=None, batch_size=32, shuffle=False, resized_frames=0, augment=None, seed=0
    ):  # fmt: skip
        super().__init__()
        self.clips, self.targets, self.scale, self.batch_size = clips, targets, scale, batch_size
        self.shuffle, self.resized_frames, self.augment = shuffle, resized_frames, augment
        self.seed, self.epoch = seed, 0
        self.lengths = np.array([len(clip) for clip in clips])
        # JAX compiles once per shape: few shapes there, at the price of some padding
        self.multiple = 32 if keras.backend.backend() == "jax" and batch_size > 1 else 1
        self._deal()

    @property
    def order(self):
        """Which clip each row of all batches is, int (n_clips,)."""
        return np.concatenate(self.batches)

    def __len__(self):
        return len(self.batches)

    def on_epoch_end(self):
        self.epoch += 1
        self._deal()

    def _deal(self):
        rng = np.random.default_rng([self.seed, self.epoch])
        jitter = np.exp(rng.normal(0, 0.1, len(self.lengths))) if self.shuffle else 1
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


def resize_clip(clip, n_frames):
    """Bring (any number of frames, n_features) to `n_frames`: zeros behind a shorter one, a longer one squeezed.

    Squeezing interpolates linearly over time, so that a longer clip seems spoken faster.
    """
    if len(clip) <= n_frames:
        return np.pad(clip, ((0, n_frames - len(clip)), (0, 0)))
    place = np.linspace(0, len(clip) - 1, n_frames)
    below = np.minimum(place.astype(int), len(clip) - 2)
    part = (place - below)[:, None].astype(clip.dtype)
    return clip[below] * (1 - part) + clip[below + 1] * part


def predict_clips(model, batches):
    """Probabilities float32 (n_clips, n_classes) in the clips' own order, from unshuffled `batches`."""
    return model.predict(batches, verbose=0)[np.argsort(batches.order)]


def ask(predict, rows, classes, fold):
    """What a model says about test clips, and how long it takes: asked twice, as the first time compiles.

    predict : function () -> probabilities (n_clips, n_classes); rows : of the utterance table, in that order
    classes : names of the columns; fold : one fold of a fold table
    Returns the table of predictions, and milliseconds per clip.
    """
    probabilities = predict()
    start = time.perf_counter()
    predict()
    milliseconds = 1000 * (time.perf_counter() - start) / len(rows)
    predictions = rows[["utterance_id", "speaker", "emotion"]].assign(
        start_ms=np.nan,
        prediction=np.array(classes)[probabilities.argmax(axis=1)],
        fold=int(fold["fold"].iloc[0]),
        **{f"p_{emotion}": probabilities[:, i] for i, emotion in enumerate(classes)},
    )
    return predictions, milliseconds


@keras.saving.register_keras_serializable(package="ser_utils")
class UnweightedAverageRecall(keras.metrics.Metric):
    """Mean recall over the classes that occurred, of one-hot truth (batch, n_classes)."""

    def __init__(self, n_classes, name="uar", **kwargs):
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
class FoldTask:
    """One model to train and test: all that a worker process needs to know.

    name : of the model's file
    network : importable function, or a functools.partial of one: (n_classes, n_features) -> keras.Model
    store : folder of a feature store of frames; copies : those of artificial copies, used for training alone
    fold : one fold of a fold table
    settings : scale, batch_size, epochs (more of them where they make fewer than `least_updates` steps in all:
        few clips need as many steps as many), patience, learning_rate, one_cycle, weight_decay, label_smoothing,
        mask_bands, mask_frames, and resized_frames (0: clips keep their length)
    models : folder; seed : int
    """

    name: str
    network: object
    store: Path
    fold: pd.DataFrame
    settings: dict
    models: Path
    seed: int = 0
    copies: tuple = ()


def train_fold(task):
    """Train the model of one fold, or open it if it was finished before, and test it.

    Epochs are watched on validation (on test where the protocol has no validation, which its folds say);
    the weights of the best UAR are kept.
    Returns a dict: predictions (table), history (DataFrame), seconds, parameters, ms_per_utterance, path.
    """
    options, roles = task.settings, task.fold.set_index("utterance_id")["role"]
    clips, table = _clips_and_table(task.store, roles.index)
    role = table["utterance_id"].map(roles).to_numpy()
    for copy in task.copies:
        more, rows = _clips_and_table(copy, roles.index[roles == "train"])
        clips, table = clips + more, pd.concat([table, rows], ignore_index=True)
        role = np.concatenate([role, np.full(len(more), "train")])
    classes = [emotion for emotion in EMOTIONS if emotion in set(table["emotion"])]
    truth = table["emotion"].map(classes.index).to_numpy()
    scale = clip_scale(clips, table, options["scale"], role == "train")

    def batches(which, **changes):
        chosen = np.flatnonzero(role == which)
        return ClipBatches(
            [clips[i] for i in chosen], np.eye(len(classes), dtype="float32")[truth[chosen]],
            scale=(scale[0][chosen], scale[1][chosen]), resized_frames=options["resized_frames"], **changes,
        )  # fmt: skip

    train = batches(
        "train", batch_size=options["batch_size"], shuffle=True, seed=task.seed, augment=_masks(options)
    )
    epochs = epochs_of(options, len(train))
    n_steps = epochs * len(train)
    made_from = [read_json(Path(folder) / "made_from.json") for folder in (task.store, *task.copies)]
    fitted = fit_or_load(
        Path(task.models) / f"{task.name}.keras",
        lambda: _compiled(task.network(len(classes), clips[0].shape[1]), options, n_steps),
        train,
        key=content_key(made_from, task.fold, options, network_key(task.network)),
        validation=batches("validation" if (role == "validation").any() else "test"),
        seed=task.seed, epochs=epochs, patience=options["patience"], monitor="val_uar", mode="max",
        class_weight=class_weights(truth[role == "train"], len(classes)), title=task.name,
        callbacks=[EpochSeconds()],
    )  # fmt: skip
    test = batches("test")
    predictions, milliseconds = ask(
        lambda: predict_clips(fitted.model, test), table[role == "test"], classes, task.fold
    )
    return {
        "predictions": predictions, "history": fitted.history, "seconds": fitted.seconds, "path": fitted.path,
        "parameters": fitted.model.count_params(), "ms_per_utterance": milliseconds,
    }  # fmt: skip


def epochs_of(options, n_batches):
    """Epochs of a training: as many as its settings say, or more where they make fewer than `least_updates` steps."""
    return max(options["epochs"], -(-options.get("least_updates", 0) // n_batches))


def _clips_and_table(folder, wanted):
    """Views of the wanted utterances' frames, in the store's order, and their rows of the utterance table."""
    store = load_store(folder)
    table = store.table[store.table["utterance_id"].isin(wanted)].reset_index(drop=True)
    places = zip(table["first_row"], table["n_rows"], strict=True)
    return [store.array[first : first + count] for first, count in places], table


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


def _compiled(model, options, n_steps):
    rate = options["learning_rate"]
    if options["one_cycle"]:  # up in the first fifth, then down a cosine to zero (Smith & Topin 2018)
        up = n_steps // 5
        rate = keras.optimizers.schedules.CosineDecay(
            rate / 25, n_steps - up, warmup_target=rate, warmup_steps=up
        )
    return compile_for_lengths(
        model,
        keras.optimizers.AdamW(rate, weight_decay=options["weight_decay"]),
        keras.losses.CategoricalCrossentropy(label_smoothing=options["label_smoothing"]),
        metrics=[UnweightedAverageRecall(model.output_shape[-1])],
    )


def network_key(network):
    """Content of a FoldTask's network, equal in every process: its `repr` tells where in memory it lies."""
    network = functools.partial(network)  # of a partial: the same one
    code = code_of(network.func, ClipBatches)
    return content_key(network.func.__qualname__, network.args, network.keywords, code)


def run_folds(plan, *, train=train_fold, title="", jobs=None, engine=None):
    """Train and test models side by side, one task per model and fold.

    plan : dict key -> list of tasks, one per fold; train : function of a task, such as `train_fold`
    jobs, engine : see `parallel.run_tasks`
    Returns a dict key -> dict of predictions (table), histories and paths (one per fold), parameters,
    seconds_to_train (of all folds together), ms_per_utterance.
    """
    tasks = [task for own in plan.values() for task in own]
    outcomes = iter(run_tasks(train, tasks, jobs=jobs, engine=engine, progress=title))
    results = {}
    for key, own in plan.items():
        found = [next(outcomes) for _ in own]
        results[key] = {
            "predictions": pd.concat([one["predictions"] for one in found], ignore_index=True),
            "histories": [one["history"] for one in found],
            "paths": [one["path"] for one in found],
            "parameters": found[0]["parameters"],
            "seconds_to_train": sum(one["seconds"] for one in found),
            "ms_per_utterance": float(np.mean([one["ms_per_utterance"] for one in found])),
        }
    return results


COSTS = ("parameters", "seconds_to_train", "ms_per_utterance")


def averaged(results):
    """Several models asked at once: the mean of their probabilities, the sum of their costs.

    results : list of what `run_folds` gives for one model each, on the same folds
    Returns a dict of the same kind.
    """
    first = results[0]["predictions"]
    names = [name for name in first if name.startswith("p_")]
    keys = ["fold", "utterance_id"]
    probabilities = np.mean(
        [one["predictions"].set_index(keys).loc[first.set_index(keys).index, names] for one in results],
        axis=0,
    )
    classes = np.array([name.removeprefix("p_") for name in names])
    predictions = first.assign(
        prediction=classes[probabilities.argmax(axis=1)], **dict(zip(names, probabilities.T, strict=True))
    )
    costs = {key: sum(one[key] for one in results) for key in COSTS}
    return {"predictions": predictions, "histories": [], "paths": [], **costs}


def save_result(workspace, result, audit, **name):
    """Save what a model of `run_folds` predicted, its audit and its costs; name : see Workspace."""
    workspace.save_predictions(result["predictions"], **name)
    workspace.save_audit(audit, **name)
    workspace.save_costs({key: result[key] for key in COSTS}, **name)
