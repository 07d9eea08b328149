"""A variational autoencoder of voice statistics, and the classifier that stands on its latent."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

ACTIVE_VARIANCE = 0.01  # of a latent's posterior mean over the data (Burda, Grosse & Salakhutdinov 2016)


def kl_divergence(mean: keras.KerasTensor, log_variance: keras.KerasTensor) -> keras.KerasTensor:
    """KL divergence of N(mean, exp(log_variance)) from N(0, 1), summed over the last axis, in nats."""
    return -0.5 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), axis=-1)


@keras.saving.register_keras_serializable(package="ser_utils")
class Sampling(layers.Layer):
    """Draw z = mean + exp(log_variance / 2) · ε with ε ~ N(0, 1): random, yet differentiable in both inputs.

    Call: mean, log_variance (batch, n_latent) -> (batch, n_latent). The seed makes the draws repeatable.
    """

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, mean, log_variance):
        noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=self.generator)
        return mean + ops.exp(log_variance / 2) * noise

    def compute_output_shape(self, mean_shape, _):
        return mean_shape


@keras.saving.register_keras_serializable(package="ser_utils")
class VariationalAutoencoder(keras.Model):
    """Encoder to mean and log-variance, a sample of it, decoder back to the features.

    Parameters
    ----------
    hidden : units of the encoder's dense layers; the decoder mirrors them
    beta : weight of the KL divergence; 1 is the evidence lower bound, see Higgins et al. 2017 for others
    dropout : rate on the encoder's input, within [0, 1)
    seed : of samples and dropout

    Call: x (batch, n_features), standardised -> dict of `reconstruction` (from a sample in training, from the
    mean otherwise), `mean` and `log_variance` (batch, n_latent). Targets are not needed: the loss is
    ½ ‖x − x̂‖² + weight · KL per example, weight being beta unless `KLWarmUp` lowers it. Metrics, in nats per
    example: `reconstruction`, `kl`, and `objective`, the loss at the full beta, by which epochs compare.
    """

    def __init__(
        self,
        n_features: int,
        n_latent: int = 16,
        hidden: Sequence[int] = (128, 64),
        beta: float = 1.0,
        dropout: float = 0.0,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if min(n_features, n_latent, *hidden) < 1 or beta < 0:
            raise ValueError(
                "Sizes must be positive and beta not negative. "
                f"Received: n_features={n_features}, n_latent={n_latent}, hidden={hidden}, beta={beta}"
            )
        self.n_features, self.n_latent, self.hidden = n_features, n_latent, tuple(hidden)
        self.beta, self.dropout, self.seed = beta, dropout, seed
        self.encoder = _encoder(n_features, n_latent, hidden, dropout, seed)
        self.sampling = Sampling(seed, name="sampling")
        self.decoder = _decoder(n_features, n_latent, hidden)
        self.kl_weight = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(beta), trainable=False, name="kl_weight"
        )
        self.means = [keras.metrics.Mean(name) for name in ("reconstruction", "kl", "objective")]
        self.built = True  # encoder and decoder are

    def call(self, x, training=False):
        mean, log_variance = self.encoder(x, training=training)
        z = self.sampling(mean, log_variance) if training else mean
        return {"reconstruction": self.decoder(z), "mean": mean, "log_variance": log_variance}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        error = ops.sum(ops.square(x - y_pred["reconstruction"]), axis=-1)
        reconstruction = ops.mean(error) / 2
        kl = ops.mean(kl_divergence(y_pred["mean"], y_pred["log_variance"]))
        values = (reconstruction, kl, reconstruction + self.beta * kl)
        for metric, value in zip(self.means, values, strict=True):
            metric.update_state(value)
        return reconstruction + self.kl_weight * kl

    def get_config(self):
        names = ("n_features", "n_latent", "hidden", "beta", "dropout", "seed")
        return super().get_config() | {name: getattr(self, name) for name in names}


class KLWarmUp(keras.callbacks.Callback):
    """Raise the KL's weight linearly from beta / epochs to beta, so that the latent is used before it is paid for.

    Source: Bowman et al. 2016, Generating Sentences from a Continuous Space.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        share = min(1.0, (epoch + 1) / self.epochs) if self.epochs else 1.0
        self.model.kl_weight.assign(self.model.beta * share)


def _encoder(n_features, n_latent, hidden, dropout, seed):
    x = features = keras.Input((n_features,), name="features")
    if dropout:
        x = layers.Dropout(dropout, seed=seed)(x)
    for number, units in enumerate(hidden, 1):
        x = layers.Dense(units, "elu", name=f"dense_{number}")(x)
    mean = layers.Dense(n_latent, name="mean")(x)
    log_variance = layers.Dense(n_latent, kernel_initializer="zeros", name="log_variance")(x)
    return keras.Model(features, [mean, log_variance], name="encoder")


