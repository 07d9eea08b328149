"""Is a corpus what it claims to be? Held against its published index, and looked over for traps.

python -m tools.check_data NAME
"""

import argparse
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ser_utils.corpora.check import find_loudness_by_corpus, find_regularities
from ser_utils.corpora.loading import CorpusError, find_shared_people, inspect_parts, is_strict
from ser_utils.corpora.recordings import describe_remarks
from ser_utils.features.audio import UNREADABLE
from ser_utils.workspace import REPOSITORY, Workspace, WorkspaceError

INDEX = REPOSITORY / "data" / "index"
DUPLICATED = ["paths", "speakers", "emotions", "of_one_utterance"]  # what is told of files of equal samples


def _nothing(*columns):
    return field(default_factory=lambda: pd.DataFrame(columns=list(columns)))


@dataclass(frozen=True)
class CorpusCheck:
    """What was found of one corpus, or across several.

    Attributes
    ----------
    title : which corpus, and where
    verdict : in words
    usable : whether it can be worked with
    account : where every file and every row went, see `CorpusReport.account`
    present : utterance ids in use
    n_missing : how many published files, or files that the reader's table names, are not there
    missing : which, where there is an index or a table, and what to do where that is known
    altered : path, what differs from the published index
    unreadable : path, reason
    unexpected : path, reason (outside the grammar, or never published)
    duplicated : paths (joined by " = ") of equal samples, speakers, emotions
    speakers : who speaks, how often, with which gender and emotions, in words
    warnings : regularities that a model could use instead of the voice, in words
    """

    title: str
    verdict: str = ""
    usable: bool = True
    account: str = ""
    present: list[str] = field(default_factory=list)
    n_missing: int = 0
    missing: list[str] = field(default_factory=list)
    altered: pd.DataFrame = _nothing("path", "what")
    unreadable: pd.DataFrame = _nothing("path", "reason")
    unexpected: pd.DataFrame = _nothing("path", "reason")
    duplicated: pd.DataFrame = _nothing(*DUPLICATED)
    speakers: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@cache
def load_index(name: str) -> pd.DataFrame | None:
    """Load what was published of a corpus's files.

    Returns
    -------
    utterance_id, bytes, sha256 of the file, pcm_sha256 of its samples; an empty cell is not known. None where there is
    no index: only EmoDB, RAVDESS, TESS and CREMA-D have one.
    """
    path = INDEX / f"{name}.csv.gz"
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else None


def check_corpus(name: str, data_dir: str | Path) -> list[CorpusCheck]:
    """Check one corpus, or each of several and what they share.

    Parameters
    ----------
    name : a corpus, several joined by "+", or the path of the reader's own
    data_dir : folder in which corpora are looked for

    Raises
    ------
    CorpusError : only where a corpus is absent or unknown, or the reader's own cannot be understood
    """
    reports = inspect_parts(name, data_dir)
    checks = [_check_report(report) for report in reports]
    if len(reports) > 1:
        checks.append(_check_between(reports))
    return checks


def _check_report(report):
    corpus, files, problems = report.corpora[0], report.files, report.problems
    index = load_index(corpus.name)
    is_read = problems["path"].isin(files["path"])
    is_absent = is_read & problems["path"].isin(files["path"][files["size"] < 0])
    is_copy = problems["reason"].str.startswith("copy of ")
    unexpected = problems.loc[~is_read, ["path", "reason"]]
    absent = problems.loc[is_absent, ["path", "reason"]].to_numpy()
    missing = [path if why.startswith(UNREADABLE) else f"{path}: {why}" for path, why in absent]
    altered = pd.DataFrame(columns=["path", "what"])
    n_missing = len(missing) or max(0, corpus.n_files - files["utterance_id"].nunique()) * (not corpus.is_own)
    if index is not None:
        missing = sorted(set(index["utterance_id"]) - set(files["utterance_id"]))
        n_missing, altered = len(missing), _find_altered(files, index)
        never = files[~files["utterance_id"].isin(index["utterance_id"])]
        unexpected = pd.concat([unexpected, never[["path"]].assign(reason="not among the published files")])
    n_bad = problems["unusable"].sum() + len(altered)
    n_files = len(report.table) + problems["unusable"].sum()
    usable = bool(report.table["emotion"].nunique() > 1 and n_bad <= n_files / 10)
    usable_files = files[~files["path"].isin(problems["path"])]
    return CorpusCheck(
        title=f"{corpus.title} in {report.folders[0]}",
        verdict=_verdict(report, usable, f"{n_bad} of {n_files}"),
        usable=usable,
        account=report.account,
        present=report.table["utterance_id"].tolist(),
        n_missing=n_missing,
        missing=missing,
        altered=altered.reset_index(drop=True),
        unreadable=problems.loc[is_read & ~is_copy & ~is_absent, ["path", "reason"]].reset_index(drop=True),
        unexpected=unexpected.reset_index(drop=True),
        duplicated=find_duplicates(files),
        speakers=_describe_speakers(report.table),
        warnings=[*report.notes, *describe_remarks(files), *find_regularities(usable_files)],
    )


