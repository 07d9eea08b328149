"""Fan-out: order, engines, and what becomes of a worker that dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ser_utils.training.parallel import ONE_THREAD, LostWorkerError, run_tasks
from ser_utils.workspace import REPOSITORY


def square(number):
    time.sleep(0.02 * (5 - number % 5))  # the first tasks finish last
    return number**2


def die_once(task):
    """Kill the own process the first time a task marked so is tried; leave a trace of every attempt."""
    number, folder = task
    attempt = len(list(Path(folder).glob(f"{number}_*")))
    (Path(folder) / f"{number}_{attempt}").touch()
    if number == 2 and attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def environment(_):
    return os.environ["SER_JOBS"], os.environ["OMP_NUM_THREADS"], os.getpid()


def refuse(number):
    if number == 1:
        raise ValueError("speaker 09 has no fear")


def refuse_the_first(number):
    if number == 0:
        raise ValueError("speaker 09 has no fear")
    time.sleep(60)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_keep_the_order_of_the_tasks(jobs):
    assert run_tasks(square, range(7), jobs=jobs) == [n**2 for n in range(7)]


def test_functions_of_a_notebook_cell_travel_to_the_workers():
    offset = 3
    assert run_tasks(lambda number: number + offset, [1, 2], jobs=2) == [4, 5]


def test_no_tasks_no_results():
    assert run_tasks(square, [], jobs=2) == []


def test_a_lost_worker_costs_its_own_task_only(tmp_path):
    assert run_tasks(die_once, [(n, tmp_path) for n in range(6)], jobs=2) == list(range(6))
    attempts = {n: len(list(tmp_path.glob(f"{n}_*"))) for n in range(6)}
    assert attempts == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1, 5: 1}


def test_a_task_that_always_kills_its_worker_is_named():
    with pytest.raises(LostWorkerError, match="task 2 of 3 lost its worker 3 times.*SER_JOBS=1"):
        run_tasks(die, range(3), jobs=2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_exception_of_the_task_is_raised(jobs):
    with pytest.raises(ValueError, match="speaker 09 has no fear"):
        run_tasks(refuse, range(3), jobs=jobs)


def test_an_exception_does_not_wait_for_the_other_workers():
    start = time.monotonic()
    with pytest.raises(ValueError, match="no fear"):
        run_tasks(refuse_the_first, range(4), jobs=2)
    assert time.monotonic() - start < 30


def test_workers_leave_soon_after_their_run_is_killed(tmp_path):
    source = (
        "import os, sys, time\nfrom pathlib import Path\nfrom ser_utils.training.parallel import run_tasks\n"
        "run_tasks(lambda n: (Path(sys.argv[1], str(os.getpid())).touch(), time.sleep(600)), [1, 2], jobs=2)"
    )
    with subprocess.Popen([sys.executable, "-c", source, str(tmp_path)], cwd=REPOSITORY) as run:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        run.kill()
    workers = [Path("/proc", path.name) for path in tmp_path.iterdir()]
    wait_for(lambda: not any(worker.exists() for worker in workers))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def test_workers_have_one_thread_and_start_no_workers_of_their_own():
    (jobs, threads, pid), _ = run_tasks(environment, range(2), jobs=2)
    assert (jobs, threads) == ("1", "1") and pid != os.getpid()


TRAINED_TWICE = """
import keras, numpy as np
from ser_utils.training.fit import set_seed
from ser_utils.training.parallel import run_tasks
def train(seed):
    set_seed(seed)
    rng = np.random.default_rng(seed)
    layers = [keras.layers.Conv2D(8, 3), keras.layers.Flatten(), keras.layers.Dense(7, "softmax")]
    model = keras.Sequential([keras.Input((32, 32, 1)), *layers])
    model.compile("adam", "categorical_crossentropy")
    model.fit(rng.random((64, 32, 32, 1)), np.eye(7)[rng.integers(7, size=64)], epochs=3, verbose=0)
    return [weights.tobytes() for weights in model.get_weights()]
assert run_tasks(train, [0, 1], jobs=1) == run_tasks(train, [0, 1], jobs=2)
"""


def test_one_job_and_two_train_the_same_network_to_the_last_bit():
    """As a notebook's kernel does, whose environment has one thread."""
    run = subprocess.run(
        [sys.executable, "-c", TRAINED_TWICE],
        cwd=REPOSITORY,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_jobs_and_engine_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SER_JOBS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert {pid for *_, pid in run_tasks(environment, range(2))} == {os.getpid()}
    monkeypatch.setenv("SER_ENGINE", "slurm")
    with pytest.raises(ValueError, match="one of local, ray. Received: engine='slurm'"):
        run_tasks(square, [1])
