"""Runs of notebooks that are interrupted, killed, or started twice: what is finished is kept, and nothing else is left."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pandas as pd
import pytest

from ser_utils.features.store import load_store
from ser_utils.workspace import Workspace
from tests.conftest import REPOSITORY
from tools import notebooks


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
    """nbclient looks once a second whether the kernel lives: here all the time, so that it sees it shut down."""
    code = (
        "import asyncio, types, nbclient.client\n"
        "class Eager(types.ModuleType):\n"
        "    __getattr__ = staticmethod(lambda name: getattr(asyncio, name))\n"
        "    sleep = staticmethod(lambda seconds: asyncio.sleep(seconds / 200))\n"
        "nbclient.client.asyncio = Eager('asyncio')\n"
        "from tools.notebooks import main\n"
        f"main(['run', '00', '--profile', 'smoke', '--root', {str(tmp_path)!r}])"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    log = tmp_path / "build/demo/smoke/seed_0/notebooks/00_preprocess.log"
    while not log.exists() and running.poll() is None:
        time.sleep(0.1)
    time.sleep(3)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode != 0
    assert errors == "interrupted: finished work is kept; run the same command to go on.\n"


@pytest.mark.slow
@pytest.mark.notebook
def test_an_interrupt_of_make_is_one_line_and_leaves_no_kernel(tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-m", "tools.reproduce", "--profile", "smoke", "--root", str(tmp_path)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    folder = tmp_path / "build/demo/smoke/seed_0/notebooks"
    while not list(folder.glob(".progress/*/*.json")):  # a kernel is at work
        assert running.poll() is None
        time.sleep(0.1)
    (pid,) = {path.stem.split("-")[1] for path in folder.glob(".progress/00_preprocess/*.json")}
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode != 0
    assert errors == "interrupted: finished work is kept; run the same command to go on.\n"
    assert not os.path.exists(f"/proc/{pid}")
    assert not (folder / "00_preprocess.ipynb").exists() and not list(folder.glob(".writing-*"))


@pytest.mark.slow
@pytest.mark.notebook
def test_a_killed_make_takes_its_kernels_with_it(tmp_path):
    command = [sys.executable, "-m", "tools.reproduce", "00", "--profile", "smoke", "--root", str(tmp_path)]
    running = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    folder = tmp_path / "build/demo/smoke/seed_0/notebooks"
    while not (told := list(folder.glob(".progress/00_preprocess/*.json"))):
        assert running.poll() is None
        time.sleep(0.1)
    running.kill()
    running.wait()
    end = time.monotonic() + 60
    while os.path.exists(f"/proc/{told[0].stem.split('-')[1]}"):
        assert time.monotonic() < end, "the kernel is still at work"
        time.sleep(0.2)


RUN_00 = [sys.executable, "-m", "tools.notebooks", "run", "00", "--profile", "smoke", "--root"]


def contents(root):
    """What notebook 00 leaves for the others: the utterance table and the segments, as bytes or values."""
    build = Workspace(root=root, profile="smoke").build
    table = pd.read_parquet(build / "utterances.parquet").drop(columns="path")
    store = load_store(build / "features" / "segments")
    return table.to_csv(), np.array(store.array).tobytes(), store.table["n_rows"].tolist()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([*RUN_00, str(root)], cwd=REPOSITORY, check=True, capture_output=True)
    return contents(root)


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("moment", ["utterances.parquet", "features/segments", "features/loudness"])
def test_a_killed_papermill_is_resumed_to_the_same_results(tmp_path, undisturbed, moment):
    """Killed as soon as `moment` is on disk; the next run starts while the orphaned kernel may still be alive."""
    build = Workspace(root=tmp_path, profile="smoke").build
    running = subprocess.Popen(
        [*RUN_00, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while not (build / moment).exists():
        assert running.poll() is None or (build / moment).exists()
        time.sleep(0.01)
    running.kill()
    running.wait()
    finished = build / "notebooks" / "00_preprocess.ipynb"
    assert not finished.exists()
    subprocess.run([*RUN_00, str(tmp_path)], cwd=REPOSITORY, check=True, capture_output=True)
    assert contents(tmp_path) == undisturbed
    assert not any(cell.get("outputs") is None for cell in nbformat.read(finished, 4).cells if cell.cell_type == "code")


@pytest.mark.slow
@pytest.mark.notebook
def test_two_makes_at_once_on_one_folder_end_as_one_would(tmp_path, undisturbed):
    command = ["make", "00", "PROFILE=smoke", f"ROOT={tmp_path}"]
    both = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=500)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert sum("waiting: another run writes" in text for text in said) <= 1
    assert contents(tmp_path) == undisturbed
    build = Workspace(root=tmp_path, profile="smoke").build
    nbformat.validate(nbformat.read(build / "notebooks" / "00_preprocess.ipynb", 4))
    assert not list(build.rglob(".writing-*"))
