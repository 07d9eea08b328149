"""Prototypes, held to the same standards as other explanations: are they real, needed, pure, and found again?

Similarities are (n_segments, n_prototypes) as `classifier.prototype_similarity` gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
from IPython.display import Audio
from keras import ops
from scipy.optimize import linear_sum_assignment

from ser_utils.evaluation.metrics import unweighted_average_recall
from ser_utils.explanation.attribution import Subject, stretch
from ser_utils.profiles import settings
from ser_utils.systems.prototype.segments import segment_table, select_segments
from ser_utils.systems.prototype.training import Coder, fit_classifier, in_batches, open_stages

NEAREST = 10  # training segments that purity asks
ALIKE = 0.95  # correlation of two prototypes' similarities from which one says what the other does


def similarities(classifier, embeddings):
    """How alike every embedding is to every prototype: float32 (n, n_prototypes)."""
    return in_batches(classifier.get_layer("prototypes"), embeddings)


def decide(similarity, fc_weights, kept=None):
    """Which class each segment gets of the prototypes `kept` (indices; None is all). Returns int (n,)."""
    kept = slice(None) if kept is None else kept
    return (similarity[:, kept] @ np.asarray(fc_weights)[kept]).argmax(axis=1)


def classes_spoken_for(fc_weights):
    """The class each prototype speaks for most, int (n_prototypes,), and how far ahead of the mean of all."""
    weights = np.asarray(fc_weights, float)
    return weights.argmax(axis=1), weights.max(axis=1) - weights.mean(axis=1)


def project(classifier, embeddings):
    """The classifier with every prototype put on the training segment that is nearest to it.

    embeddings : float (n, n_dimensions) of the training segments
    Returns a copy of the classifier, and how far each prototype moved as a share of the median distance between
    prototypes, float (n_prototypes,).
    Source: the projection step of Chen et al. 2019, This Looks Like That.
    """
    prototypes = classifier.prototypes
    nearest = similarities(classifier, embeddings).argmax(axis=0)
    copy = with_prototypes(classifier, embeddings[nearest])
    squared = np.square(prototypes[:, None] - prototypes[None]).sum(axis=-1)
    between = np.sqrt(np.median(squared[~np.eye(len(prototypes), dtype=bool)]))
    return copy, np.linalg.norm(embeddings[nearest] - prototypes, axis=1) / between


def with_prototypes(classifier, prototypes):
    """A copy of a classifier with other prototypes, float (n_prototypes, n_dimensions)."""
    copy = type(classifier).from_config(classifier.get_config())
    copy.set_weights(classifier.get_weights())
    copy.get_layer("prototypes").prototypes.assign(prototypes)
    return copy


def removal(similarity, fc_weights, labels, order, *, steps=20):
    """UAR as prototypes go, in `order` (int (n_prototypes,), the first to go first).

    labels : int (n,), the truth. Returns shares removed and UAR, (steps + 1,); with none left the first class is said.
    """
    shares = np.linspace(0, 1, steps + 1)
    kept = [order[round(share * len(order)) :] for share in shares]
    # recall by class, all shares at once: from labels as strings it took ten times as long, at each of 924 points
    right = np.stack([decide(similarity, fc_weights, left) for left in kept]) == labels
    of_class = (np.unique(labels) == labels[:, None]).astype(int)
    return shares, (right @ of_class / of_class.sum(axis=0)).mean(axis=1)


def purity(similarity, fc_weights, labels, *, n=NEAREST):
    """Share of each prototype's nearest training segments that are of the class it speaks for.

    similarity, labels : of training segments. Returns float (n_prototypes,); its chance is that class's share.
    """
    nearest = np.argsort(-similarity, axis=0, kind="stable")[:n]
    own, _ = classes_spoken_for(fc_weights)
    return (np.asarray(labels)[nearest] == own).mean(axis=0)


def redundancy(similarity, *, alike=ALIKE):
    """How many prototypes say what another one says.

    Returns a dict: twins, the share whose similarities correlate with another's by `alike` or more;
    effective_number, the exponential of the entropy of the variance along the principal axes (Roy & Vetterli 2007).
    """
    correlation = np.corrcoef(similarity.T)
    np.fill_diagonal(correlation, -1)
    variance = np.linalg.eigvalsh(np.cov(similarity.T)).clip(0)
    share = variance[variance > 0] / variance.sum()
    return {
        "twins": float((correlation.max(axis=1) >= alike).mean()),
        "effective_number": float(np.exp(-(share * np.log(share)).sum())),
    }


def paired(a, b):
    """Prototypes of two trainings, paired so that their similarities to the same segments correlate most.

    a, b : (n_segments, n_prototypes). Returns indices of each, and the pairs' correlations (Hungarian method).
    """
    n = a.shape[1]
    correlation = np.corrcoef(a.T, b.T)[:n, n:]
    rows, columns = linear_sum_assignment(-correlation)
    return rows, columns, correlation[rows, columns]


def shuffled_similarities(classifier, embeddings, *, draws=5, seed=0):
    """Similarities to prototypes that training did not find: each dimension is dealt anew among the prototypes.

    Returns a list of `draws` arrays (n, n_prototypes).
    """
    rng, prototypes = np.random.default_rng(seed), classifier.prototypes
    return [
        similarities(with_prototypes(classifier, rng.permuted(prototypes, axis=0)), embeddings) for _ in range(draws)
    ]


def agreement(one, other, shuffled):
    """Whether another training finds the same prototypes: (similarity, fc_weights) of both on the same segments.

    shuffled : `shuffled_similarities` of the other, paired with the one in the same way
    Returns a dict: correlation, the mean of `paired`; by_chance, that of the shuffled; same_class, the share of pairs
    that speak for the same class; same_decision, the share of segments that both classify alike.
    """
    (a, weights_a), (b, weights_b) = one, other
    rows, columns, correlations = paired(a, b)
    class_a, class_b = classes_spoken_for(weights_a)[0], classes_spoken_for(weights_b)[0]
    return {
        "correlation": float(correlations.mean()),
        "by_chance": float(np.mean([paired(a, draw)[2].mean() for draw in shuffled])),
        "same_class": float((class_a[rows] == class_b[columns]).mean()),
        "same_decision": float((decide(a, weights_a) == decide(b, weights_b)).mean()),
    }


def found_again(workspace, name, opened, *, seed=0):
    """Train a classifier of 02 again with the next seed, on the same embeddings, and compare: see `agreement`."""
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
    other = similarities(again.model, known), again.model.fc_weights
    dealt = shuffled_similarities(again.model, known, seed=seed)
    return agreement((opened.similarity("train"), opened.classifier.fc_weights), other, dealt)


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


def by_strength(fc_weights):
    """Prototypes in the order of how strongly they speak, the strongest of every class before the next of any.

    Strength is how far a prototype's weight for its class stands above the mean of all. Taken over all classes at
    once, the order would first silence whole classes. Returns int (n_prototypes,).
    """
    own, strength = classes_spoken_for(fc_weights)
    rank = pd.Series(-strength).groupby(own).rank(method="first").to_numpy()
    return np.lexsort((own, rank))


def removals(opened, *, draws=20, seed=0):
    """Removal curves of one classifier on held-out segments: strongest first, weakest first, at random.

    Returns a dict order -> (shares, UAR), UAR (draws, steps + 1) at random; strength as in `by_strength`.
    """
    similarity, weights, truth = (opened.similarity("test"), opened.classifier.fc_weights, opened.labels("test"))
    order, rng = by_strength(weights), np.random.default_rng(seed)
    shares, falling = removal(similarity, weights, truth, order)
    _, rising = removal(similarity, weights, truth, order[::-1])
    at_random = [removal(similarity, weights, truth, rng.permutation(len(order)))[1] for _ in range(draws)]
    return {
        "strongest first": (shares, falling),
        "weakest first": (shares, rising),
        "at random": (shares, np.stack(at_random)),
    }


def contributions(similarity, fc_weights, label):
    """What each prototype adds to the logit of `label` in each segment, against the mean of all classes.

    Returns float (n_segments, n_prototypes). Rows sum to how far the label's logit stands above the mean logit.
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
    table = pd.DataFrame(
        {
            "segment": np.arange(len(added)),
            "support": added.sum(axis=1),
            "prototype": added.argmax(axis=1),
            "contribution": added.max(axis=1),
        }
    )
    return table.sort_values("support", ascending=False, kind="stable", ignore_index=True)


