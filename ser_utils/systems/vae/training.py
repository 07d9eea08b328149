"""One variational autoencoder per fold, and the classifiers that stand on its latent."""

import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_utils.systems.baselines import classifier_predictions
from ser_utils.systems.vae.network import KLWarmUp, VariationalAutoencoder, classifier_inputs, kl_divergence
from ser_utils.training.fit import Fitted, code_of, fit_or_load
from ser_utils.workspace import Workspace, content_key


def build_vae(n_features: int, settings: dict[str, Any], seed: int = 0) -> VariationalAutoencoder:
    """A compiled model in the sizes of the settings."""
    sizes = {key: settings[key] for key in ("n_latent", "hidden", "beta")}
    model = VariationalAutoencoder(n_features, **sizes, seed=seed)
    # XLA's compilation of so small a network costs more than all its steps
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile(keras.optimizers.Adam(settings["learning_rate"]), jit_compile=jit)
    return model


@dataclass(frozen=True)
class FoldVae:
    """The autoencoder of one fold and what it makes of every clip.

    Parameters
    ----------
    fold : one fold of a fold table
    scaler : fitted on the training part
    x : float32 (n_utterances, n_features), standardised
    outputs : of the model on x: reconstruction, mean, log_variance
    rows : of the utterance table, in the order of x
    """

    fold: pd.DataFrame
    fitted: Fitted
    scaler: StandardScaler
    x: np.ndarray
    outputs: dict[str, np.ndarray]
    rows: pd.DataFrame

    @property
    def model(self) -> VariationalAutoencoder:
        return keras.saving.load_model(self.fitted.path, safe_mode=True)

    def places(self, *roles: str) -> np.ndarray:
        """Rows of x whose clips have one of the roles, in the order of the fold table."""
        return _places(self.fold, self.rows, *roles)

    @property
    def kl(self) -> np.ndarray:
        """KL divergence of each latent dimension, mean over all clips, (n_latent,) nats."""
        pairs = (self.outputs[name].T[..., None] for name in ("mean", "log_variance"))
        return np.asarray(kl_divergence(*pairs)).mean(axis=1)

    def inputs(self, kind: str) -> np.ndarray:
        """What a classifier of `kind`, one of INPUTS, sees of every clip."""
        return np.hstack(classifier_inputs(self.x, self.outputs["mean"], kind))


def _places(fold, rows, *roles):
    place = pd.Series(np.arange(len(rows)), index=rows["utterance_id"])
    return place[fold.loc[fold["role"].isin(roles), "utterance_id"]].to_numpy()


def train_vae(
    workspace: Workspace,
    statistics: np.ndarray,
    rows: pd.DataFrame,
    fold: pd.DataFrame,
    settings: dict[str, Any],
    label: str,
) -> FoldVae:
    """Train the autoencoder of one fold on its training clips, without labels; validation chooses the epoch.

    Parameters
    ----------
    statistics : (n_utterances, n_statistics), in the order of `rows` of the utterance table
    label : for the model's file
    """
    train, watched = (_places(fold, rows, role) for role in ("train", "validation"))
    scaler = StandardScaler().fit(statistics[train])
    x = scaler.transform(statistics).astype("float32")
    built_from = content_key(settings, x.shape[1], code_of(VariationalAutoencoder, build_vae), workspace.seed)
    fitted = fit_or_load(
        workspace.folder("models") / f"vae-{label}.keras",
        lambda: build_vae(x.shape[1], settings, workspace.seed),
        (x[train], x[train]),
        validation=(x[watched], x[watched]),
        key=content_key(x[train], x[watched], built_from),
        seed=workspace.seed,
        epochs=settings["epochs"],
        patience=settings["patience"],
        monitor="val_objective",
        batch_size=settings["batch_size"],
        callbacks=[KLWarmUp(settings["warmup_epochs"])],
        title=f"vae {label}",
        reuse=built_from,
        learned_from={"scaler": ["train"], "encoder": ["train"], "augmentation": [], "selection": ["validation"]},
    )
    outputs = {name: np.asarray(value) for name, value in fitted.model(x).items()}
    return FoldVae(fold, fitted, scaler, x, outputs, rows)


def train_vaes(
    workspace: Workspace,
    statistics: np.ndarray,
    rows: pd.DataFrame,
    folds: dict[str, pd.DataFrame],
    settings: dict[str, Any],
) -> dict[str, list[FoldVae]]:
    """Train one autoencoder per protocol and fold, see `train_vae`. Returns dict protocol -> one per fold."""
    return {
        protocol: [
            train_vae(workspace, statistics, rows, fold, settings, f"{protocol}-{number}")
            for number, fold in split.groupby("fold", sort=False)
        ]
        for protocol, split in folds.items()
    }


def classify(vaes: list[FoldVae], inputs: str) -> dict[str, Any]:
    """Fit an RBF SVC with scikit-learn's default settings in every fold, on training and validation, and test it.

    Equal votes are decided by the margins (`break_ties`), so that the answer is the class with the highest probability.

    Parameters
    ----------
    vaes : one per fold
    inputs : what the classifier sees, one of INPUTS

    Returns
    -------
    dict of predictions (table), seconds_to_train, learned_from, and `svc`, the last fold's
    """
    tables, seconds = [], 0.0
    for vae in vaes:
        seen, train, test = vae.inputs(inputs), vae.places("train", "validation"), vae.places("test")
        start = time.perf_counter()
        svc = SVC(break_ties=True).fit(seen[train], vae.rows["emotion"].iloc[train])
        seconds += time.perf_counter() - start + (vae.fitted.seconds if inputs != "features" else 0)
        tables.append(classifier_predictions(svc, seen[test], vae.rows.iloc[test], vae.rows["emotion"], vae.fold))
    learned_from = {
        kind: {vae.fold["fold"].iloc[0]: vae.fitted.learned_from[kind] for vae in vaes}
        for kind in vaes[0].fitted.learned_from
    }
    predictions = pd.concat(tables, ignore_index=True)
    return {"predictions": predictions, "seconds_to_train": seconds, "learned_from": learned_from, "svc": svc}
