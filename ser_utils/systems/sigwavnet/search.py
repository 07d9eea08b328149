"""What a hyperparameter search (`make search`, tools/search.py) found for a dataset and profile."""

from pathlib import Path
from typing import Any

from ser_utils.workspace import Workspace, read_json


def best_path(workspace: Workspace, system: str) -> Path:
    """Say where the best configuration of a search is kept."""
    return workspace.folder("search") / f"{system}_best.json"


def searched(workspace: Workspace, system: str) -> dict[str, Any]:
    """Read the best configuration that a search left for this dataset and profile; empty without a search."""
    path = best_path(workspace, system)
    return read_json(path) if path.exists() else {}
