"""Corpora as utterance tables."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ser_utils.corpora.facts import CORPORA, EMODB, EMOTIONS, Corpus, CorpusError, GrammarError
from ser_utils.corpora.own import UNKNOWN, is_own, read_own
from ser_utils.corpora.recordings import list_audio, printable, read_recordings

__all__ = ["COLUMNS", "CORPORA", "EMOTIONS", "CorpusError", "CorpusReport", "inspect_corpus", "load_corpus"]

COLUMNS = [
    "utterance_id",
    "corpus",
    "path",
    "speaker",
    "gender",
    "language",
    "emotion",
    "emotion_native",
    "intensity",
    "sentence",
    "sample_rate_hz",
    "duration_s",
    "sha256",
    "pcm_sha256",
]
SHORTEST_S = 0.1  # one segment of the prototype paper


@dataclass(frozen=True)
class CorpusReport:
    """A corpus as found.

    table : the utterance table
    problems : path, reason of every file left out, and `unusable`: whether that speaks against the corpus
    announcement : what the reader has to know, as "339 of 535 files, 4 of 7 emotions"; "" if there is nothing
    corpora : the Corpus of each part; folders : where it was found
    files : what was read of each file (see `recordings.read_recordings`), with `utterance_id, speaker, emotion`
    """

    table: pd.DataFrame
    problems: pd.DataFrame
    announcement: str
    corpora: tuple[Corpus, ...]
    folders: tuple[Path, ...]
    files: pd.DataFrame


def load_corpus(name, data_dir, *, strict=None, labels=None):
    """The utterance table of a corpus.

    name : one of CORPORA, "demo", the path of your own (see `own_corpus.read_own`), or several joined by "+"
    data_dir : folder in which corpora are looked for
    strict : refuse a partial corpus; None asks the environment variable STRICT
    labels : of several corpora, keep the emotions that all have ("shared") or every one ("all"); None asks the
        environment variable LABELS, and is "shared" without it
    Returns a table of COLUMNS sorted by utterance_id; in its `attrs`, `announcement` says what is missing,
    `left_out` counts the files not used, and `sample_rate_hz` is the one rate to bring everything to.
    Raises CorpusError as `inspect_corpus` does.
    """
    return inspect_corpus(name, data_dir, strict=strict, labels=labels).table


def inspect_corpus(name, data_dir, *, strict=None, labels=None, cache=None, jobs=None):
    """Read every file of a corpus, or of several; what has not changed since is not read again.

    cache, jobs : as in `recordings.read_recordings`; the rest as in `load_corpus`
    Returns a CorpusReport. Raises CorpusError if a corpus is unknown or absent, if more than a tenth of it is
    unusable, or if it is partial and `strict`.
    """
    reports = inspect_parts(name, data_dir, cache=cache, jobs=jobs)
    for report in reports:
        _refuse_mostly_unusable(report)
    strict = os.environ.get("STRICT", "") not in ("", "0") if strict is None else strict
    for report in reports:
        if strict and report.announcement:
            raise CorpusError(
                f"{report.corpora[0].title} in {report.folders[0]} is partial ({report.announcement}), which "
                f"STRICT=1 refuses. make check-data DATASET={report.corpora[0].name} lists what is missing."
            )
    report = (
        reports[0] if len(reports) == 1 else _join(reports, labels or os.environ.get("LABELS") or "shared")
    )
    rate = common_rate(report.table)
    others = int((report.table["sample_rate_hz"] != rate).sum())
    if others:
        resampled = f"{others} of {len(report.table)} files are resampled to {rate} Hz"
        report = replace(report, announcement="; ".join(filter(None, [report.announcement, resampled])))
    report.table.attrs = {
        "announcement": report.announcement,
        "left_out": len(report.problems),
        "sample_rate_hz": rate,
    }
    return report


def inspect_parts(name, data_dir, *, cache=None, jobs=None):
    """A CorpusReport of each corpus in `name`, however bad it is; raises CorpusError only where one is absent."""
    names = [name] if is_own(name) and Path(name).expanduser().exists() else name.split("+")
    return [_inspect_one(part, Path(data_dir).absolute(), cache, jobs) for part in names]


def common_rate(table):
    """The rate, Hz, to bring an utterance table to: each corpus's most common one, the lowest of these."""
    return int(table.groupby("corpus")["sample_rate_hz"].agg(lambda rates: rates.mode().min()).min())