def spread_out(table, *, most, apart):
    """The first `most` rows of `sounds_like` whose segments lie at least `apart` places from each other."""
    chosen = []
    for row in table.itertuples():
        if all(abs(row.segment - other) >= apart for other in chosen):
            chosen.append(row.segment)
    return table.set_index("segment").loc[chosen[:most]].reset_index()


def one_then_other(sound, other, sample_rate):
    """Two short sounds to be compared by ear: the first four times in a row, a pause, then the other four times.

    Returns an IPython Audio.
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


def utterance_vote(classifier):
    """A prototype classifier over whole utterances, as 02 decides them: the mean probability of their segments.

    Returns a keras.Model of embeddings (batch, n_segments, n_dimensions), with the classifier's own layers.
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

    tables, embeddings : dict role -> lines of the segment table, float32 (n, n_dimensions)
    """

    classifier: keras.Model
    coder: Coder
    classes: list
    tables: dict
    embeddings: dict

    def labels(self, role):
        return self.tables[role]["emotion"].map(self.classes.index).to_numpy(int)

    def similarity(self, role):
        return similarities(self.classifier, self.embeddings[role])


def open_classifier(workspace, row, store, folds, *, speakers, most_train=None, most_test=None):
    """Open what one line of the table `prototype_classifiers` lists.

    store : of segments; folds : its protocol's fold table; speakers : ids whose segments it knows
    Validation and test segments of emotions it does not know are left out.
    """
    classifier, coder = open_stages(workspace, row)
    classes, segments, tables = row.classes.split(), segment_table(store), {}
    for role in ("train", "validation", "test"):
        most = most_train if role == "train" else most_test
        own = select_segments(segments, folds, role, speakers=speakers, fold=row.fold, most=most)
        tables[role] = own[own["emotion"].isin(classes)].reset_index(drop=True)
    embeddings = {role: coder.embed(store.array[own["row"]]) for role, own in tables.items()}
    return Opened(classifier, coder, classes, tables, embeddings)
