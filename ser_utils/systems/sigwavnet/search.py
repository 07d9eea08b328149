"""What a hyperparameter search (`make search`, tools/search.py) found, and the networks that are trained with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from ser_utils.systems.sigwavnet.training import WaveformTask
from ser_utils.workspace import REPOSITORY, Workspace

REPORTED = ("val_uar", "epochs")  # of a trial; its other columns are its settings


def trials_path(results: Path, system: str, profile: str) -> Path:
    """Say where the trials of a search are kept, beside the other results of a dataset."""
    return results / f"07_search_{system}_{profile}.csv"


def read_trials(workspace: Workspace, system: str) -> pd.DataFrame:
    """Read the trials of a search with this profile, the best first: the reader's own, else those that ship; else empty."""
    for folder in (workspace.results, REPOSITORY / "results" / workspace.name):
        if (path := trials_path(folder, system, workspace.profile)).exists():
            return pd.read_csv(path)
    return pd.DataFrame()


def searched(workspace: Workspace, system: str) -> dict[str, Any]:
    """Give the settings of the best trial; empty without a search."""
    best = read_trials(workspace, system).head(1).drop(columns=list(REPORTED), errors="ignore")
    return best.to_dict("records")[0] if len(best) else {}


def searched_model(workspace: Workspace, system: str, network: WaveformTask) -> dict[str, WaveformTask]:
    """The task `searched`: `network` with the settings of the best trial; nothing without a search."""
    best = searched(workspace, system)
    name = f"{system}-searched"
    return {"searched": replace(network, name=name, settings=network.settings | best)} if best else {}
