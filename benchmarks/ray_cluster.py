"""A Ray cluster of several nodes on this machine: how time falls with nodes, and one killed in the midst of work.

The tasks are real trainings, one network per fold of the demo corpus, through the function the notebooks use. Each
node has one core; nodes beyond this machine's cores are not measured, they would only share them.
"""

import contextlib
import dataclasses
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.measuring import nothing, row, tell
from ser_utils.corpora.demo import make_demo_corpus
from ser_utils.corpora.loading import load_corpus
from ser_utils.evaluation.splits import make_folds
from ser_utils.features.frames import frame_store
from ser_utils.profiles import settings
from ser_utils.systems.feature_network import deep_cnn
from ser_utils.training.folds import FoldTask, train_fold
from ser_utils.training.parallel import ray_environment, run_tasks

N_TASKS = 12


def folds_to_train(folder, quick):
    """One FoldTask per seed and held-out speaker of the demo corpus; each trains for a few seconds."""
    chosen = settings("feature_network", "smoke" if quick else "quick")
    make_demo_corpus(folder / "demo")
    table = load_corpus("demo", folder)
    grid = {key: chosen[key] for key in ("n_mels", "n_fft", "hop_length", "n_mfcc", "deltas", "trim_db")}
    store = frame_store(folder / "frames", table, grid | {"kind": "log_mel"}, sample_rate_hz=16000)
    options = chosen | {"one_cycle": True, "resized_frames": 0, "epochs": 2 if quick else 12, "least_updates": 0}
    folds = [fold for _, fold in make_folds(table, "speaker", system="feature_network").groupby("fold")]
    for number in range(3 if quick else N_TASKS):
        fold, seed = folds[number % len(folds)], number // len(folds)
        yield FoldTask(f"fold_{number}", deep_cnn, store.folder, fold, options, folder / "models", seed)


@contextlib.contextmanager
def cluster_of(n_nodes):
    """A head that computes nothing and `n_nodes` nodes of one core; yields the cluster and its nodes."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(n_nodes)]
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, runtime_env=ray_environment())
        run_tasks(_imports, range(n_nodes), engine="ray")  # what a worker does once
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


def _imports(_):
    import ser_utils.training.folds  # noqa: F401

    time.sleep(2)  # long enough that every node gets one


def train(task):
    """Train one fold, leave a trace of the attempt, and return its test probabilities."""
    with open(task.models / f"{task.name}.attempts", "a") as trace:
        trace.write(f"{os.uname().nodename} {os.getpid()}\n")
    predictions = train_fold(task)["predictions"]
    return predictions.filter(like="p_").to_numpy()


def run(tasks, models, engine):
    """All tasks with their models in a folder of their own: the results, seconds and attempts made."""
    models.mkdir()
    tasks = [dataclasses.replace(task, models=models) for task in tasks]
    start = time.perf_counter()
    results = run_tasks(train, tasks, engine=engine)
    seconds = time.perf_counter() - start
    return results, seconds, sum(len(path.read_text().splitlines()) for path in models.glob("*.attempts"))


def differing(results, others):
    return sum(not np.array_equal(one, other) for one, other in zip(results, others, strict=True))


def measure(quick):
    try:
        import ray  # noqa: F401
    except ImportError:
        yield nothing("Ray cluster", "Ray is not installed: make setup-extras")
        return
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tasks = list(folds_to_train(folder, quick))
        at = f"{len(tasks)} trainings of one network, one core a node"
        local, _, _ = run(tasks, folder / "local", "local")
        seconds, differ = {}, 0
        for n_nodes in (1, 2):
            with cluster_of(n_nodes):
                results, seconds[n_nodes], _ = run(tasks, folder / f"on_{n_nodes}", "ray")
            differ += differing(results, local)
        yield row(f"Ray, {n_nodes} nodes", at, seconds[2], "s", other=seconds[1], than="1 node")
        yield row("Ray, predictions other than on this machine alone", at, differ, "", at_most=0)
        with cluster_of(3) as (cluster, nodes):
            wait = seconds[2] / 3
            killer = threading.Timer(wait, cluster.remove_node, (nodes[0],), {"allow_graceful": False})
            killer.start()
            results, _, attempts = run(tasks, folder / "killed", "ray")
            killer.join()
        at = f"{len(tasks)} trainings on 3 nodes, one killed after {wait:.0f} s"
        yield row("Ray, predictions other than on this machine alone", at, differing(results, local), "", at_most=0)
        yield row("Ray, trainings begun again", at, attempts - len(tasks), "", at_most=1)


if __name__ == "__main__":
    tell(measure, __doc__)
