"""Which recordings a corpus leads to, and which files beside them are not read."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ser_utils.corpora.facts import Corpus
from ser_utils.corpora.recordings import LEFT_OUT, SUFFIXES, printable
from ser_utils.tables import CLOSED, list_files

NO_ROW = "no row of the table names it"


class LeftOut(NamedTuple):
    """Something that is not used, why, and whether that speaks against the corpus."""

    path: str
    reason: str
    unusable: bool


@dataclass(frozen=True)
class Found:
    """The files of a corpus, paths relative to its folder.

    Attributes
    ----------
    recordings : those to be read
    files : all that are recordings by their suffix, read or not
    left_out : what is not read
    others : what other files there are, in words; "" for none
    """

    recordings: list[str]
    files: list[str]
    left_out: list[LeftOut]
    others: str = ""


@dataclass(frozen=True)
class Source:
    """What is known of a corpus before a recording is opened.

    Attributes
    ----------
    corpus, folder : its facts, and where its files are
    listing : its files
    n_rows : rows of its table; 0 where no table says what belongs to it
    notes : what a reader has to know of how it was understood
    """

    corpus: Corpus
    folder: Path
    listing: Found
    n_rows: int = 0
    notes: tuple[str, ...] = ()


def find_recordings(folder: Path) -> Found:
    """Find the recordings under a folder, in linked folders too."""
    listing = list_files(folder)
    files = [path for path in listing.files if is_recording(path) or is_unread(path)]
    well_named = [path for path in files if printable(path) == path]
    odd_name = "its name is not UTF-8, or holds line breaks or the like"
    left_out = [LeftOut(path, why, why.startswith(CLOSED)) for path, why in listing.faults.items()]
    left_out += [LeftOut(printable(path), odd_name, True) for path in sorted(set(files) - set(well_named))]
    left_out += [LeftOut(path, why, False) for path, why in unread_files(well_named)]
    kinds = Counter(_suffix(path) or "no suffix" for path in set(listing.files) - set(files))
    others = ", ".join(f"{printable(kind)} ({count})" for kind, count in sorted(kinds.items()))
    return Found(list(filter(is_recording, well_named)), list(map(printable, files)), left_out, others)


def find_named(folder: Path, paths: Iterable[str]) -> Found:
    """Find the files that a table's rows name, and recordings beside them that no row names, which are left out."""
    paths = [path for path in paths if path]
    places = {os.path.normpath(folder / path) for path in paths}
    parents = {os.path.dirname(place) for place in places}
    beside = {os.path.join(parent, name) for parent in parents for name in _names_in(parent)}
    beside = {place for place in beside - places if is_recording(place) or is_unread(place)}
    there = sorted(beside | {place for place in places if os.path.isfile(place)})
    left_out = [LeftOut(printable(os.path.relpath(place, folder)), NO_ROW, False) for place in sorted(beside)]
    return Found(paths, [printable(os.path.relpath(place, folder)) for place in there], left_out)


def is_recording(path: str) -> bool:
    """Whether a file is a recording by its suffix, of a kind that can be read."""
    return _suffix(path) in SUFFIXES


def is_unread(path: str) -> bool:
    """Whether a file is a recording by its suffix, of a kind that libsndfile does not read."""
    return _suffix(path) in LEFT_OUT


def unread_files(paths: Iterable[str]) -> list[tuple[str, str]]:
    """List the recordings among files that libsndfile does not read: path, and what to do."""
    reason = "{} is not read: convert it, e.g. ffmpeg -i {} {}.wav"
    names = {path: Path(path) for path in paths if is_unread(path)}
    return [(path, reason.format(_suffix(path), name.name, name.stem)) for path, name in names.items()]


def find_meant(folder: Path, path: str) -> str:
    """Find the file that a path may mean which is not there: written for Windows, with %20, or on another machine.

    Returns
    -------
    a path that would match, relative to `folder`; "" if there is none
    """
    parts = list(filter(None, unquote(path.removeprefix("file://")).replace("\\", "/").split("/")))
    for start in range(len(parts)):
        *parents, name = parts[start:]
        for other in _names_in(folder.joinpath(*parents)):
            if is_recording(other) and _stem_key(other) == _stem_key(name):
                return "/".join([*parents, other])
    return ""


def _suffix(path):
    return os.path.splitext(path)[1].lower()


def _stem_key(name):
    return unicodedata.normalize("NFC", os.path.splitext(name)[0]).casefold()


def _names_in(folder):
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (OSError, ValueError):
        return []
