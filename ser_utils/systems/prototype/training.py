"""The prototype system's two stages joined: autoencoders, classifiers on their embeddings, answers about segments."""

import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from ser_utils.corpora.loading import CORPORA, EMOTIONS
from ser_utils.systems.prototype.autoencoder import build_autoencoder
from ser_utils.systems.prototype.classifier import PrototypeClassifier, build_prototype_classifier
from ser_utils.systems.prototype.segments import Scale
from ser_utils.training.fit import Fitted, code_of, fit_or_load
from ser_utils.workspace import content_key

# Settings a classifier's weights depend on
SHAPING = (
    "n_prototypes", "distance", "similarity_weight", "start", "learning_rate", "batch_size", "epochs", "patience",
    "most_passes", "jit_compile",
)  # fmt: skip
AT_ONCE = 1024  # segments embedded at a time
WORTH_ITS_OVERHEAD = 20_000  # segments; iterators and scores of an epoch cost as much as a pass over 3,000


@dataclass(frozen=True)
class Coder:
    """An autoencoder with the scale of its training segments: dB in, embeddings out, and back.

    model : Autoencoder; scale : Scale; history, seconds : of its training; path : where it is kept
    """

    model: keras.Model
    scale: Scale
    history: pd.DataFrame
    seconds: float
    path: Path

    @property
    def embedding_shape(self):
        return self.model.encoder.output_shape[1:]

    def embed(self, log_mel):
        """dB (n, n_mels, n_frames) → float32 (n, n_dimensions), flattened; a memory-mapped array is fine."""
        embeddings = np.empty((len(log_mel), int(np.prod(self.embedding_shape))), np.float32)
        for start in range(0, len(log_mel), AT_ONCE):
            part = self.scale.apply(log_mel[start : start + AT_ONCE])
            code = keras.ops.convert_to_numpy(self.model.encoder(part))
            embeddings[start : start + AT_ONCE] = code.reshape(len(part), -1)
        return embeddings

    def decode(self, embeddings):
        """float (n, n_dimensions) → log-mel in dB below each one's maximum, not lower than the scale's floor."""
        code = np.asarray(embeddings, np.float32).reshape(-1, *self.embedding_shape)
        log_mel = self.scale.invert(keras.ops.convert_to_numpy(self.model.decoder(code)))
        return np.maximum(log_mel - log_mel.max(axis=(1, 2), keepdims=True), self.scale.low).astype(
            np.float32
        )


def fit_autoencoder(workspace, store, label, train_rows, watched_rows, chosen):
    """Train an autoencoder, or open the one notebook 01 made of the same segments and settings.

    store : of segments in dB (n, n_mels, n_frames); label : "<protocol>-<model>"
    train_rows, watched_rows : int (n,), places in the store; the second, watched for early stopping, may be empty
        where a voice has too few clips: then the first are
    chosen : settings of "prototype". Returns a Coder, its scale from the training segments alone.
    """
    train_db = store.array[train_rows]
    scale = Scale.of(train_db)
    x, watched = (
        scale.apply(train_db),
        scale.apply(store.array[watched_rows] if len(watched_rows) else train_db),
    )

    def build():
        shape = train_db.shape[1:]
        return build_autoencoder(*shape, filters=chosen["filters"], hfenn_weight=chosen["hfenn_weight"])

    fitted = fit_or_load(
        workspace.folder("models") / f"autoencoder-{label}.keras", build, (x, x),
        key=content_key(x, watched, chosen, code_of(build_autoencoder)), validation=(watched, watched),
        seed=workspace.seed, epochs=chosen["epochs"], patience=chosen["patience"],
        batch_size=chosen["batch_size"], title=f"autoencoder-{label}",
    )  # fmt: skip
    return Coder(fitted.model, scale, fitted.history, fitted.seconds, fitted.path)


