"""The prototype paper's classifier: how alike a sound is to what was learned as typical decides."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

ROOT_OF_DISTANCE = {"euclidean": 2, **{f"l{root}": root for root in range(2, 9)}}
SCORING_METHODS = ("positive", "min_max", "softmax")
SMALLEST_SQUARE = 1e-8  # the root's slope is infinite at 0, where a prototype sits on a segment
ALIKE = 0.95  # correlation from which two pictures or prototypes are called twins
FOCAL = dict(alpha=0.25, gamma=2.0)  # Lin et al. 2017


def prototype_similarity(embedding: Any, prototypes: Any, distance: str = "l4") -> Any:
    """Compute exp(−d), with d the `distance` between each embedding and each prototype.

    Parameters
    ----------
    embedding : float (batch, n_dimensions)
    prototypes : float (n_prototypes, n_dimensions), as rows
    distance : "l<r>" for d = (‖x − p‖²)^(1/r), r from 2 to 8; "euclidean" is "l2"

    Returns
    -------
    float (batch, n_prototypes) in (0, 1]

    Source: the prototype paper's code, whose "l4" is a root of the euclidean distance, not an L4 norm.
    """
    root = _root_of(distance)
    # ‖x − p‖² = ‖x‖² + ‖p‖² − 2 x·p: one matrix product instead of a (batch, n_prototypes, n_dimensions) array
    squared = (
        ops.sum(ops.square(embedding), axis=1, keepdims=True)
        + ops.sum(ops.square(prototypes), axis=1)
        - 2 * ops.matmul(embedding, ops.transpose(prototypes))
    )
    squared = ops.maximum(squared, SMALLEST_SQUARE)
    if root & (root - 1):
        return ops.exp(-ops.power(squared, 1 / root))
    for _ in range(root.bit_length() - 1):  # square roots cost a tenth of a power
        squared = ops.sqrt(squared)
    return ops.exp(-squared)


def _root_of(distance):
    if distance not in ROOT_OF_DISTANCE:
        accepted = ", ".join(ROOT_OF_DISTANCE)
        raise ValueError(f"distance must be one of {accepted}. Received: distance={distance!r}")
    return ROOT_OF_DISTANCE[distance]


def prototype_scores(fc_weights: np.ndarray, method: str = "softmax") -> np.ndarray:
    """Compute how much each prototype speaks for each class, in percent of all it says.

    Parameters
    ----------
    fc_weights : float (n_prototypes, n_classes); the paper rounds them to two decimals before
    method : "positive" (share of the positive weights), "min_max" (share after subtracting the smallest) or
        "softmax"

    Returns
    -------
    float (n_prototypes, n_classes) in [0, 100]; rows sum to 100, or are 0 where nothing speaks for any
    """
    weights = np.asarray(fc_weights, dtype=np.float64)
    if method == "positive":
        shares = np.maximum(weights, 0)
    elif method == "min_max":
        shares = weights - weights.min(axis=1, keepdims=True)
    elif method == "softmax":
        shares = np.exp(weights - weights.max(axis=1, keepdims=True))
    else:
        accepted = ", ".join(SCORING_METHODS)
        raise ValueError(f"method must be one of {accepted}. Received: method={method!r}")
    total = shares.sum(axis=1, keepdims=True)
    return 100 * np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)


def mean_prototype_score(fc_weights: np.ndarray, method: str = "softmax") -> float:
    """Average over prototypes their largest share, in percent, of weights rounded as the paper does."""
    return float(prototype_scores(np.round(fc_weights, 2), method).max(axis=1).mean())


def similarity_loss(similarity: Any) -> Any:
    """Compute the mean focal loss between similarities, rescaled to sum to one, and the one-hot of their maximum.

    Parameters
    ----------
    similarity : float (batch, n_prototypes), positive; of the one-hot only the largest entry counts
    """
    largest = ops.max(similarity, axis=1) / ops.sum(similarity, axis=1)
    return ops.mean(FOCAL["alpha"] * (1 - largest) ** FOCAL["gamma"] * -ops.log(largest))


def crowding_loss(prototypes: Any, distance: str = "l4") -> Any:
    """Compute how alike prototypes are to the one most like them, averaged: what keeps them apart when it falls.

    Parameters
    ----------
    prototypes : float (n_prototypes, n_dimensions), at least two
    """
    alike = prototype_similarity(prototypes, prototypes, distance)
    return ops.mean(ops.max(alike * (1 - ops.eye(prototypes.shape[0])), axis=1))


def twin_share(prototypes: np.ndarray) -> float:
    """Measure the share of prototypes (n, n_dimensions) whose correlation with another is above .95.

    What all have in common, their mean, is taken away before.
    """
    correlation = np.corrcoef(prototypes - prototypes.mean(axis=0)) - 2 * np.eye(len(prototypes))
    return float((correlation.max(axis=1) > ALIKE).mean())


@keras.saving.register_keras_serializable(package="ser_utils")
class PrototypeLayer(layers.Layer):
    """Similarities to learned prototypes, and the losses on them.

    similarity_weight · `similarity_loss` makes each embedding choose one prototype, as published;
    crowding_weight · `crowding_loss`, ours, keeps prototypes apart.

    n_prototypes : int; initializer : of the prototypes, "uniform" as published
    Input (batch, n_dimensions), output (batch, n_prototypes) in (0, 1].
    """

    def __init__(
        self, n_prototypes, distance="l4", similarity_weight=1e-3, initializer="uniform", crowding_weight=0.0, **kwargs
    ):
        super().__init__(**kwargs)
        if n_prototypes < 1:
            raise ValueError(f"n_prototypes must be at least 1. Received: n_prototypes={n_prototypes}")
        _root_of(distance)
        self.n_prototypes, self.distance = n_prototypes, distance
        self.similarity_weight, self.crowding_weight = similarity_weight, crowding_weight
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        shape = (self.n_prototypes, input_shape[-1])
        self.prototypes = self.add_weight(name="prototypes", shape=shape, initializer=self.initializer)

    def call(self, embedding):
        similarity = prototype_similarity(embedding, self.prototypes, self.distance)
        if self.similarity_weight:
            self.add_loss(self.similarity_weight * similarity_loss(similarity))
        if self.crowding_weight:
            self.add_loss(self.crowding_weight * crowding_loss(self.prototypes, self.distance))
        return similarity

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.n_prototypes)

    def get_config(self):
        names = ("n_prototypes", "distance", "similarity_weight", "crowding_weight")
        config = {name: getattr(self, name) for name in names}
        return super().get_config() | config | {"initializer": keras.initializers.serialize(self.initializer)}


@keras.saving.register_keras_serializable(package="ser_utils")
class PrototypeClassifier(keras.Model):
    """Embedding → similarities to prototypes → bias-free softmax.

    Input (batch, n_dimensions), an encoder's flattened output; output (batch, n_classes), probabilities.
    `prototypes` (n_prototypes, n_dimensions) and `fc_weights` (n_prototypes, n_classes) are NumPy arrays.
    options : of PrototypeLayer
    """

    def __init__(self, n_dimensions, n_classes, n_prototypes, *, name="prototype_classifier", **options):
        embedding = keras.Input((n_dimensions,), name="embedding")
        layer = PrototypeLayer(n_prototypes, name="prototypes", **options)
        decide = layers.Dense(n_classes, "softmax", use_bias=False, kernel_initializer="random_normal", name="classes")
        super().__init__(embedding, decide(layer(embedding)), name=name)
        self.settings = dict(n_dimensions=n_dimensions, n_classes=n_classes, n_prototypes=n_prototypes)
        self.settings |= options

    @property
    def prototypes(self) -> np.ndarray:
        return ops.convert_to_numpy(self.get_layer("prototypes").prototypes)

    @property
    def fc_weights(self) -> np.ndarray:
        return ops.convert_to_numpy(self.get_layer("classes").kernel)

    def start_from(
        self, embeddings: np.ndarray, labels: np.ndarray, *, weight: float = 1.0, seed: int = 0
    ) -> PrototypeClassifier:
        """Put the prototypes on training segments, equally many of each class, each speaking for its own.

        The paper starts from small random numbers, far from any sound, and needs thousands of epochs.

        Parameters
        ----------
        embeddings : float (n, n_dimensions)
        labels : int (n,), every class once at least
        weight : of a prototype's own class at the start; published ones end at about ±7. With 1 a prototype of
            four classes begins with a score of 48 %, with 5 it would begin with 98 % and have nothing to learn
        """
        random = np.random.default_rng(seed)
        n_prototypes, n_classes = self.fc_weights.shape
        of_class = np.arange(n_prototypes) % n_classes
        drawn = np.empty(n_prototypes, int)
        for label in range(n_classes):
            members, places = np.flatnonzero(labels == label), np.flatnonzero(of_class == label)
            drawn[places] = random.choice(members, len(places), replace=len(members) < len(places))
        self.get_layer("prototypes").prototypes.assign(embeddings[drawn])
        self.get_layer("classes").kernel.assign(weight * np.eye(n_classes)[of_class])
        return self

    def get_config(self):
        return {"name": self.name, **self.settings}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class PrototypeLog(keras.callbacks.Callback):
    """Puts what prototypes are like after each epoch into the history, beside what they were like at the start.

    `prototype_score` is the mean score in percent; `twins` the share of prototypes whose embedding correlates by
    more than .95 with that of another; `start_score` and `start_twins` are those before the first step.
    """

    def on_train_begin(self, logs=None):
        self.start = {f"start_{name}": value for name, value in self.measure().items()}

    def on_epoch_end(self, epoch, logs=None):
        logs |= {f"prototype_{name}": value for name, value in self.measure().items()} | self.start

    def measure(self):
        twins = twin_share(self.model.prototypes)
        return {"score": mean_prototype_score(self.model.fc_weights), "twins": twins}


def build_prototype_classifier(
    n_dimensions: int,
    n_classes: int,
    n_prototypes: int,
    *,
    learning_rate: float = 0.01,
    steps_per_epoch: int = 1,
    jit_compile: bool | str = "auto",
    **options: Any,
) -> PrototypeClassifier:
    """Build a compiled classifier with the paper's settings: focal loss, Adam 0.01, accuracy and macro-F1 shown.

    Targets are one-hot (n, n_classes).

    Parameters
    ----------
    steps_per_epoch : batches in an epoch; they run as one call, without Python in between
    jit_compile : True pays seconds before the first step and saves a quarter of each, for long trainings
    options : of PrototypeLayer: distance="l4", similarity_weight=1e-3, crowding_weight=0
    """
    model = PrototypeClassifier(n_dimensions, n_classes, n_prototypes, **options)
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.CategoricalFocalCrossentropy(**FOCAL),
        metrics=["accuracy", keras.metrics.F1Score("macro", name="macro_f1")],
        steps_per_execution=steps_per_epoch,
        jit_compile=jit_compile,
    )
    return model
