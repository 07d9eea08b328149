"""Prototypes, held to the same standards as other explanations: are they real, needed, pure, and found again?

Similarities are (n_segments, n_prototypes) as `classifier.prototype_similarity` gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from IPython.display import Audio
from keras import ops
from scipy.optimize import linear_sum_assignment

from ser_utils.evaluation.metrics import unweighted_average_recall
from ser_utils.explanation.attribution import Subject, stretch
from ser_utils.features.store import FeatureStore
from ser_utils.profiles import settings
from ser_utils.systems.prototype.classifier import ALIKE, PrototypeClassifier
from ser_utils.systems.prototype.segments import segment_table, select_segments
from ser_utils.systems.prototype.training import Coder, fit_classifier, in_batches, open_stages
from ser_utils.workspace import Workspace

NEAREST = 10  # training segments that purity asks
DRAWS = 20  # of a removal at random


def similarities(classifier: PrototypeClassifier, embeddings: np.ndarray) -> np.ndarray:
    """Compute how alike every embedding (n, n_dimensions) is to every prototype: float32 (n, n_prototypes)."""
    return in_batches(classifier.get_layer("prototypes"), embeddings)


def decide(similarity: np.ndarray, fc_weights: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """Decide which class each segment gets, int (n,), of the prototypes `kept` (indices; None is all).

    Parameters
    ----------
    similarity : (n, n_prototypes)
    fc_weights : (n_prototypes, n_classes)
    """
    kept = slice(None) if kept is None else kept
    return (similarity[:, kept] @ np.asarray(fc_weights)[kept]).argmax(axis=1)


def classes_spoken_for(fc_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the class each prototype speaks for most, int (n_prototypes,), and how far ahead of the mean of all.

    Parameters
    ----------
    fc_weights : (n_prototypes, n_classes)
    """
    weights = np.asarray(fc_weights, float)
    return weights.argmax(axis=1), weights.max(axis=1) - weights.mean(axis=1)


def project(classifier: PrototypeClassifier, embeddings: np.ndarray) -> tuple[PrototypeClassifier, np.ndarray]:
    """Put every prototype of a classifier on the training segment that is nearest to it.

    Parameters
    ----------
    embeddings : float (n, n_dimensions) of the training segments

    Returns
    -------
    a copy of the classifier, and how far each prototype moved as a share of the median distance between prototypes,
    float (n_prototypes,)

    Source: the projection step of Chen et al. 2019, This Looks Like That.
    """
    prototypes = classifier.prototypes
    nearest = similarities(classifier, embeddings).argmax(axis=0)
    copy = with_prototypes(classifier, embeddings[nearest])
    squared = np.square(prototypes[:, None] - prototypes[None]).sum(axis=-1)
    between = np.sqrt(np.median(squared[~np.eye(len(prototypes), dtype=bool)]))
    return copy, np.linalg.norm(embeddings[nearest] - prototypes, axis=1) / between


def with_prototypes(classifier: PrototypeClassifier, prototypes: np.ndarray) -> PrototypeClassifier:
    """Copy a classifier with other prototypes, float (n_prototypes, n_dimensions)."""
    copy = type(classifier).from_config(classifier.get_config())
    copy.set_weights(classifier.get_weights())
    copy.get_layer("prototypes").prototypes.assign(prototypes)
    return copy


