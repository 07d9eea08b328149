"""Files that ship, read so that a damaged one is named: one reader for each kind."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import soundfile
from PIL import Image

from ser_utils.workspace import WorkspaceError, read_json

RUN = ("commit", "finished", "n_utterances")  # what a provenance tells of each notebook


@contextlib.contextmanager
def named_if_damaged(path: str | Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn the errors with which a library refuses a file into a WorkspaceError that names the file."""
    try:
        yield
    except errors as error:
        raise damaged(path, error) from error


def damaged(path: str | Path, fault: object) -> WorkspaceError:
    """The error that names a damaged file, and says how to get it back."""
    words = " ".join(str(fault).split())
    return WorkspaceError(f"{path} is damaged ({words}). Restore it (git checkout), or let its notebook make it again.")


def load_provenance(path: Path) -> dict[str, Any]:
    """How results were made: profile, seed, and by notebook at least its commit, its end and how many recordings it had.

    path : of a provenance.json

    Raises
    ------
    WorkspaceError : where the file is missing or does not tell all of this
    """
    made = read_json(path) if path.exists() else {}
    runs = made.get("notebooks")
    if missing := [key for key in ("profile", "seed") if key not in made]:
        raise damaged(path, f"expected {' and '.join(missing)}")
    if not isinstance(runs, dict) or any(not isinstance(run, dict) or set(RUN) - set(run) for run in runs.values()):
        raise damaged(path, f"expected notebooks, each with {', '.join(RUN)}")
    return made


def load_picture(path: Path) -> Image.Image:
    """A picture with all its pixels and texts."""
    with named_if_damaged(path, OSError, SyntaxError, ValueError), Image.open(path) as image:
        image.load()
    return image


def load_sound(path: Path) -> tuple[np.ndarray, int]:
    """A sound, float32 (n_samples, n_channels), and its rate in Hz."""
    with named_if_damaged(path, soundfile.LibsndfileError):
        return soundfile.read(path, dtype="float32", always_2d=True)


def load_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook of the format in use that has cells."""
    content = read_json(path)
    if content.get("nbformat") != 4 or not content.get("cells"):
        raise damaged(path, "expected a notebook of format 4 with cells")
    return nbformat.read(path, as_version=4)