def _verdict(report, usable, share):
    emotions = report.table["emotion"]
    if emotions.nunique() == 1:
        received = f"{len(emotions)} recordings, all of {emotions.iloc[0]}"
        return f"not usable: it needs two emotions at least. Received: {received}"
    if not usable:
        return f"not usable: {share} files are unusable or altered, more than a tenth"
    if report.announcement:
        return f"usable, partial: {report.announcement}"
    return "usable" + (", complete" if report.corpora[0].n_files else "")


def _describe_speakers(table):
    """A line for each speaker: gender, how many utterances, how many of each emotion."""
    lines = []
    for speaker, group in table.groupby("speaker"):
        counts = ", ".join(f"{emotion} {count}" for emotion, count in group.groupby("emotion").size().items())
        genders = ", ".join(sorted(set(group["gender"]) - {""})) or "gender not given"
        lines.append(f"{speaker} ({genders}): {len(group)} utterances ({counts})")
    return lines


def _find_altered(files, index):
    known = files[files["pcm_sha256"] != ""].merge(index, on="utterance_id", suffixes=("", "_published"))
    same_file = known["sha256"] == known["sha256_published"]
    same_samples = known["pcm_sha256"] == known["pcm_sha256_published"]
    # a wav that was made a FLAC cannot be compared where only the file's checksum was published
    comparable = (known["pcm_sha256_published"] != "") | known["path"].str.lower().str.endswith(".wav")
    altered = known[~same_file & ~same_samples & comparable]
    what = np.where(altered["pcm_sha256_published"] != "", "other samples", "another file")
    return pd.DataFrame({"path": altered["path"], "what": what + " than published"})


def find_duplicates(files: pd.DataFrame) -> pd.DataFrame:
    """Find files of equal samples.

    Parameters
    ----------
    files : as in `CorpusReport.files`

    Returns
    -------
    DataFrame with `paths` joined by " = ", `speakers`, `emotions`, and `of_one_utterance`
    """
    read = files[files["pcm_sha256"] != ""]
    rows = []
    for _, group in read[read["pcm_sha256"].duplicated(keep=False)].groupby("pcm_sha256", sort=False):
        speakers, emotions = (", ".join(sorted(set(group[fact]))) for fact in ("speaker", "emotion"))
        rows.append((" = ".join(sorted(group["path"])), speakers, emotions, group["utterance_id"].nunique() == 1))
    return pd.DataFrame(rows, columns=DUPLICATED).sort_values("paths", ignore_index=True)


def _check_between(reports):
    named = [(report.corpora[0].name, report.files) for report in reports]
    files = pd.concat([rows.assign(path=name + "/" + rows["path"], corpus=name) for name, rows in named])
    shared = files.groupby("pcm_sha256")["corpus"].transform("nunique") > 1
    refused = find_shared_people(reports)
    return CorpusCheck(
        "Between them",
        verdict="cannot be used together" if refused else "",
        usable=not refused,
        duplicated=find_duplicates(files[shared]),
        warnings=refused + find_loudness_by_corpus(files),
    )


def describe(check: CorpusCheck, *, longest: int = 10) -> str:
    """Write a CorpusCheck as text, each list cut to `longest` lines."""
    lines = [check.title, *(f"  {line}" for line in [check.verdict, *check.account.splitlines()] if line)]
    lists = {
        "present": [],
        "missing": check.missing,
        "altered": [f"{path}: {what}" for path, what in check.altered.to_numpy()],
        "unreadable": [f"{path}: {reason}" for path, reason in check.unreadable.to_numpy()],
        "unexpected": [f"{path}: {reason}" for path, reason in check.unexpected.to_numpy()],
        "duplicated": [_describe_duplicate(row) for row in check.duplicated.to_dict("records")],
        "speakers": check.speakers,
        "warnings": check.warnings,
    }
    for name, entries in lists.items():
        count = {"present": len(check.present), "missing": check.n_missing}.get(name, len(entries))
        lines.append(f"  {name:<11}{count:>6}")
        lines += [f"      {entry}" for entry in entries[:longest]]
        if len(entries) > longest:
            lines.append(f"      … and {len(entries) - longest} more (--all shows them)")
    return "\n".join(lines)


def _describe_duplicate(row):
    notes = [f"under {what} {row[what]}" for what in ("speakers", "emotions") if ", " in row[what]]
    return row["paths"] + (f" ({'; '.join(notes)})" if notes else "")


def main(arguments: list[str] | None = None) -> int:
    """Print what was found; returns 0 if everything is usable, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.check_data", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a corpus, several joined by +, or the path of your own")
    parser.add_argument("--data-dir", type=Path, help="where corpora are (default: SER_DATA_DIR, or data/)")
    parser.add_argument("--all", action="store_true", help="show every file, not the first ten of each list")
    options = parser.parse_args(arguments)
    try:
        checks = check_corpus(options.name, options.data_dir or Workspace(options.name or "demo").data_dir)
    except (CorpusError, WorkspaceError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for check in checks:
        print(describe(check, longest=10**9 if options.all else 10))
    return int(not all(check.usable and not (is_strict() and "partial" in check.verdict) for check in checks))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
