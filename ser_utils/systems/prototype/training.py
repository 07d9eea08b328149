"""The prototype system's two stages: an autoencoder, a classifier on its embeddings, and what they answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from ser_utils.figures.style import in_order
from ser_utils.systems.prototype import classifier as of_prototypes
from ser_utils.systems.prototype.analysis import select_prototypes
from ser_utils.systems.prototype.autoencoder import build_autoencoder
from ser_utils.systems.prototype.data import PrototypeData, Run
from ser_utils.systems.prototype.segments import Scale
from ser_utils.training.fit import Fitted, as_kept, code_of, fit_or_load
from ser_utils.training.parallel import run_tasks
from ser_utils.workspace import Workspace, content_key, sealed

# Settings a classifier's weights depend on
OF_LAYER = ("distance", "similarity_weight", "crowding_weight")
SHAPING = ("n_prototypes", *OF_LAYER, "start", "start_weight", "learning_rate", "batch_size")
SHAPING += ("epochs", "patience", "most_passes", "jit_compile")
AT_ONCE = 1024  # segments embedded at a time
WORTH_ITS_OVERHEAD = 20_000  # segments; iterators and scores of an epoch cost as much as a pass over 3,000


def in_batches(function: Callable, rows: np.ndarray) -> np.ndarray:
    """Apply a function of a Keras model to `AT_ONCE` rows at a time and join what it gives."""
    if not len(rows):  # TensorFlow refuses to convolve nothing
        return in_batches(function, np.zeros((1, *rows.shape[1:]), rows.dtype))[:0]
    batches = [function(rows[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE)]
    return np.concatenate([keras.ops.convert_to_numpy(batch) for batch in batches])


@dataclass(frozen=True)
class Coder:
    """An autoencoder with the scale of its training segments: dB in, embeddings out, and back.

    Parameters
    ----------
    model : Autoencoder
    history, seconds : of its training
    path : where it is kept
    """

    model: keras.Model
    scale: Scale
    history: pd.DataFrame
    seconds: float
    path: Path

    def embed(self, log_mel: np.ndarray) -> np.ndarray:
        """Turn dB (n, n_mels, n_frames), memory-mapped or not, into float32 (n, n_dimensions), flattened."""
        code = in_batches(lambda batch: self.model.encoder(self.scale.apply(batch)), log_mel)
        return code.reshape(len(code), np.prod(code.shape[1:]))

    def decode(self, embeddings: np.ndarray) -> np.ndarray:
        """Turn (n, n_dimensions) into dB below each one's maximum, not lower than the scale's floor."""
        code = np.asarray(embeddings, np.float32).reshape(-1, *self.model.encoder.output_shape[1:])
        log_mel = self.scale.invert(in_batches(self.model.decoder, code))
        below_maximum = log_mel - log_mel.max(axis=(1, 2), keepdims=True)
        return np.maximum(below_maximum, self.scale.low).astype(np.float32)

    def reconstruct(self, log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale dB (n, n_mels, n_frames) and send it through the network: (given, returned), both in [0, 1]."""
        given = self.scale.apply(log_mel)
        return given, in_batches(self.model, given)