def find_corpus(name):
    """The Corpus called `name`; raises CorpusError naming the accepted ones."""
    if name == "demo":
        return _demo_corpus()
    if name not in CORPORA:
        raise CorpusError(
            f"No corpus is called {name!r}. Accepted: demo, {', '.join(CORPORA)}; several joined by +; "
            f"or the path of your own table or folder."
        )
    return CORPORA[name]


def _demo_corpus():
    from ser_utils.corpora.demo import SPEAKERS

    speakers = {speaker: voice.gender for speaker, voice in SPEAKERS.items()}
    demo = replace(EMODB, name="demo", title="the synthetic demo corpus", layout="demo/wav/*.wav")
    return replace(demo, n_files=0, speakers=speakers, language="", sentences={}, folders=())


def find_folder(corpus, data_dir):
    """The folder of `corpus` under `data_dir`, by any of its names; raises CorpusError."""
    data_dir = Path(data_dir)
    if data_dir.is_dir():
        entries = [entry for entry in sorted(data_dir.iterdir()) if entry.is_dir()]
        found = {re.sub(r"[^a-z0-9]", "", entry.name.lower()): entry for entry in reversed(entries)}
        for name in (corpus.name, *corpus.folders):
            if name in found:
                return found[name]
    raise _absent(corpus, data_dir, "the folder is not there")


def _absent(corpus, data_dir, what):
    return CorpusError(
        f"{corpus.title}: expected {corpus.n_files or 'its'} recordings as {data_dir / corpus.layout}, but {what}. "
        f"To get it: make data DATASET={corpus.name}; if you have it already, put it there or say with "
        f"SER_DATA_DIR where it is. See data/README.md."
    )


def _inspect_one(name, data_dir, cache, jobs):
    if is_own(name):
        corpus, folder, paths = read_own(name)
    else:
        corpus = find_corpus(name)
        folder = find_folder(corpus, data_dir)
        paths = list_audio(folder)
    named, problems = _read_names(corpus, folder, paths)
    files = read_recordings(folder, list(named), cache=cache, jobs=jobs)
    table, unusable = _sort_out(corpus, folder, files, named)
    problems = pd.DataFrame(problems + unusable, columns=["path", "reason", "unusable"])
    problems = problems.sort_values("path", ignore_index=True)
    if table.empty and not problems["unusable"].any():
        raise _absent(
            corpus, data_dir, f"there are {len(paths)} audio files in {folder}, none of them its own"
        )
    for fact in ("utterance_id", "speaker", "emotion"):
        files[fact] = [named[path][fact] for path in files["path"]]
    return CorpusReport(table, problems, _announce(corpus, table), (corpus,), (folder,), files)


def _read_names(corpus, folder, paths):
    """What the names say: {path: facts}, and the problems of the others."""
    codes = corpus.find_codes(folder) if corpus.find_codes else None
    named, problems = {}, []
    for path in paths:
        if printable(path) != path:
            problems.append(
                (printable(path), "its name is not UTF-8, or holds line breaks or the like", True)
            )
            continue
        try:
            named[path] = corpus.utterance(Path(path).as_posix(), codes)
        except GrammarError as error:
            problems.append((path, str(error), not error.foreign))
    return named, problems


