"""Names of datasets, results and their folders."""

import hashlib
import os
import re
from pathlib import Path

STAND_INS = ("random_", "fixture_")  # how models with encoders that were never trained begin: their scores mean nothing
ALL = "+all"  # ends a dataset of several corpora that keeps emotions which only some of them have
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


def keeps_all(dataset: str) -> bool:
    """Whether a dataset asks for every emotion of its corpora, not only those that all have: "ravdess+emodb+all"."""
    return dataset.endswith(ALL) and "+" in dataset.removesuffix(ALL) and not path_of(dataset).exists()


def corpora_of(name: str) -> list[str]:
    """Split the name of a dataset's folder: "ravdess+emodb+all" → ravdess, emodb."""
    return (name.removesuffix(ALL) if keeps_all(name) else name).split("+")


def dataset_parts(dataset: str) -> list[str]:
    """Split a dataset at its "+": names of corpora as they are, the reader's own as absolute paths."""
    if CORPUS_NAMES.fullmatch(dataset):
        return corpora_of(dataset)
    parts = [dataset] if path_of(dataset).exists() else corpora_of(dataset)
    return [p if CORPUS_NAMES.fullmatch(p) or not p else os.path.realpath(path_of(p)) for p in parts]


def resolved(dataset: str) -> str:
    """The dataset with absolute paths."""
    return "+".join(dataset_parts(dataset)) + ALL * keeps_all(dataset)


def dataset_name(dataset: str) -> str:
    """Name the folder of a dataset: the dataset itself, or for paths their stems and a hash of where they are."""
    if CORPUS_NAMES.fullmatch(dataset):
        return dataset
    place = hashlib.sha256(resolved(dataset).encode()).hexdigest()[:6]
    stem = "_".join(Path(corpus).stem for corpus in dataset_parts(dataset))
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")[:40] + "-" + place
