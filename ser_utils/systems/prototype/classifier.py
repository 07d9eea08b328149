"""The prototype paper's classifier: how alike a sound is to what was learned as typical decides."""

import keras
import numpy as np
from keras import layers, ops

register = keras.saving.register_keras_serializable(package="ser_utils")

ROOT_OF_DISTANCE = {"euclidean": 2, **{f"l{root}": root for root in range(2, 9)}}
SCORING_METHODS = ("positive", "min_max", "softmax")
SMALLEST_SQUARE = 1e-8  # the root's slope is infinite at 0, where a prototype sits on a segment
FOCAL = dict(alpha=0.25, gamma=2.0)  # Lin et al. 2017


def prototype_similarity(embedding, prototypes, distance="l4"):
    """exp(−d) with d the `distance` between each embedding and each prototype.

    embedding : float (batch, n_dimensions); prototypes : float (n_prototypes, n_dimensions), as rows
    distance : "l<r>" for d = (‖x − p‖²)^(1/r), r from 2 to 8; "euclidean" is "l2"
    Returns float (batch, n_prototypes) in (0, 1].
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


def prototype_scores(fc_weights, method="softmax"):
    """How much each prototype speaks for each class, in percent of all it says.

    fc_weights : float (n_prototypes, n_classes); the paper rounds them to two decimals before
    method : "positive" (share of the positive weights), "min_max" (share after subtracting the smallest) or
        "softmax"
    Returns float (n_prototypes, n_classes) in [0, 100]; rows sum to 100, or are 0 where nothing speaks for any.
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


def mean_prototype_score(fc_weights, method="softmax"):
    """Mean over prototypes of their largest share, in percent, of weights rounded as the paper does."""
    return float(prototype_scores(np.round(fc_weights, 2), method).max(axis=1).mean())


@register
class PrototypeLayer(layers.Layer):
    """Similarities to learned prototypes, and the loss that makes each embedding choose one.

    The loss is similarity_weight · focal(similarities rescaled to sum to one, one-hot of their own maximum).

    n_prototypes : int; similarity_weight : float; initializer : of the prototypes, "uniform" as published
    Input (batch, n_dimensions), output (batch, n_prototypes) in (0, 1].
    """

    def __init__(self, n_prototypes, distance="l4", similarity_weight=1e-3, initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        if n_prototypes < 1:
            raise ValueError(f"n_prototypes must be at least 1. Received: n_prototypes={n_prototypes}")
        _root_of(distance)
        self.n_prototypes, self.distance, self.similarity_weight = n_prototypes, distance, similarity_weight
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        shape = (self.n_prototypes, input_shape[-1])
        self.prototypes = self.add_weight(name="prototypes", shape=shape, initializer=self.initializer)

    def call(self, embedding):
        similarity = prototype_similarity(embedding, self.prototypes, self.distance)
        if self.similarity_weight:
            self.add_loss(self.similarity_weight * similarity_loss(similarity))
        return similarity

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.n_prototypes)

    def get_config(self):
        return super().get_config() | {
            "n_prototypes": self.n_prototypes,
            "distance": self.distance,
            "similarity_weight": self.similarity_weight,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def similarity_loss(similarity):
    """Mean focal loss between similarities, rescaled to sum to one, and the one-hot of their own maximum.

    similarity : float (batch, n_prototypes), positive. Of the one-hot only the largest entry counts.
    """
    largest = ops.max(similarity, axis=1) / ops.sum(similarity, axis=1)
    return ops.mean(FOCAL["alpha"] * (1 - largest) ** FOCAL["gamma"] * -ops.log(largest))


@register
class PrototypeClassifier(keras.Model):
    """Embedding → similarities to prototypes → bias-free softmax.

    Input (batch, n_dimensions), an encoder's flattened output; output (batch, n_classes), probabilities.
    `prototypes` (n_prototypes, n_dimensions) and `fc_weights` (n_prototypes, n_classes) are NumPy arrays.
    """

    def __init__(
        self, n_dimensions, n_classes, n_prototypes, distance="l4", similarity_weight=1e-3,
        name="prototype_classifier", **kwargs,
    ):  # fmt: skip
        embedding = keras.Input((n_dimensions,), name="embedding")
        layer = PrototypeLayer(n_prototypes, distance, similarity_weight, name="prototypes")
        decide = layers.Dense(
            n_classes, "softmax", use_bias=False, kernel_initializer="random_normal", name="classes"
        )
        super().__init__(embedding, decide(layer(embedding)), name=name, **kwargs)
        self.settings = dict(
            n_dimensions=n_dimensions,
            n_classes=n_classes,
            n_prototypes=n_prototypes,
            distance=distance,
            similarity_weight=similarity_weight,
        )

    @property
    def prototypes(self):
        return ops.convert_to_numpy(self.get_layer("prototypes").prototypes)

    @property
    def fc_weights(self):
        return ops.convert_to_numpy(self.get_layer("classes").kernel)

    def start_from(self, embeddings, labels, *, weight=5.0, seed=0):
        """Put the prototypes on training segments, equally many of each class, each speaking for its own.

        embeddings : float (n, n_dimensions); labels : int (n,), every class once at least
        weight : of a prototype's own class at the start; published ones end at about ±7
        The paper starts from small random numbers, far from any sound, and needs thousands of epochs.
        """
        random = np.random.default_rng(seed)
        n_prototypes, n_classes = self.fc_weights.shape
        of_class = np.arange(n_prototypes) % n_classes
        chosen = np.empty(n_prototypes, int)
        for label in range(n_classes):
            own, places = np.flatnonzero(labels == label), np.flatnonzero(of_class == label)
            chosen[places] = random.choice(own, len(places), replace=len(own) < len(places))
        self.get_layer("prototypes").prototypes.assign(embeddings[chosen])
        self.get_layer("classes").kernel.assign(weight * np.eye(n_classes)[of_class])
        return self

    def get_config(self):
        return {"name": self.name, **self.settings}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def build_prototype_classifier(
    n_dimensions, n_classes, n_prototypes, *, distance="l4", similarity_weight=1e-3, learning_rate=0.01,
    steps_per_epoch=1, jit_compile="auto",
):  # fmt: skip
    """A compiled classifier with the paper's settings: focal loss, Adam 0.01, accuracy and macro-F1 shown.

    steps_per_epoch : int, batches in an epoch; they run as one call, without Python in between
    jit_compile : True pays seconds before the first step and saves a quarter of each, for long trainings
    Targets are one-hot (n, n_classes). Returns a PrototypeClassifier.
    """
    model = PrototypeClassifier(n_dimensions, n_classes, n_prototypes, distance, similarity_weight)
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.CategoricalFocalCrossentropy(**FOCAL),
        metrics=["accuracy", keras.metrics.F1Score("macro", name="macro_f1")],
        steps_per_execution=steps_per_epoch,
        jit_compile=jit_compile,
    )
    return model