def fit_coder(data: PrototypeData, run: Run, fit: Callable[..., Fitted] = fit_or_load) -> Coder:
    """Train the autoencoder of a run, or open the one made of the same segments and settings.

    Its scale comes from its training segments alone. Where a voice has too few clips to watch, the training
    segments are watched. The shared autoencoder that it starts from, if any, is trained or opened before.

    Parameters
    ----------
    fit : trains or opens it, called as `fit_or_load`
    """
    run, shared_run = data.coder_run(run), data.shared_run(run)
    shared = fit_coder(data, shared_run) if shared_run else None
    settings = data.coder_settings(run)
    train_db, watched_db = (data.store.array[rows] for rows in data.coder_rows(run))
    scale = Scale.of(train_db)
    x, watched = scale.apply(train_db), scale.apply(watched_db if len(watched_db) else train_db)
    steps = settings["epochs"] * -(-len(x) // settings["batch_size"]) if settings["schedule"] == "cosine" else 0
    shaping = {name: settings[name] for name in ("filters", "hfenn_weight", "learning_rate")}

    def build():
        model = build_autoencoder(*train_db.shape[1:], **shaping, cosine_steps=steps)
        if shared:
            model.set_weights(shared.model.get_weights())
        return model

    taught = sealed(shared.path)["key"] if shared else ""
    built_from = content_key("autoencoder", x.shape[1:], shaping, steps, taught)
    fitted = fit(
        data.workspace.folder("models") / f"autoencoder-{run.label}.keras",
        build,
        (x, x),
        key=content_key(x, watched, shaping, steps, taught, code_of(build_autoencoder)),
        validation=(watched, watched),
        seed=data.workspace.seed,
        epochs=settings["epochs"],
        patience=settings["patience"] or None,
        batch_size=settings["batch_size"],
        reuse=built_from,
        title=f"autoencoder-{run.label}",
    )
    return Coder(as_kept(fitted).model, scale, fitted.history, fitted.seconds, fitted.path)


def fit_coders(data: PrototypeData, runs: Sequence[Run]) -> dict[Run, Coder]:
    """Train or open the autoencoders of many runs, side by side, one a core; those they share come first."""
    shared = dict.fromkeys(filter(None, map(data.shared_run, runs)))
    for stage in (list(shared), runs):
        tasks = [(data.cut_to(run), run) for run in stage]
        coders = run_tasks(lambda task: fit_coder(*task), tasks, progress="autoencoders")
    return dict(zip(runs, coders, strict=True))


def open_stages(workspace: Workspace, row: Any) -> tuple[keras.Model, Coder]:
    """Open the classifier and the coder that one line of the table `prototype_classifiers` lists."""
    path = workspace.build / row.coder_path
    model, scale = keras.saving.load_model(path), Scale(row.low_db, row.high_db)
    return keras.saving.load_model(workspace.build / row.path), Coder(model, scale, pd.DataFrame(), 0.0, path)


def fit_classifier(
    path: Path,
    train: tuple[np.ndarray, np.ndarray],
    watched: tuple[np.ndarray, np.ndarray] | None,
    n_classes: int,
    chosen: dict[str, Any],
    *,
    seed: int = 0,
    title: str = "",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    fit: Callable[..., Fitted] = fit_or_load,
) -> Fitted:
    """Train a prototype classifier on embeddings held in memory, or open the finished one.

    An epoch of few segments is several passes over them, in random order, for its iterators and scores would
    cost more than the pass; epochs and patience count passes, the history has epochs.

    Parameters
    ----------
    train, watched : (embeddings (n, n_dimensions), labels int (n,)); `watched`, which chooses the epoch by
        macro-F1, may be None or empty: then the last epoch is kept
    chosen : settings of "prototype_classifier" with `n_prototypes`
    fit : trains or opens it, called as `fit_or_load`
    """
    x, labels = train
    passes = passes_in_epoch(len(x), chosen)
    batch, targets = chosen["batch_size"], np.eye(n_classes, dtype=np.float32)
    steps = -(-passes * len(x) // batch)
    options = {"monitor": "val_macro_f1", "mode": "max", "seed": seed, "title": title}
    watching = watched is not None and len(watched[1]) > 0
    if watching:
        options["patience"] = -(-chosen["patience"] // passes)
        options["validation_steps"] = -(-len(watched[1]) // batch)
        options["validation"] = (watched[0], targets[watched[1]])
    shaping = {name: chosen[name] for name in SHAPING}
    code = code_of(of_prototypes.PrototypeClassifier, fit_classifier)
    starting = [] if chosen["start"] == "uniform" else [StartFrom(train, chosen["start_weight"], seed)]
    fitted = fit(
        path,
        lambda: _build_classifier(x.shape[1], n_classes, chosen, steps),
        (np.tile(x, (passes, 1)), targets[np.tile(labels, passes)]),
        key=content_key(x, labels, *(watched if watching else ()), shaping, code),
        epochs=chosen["epochs"] // passes,
        batch_size=batch,
        steps_per_epoch=steps,
        callbacks=[*starting, of_prototypes.PrototypeLog(), *callbacks],
        reuse=content_key("prototype classifier", x.shape[1], n_classes, shaping, steps),
        **options,
    )
    return as_kept(fitted)


def passes_in_epoch(n_segments: int, chosen: dict[str, Any]) -> int:
    """Count the passes over so many segments that are one epoch of a classifier; see `fit_classifier`."""
    return int(np.clip(WORTH_ITS_OVERHEAD // n_segments, 1, min(chosen["most_passes"], chosen["epochs"])))


def _build_classifier(n_dimensions, n_classes, chosen, steps):
    options = {name: chosen[name] for name in ("n_prototypes", "learning_rate", *OF_LAYER)}
    options |= {"steps_per_epoch": steps, "jit_compile": chosen["jit_compile"] or "auto"}
    return of_prototypes.build_prototype_classifier(n_dimensions, n_classes, **options)


class StartFrom(keras.callbacks.Callback):
    """Puts prototypes on training segments before the first step; see `PrototypeClassifier.start_from`."""

    def __init__(self, train: tuple[np.ndarray, np.ndarray], weight: float, seed: int):
        super().__init__()
        self.train, self.weight, self.seed = train, weight, seed

    def on_train_begin(self, logs=None):
        self.model.start_from(*self.train, weight=self.weight, seed=self.seed)


@dataclass(frozen=True)
class Trained:
    """A coder and a classifier trained in one run, and what they said about its test segments.

    Parameters
    ----------
    classes : emotions it knows, in the order of its outputs
    predictions : table of test segments
    neighbours : of its prototypes, as `nearest_segments` gives them
    """

    run: Run
    coder: Coder
    fitted: Fitted
    classes: list[str]
    predictions: pd.DataFrame
    neighbours: pd.DataFrame
    ms_per_utterance: float

    @property
    def parameters(self) -> int:
        return self.coder.model.encoder.count_params() + self.fitted.model.count_params()

    @property
    def seconds(self) -> float:
        return self.coder.seconds + self.fitted.seconds

    def strongest(self, top: int) -> tuple[pd.DataFrame, np.ndarray]:
        """Select the `top` prototypes of each emotion and decode them into dB (n, n_mels, n_frames)."""
        scores = of_prototypes.prototype_scores(self.fitted.model.fc_weights.round(2))
        table = select_prototypes(scores, self.classes, top=top)
        return table, self.coder.decode(self.fitted.model.prototypes[table["prototype"]])


def classifier_segments(data: PrototypeData, run: Run) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Select the segments that a run's classifier learns from, is watched on (of classes it learns), and is tested on."""
    settings = data.of_classifier | dict(run.changes)
    train = data.pick(run, "train", most=settings["most_train"])
    watched = data.pick(run, run.watched, most=settings["most_watched"])
    tested = data.pick(run, "test", per_clip=settings["test_per_clip"])
    return train, watched[watched["emotion"].isin(set(train["emotion"]))], tested


def train_and_predict(data: PrototypeData, run: Run, fit: Callable[..., Fitted] = fit_or_load) -> Trained | None:
    """Train or open both stages of one run, and ask them about its test segments.

    Parameters
    ----------
    fit : trains or opens each stage, called as `fit_or_load`

    Returns
    -------
    None where there are fewer than two emotions to tell apart or nothing to test on
    """
    settings = data.of_classifier | dict(run.changes)
    train, watched, tested = classifier_segments(data, run)
    classes = in_order(train["emotion"])
    if len(classes) < 2 or tested.empty:
        return None
    coder = fit_coder(data, run, fit)
    known, watched = (
        (coder.embed(data.store.array[table["row"]]), table["emotion"].map(classes.index).to_numpy(int))
        for table in (train, watched)
    )
    fitted = fit_classifier(
        data.workspace.folder("models") / f"prototype_classifier-{run.label}.keras",
        known,
        watched,
        len(classes),
        settings | {"n_prototypes": settings["per_class"] * len(classes)},
        seed=data.workspace.seed,
        title=f"classifier-{run.label}",
        fit=fit,
    )
    log_mel, start = data.store.array[tested["row"]], time.perf_counter()
    probabilities = in_batches(fitted.model, coder.embed(log_mel))
    ms = 1000 * (time.perf_counter() - start) / tested["utterance_id"].nunique()
    predictions = prediction_table(tested, probabilities, classes, data.emotions).assign(fold=run.fold)
    return Trained(run, coder, fitted, classes, predictions, nearest_segments(fitted.model, known[0], train), ms)


def prediction_table(
    tested: pd.DataFrame, probabilities: np.ndarray, classes: list[str], emotions: list[str]
) -> pd.DataFrame:
    """Table what a classifier says of segments, lines of the segment table; what it does not know gets 0.

    Parameters
    ----------
    probabilities : float32 (n, n_classes), columns as `classes`
    emotions : those of the table's columns
    """
    shares = pd.DataFrame(probabilities, columns=classes).reindex(columns=emotions, fill_value=np.float32(0))
    table = tested[["utterance_id", "start_ms", "speaker", "emotion"]].reset_index(drop=True)
    return pd.concat([table.assign(prediction=shares.idxmax(axis=1)), shares.add_prefix("p_")], axis=1)


def nearest_segments(classifier: keras.Model, embeddings: np.ndarray, segments: pd.DataFrame) -> pd.DataFrame:
    """Find for each prototype the training segment most like it.

    Parameters
    ----------
    embeddings : (n, n_dimensions) of the n lines of `segments`

    Returns
    -------
    table in the order of the prototypes : nearest_utterance_id, nearest_start_ms, nearest_similarity
    """
    similarity = in_batches(classifier.get_layer("prototypes"), embeddings)
    nearest = segments.iloc[similarity.argmax(axis=0)][["utterance_id", "start_ms"]].reset_index(drop=True)
    return nearest.add_prefix("nearest_").assign(nearest_similarity=similarity.max(axis=0).astype(float))