def _sort_out(corpus, folder, files, named):
    """The utterance table, and the problems of the files that are not in it."""
    rows, problems, first_of = [], [], {}
    # of a corpus packed twice into one archive, the copy nearest to the top is used
    for file in sorted(files.to_dict("records"), key=lambda file: (file["path"].count(os.sep), file["path"])):
        facts = named[file["path"]]
        duration_ms = file["duration_s"] * 1000
        if facts["utterance_id"] in corpus.broken:
            problems.append((file["path"], file["reason"] or "published without speech in it", False))
        elif file["reason"]:
            problems.append((file["path"], file["reason"], True))
        elif file["duration_s"] < SHORTEST_S:
            wanted = f"{duration_ms:.0f} ms long; one segment is {SHORTEST_S * 1000:.0f} ms"
            problems.append((file["path"], wanted, True))
        elif (first := first_of.setdefault(facts["utterance_id"], file)) is not file:
            same = first["pcm_sha256"] == file["pcm_sha256"]
            what = "copy of" if same else "another recording under the name of"
            problems.append((file["path"], f"{what} {first['path']}", not same))
        else:
            rows.append(file | facts | {"path": str(folder / file["path"]), "corpus": corpus.name})
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values("utterance_id", ignore_index=True), problems


def _refuse_mostly_unusable(report):
    unusable = report.problems[report.problems["unusable"]]
    n_files = len(report.table) + len(unusable)
    if len(unusable) > n_files / 10:
        corpus, first = report.corpora[0], unusable.head(10)
        examples = "".join(
            f"\n  {path}: {why}" for path, why in zip(first["path"], first["reason"], strict=True)
        )
        raise CorpusError(
            f"{corpus.title} in {report.folders[0]}: {len(unusable)} of {n_files} files are unusable, more than a "
            f"tenth.{examples}\n"
            f"make check-data DATASET={corpus.name} lists them all."
        )


def _announce(corpus, table):
    if set(table["speaker"]) == {UNKNOWN}:
        return "speakers unknown, taken as one"
    if len(table) >= corpus.n_files - len(corpus.broken):
        return ""
    parts = [f"{len(table)} of {corpus.n_files} files"]
    for what, there, published in (
        ("emotions", table["emotion"].nunique(), len(corpus.emotions)),
        ("speakers", table["speaker"].nunique(), len(corpus.speakers)),
    ):
        if there < published:
            parts.append(f"{there} of {published} {what}")
    return ", ".join(parts)


def _join(reports, labels):
    """Several corpora as one: speakers and utterances named after their corpus, one set of emotions."""
    if labels not in ("shared", "all"):
        raise CorpusError(f"labels must be shared or all. Received: labels={labels!r}")
    names = [report.corpora[0].name for report in reports]
    if len(set(names)) < len(names):
        raise CorpusError(f"Each corpus may be there once. Received: {'+'.join(names)}")
    parts = list(zip(names, reports, strict=True))
    tables = [_named_after(name, report.table) for name, report in parts]
    table = pd.concat(tables).sort_values("utterance_id", ignore_index=True)
    present = [set(part["emotion"]) for part in tables]
    kept = set.intersection(*present) if labels == "shared" else set.union(*present)
    if len(kept) < 2:
        raise CorpusError(
            f"{'+'.join(names)}: fewer than two emotions are in all of them. LABELS=all keeps all."
        )
    said = [f"{name}: {report.announcement}" for name, report in parts if report.announcement]
    listed = ", ".join(emotion for emotion in EMOTIONS if emotion in kept)
    more = set.union(*present) - kept
    said.append(
        f"the {len(kept)} emotions that {'all' if labels == 'shared' else 'any'} of them have: {listed}"
    )
    if more:
        lost = int(table["emotion"].isin(more).sum())
        said.append(f"{lost} files of {', '.join(sorted(more))} left out, as not all have them")
    return CorpusReport(
        table[table["emotion"].isin(kept)].reset_index(drop=True),
        pd.concat([_named_after(name, report.problems) for name, report in parts], ignore_index=True),
        "; ".join(said),
        tuple(report.corpora[0] for report in reports),
        tuple(report.folders[0] for report in reports),
        pd.concat([_named_after(name, report.files) for name, report in parts], ignore_index=True),
    )


def _named_after(corpus, table):
    """Utterances, speakers and relative paths with the corpus's name before them."""
    table = table.copy()
    for column, mark in (("utterance_id", "_"), ("speaker", "_"), ("path", "/")):
        if column in table and not (column == "path" and "corpus" in table):  # there it is absolute
            table[column] = corpus + mark + table[column]
    return table
