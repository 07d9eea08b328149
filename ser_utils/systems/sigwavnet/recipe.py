"""How networks on waveforms are built and trained, by settings alone: whatever trains them takes it from here."""

import inspect
from typing import Any

import keras
import numpy as np

from ser_utils.systems.sigwavnet.cnn_n_gru import CnnGru
from ser_utils.systems.sigwavnet.waveforms import L2SGD, L2Adam
from ser_utils.systems.sigwavnet.wavelet import SigWavNet

NETWORKS = {"sigwavnet": SigWavNet, "cnn_n_gru": CnnGru}
OPTIMIZERS = {"adam": L2Adam, "adamw": keras.optimizers.AdamW, "sgd": L2SGD}
SCHEDULES = ("step", "cosine", "constant")


def make_network(system: str, n_classes: int, settings: dict[str, Any], **options) -> keras.Model:
    """Make a new network of a system; every setting that its constructor names is used.

    Parameters
    ----------
    system : "sigwavnet" or "cnn_n_gru"
    options : more of the constructor's, such as mean and std
    """
    known = inspect.signature(NETWORKS[system]).parameters
    sizes = {name: value for name, value in settings.items() if name in known}
    return NETWORKS[system](n_classes, **sizes, **options)


def make_optimizer(settings: dict[str, Any]) -> keras.optimizers.Optimizer:
    """Make the optimizer of a profile's table; its learning rate is that of the first epoch."""
    options = {"weight_decay": settings["weight_decay"]}
    if settings["optimizer"] != "sgd":
        options["epsilon"] = 1e-8  # PyTorch's
    return OPTIMIZERS[settings["optimizer"]](learning_rate(settings, 0), **options)


def learning_rate(settings: dict[str, Any], epoch: int) -> float:
    """Tell the rate of an epoch, counted from 0.

    `step` divides it by ten every settings["decay_epochs"], `cosine` brings it to zero, `constant` leaves it.

    Raises
    ------
    ValueError : for another schedule
    """
    rate, schedule = settings["learning_rate"], settings["schedule"]
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}. Received: {schedule=}")
    if schedule == "step":
        return rate * 0.1 ** (epoch // settings["decay_epochs"])
    if schedule == "cosine":
        return float(rate * (1 + np.cos(np.pi * epoch / settings["epochs"])) / 2)
    return rate


def monitoring(settings: dict[str, Any]) -> dict[str, str]:
    """Which value of validation chooses the epoch, and whether the lowest or the highest, as `fit_or_load` takes it."""
    return {"monitor": settings["monitor"], "mode": "min" if settings["monitor"] == "val_loss" else "max"}
