"""What happens when things break: nothing lost, nothing half-written taken for whole, nothing silently wrong."""

import io
import os
import resource
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils import notebooks
from ser_utils.audio import AudioError, load_audio
from ser_utils.corpora import CORPORA
from ser_utils.corpus_facts import GrammarError
from ser_utils.feature_store import build_store, load_store
from ser_utils.workspace import Workspace
from tests.conftest import REPOSITORY

N_DAMAGED = 2000


def python(code, folder, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{number}.wav") for number in range(64)]
    for path in paths:
        soundfile.write(path, rng.uniform(-0.5, 0.5, 4000), 16000)
    table = pd.DataFrame({"utterance_id": [f"u{n}" for n in range(64)], "path": paths})
    table["pcm_sha256"] = table["utterance_id"]
    table.to_parquet(tmp_path / "table.parquet")
    return table


SLOW_STORE = """
import time, pandas as pd
from ser_utils.feature_store import build_store
def slow(signal, rate):
    print("working", flush=True)
    time.sleep({pause})
    return signal.reshape(-1, 100)
build_store("store", pd.read_parquet("table.parquet"), slow, key="k", jobs=1)
"""


def test_a_killed_extraction_leaves_nothing_and_is_made_again(recordings, tmp_path):
    running = python(SLOW_STORE.format(pause=0.05), tmp_path)
    assert running.stdout.readline() == "working\n"
    time.sleep(0.5)
    running.kill()
    running.wait()
    assert load_store(tmp_path / "store") is None
    again = build_store(
        tmp_path / "store", recordings, lambda signal, rate: signal.reshape(-1, 100), key="k", jobs=1
    )
    assert again.array.shape == (64 * 40, 100)
    np.testing.assert_array_equal(again.of("u63").ravel(), load_audio(recordings["path"][63])[0])


def test_a_full_disk_is_an_error_and_leaves_what_was_there(recordings, tmp_path):
    before = build_store(
        tmp_path / "store", recordings[:2], lambda signal, rate: signal.reshape(-1, 100), key="k", jobs=1
    )
    whole = np.array(before.array)
    limit = lambda: (  # noqa: E731
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    running = python(SLOW_STORE.format(pause=0), tmp_path, preexec_fn=limit)
    _, errors = running.communicate(timeout=120)
    assert running.returncode != 0 and "OSError" in errors
    np.testing.assert_array_equal(load_store(tmp_path / "store").array, whole)
    assert not list(tmp_path.glob(".writing-*"))


TRAINING = """
import keras, numpy as np, sys
from ser_utils.training import fit_or_load
class Tell(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None): print(epoch, flush=True)
def build():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model
x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
fitted = fit_or_load("m.keras", build, (x, x[:, :1]), key="k", seed=0, epochs=int(sys.argv[1]), callbacks=[Tell()])
print("weights", fitted.model.get_weights()[0].tobytes().hex(), flush=True)
"""


@pytest.mark.slow
def test_a_killed_training_is_done_again_to_the_same_weights(tmp_path):
    def weights(folder):
        folder.mkdir(exist_ok=True)
        running = python(TRAINING.replace("sys.argv[1]", "30"), folder)
        return running.communicate(timeout=240)[0].split("weights ")[1]

    wanted = weights(tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    folder.mkdir()
    running = python(TRAINING.replace("sys.argv[1]", "30"), folder)
    while running.stdout.readline() not in ("3\n", ""):
        pass
    running.kill()
    running.wait()
    assert not (folder / "m.keras").exists()
    assert weights(folder) == wanted


def _write_notebook(folder, code):
    book = nbformat.v4.new_notebook(metadata=notebooks.KERNEL)
    parameters = 'dataset = "demo"\nprofile = "smoke"\nseed = 0\nroot = ""'
    book.cells = [
        nbformat.v4.new_markdown_cell("# 99 · A question"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    folder.mkdir(exist_ok=True)
    nbformat.write(book, folder / "99_fault.ipynb")


@pytest.mark.slow
def test_a_kernel_that_dies_is_reported_as_such_and_at_once(tmp_path, monkeypatch):
    _write_notebook(tmp_path / "notebooks", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    start = time.monotonic()
    with pytest.raises(SystemExit, match="99_fault: its kernel died"):
        notebooks.run("99_fault", Workspace(root=tmp_path, profile="smoke"))
    assert time.monotonic() - start < 60
    assert not (tmp_path / "build/demo/smoke/seed_0/notebooks/99_fault.ipynb").exists()


@pytest.mark.slow
def test_an_interrupt_is_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "ser_utils.notebooks",
        "run",
        "00",
        "--profile",
        "smoke",
        "--root",
        str(tmp_path),
    ]
    running = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    log = tmp_path / "build/demo/smoke/seed_0/notebooks/00_preprocess.log"
    while not log.exists() and running.poll() is None:
        time.sleep(0.1)
    time.sleep(3)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "interrupted: finished work is kept" in errors and "Traceback" not in errors


def test_two_runs_on_one_folder_take_turns(tmp_path):
    code = (
        "import sys, time\nfrom ser_utils.notebooks import _one_at_a_time\nfrom ser_utils.workspace import Workspace\n"
        f"with _one_at_a_time(Workspace(root={str(tmp_path)!r}, profile='smoke')):\n"
        "    print(time.monotonic(), flush=True); time.sleep(1); print(time.monotonic(), flush=True)\n"
    )
    both = [python(code, tmp_path) for _ in range(2)]
    times = sorted([float(t) for t in one.communicate(timeout=120)[0].split()] for one in both)
    assert times[0][1] <= times[1][0]


def _damaged(rng, whole):
    """One damaged copy of a file's bytes: cut, overwritten, with another header, or nothing like it."""
    data = bytearray(whole)
    kind = rng.integers(6)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:  # somewhere in the header: rates, channels, lengths, formats
        for place in rng.integers(0, 60, rng.integers(1, 8)):
            data[place % len(data)] = rng.integers(256)
    elif kind == 2:
        start = rng.integers(len(data))
        data[start : start + 50] = rng.bytes(50)
    elif kind == 3:
        return rng.bytes(int(rng.integers(200)))
    elif kind == 4:
        data[4:8] = rng.bytes(4)
    else:
        data[-1:] = rng.bytes(int(rng.integers(1, 500)))
    return bytes(data)


def test_two_thousand_damaged_files_are_read_cleanly_or_refused_in_words(tmp_path):
    rng, signal_ = np.random.default_rng(0), np.random.default_rng(1).uniform(-0.5, 0.5, 800)
    wholes = []
    for form, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("OGG", "VORBIS"),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, signal_, 16000, format=form, subtype=subtype)
        wholes.append((buffer.getvalue(), form.lower()))
    outcomes = {"read": 0, "refused": 0}
    for number in range(N_DAMAGED):
        whole, suffix = wholes[number % len(wholes)]
        path = tmp_path / f"damaged.{suffix}"
        path.write_bytes(_damaged(rng, whole))
        try:
            samples, rate = load_audio(path)
            assert samples.ndim == 1 and len(samples) and np.isfinite(samples).all() and rate > 0
            outcomes["read"] += 1
        except AudioError as error:
            assert error.reason and "Traceback" not in error.reason
            outcomes["refused"] += 1
    assert min(outcomes.values()) > N_DAMAGED / 20, outcomes


def test_damaged_names_are_refused_and_never_given_a_label_that_is_not_there():
    rng = np.random.default_rng(0)
    letters = list("abcdefWLEAFTN0123456789-_. ()/\\<>\n\0é漢")
    names = {"emodb": "03a01Fa.wav", "ravdess": "03-01-05-02-01-02-12.wav", "aesdd": "a01 (1).wav"}
    for corpus, name in names.items():
        for _ in range(700):
            changed = list(name)
            for place in rng.integers(0, len(changed), rng.integers(1, 4)):
                changed[place] = rng.choice(letters)
            try:
                facts = CORPORA[corpus].utterance("".join(changed))
                assert facts["emotion"] in CORPORA[corpus].emotions and facts["speaker"]
            except GrammarError as error:
                assert str(error)


@pytest.mark.parametrize("value", ["", "fast", "quick ", "../smoke", "Quick", "\n", 1, None, ["quick"]])
def test_strange_profiles_are_refused(value):
    with pytest.raises(ValueError, match="profile must be one of"):
        Workspace(profile=value)
