"""Where JAX sees an accelerator: an epoch of each network there, how busy it is, and what profile paper would cost."""

import contextlib
import os
import shutil
import subprocess
import threading

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np

from benchmarks.measuring import in_turn, nothing, row, tell
from ser_utils.corpora.loading import CORPORA
from ser_utils.profiles import settings
from ser_utils.systems.prototype.autoencoder import build_autoencoder
from ser_utils.systems.prototype.classifier import build_prototype_classifier
from ser_utils.systems.sigwavnet.recipe import NETWORKS
from ser_utils.systems.sigwavnet.training import build_network

N_CLASSES = 7
SEGMENTS_AN_UTTERANCE = 150  # of 3 s, every 20 ms
EPOCHS = {"autoencoder": 200, "classifier": 8000}  # early stopping ends most runs there; published runs 8,000 to 25,000


def accelerator():
    """The first device of JAX that is no processor, or None."""
    return next((device for device in jax.devices() if device.platform != "cpu"), None)


@contextlib.contextmanager
def how_busy():
    """A list that fills with nvidia-smi's percentages of use, every half second."""
    seen, stop = [], threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def watch():
        while not stop.wait(0.5):
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            seen.extend(float(word) for word in run.stdout.split()[:1])

    thread = threading.Thread(target=watch, daemon=True)
    if shutil.which("nvidia-smi"):
        thread.start()
    yield seen
    stop.set()
    if thread.ident:
        thread.join()


def networks(quick):
    """Name, how it is called, its arrays, batch size, and how many of it a corpus wants per utterance."""
    rng, n = np.random.default_rng(0), 16 if quick else 8192
    coder, deciding = settings("prototype", "paper"), settings("prototype_classifier", "paper")
    x = rng.random((n, 128, 20), np.float32)
    yield "autoencoder", build_autoencoder(128, 20, filters=coder["filters"]), x, x, coder["batch_size"]
    x, y = (rng.random((n, 2560), np.float32), np.eye(N_CLASSES, dtype=np.float32)[rng.integers(0, N_CLASSES, n)])
    prototypes = N_CLASSES * deciding["prototypes_per_class"]
    yield (
        "classifier",
        build_prototype_classifier(2560, N_CLASSES, prototypes, steps_per_epoch=1),
        x,
        y,
        deciding["batch_size"],
    )
    for system in NETWORKS:
        chosen = settings(system, "smoke" if quick else "paper")
        clips = 16 if quick else 256
        x = rng.standard_normal((clips, 3 * chosen["sample_rate_hz"])).astype(np.float32)
        lengths = np.full(clips, x.shape[1], np.int32)
        yield system, build_network(system, N_CLASSES, chosen), [x, lengths], y[:clips], chosen["batch_size"]


def measure(quick):
    device = accelerator()
    if device is None and not quick:
        yield nothing("accelerator", "none: JAX sees processors only")
        return
    name = device.device_kind if device else "processor"
    hours = dict.fromkeys(CORPORA, 0.0)
    for what, model, x, y, batch_size in networks(quick):

        def epoch(model=model, x=x, y=y, batch_size=batch_size):
            model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0)

        epoch()
        with how_busy() as seen:
            (seconds,) = in_turn([epoch], repeats=1 if quick else 5)
        at = f"{len(y):,} rows, {name}"
        yield row(f"{what}, an epoch at published size", at, seconds, "s")
        if seen:
            yield row(f"{what}, use of the accelerator", at, max(seen), "%")
        for corpus in hours:
            rows, epochs = work(what, CORPORA[corpus])
            hours[corpus] += seconds / len(y) * rows * epochs / 3600
    for corpus, needed in hours.items():
        at = f"one seed, {EPOCHS['autoencoder']} and {EPOCHS['classifier']:,} epochs of the prototype system; {name}"
        yield row(f"profile paper on {corpus}, reckoned", at, needed, "h")
    keras.utils.clear_session()


def work(what, corpus):
    """Rows of all trainings together and epochs, of one network on one corpus under every protocol."""
    utterances = corpus.n_files or 2000
    if what in EPOCHS:  # each speaker's voice and all of them, under three protocols
        return 2 * 3 * utterances * SEGMENTS_AN_UTTERANCE, EPOCHS[what]
    folds = 10 + min(len(corpus.speakers) or 10, 10)
    return folds * utterances, settings(what, "paper")["epochs"]


if __name__ == "__main__":
    tell(measure, __doc__)
