"""Networks on the waveform: what a training step and an epoch cost at the published size, beside PyTorch.

PyTorch is no part of this project: name an interpreter that has it in TORCH_PYTHON, or its column stays empty.
"""

import functools
import json
import os
import subprocess

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.measuring import clock, in_turn, nothing, row, seconds_unit, tell
from ser_utils.profiles import settings
from ser_utils.systems.sigwavnet.training import build_network
from ser_utils.workspace import REPOSITORY

SIZES = ("levels", "gru_units", "gru_layers", "channels")
# utterances and their mean length in s: EmoDB's whole corpus, RAVDESS's speech
CORPORA = {"sigwavnet": ("EmoDB", 535, 2.8), "cnn_n_gru": ("RAVDESS", 1440, 3.7)}
CLASSES = 7


def step_of(system, chosen, seconds):
    """A function that makes one training step on a batch of noise, already traced."""
    samples, batch = int(chosen["sample_rate_hz"] * seconds), chosen["batch_size"]
    model = build_network(system, CLASSES, chosen)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((batch, samples), np.float32), np.full(batch, samples, np.int32))
    y = np.eye(CLASSES, dtype=np.float32)[np.arange(batch) % CLASSES]
    step = functools.partial(model.train_on_batch, x, y)
    step()
    return step


def in_pytorch(**sizes):
    """Seconds a step in PyTorch, and its version; None where no interpreter was named."""
    if not (python := os.environ.get("TORCH_PYTHON")):
        return None
    golden = REPOSITORY / "tests" / "golden" / "sigwavnet_per_layer.npz"
    script = REPOSITORY / "benchmarks" / "pytorch_sigwavnet.py"
    done = subprocess.run([python, script, golden, json.dumps(sizes)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if found["difference"] > 1e-4:
        raise SystemExit(f"PyTorch's SigWavNet is another network: off by {found['difference']:g}")
    return found


def measure(quick):
    repeats = 1 if quick else 3
    for system, (corpus, clips, seconds) in CORPORA.items():
        for profile in ("smoke",) if quick else ("quick", "paper"):
            chosen = settings(system, profile)
            heard = min(seconds, chosen["longest_s"] or seconds)
            (spent,) = in_turn([step_of(system, chosen, heard)], repeats=repeats)
            name, batch = f"{system}, profile {profile}", chosen["batch_size"]
            at = f"{batch} clips of {heard} s at {chosen['sample_rate_hz'] // 1000} kHz, {keras.backend.backend()}"
            than = {}
            if system == "sigwavnet":
                sizes = {key: chosen[key] for key in SIZES} | {
                    "samples": int(chosen["sample_rate_hz"] * heard),
                    "batch_size": batch,
                    "classes": CLASSES,
                    "repeats": repeats,
                    "clock": clock.__name__,
                }
                if found := in_pytorch(**sizes):
                    than = {"other": found["seconds"], "than": f"the same in PyTorch {found['version']}"}
                else:
                    yield nothing(f"{name} in PyTorch", "TORCH_PYTHON names no interpreter that has it")
            yield row(f"{name}, training step", at, spent, seconds_unit(), **than)
            epoch = spent * -(-0.8 * clips // batch) / 60
            yield row(
                f"{name}, an epoch of {corpus}",
                f"{clips} clips, 80 % of them to learn from",
                epoch,
                seconds_unit().replace("s", "min", 1),
            )


if __name__ == "__main__":
    tell(measure, __doc__)
