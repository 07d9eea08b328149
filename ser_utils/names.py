"""Names of datasets, results and their folders."""

import hashlib
import os
import re
from pathlib import Path

STAND_INS = ("random_", "fixture_")  # how models with encoders that were never trained begin: their scores mean nothing
CORPUS_NAMES = re.compile(r"[a-z0-9_]+(\+[a-z0-9_]+)*")  # anything else is a path to the reader's own


def result_name(system: str, model: str, protocol: str, folds: str) -> str:
    """Name the files of one result, `<system>-<model>-<protocol>-<folds>`.

    Raises
    ------
    ValueError : if a part has other characters than a-z, 0-9 and _
    """
    for word in (system, model, protocol, folds):
        if not re.fullmatch(r"[a-z0-9_]+", word):
            raise ValueError(f"A result's name is made of a-z, 0-9 and _. Received: {word!r}")
    return f"{system}-{model}-{protocol}-{folds}"


def path_of(text: str | Path) -> Path:
    """The path that a reader wrote, `~` for the home. `~name` of nobody is a name as any other: `expanduser` raises."""
    return Path(os.path.expanduser(text))


def dataset_parts(dataset: str) -> list[str]:
    """Split a dataset at its "+": names of corpora as they are, the reader's own as absolute paths."""
    if CORPUS_NAMES.fullmatch(dataset):
        return dataset.split("+")
    parts = [dataset] if path_of(dataset).exists() else dataset.split("+")
    return [p if CORPUS_NAMES.fullmatch(p) or not p else str(path_of(p).resolve()) for p in parts]


def dataset_name(dataset: str) -> str:
    """Name the folder of a dataset: the dataset itself, or for paths their stems and a hash of where they are."""
    if CORPUS_NAMES.fullmatch(dataset):
        return dataset
    parts = dataset_parts(dataset)
    place = hashlib.sha256("+".join(parts).encode()).hexdigest()[:6]
    stem = "_".join(Path(corpus).stem for corpus in parts)
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")[:40] + "-" + place
