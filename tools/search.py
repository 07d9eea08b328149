"""Hyperparameter search with Ray Tune and asynchronous successive halving (ASHA).

Run by `make search`; Ray is an optional extra. A trial trains through the same function as notebook 07, so
what is searched is what is used, and is scored on validation alone.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import keras
import pandas as pd

from ser_utils.evaluation.splits import make_folds
from ser_utils.profiles import settings
from ser_utils.systems.sigwavnet.recipe import NETWORKS
from ser_utils.systems.sigwavnet.search import trials_path
from ser_utils.systems.sigwavnet.training import WaveformTask, waveform_store
from ser_utils.training.folds import train_fold
from ser_utils.training.parallel import start_ray
from ser_utils.workspace import Workspace, WorkspaceError, atomic_path, write_checksums

# (kind, values): "choice" of a list, "uniform" or "log" between two ends.
# Source: SigWavNet's paper and code; CNN-n-GRU's paper, whose ends and whose number of learning rates (seven) are
# published, their values and the range of weight decay and dropout ours.
SPACE = {
    "sigwavnet": {
        "levels": ("choice", [4, 5, 6, 7, 8, 9, 10]),
        "constraint": ("choice", ["CQF", "PerLayer", "PerFilter"]),
        "gru_units": ("choice", [32, 64, 128]),
        "gru_layers": ("choice", [3, 6, 9]),
        "sharpness": ("uniform", [10.0, 15.0]),
        "threshold": ("uniform", [0.5, 1.0]),
        "learnable_thresholds": ("choice", [True, False]),
        "learnable_kernels": ("choice", [True, False]),
        "learning_rate": ("log", [1e-4, 1e-1]),
        "weight_decay": ("log", [1e-6, 1e-2]),
        "batch_size": ("choice", [2, 4, 8, 16, 32]),
    },
    "cnn_n_gru": {
        "learning_rate": ("choice", [1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1]),
        "weight_decay": ("log", [1e-6, 1e-2]),
        "optimizer": ("choice", ["adam", "adamw", "sgd"]),
        "schedule": ("choice", ["step", "cosine", "constant"]),
        "batch_size": ("choice", [16, 32, 64, 128]),
        "gru_units": ("choice", [32, 64, 128, 256, 512]),
        "gru_layers": ("choice", [1, 2, 3, 4]),
        "dropout": ("uniform", [0.0, 0.5]),
    },
}
# What a CPU can train. CNN-n-GRU's GRU reads a single step, so its whole published space is searched
SMALLER = {"sigwavnet": {"levels": [4, 5, 6], "gru_units": [32, 64], "gru_layers": [1], "batch_size": [8, 16]}}


def search_space(system: str, profile: str) -> dict[str, tuple[str, list]]:
    """Give what is searched, setting -> (kind, values); shorter profiles leave out what a CPU cannot train."""
    space = dict(SPACE[system])
    if profile != "paper":
        space |= {name: ("choice", values) for name, values in SMALLER.get(system, {}).items()}
    return space


def search(workspace: Workspace, system: str, table: pd.DataFrame) -> pd.DataFrame:
    """Search one system's settings on the first speaker-independent fold, and keep the best.

    Its validation speakers are tested in other folds, so scores of searched settings owe a little to that look.
    Writes the trials into the dataset's results, where notebook 07 finds them (`read_trials`).

    Parameters
    ----------
    system : "sigwavnet" or "cnn_n_gru"
    table : utterance table

    Returns
    -------
    the trials, a row each: its settings, val_uar (best epoch) and epochs, the best first
    """
    from ray import tune

    budget = settings("search", workspace.profile)
    space = search_space(system, workspace.profile)
    base = settings(system, workspace.profile, workspace.dataset)  # as notebook 07 takes them
    base |= {"epochs": budget["max_epochs"], "patience": budget["max_epochs"], "least_updates": 0}
    folds = make_folds(table, "speaker", system=system, seed=workspace.seed)
    fold = folds[folds["fold"] == folds["fold"].min()].reset_index(drop=True)
    store = waveform_store(workspace.folder("features", "waveforms") / system, table, base)
    task = WaveformTask("trial", system, store.folder, fold, base, Path(), workspace.seed)
    start_ray()
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, task=task), {"cpu": 1}),
        param_space={name: _draw(tune, *about) for name, about in space.items()},
        tune_config=tune.TuneConfig(
            metric="val_uar",
            mode="max",
            num_samples=budget["n_trials"],
            scheduler=tune.schedulers.ASHAScheduler(
                max_t=budget["max_epochs"], grace_period=budget["grace_epochs"], reduction_factor=budget["reduction"]
            ),
            search_alg=tune.search.BasicVariantGenerator(random_state=workspace.seed),
        ),
        run_config=tune.RunConfig(
            name=system,
            storage_path=str(workspace.folder("search")),
            failure_config=tune.FailureConfig(max_failures=2),  # a lost worker costs its trial's time only
            verbose=0,
        ),
    )
    trials = _trials_table(tuner.fit(), space)
    path = trials_path(workspace.results, system, workspace.profile)
    with atomic_path(path) as temporary:
        trials.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    with workspace.results_lock():
        write_checksums(workspace.results, path.name)
    return trials


def _trial(config, task):
    from ray import tune

    class Report(keras.callbacks.Callback):
        best = 0.0

        def on_epoch_end(self, epoch, logs=None):
            self.best = max(self.best, logs["val_uar"])
            tune.report({"val_uar": self.best})

    with tempfile.TemporaryDirectory() as folder:
        trial = replace(task, settings=task.settings | config, models=Path(folder))
        train_fold(trial, callbacks=[Report()])


def _draw(tune, kind, values):
    return tune.choice(values) if kind == "choice" else {"uniform": tune.uniform, "log": tune.loguniform}[kind](*values)


def _trials_table(results, space):
    scored = [result for result in results if result.metrics and "val_uar" in result.metrics]
    rows = [
        {name: result.config[name] for name in space}
        | {"val_uar": result.metrics["val_uar"], "epochs": result.metrics["training_iteration"]}
        for result in scored
    ]
    if not rows:
        raise RuntimeError(f"All {len(results)} trials failed; the first: {results.errors[0]}")
    return pd.DataFrame(rows).sort_values("val_uar", ascending=False, ignore_index=True)


def main(arguments: list[str] | None = None) -> None:
    """Search the settings of one system or both, and print the best trials."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("dataset", "demo"), ("profile", "quick"), ("root", "")):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--system", choices=sorted(NETWORKS), action="append")
    given = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        workspace = Workspace(given.dataset, given.profile, given.seed, given.root)
        table = workspace.load_table("utterances")
    except (WorkspaceError, ValueError) as error:
        raise SystemExit(str(error)) from None
    if find_spec("ray") is None:
        raise SystemExit("A search needs Ray, which is not installed: make setup-extras")
    for system in given.system or NETWORKS:
        trials = search(workspace, system, table)
        print(f"{system}: {len(trials)} trials, best first\n{trials.head(10).round(4).to_string()}")
        path = trials_path(workspace.results, system, workspace.profile)
        print(f"{path}: notebook 07 trains a network with the best of them, too")


if __name__ == "__main__":
    main()