def _decoder(n_features, n_latent, hidden):
    x = z = keras.Input((n_latent,), name="z")
    for number, units in enumerate(reversed(hidden), 1):
        x = layers.Dense(units, "elu", name=f"dense_{number}")(x)
    return keras.Model(z, layers.Dense(n_features, name="features")(x), name="decoder")


def active_units(mean: np.ndarray) -> np.ndarray:
    """Which latent dimensions say anything: those whose posterior mean varies over the data by more than 0.01.

    Parameters
    ----------
    mean : (n, n_latent), the encoder's

    Returns
    -------
    bool (n_latent,); none active is a collapsed posterior

    Source: Burda, Grosse & Salakhutdinov 2016, Importance Weighted Autoencoders.
    """
    return np.var(mean, axis=0) > ACTIVE_VARIANCE


@keras.saving.register_keras_serializable(package="ser_utils")
class SupportVectors(layers.Layer):
    """A fitted RBF SVC as a layer: pairwise decisions, one vote each, ties broken by their margins.

    Call: (batch, n_features) -> (batch, n_classes), scikit-learn's one-against-rest decision values.
    """

    def __init__(self, n_vectors, n_classes, gamma, **kwargs):
        super().__init__(**kwargs)
        self.n_vectors, self.n_classes, self.gamma = n_vectors, n_classes, gamma
        self.first, self.second = np.triu_indices(n_classes, 1)

    def build(self, input_shape):
        n_pairs = len(self.first)
        self.vectors = self.add_weight(shape=(self.n_vectors, input_shape[-1]), trainable=False, name="vectors")
        self.duals = self.add_weight(shape=(self.n_vectors, n_pairs), trainable=False, name="duals")
        self.intercepts = self.add_weight(shape=(n_pairs,), trainable=False, name="intercepts")

    def call(self, x):
        squares = ops.sum(x**2, -1, keepdims=True) + ops.sum(self.vectors**2, -1)
        kernel = ops.exp(-self.gamma * (squares - 2 * x @ ops.transpose(self.vectors)))
        margins = kernel @ self.duals + self.intercepts
        for_first = ops.cast(margins >= 0, x.dtype)
        to_first, to_second = (np.eye(self.n_classes, dtype="float32")[k] for k in (self.first, self.second))
        votes = for_first @ to_first + (1 - for_first) @ to_second
        total = margins @ (to_first - to_second)
        return votes + total / (3 * (ops.abs(total) + 1))

    @classmethod
    def of(cls, svc: SVC, **kwargs) -> "SupportVectors":
        """The layer that decides as `svc`, a fitted sklearn.svm.SVC with an RBF kernel."""
        n_classes = len(svc.classes_)
        layer = cls(len(svc.support_vectors_), n_classes, svc._gamma, **kwargs)
        layer.build((None, svc.support_vectors_.shape[1]))
        # dual_coef_ has a row for each other class, skipping the vector's own
        owner = np.repeat(np.arange(n_classes), svc.n_support_)
        duals = [
            np.where(owner == i, svc.dual_coef_[j - 1], 0) + np.where(owner == j, svc.dual_coef_[i], 0)
            for i, j in zip(layer.first, layer.second, strict=True)
        ]
        sign = -1 if n_classes == 2 else 1  # of two classes, scikit-learn counts the second as positive
        layer.set_weights([svc.support_vectors_, sign * np.transpose(duals), sign * svc.intercept_])
        return layer


INPUTS = ("latent", "features", "both")  # what a classifier sees


def classifier_inputs(features: Any, latent: Any, inputs: str) -> list:
    """The columns a classifier of `inputs` sees: standardised features, latent means, or both side by side."""
    return {"latent": [latent], "features": [features], "both": [features, latent]}[inputs]


def voice_classifier(
    scaler: StandardScaler, vae: VariationalAutoencoder, svc: SVC, inputs: str = "both"
) -> keras.Model:
    """All of it in one network, ready for export: voice statistics -> class probabilities.

    Parameters
    ----------
    scaler : of the statistics
    vae : of the standardised statistics
    svc : fitted on `inputs`, one of INPUTS

    Returns
    -------
    model (batch, n_features) -> (batch, n_classes), classes as in svc.classes_; the softmax of decision values ranks
    the classes, it is not calibrated
    """
    statistics = keras.Input((len(scaler.mean_),), name="statistics")
    x = layers.Normalization(mean=scaler.mean_, variance=scaler.scale_**2, name="standardise")(statistics)
    latent = vae.encoder(x)[0] if inputs != "features" else None
    columns = classifier_inputs(x, latent, inputs)
    seen = layers.Concatenate()(columns) if len(columns) > 1 else columns[0]
    p = layers.Softmax()(SupportVectors.of(svc, name="support_vectors")(seen))
    return keras.Model(statistics, p, name="voice_classifier")
