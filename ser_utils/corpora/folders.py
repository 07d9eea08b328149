"""A tree of folders read as a corpus: one reading for all of it, or a refusal that shows two paths."""

import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_utils.corpora.people import SPLITS, UNKNOWN
from ser_utils.tables import CorpusError


@dataclass(frozen=True)
class _Layout:
    """Which level of folders names the emotion, and which the speaker (None: no level does)."""

    emotion: int
    speaker: int | None


def read_folders(place: Path, paths: list[str], words: Container[str]) -> pd.DataFrame:
    """Read speakers and emotions from the folders that recordings lie in.

    Parameters
    ----------
    place : the folder
    paths : its recordings, relative to it
    words : the words for emotions, in lower case

    Returns
    -------
    DataFrame with `path, speaker, emotion`; a speaker that no folder names is UNKNOWN, folders above all speakers
    and folders of splits (train, test …) are passed over, an emotion may be a word that is not among `words`

    Raises
    ------
    CorpusError : if different parts of the tree are laid out differently, or two levels may name the same
    """
    folders_of = {path: [name for name in Path(path).parts[:-1] if not is_split(name)] for path in paths}
    if bare := [path for path, folders in folders_of.items() if not folders]:
        others = [path for path in paths if path not in bare]
        _refuse(place, bare[0], (others or bare)[-1], f"{bare[0]!r} is in no folder of an emotion")
    only_speaker = UNKNOWN
    while all(len(folders) > 1 for folders in folders_of.values()):
        firsts = {folders[0] for folders in folders_of.values()}
        if len(firsts) > 1 or _is_word(next(iter(firsts)), words):
            break
        (only_speaker,) = firsts
        folders_of = {path: folders[1:] for path, folders in folders_of.items()}
    layouts = _find_layouts(place, folders_of, words)
    named = any(layout.speaker is not None for layout in layouts.values())
    rows = []
    for path, folders in folders_of.items():
        layout = layouts[len(folders)]
        speaker = folders[layout.speaker] if layout.speaker is not None else UNKNOWN if named else only_speaker
        rows.append({"path": path, "speaker": speaker, "emotion": folders[layout.emotion]})
    return pd.DataFrame(rows)


def is_split(folder: str) -> bool:
    """Whether a folder is called like a part of a data set (train, test, dev …)."""
    return folder.strip().casefold() in SPLITS


def _is_word(folder, words):
    return folder.strip().lower() in words


def _find_layouts(place, folders_of, words):
    """depth → _Layout; one order of speaker and emotion for all depths."""
    by_depth = {}
    for path, folders in folders_of.items():
        by_depth.setdefault(len(folders), {})[path] = folders
    layouts = {depth: _find_layout(place, group, words, len(by_depth) > 1) for depth, group in by_depth.items()}
    first_of = {}
    for depth, layout in layouts.items():
        if layout.speaker is not None:
            first_of.setdefault(layout.speaker < layout.emotion, next(iter(by_depth[depth])))
    if len(first_of) > 1:
        _refuse(place, *first_of.values(), "the speaker stands above the emotion here and below it there")
    return layouts


def _find_layout(place, group, words, is_one_of_several):
    levels = list(zip(*group.values(), strict=True))
    some = [level for level, names in enumerate(levels) if any(_is_word(name, words) for name in names)]
    every = [level for level in some if all(_is_word(name, words) for name in levels[level])]
    # where no word is known, the folder nearest to the recordings is an emotion to be explained
    candidates = every or some or [len(levels) - 1]
    if len(candidates) > 1:
        first = next(iter(group))
        second = _unlike(group, lambda folders: [_is_word(name, words) for name in folders])
        _refuse(place, first, second, "more than one level of folders may name the emotion")
    others = [level for level in range(len(levels)) if level != candidates[0]]
    if len(others) > 1:
        varying = [level for level in others if len(set(levels[level])) > 1]
        if is_one_of_several or len(varying) != 1:
            second = _unlike(group, lambda folders: [folders[level] for level in others])
            _refuse(place, next(iter(group)), second, "more than one level of folders may name the speaker")
        others = varying
    return _Layout(candidates[0], others[0] if others else None)


def _unlike(group, key):
    """A path for which `key` of its folders differs from that of the first path; the last one if there is none."""
    first = key(next(iter(group.values())))
    return next((path for path, folders in group.items() if key(folders) != first), list(group)[-1])


def _refuse(place, first, second, why):
    raise CorpusError(
        f"{place}: the folders can be read in more than one way: {why}.\n  {first}\n  {second}\n"
        f"Lay out all recordings as emotion/, speaker/emotion/ or emotion/speaker/, or write a table with the "
        f"columns path, speaker, emotion. Folders found: {', '.join(sorted({os.path.dirname(p) for p in (first, second)}))}"
    )