def removal(
    similarity: np.ndarray, fc_weights: np.ndarray, labels: np.ndarray, order: np.ndarray, *, steps: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Measure UAR as prototypes go.

    Parameters
    ----------
    similarity : (n, n_prototypes)
    fc_weights : (n_prototypes, n_classes)
    labels : int (n,), the truth
    order : int (n_prototypes,), the first to go first

    Returns
    -------
    shares removed and UAR, (steps + 1,) each; if no prototype is left, the first class is predicted
    """
    shares = np.linspace(0, 1, steps + 1)
    kept = [order[round(share * len(order)) :] for share in shares]
    # recall by class, all shares at once: from labels as strings it took ten times as long, at each of 924 points
    right = np.stack([decide(similarity, fc_weights, left) for left in kept]) == labels
    of_class = (np.unique(labels) == labels[:, None]).astype(int)
    return shares, (right @ of_class / of_class.sum(axis=0)).mean(axis=1)


def purity(similarity: np.ndarray, fc_weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Measure the share of each prototype's NEAREST training segments that are of the class it speaks for.

    Parameters
    ----------
    similarity : (n, n_prototypes), of training segments
    fc_weights : (n_prototypes, n_classes)
    labels : int (n,), of training segments

    Returns
    -------
    float (n_prototypes,); its chance is that class's share
    """
    nearest = np.argsort(-similarity, axis=0, kind="stable")[:NEAREST]
    return (np.asarray(labels)[nearest] == classes_spoken_for(fc_weights)[0]).mean(axis=0)


def redundancy(similarity: np.ndarray) -> dict[str, float]:
    """Measure how many prototypes say what another one says.

    Parameters
    ----------
    similarity : (n, n_prototypes)

    Returns
    -------
    dict of twins, the share whose similarities correlate with another's by ALIKE or more; and effective_number, the
    exponential of the entropy of the variance along the principal axes (Roy & Vetterli 2007)
    """
    correlation = np.corrcoef(similarity.T)
    np.fill_diagonal(correlation, -1)
    variance = np.linalg.eigvalsh(np.cov(similarity.T)).clip(0)
    share = variance[variance > 0] / variance.sum()
    return {
        "twins": float((correlation.max(axis=1) >= ALIKE).mean()),
        "effective_number": float(np.exp(-(share * np.log(share)).sum())),
    }


def paired(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair prototypes of two trainings so that their similarities to the same segments correlate most.

    Parameters
    ----------
    a, b : (n_segments, n_prototypes)

    Returns
    -------
    indices of each, and the pairs' correlations (Hungarian method)
    """
    n = a.shape[1]
    correlation = np.corrcoef(a.T, b.T)[:n, n:]
    rows, columns = linear_sum_assignment(-correlation)
    return rows, columns, correlation[rows, columns]


def shuffled_similarities(
    classifier: PrototypeClassifier, embeddings: np.ndarray, *, draws: int = 5, seed: int = 0
) -> list[np.ndarray]:
    """Compute similarities to prototypes that training did not find: each dimension is dealt anew among the prototypes.

    Parameters
    ----------
    embeddings : (n, n_dimensions)
    draws : how often they are dealt

    Returns
    -------
    (n, n_prototypes) of each draw
    """
    rng, prototypes = np.random.default_rng(seed), classifier.prototypes
    return [
        similarities(with_prototypes(classifier, rng.permuted(prototypes, axis=0)), embeddings) for _ in range(draws)
    ]


def compare_trainings(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], shuffled: list[np.ndarray]
) -> dict[str, float]:
    """Tell whether another training finds the same prototypes.

    Parameters
    ----------
    first, second : (similarity, fc_weights) of either on the same segments
    shuffled : `shuffled_similarities` of the second, paired with the first in the same way

    Returns
    -------
    dict of correlation, the mean of `paired`; by_chance, that of the shuffled; same_class, the share of pairs that speak
    for the same class; same_decision, the share of segments that both classify alike
    """
    (a, weights_a), (b, weights_b) = first, second
    rows, columns, correlations = paired(a, b)
    class_a, class_b = classes_spoken_for(weights_a)[0], classes_spoken_for(weights_b)[0]
    return {
        "correlation": float(correlations.mean()),
        "by_chance": float(np.mean([paired(a, draw)[2].mean() for draw in shuffled])),
        "same_class": float((class_a[rows] == class_b[columns]).mean()),
        "same_decision": float((decide(a, weights_a) == decide(b, weights_b)).mean()),
    }


def found_again(workspace: Workspace, name: str, opened: Opened, *, seed: int = 0) -> dict[str, float]:
    """Train a classifier of 02 again with the next seed, on the same embeddings: see `compare_trainings`.

    Parameters
    ----------
    name : of its model, such as "speaker_09"
    """
    shape = {"n_prototypes": len(opened.classifier.prototypes)}
    again = fit_classifier(
        workspace.folder("models") / f"prototype_classifier-utterance-{name}-again.keras",
        *((opened.embeddings[role], opened.labels(role)) for role in ("train", "validation")),
        len(opened.classes),
        settings("prototype_classifier", workspace.profile) | shape,
        seed=seed + 1,
        title="another seed",
    )
    known = opened.embeddings["train"]
    second = similarities(again.model, known), again.model.fc_weights
    dealt = shuffled_similarities(again.model, known, seed=seed)
    return compare_trainings((opened.similarity("train"), opened.classifier.fc_weights), second, dealt)


def judge(opened: Opened) -> dict[str, float]:
    """Measure how real, pure and needed the prototypes of one classifier are.

    Parameters
    ----------
    opened : the classifier with the segments it learned from and was tested on

    Returns
    -------
    dict of `prototypes`, their number; `uar` and `uar_projected`, in [0, 1], on held-out segments before and after each
    prototype is put on its nearest training segment; `median_move`, how far that moves a prototype, as a share of the
    median distance between prototypes; `purity` and `purity_by_chance`, in [0, 1], the share of its nearest training
    segments that are of its class, and what segments chosen blindly would give; and what `redundancy` measures
    """
    truth, weights = opened.labels("test"), opened.classifier.fc_weights
    known, labels = opened.similarity("train"), opened.labels("train")
    projected, moved = project(opened.classifier, opened.embeddings["train"])
    after = similarities(projected, opened.embeddings["test"])
    return {
        "prototypes": known.shape[1],
        "uar": unweighted_average_recall(truth, decide(opened.similarity("test"), weights)),
        "uar_projected": unweighted_average_recall(truth, decide(after, weights)),
        "median_move": float(np.median(moved)),
        "purity": float(purity(known, weights, labels).mean()),
        "purity_by_chance": float((np.bincount(labels) / len(labels))[classes_spoken_for(weights)[0]].mean()),
        **redundancy(known),
    }


def by_strength(fc_weights: np.ndarray) -> np.ndarray:
    """Order prototypes by how strongly they speak, the strongest of every class before the next of any.

    Strength is how far a prototype's weight for its class stands above the mean of all. Taken over all classes at
    once, the order would first silence whole classes.

    Parameters
    ----------
    fc_weights : (n_prototypes, n_classes)

    Returns
    -------
    int (n_prototypes,)
    """
    label, strength = classes_spoken_for(fc_weights)
    rank = pd.Series(-strength).groupby(label).rank(method="first").to_numpy()
    return np.lexsort((label, rank))


def removals(opened: Opened, *, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Draw removal curves of one classifier on held-out segments: strongest first, weakest first, at random.

    Returns
    -------
    dict of order -> (shares, UAR), UAR (DRAWS, steps + 1) at random; strength as in `by_strength`
    """
    about = opened.similarity("test"), opened.classifier.fc_weights, opened.labels("test")
    order, rng = by_strength(opened.classifier.fc_weights), np.random.default_rng(seed)
    at_random = [removal(*about, rng.permutation(len(order))) for _ in range(DRAWS)]
    return {
        "strongest first": removal(*about, order),
        "weakest first": removal(*about, order[::-1]),
        "at random": (at_random[0][0], np.stack([uar for _, uar in at_random])),
    }


def contributions(similarity: np.ndarray, fc_weights: np.ndarray, label: int) -> np.ndarray:
    """Compute what each prototype adds to the logit of a class in each segment, against the mean of all classes.

    Parameters
    ----------
    similarity : (n_segments, n_prototypes)
    fc_weights : (n_prototypes, n_classes)
    label : the class

    Returns
    -------
    float (n_segments, n_prototypes); rows sum to how far the class's logit stands above the mean logit
    """
    weights = np.asarray(fc_weights, float)
    return similarity * (weights[:, label] - weights.mean(axis=1))


def sounds_like(similarity: np.ndarray, fc_weights: np.ndarray, label: int) -> pd.DataFrame:
    """Explain an utterance by "these 100 ms sound like that prototype".

    Parameters
    ----------
    similarity : float (n_segments, n_prototypes) in (0, 1], of the utterance's segments
    fc_weights : float (n_prototypes, n_classes)
    label : class that is explained, in 0 … n_classes - 1

    Returns
    -------
    table with a row per segment, most support first : `segment`, its place in the utterance; `support`, how far the
    logit of `label` stands above the mean logit there; `prototype`, the one that adds most to it; `contribution`, how
    much that one adds
    """
    added = contributions(similarity, fc_weights, label)
    strongest = {"prototype": added.argmax(axis=1), "contribution": added.max(axis=1)}
    table = pd.DataFrame({"segment": np.arange(len(added)), "support": added.sum(axis=1)} | strongest)
    return table.sort_values("support", ascending=False, kind="stable", ignore_index=True)


def spread_out(table: pd.DataFrame, *, most: int, apart: int) -> pd.DataFrame:
    """Keep the first `most` rows of `sounds_like` whose segments lie at least `apart` places from each other."""
    places = []
    for row in table.itertuples():
        if all(abs(row.segment - place) >= apart for place in places):
            places.append(row.segment)
    return table.set_index("segment").loc[places[:most]].reset_index()


def one_then_other(sound: np.ndarray, other: np.ndarray, sample_rate: int) -> Audio:
    """Play two short sounds (n_samples,) to compare them by ear: one four times in a row, a pause, the other four times.

    Parameters
    ----------
    sample_rate : Hz
    """
    loud = [np.tile(values / max(np.abs(values).max(), 1e-9), 4) for values in (sound, other)]
    return Audio(np.concatenate([loud[0], np.zeros(sample_rate // 4), loud[1]]), rate=sample_rate)


@keras.saving.register_keras_serializable(package="ser_utils")
class MeanOverSegments(keras.layers.Layer):
    """Probabilities of all segments of a batch, one after another, as the mean of each utterance.

    Call: embeddings (batch, n_segments, n_dimensions), each (batch · n_segments, n_classes) -> (batch, n_classes)
    """

    def call(self, embeddings, each):
        shape = ops.shape(embeddings)
        return ops.mean(ops.reshape(each, (shape[0], shape[1], each.shape[-1])), axis=1)


def utterance_vote(classifier: PrototypeClassifier) -> keras.Model:
    """Make a prototype classifier of whole utterances, as 02 decides them: the mean probability of their segments.

    Returns
    -------
    model of embeddings (batch, n_segments, n_dimensions), with the classifier's own layers
    """
    embeddings = keras.Input((None, classifier.prototypes.shape[1]), name="embeddings")
    each = ops.reshape(embeddings, (-1, embeddings.shape[-1]))
    each = classifier.get_layer("classes")(classifier.get_layer("prototypes")(each))
    return keras.Model(embeddings, MeanOverSegments(name="vote")(embeddings, each), name="utterance_vote")


class SegmentSubject(Subject):
    """An `utterance_vote` to be explained: x is (1, n_segments, n_dimensions); prototypes are a method of their own."""

    def methods(self, x, label, *, seed=0):
        """Those of every subject, and `prototypes`: what they contribute, segment by segment."""
        return super().methods(x, label, seed=seed) | {"prototypes": lambda: self._contributed(x, label)}

    def _contributed(self, x, label):
        layer, weights = self.model.get_layer("prototypes"), self.model.get_layer("classes").get_weights()[0]
        added = contributions(ops.convert_to_numpy(layer(x[0])), weights, label).sum(axis=1)
        return stretch(added[None], x.shape[1:])


@dataclass(frozen=True)
class Opened:
    """A prototype classifier of notebook 02 with the segments it learned from and was tested on.

    Parameters
    ----------
    tables, embeddings : by role, lines of the segment table, and float32 (n, n_dimensions)
    """

    classifier: PrototypeClassifier
    coder: Coder
    classes: list[str]
    tables: dict[str, pd.DataFrame]
    embeddings: dict[str, np.ndarray]

    def labels(self, role: str) -> np.ndarray:
        """Places of the segments' emotions in `classes`, int (n,)."""
        return self.tables[role]["emotion"].map(self.classes.index).to_numpy(int)

    def similarity(self, role: str) -> np.ndarray:
        """`similarities` of the segments of one role."""
        return similarities(self.classifier, self.embeddings[role])


def open_classifier(
    workspace: Workspace,
    row: Any,
    store: FeatureStore,
    folds: pd.DataFrame,
    *,
    speakers: list[str],
    most_train: int | None = None,
    most_test: int | None = None,
) -> Opened:
    """Open a classifier with its segments; validation and test segments of emotions it does not know are left out.

    Parameters
    ----------
    row : line of the table `prototype_classifiers`
    store : of segments
    folds : its protocol's fold table
    speakers : ids whose segments it knows
    most_train, most_test : segments at most, at even distances
    """
    classifier, coder = open_stages(workspace, row)
    classes, segments, tables = row.classes.split(), segment_table(store), {}
    for role in ("train", "validation", "test"):
        most = most_train if role == "train" else most_test
        lines = select_segments(segments, folds, role, speakers=speakers, fold=row.fold, most=most)
        tables[role] = lines[lines["emotion"].isin(classes)].reset_index(drop=True)
    embeddings = {role: coder.embed(store.array[lines["row"]]) for role, lines in tables.items()}
    return Opened(classifier, coder, classes, tables, embeddings)
