"""One function that runs independent tasks on the cores of this machine or on a Ray cluster."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from joblib import cpu_count
from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from ser_utils.progress import progress_bar

ENGINES = ("local", "ray")
ATTEMPTS = 3  # a task whose worker dies is tried again, but not for ever: it may be what kills the worker

# Sums in another order round differently. On one thread, a notebook's own process, its workers and Ray's agree.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

# A task that itself calls run_tasks stays in its process.
WORKER_ENVIRONMENT = ONE_THREAD | {"SER_JOBS": "1", "SER_ENGINE": "local"}


class LostWorkerError(RuntimeError):
    """A task's process died every time it was tried, most often for want of memory."""


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    jobs: int | None = None,
    engine: str | None = None,
    progress: str | None = None,
) -> list[Any]:
    """Call `function(task)` for every task, side by side, and return the results in the tasks' order.

    Parameters
    ----------
    function : defined anywhere, a notebook cell included; it has to seed itself
    tasks : picklable objects; send a path or a feature store instead of a large array
    jobs : worker processes on this machine; default $SER_JOBS, else one a core. With 1 everything runs in this
        process. A Ray cluster runs as many tasks as it has cores.
    engine : "local" or "ray"; default $SER_ENGINE, else "local". Ray joins $RAY_ADDRESS or starts on this machine; its
        nodes need to see the same files under the same paths.
    progress : label of a progress bar; no bar without it

    Raises
    ------
    LostWorkerError : where a task's worker died 3 times; a worker that dies costs only the task it was at
    Exception : what `function` raises stops the run and is raised here
    """
    engine = engine or os.environ.get("SER_ENGINE") or "local"
    if engine not in ENGINES:
        raise ValueError(f"engine should be one of {', '.join(ENGINES)}. Received: engine={engine!r}")
    jobs = int(jobs or os.environ.get("SER_JOBS") or cpu_count())
    if jobs < 1:
        raise ValueError(f"jobs should be at least 1. Received: jobs={jobs}")
    tasks = list(tasks)
    with progress_bar(total=len(tasks), desc=progress, disable=progress is None) as bar:
        if engine == "ray":
            return _run_on_ray(function, tasks, bar)
        if jobs == 1 or len(tasks) < 2:
            return [_tick(bar, function(task)) for task in tasks]
        return _run_in_processes(function, tasks, min(jobs, len(tasks)), bar)


def _tick(bar, result):
    bar.update()
    return result


def _run_in_processes(function, tasks, jobs, bar):
    # Pools of one process each, one a thread: in a shared pool the death of one worker fails every running task.
    own, started, stopping = threading.local(), [], threading.Event()

    def start_worker():
        watch = {"initializer": leave_with, "initargs": (os.getpid(),)}
        own.worker = ProcessPoolExecutor(max_workers=1, env=WORKER_ENVIRONMENT, **watch)
        started.append(own.worker)

    def run(index):
        for _ in range(ATTEMPTS):
            try:
                return own.worker.submit(function, tasks[index]).result()
            except BrokenProcessPool as error:
                if stopping.is_set():
                    raise
                lost = error
                start_worker()
        raise LostWorkerError(
            f"task {index + 1} of {len(tasks)} lost its worker {ATTEMPTS} times, most often for want "
            f"of memory. Try fewer workers at a time: SER_JOBS={max(1, jobs // 2)}"
        ) from lost

    with ThreadPoolExecutor(jobs, initializer=start_worker) as threads:
        futures = [threads.submit(run, index) for index in range(len(tasks))]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
            return [future.result() for future in futures]
        finally:
            stopping.set()
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in started:
                worker.shutdown(kill_workers=True)


def leave_with(parent: int) -> None:
    """End this process soon after the one that started it, which may be killed without a word.

    Parameters
    ----------
    parent : id of the process that started this one
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_on_ray(function, tasks, bar):
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: make setup-extras") from error
    start_ray()
    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(function)
    references = [remote.remote(task) for task in tasks]
    waiting = references
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            ray.get(done)
            bar.update(len(done))
        return ray.get(references)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise LostWorkerError(f"a task lost its worker {ATTEMPTS} times: {error}") from error
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def start_ray() -> None:
    """Join the Ray cluster at $RAY_ADDRESS, or start one on this machine, unless this process has one."""
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False, runtime_env=ray_environment())


def ray_environment() -> dict[str, Any]:
    """What every node is given: this package as it is here, one thread a task, the same backend."""
    backend = {key: os.environ[key] for key in ("KERAS_BACKEND",) if key in os.environ}
    return {"py_modules": [str(Path(__file__).parents[1])], "env_vars": WORKER_ENVIRONMENT | backend}