def fit_classifier(path, train, watched, n_classes, chosen, *, seed=0, title="", callbacks=()):
    """Train a prototype classifier on embeddings held in memory, or open the finished one.

    train, watched : (embeddings (n, n_dimensions), labels int (n,)); `watched`, which chooses the epoch by
        macro-F1, may be None: then the last epoch is kept
    chosen : settings of "prototype_classifier" with `n_prototypes`
    Returns Fitted. An epoch of few segments is several passes over them, in random order, for its iterators
    and scores would cost more than the pass; epochs and patience count passes, the history has epochs.
    """
    x, labels = train
    n_prototypes = chosen["n_prototypes"]
    passes = int(np.clip(WORTH_ITS_OVERHEAD // len(x), 1, min(chosen["most_passes"], chosen["epochs"])))
    targets = np.eye(n_classes, dtype=np.float32)
    batch = chosen["batch_size"]
    steps = -(-passes * len(x) // batch)

    def build():
        model = build_prototype_classifier(
            x.shape[1], n_classes, n_prototypes, distance=chosen["distance"],
            similarity_weight=chosen["similarity_weight"], learning_rate=chosen["learning_rate"],
            steps_per_epoch=steps, jit_compile=chosen["jit_compile"] or "auto",
        )  # fmt: skip
        return model if chosen["start"] == "uniform" else model.start_from(x, labels, seed=seed)

    shaping = {name: chosen[name] for name in SHAPING}
    watching = watched is not None and len(watched[1]) > 0
    limits = (
        {"patience": -(-chosen["patience"] // passes), "validation_steps": -(-len(watched[1]) // batch)}
        if watching
        else {}
    )
    return fit_or_load(
        path, build, (np.tile(x, (passes, 1)), targets[np.tile(labels, passes)]),
        key=content_key(x, labels, *(watched if watching else ()), shaping, code_of(PrototypeClassifier, fit_classifier)),
        validation=(watched[0], targets[watched[1]]) if watching else None, seed=seed,
        epochs=chosen["epochs"] // passes, monitor="val_macro_f1", mode="max", batch_size=batch,
        steps_per_epoch=steps, title=title, callbacks=callbacks, **limits,
    )  # fmt: skip


def n_prototypes_per_class(table, elsewhere):
    """Prototypes a class gets: the phonemes of the corpus's language where the paper names them, else `elsewhere`."""
    corpora = set(table["corpus"])
    corpus = CORPORA.get(next(iter(corpora))) if len(corpora) == 1 else None
    return (corpus and corpus.n_phonemes) or elsewhere


@dataclass(frozen=True)
class Trained:
    """A coder and a classifier trained in one fold, and what they said about its test segments.

    label : "<protocol>-<model>", with the fold's number where there are several; classes : emotions it knows,
    in the order of its outputs; predictions : table of test segments; neighbours : as `nearest_segments`
    """

    label: str
    coder: Coder
    fitted: Fitted
    classes: list
    predictions: pd.DataFrame
    neighbours: pd.DataFrame
    ms_per_utterance: float

    @property
    def parameters(self):
        return self.coder.model.encoder.count_params() + self.fitted.model.count_params()

    @property
    def seconds(self):
        return self.coder.seconds + self.fitted.seconds


def train_and_predict(workspace, store, pick, label, chosen, *, fold=0, watch="validation", emotions):
    """Both stages of one model in one fold, trained or opened, and its answers.

    pick : function (role, most=…, per_clip=…) -> lines of the segment table; watch : role that chooses the epochs
    chosen : (settings of "prototype", settings of "prototype_classifier" with `per_class` prototypes)
    Returns Trained, or None where there are fewer than two emotions to tell apart or nothing to test on.
    """
    of_coder, of_classifier = chosen
    parts = {role: pick(role, most=of_classifier["most_train" if role == "train" else "most_watched"])
             for role in ("train", watch)}  # fmt: skip
    tested = pick("test", per_clip=of_classifier["test_per_clip"])
    classes = in_canonical_order(parts["train"]["emotion"])
    if len(classes) < 2 or tested.empty:
        return None
    rows = {role: pick(role, most=of_coder["most_train" if role == "train" else "most_test"])["row"].to_numpy()
            for role in ("train", watch)}  # fmt: skip
    coder = fit_autoencoder(workspace, store, label, rows["train"], rows[watch], of_coder)
    embeddings = coder.embed(store.array[parts["train"]["row"]])
    known = parts[watch][parts[watch]["emotion"].isin(classes)]
    watched = coder.embed(store.array[known["row"]]), known["emotion"].map(classes.index).to_numpy(int)
    settings = of_classifier | {"n_prototypes": of_classifier["per_class"] * len(classes)}
    fitted = fit_classifier(
        workspace.folder("models") / f"prototype_classifier-{label}.keras",
        (embeddings, parts["train"]["emotion"].map(classes.index).to_numpy(int)), watched, len(classes), settings,
        seed=workspace.seed, title=f"classifier-{label}",
    )  # fmt: skip
    predictions, ms = predict_segments(
        coder, fitted.model, store.array[tested["row"]], tested, classes, emotions=emotions, fold=fold
    )
    neighbours = nearest_segments(fitted.model, embeddings, parts["train"])
    return Trained(label, coder, fitted, classes, predictions, neighbours, ms)


def in_canonical_order(emotions):
    present = set(emotions)
    return [emotion for emotion in EMOTIONS if emotion in present]


def predict_segments(coder, classifier, log_mel, part, classes, *, emotions, fold=0):
    """Answers about test segments, as a predictions table, and the milliseconds an utterance took.

    log_mel : dB (n, n_mels, n_frames) of the n lines of `part` (as `select_segments` gives them)
    classes : emotions the classifier knows, in its order; emotions : all of the table's, 0 where unknown
    """
    start = time.perf_counter()
    probabilities = np.zeros((len(part), len(emotions)), np.float32)
    known = [emotions.index(emotion) for emotion in classes]
    embeddings = coder.embed(log_mel)
    for first in range(0, len(part), AT_ONCE):
        answer = classifier(embeddings[first : first + AT_ONCE])
        probabilities[first : first + AT_ONCE, known] = keras.ops.convert_to_numpy(answer)
    ms = 1000 * (time.perf_counter() - start) / max(part["utterance_id"].nunique(), 1)
    table = part[["utterance_id", "start_ms", "speaker", "emotion"]].reset_index(drop=True)
    table = table.assign(prediction=[emotions[place] for place in probabilities.argmax(axis=1)])
    shares = pd.DataFrame(probabilities, columns=[f"p_{emotion}" for emotion in emotions])
    return pd.concat([table, shares], axis=1).assign(fold=fold), ms


def nearest_segments(classifier, embeddings, part):
    """For each prototype the training segment most like it: utterance_id, start_ms and similarity.

    embeddings : (n, n_dimensions) of the n lines of `part`. Returns a table in the order of the prototypes.
    """
    layer = classifier.get_layer("prototypes")
    best, place = np.full(layer.n_prototypes, -1.0), np.zeros(layer.n_prototypes, int)
    for first in range(0, len(embeddings), AT_ONCE):
        similarity = keras.ops.convert_to_numpy(layer(embeddings[first : first + AT_ONCE]))
        better = similarity.max(axis=0) > best
        best[better] = similarity.max(axis=0)[better]
        place[better] = first + similarity.argmax(axis=0)[better]
    found = part.iloc[place][["utterance_id", "start_ms"]].reset_index(drop=True)
    return found.add_prefix("nearest_").assign(nearest_similarity=best)
