"""Corpora as utterance tables."""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ser_utils.corpora.facts import CORPORA, EMOTIONS, Corpus, CorpusError, GrammarError
from ser_utils.corpora.own import find_place, is_own, read_own
from ser_utils.corpora.people import UNKNOWN, speaker_key
from ser_utils.corpora.recordings import SHORTEST_S, read_recordings
from ser_utils.corpora.sources import NO_ROW, LeftOut, Source, find_meant, find_recordings, is_unread, unread_files
from ser_utils.features.audio import UNREADABLE
from ser_utils.names import CORPUS_NAMES, corpora_of, dataset_parts, keeps_all, path_of
from ser_utils.tables import CLOSED

__all__ = ["COLUMNS", "CORPORA", "EMOTIONS", "CorpusError", "CorpusReport", "inspect_corpus", "load_corpus"]

COLUMNS = (
    "utterance_id corpus path speaker gender language emotion emotion_native intensity sentence sample_rate_hz "
    "duration_s sha256 pcm_sha256"
).split()
ADDRESS = "an address, which is not read: download the file, and write its path"
NOT_SHARED = ": not all corpora have it"  # why a file of several corpora is left out, after its emotion
VARYING = r"\b\d+ |[:;(].*|(?<=copy) of .*| under the name of .*"


@dataclass(frozen=True)
class CorpusReport:
    """A corpus as found.

    Attributes
    ----------
    table : the utterance table
    problems : `path`, `reason` of everything left out; `unusable`: whether that speaks against the corpus; `is_file`,
        `is_row`: whether it is among the files found, and among the rows of the reader's table
    announcement : what of it is missing, as "339 of 535 files, 4 of 7 emotions"; "" if nothing is
    corpora : the Corpus of each part
    folders : where each was found
    files : what was read of each file (see `recordings.read_recordings`), with `utterance_id, speaker, emotion`
    n_files : recordings found
    n_rows : rows of the reader's own tables; 0 where there are none
    others : what other files there are, in words
    notes : how it was understood, where that is not plain
    """

    table: pd.DataFrame
    problems: pd.DataFrame
    announcement: str
    corpora: tuple[Corpus, ...]
    folders: tuple[Path, ...]
    files: pd.DataFrame
    n_files: int
    n_rows: int = 0
    others: str = ""
    notes: tuple[str, ...] = ()

    @property
    def account(self) -> str:
        """Where every file and every row of a table went, a line for each: their sums agree."""
        lines = [self._account_of("files found", self.n_files, "is_file")]
        if self.n_rows:
            lines.append(self._account_of("rows", self.n_rows, "is_row"))
        if self.others:
            lines.append(f"besides, files that are no recordings: {self.others}")
        return "\n".join(lines)

    def _account_of(self, what, n_found, column):
        left_out = self.problems[self.problems[column]]
        # a reason goes on with a number, a file or what to do: what comes before that is its kind
        kinds = left_out["reason"].str.removeprefix(UNREADABLE).str.replace(VARYING, "", regex=True)
        counts = kinds.str.strip().value_counts()
        because = ", because: " + "; ".join(f"{kind} ({count})" for kind, count in counts.items())
        n_used = len(self.table) if column == "is_file" else self.n_rows - len(left_out)
        return f"{n_found} {what}: {n_used} used, {len(left_out)} left out{because if len(counts) else ''}"


def load_corpus(name: str, data_dir: str | Path) -> pd.DataFrame:
    """Load the utterance table of a corpus.

    Parameters
    ----------
    name : one of CORPORA, "demo", the path of your own (see `own.read_own`), or several joined by "+". Of several, the
        emotions that all have are kept; every one where the name ends in "+all".
    data_dir : folder in which corpora are looked for

    The environment variable STRICT=1 refuses a partial corpus.

    Returns
    -------
    A table of COLUMNS sorted by utterance_id; in its `attrs`, `announcement` says what is missing, `left_out` counts
    what is not used, and `sample_rate_hz` is the one rate to bring everything to.

    Raises
    ------
    CorpusError : as `inspect_corpus` does
    """
    return inspect_corpus(name, data_dir).table


def inspect_corpus(name: str, data_dir: str | Path, *, cache: Path | None = None) -> CorpusReport:
    """Read every file of a corpus, or of several; what has not changed since is not read again.

    Parameters
    ----------
    name, data_dir : as in `load_corpus`, and so is the environment
    cache : as in `recordings.read_recordings`

    Raises
    ------
    CorpusError : if a corpus is unknown or absent, if more than a tenth of it is unusable, if it is partial and
        STRICT is set, or if parts of several share a person or a recording
    """
    reports = inspect_parts(name, data_dir, cache=cache)
    for report in reports:
        _refuse_mostly_unusable(report)
    for report in reports:
        if is_strict() and report.announcement:
            raise CorpusError(
                f"{report.corpora[0].title} in {report.folders[0]} is partial ({report.announcement}), which "
                f"STRICT=1 refuses. make check-data DATASET={report.corpora[0].name} lists what is missing."
            )
    report = reports[0] if len(reports) == 1 else _join(reports, keeps_all(name))
    rate = common_rate(report.table)
    notes = list(report.notes)
    if n_others := int((report.table["sample_rate_hz"] != rate).sum()):
        notes.append(f"{n_others} of {len(report.table)} files are resampled to {rate} Hz")
    report = replace(report, announcement="; ".join(filter(None, [report.announcement, *notes])))
    report.table.attrs = {"announcement": report.announcement, "left_out": len(report.problems), "sample_rate_hz": rate}
    return report


def is_strict() -> bool:
    """Whether the environment variable STRICT asks to refuse partial corpora."""
    return os.environ.get("STRICT", "") not in ("", "0")


def inspect_parts(name: str, data_dir: str | Path, *, cache: Path | None = None) -> list[CorpusReport]:
    """Inspect each corpus in `name`, however bad it is; raises CorpusError only where one is absent."""
    is_one = is_own(name) and path_of(name).exists()
    names = [name] if is_one else corpora_of(name)
    _refuse_demo_among(names)
    return [_inspect_part(each, Path(data_dir).absolute(), cache) for each in names]


def common_rate(table: pd.DataFrame) -> int:
    """Choose the rate, Hz, to bring an utterance table to: each corpus's most common one, the lowest of these."""
    return int(table.groupby("corpus")["sample_rate_hz"].agg(lambda rates: rates.mode().min()).min())


def find_corpus(name: str) -> Corpus:
    """Find the Corpus called `name`; raises CorpusError naming the accepted ones."""
    if name == "demo":
        return _demo_corpus()
    if name not in CORPORA:
        if name == "all":
            raise CorpusError(
                "LABELS=all keeps emotions that only some of several corpora have, and needs several: "
                "make … DATASET=ravdess+emodb LABELS=all."
            )
        raise CorpusError(
            f"No corpus is called {name!r}. Accepted: demo, {', '.join(CORPORA)}; several joined by +; "
            f"or the path of your own table or folder."
        )
    return CORPORA[name]


def refuse_unknown(dataset: str) -> None:
    """Refuse a dataset that cannot be, before anything is read; raises CorpusError.

    Each part is a corpus or a path at which something is, there once, and the demo corpus stands alone.
    """
    parts = dataset_parts(dataset)
    if not all(parts) or len(set(parts)) < len(parts):
        raise CorpusError(f"A dataset is a corpus, or several joined by +, each of them once. Received: {dataset!r}")
    _refuse_demo_among(parts)
    for part in parts:
        if CORPUS_NAMES.fullmatch(part):
            find_corpus(part)
        else:
            find_place(part)


def _refuse_demo_among(names):
    if "demo" in names and len(names) > 1:
        raise CorpusError(
            f"The demo corpus is made, for itself alone: it cannot be joined. Received: {'+'.join(names)}. "
            f"Leave demo out."
        )


def _demo_corpus():
    from ser_utils.corpora.demo import SPEAKERS

    speakers = {speaker: voice.gender for speaker, voice in SPEAKERS.items()}
    demo = replace(CORPORA["emodb"], name="demo", title="the synthetic demo corpus", layout="demo/wav/*.wav")
    return replace(demo, n_files=0, speakers=speakers, language="", sentences={}, folders=())


def find_folder(corpus: Corpus, data_dir: str | Path) -> Path:
    """Find the folder of a corpus under `data_dir`, by any of its names; raises CorpusError."""
    data_dir = Path(data_dir)
    if data_dir.is_dir():
        entries = [entry for entry in sorted(data_dir.iterdir()) if entry.is_dir()]
        folders = {re.sub(r"[^a-z0-9]", "", entry.name.lower()): entry for entry in reversed(entries)}
        for name in (corpus.name, *corpus.folders):
            if name in folders:
                return folders[name]
    raise _absent(corpus, data_dir, "the folder is not there")


def _absent(corpus, data_dir, what):
    if corpus.is_own:
        return CorpusError(f"{corpus.layout}: none of it can be used; {what}.")
    return CorpusError(
        f"{corpus.title}: expected {corpus.n_files or 'its'} recordings as {data_dir / corpus.layout}, but {what}. "
        f"To get it: make data DATASET={corpus.name}; if you have it already, put it there or say with "
        f"SER_DATA_DIR where it is. See data/README.md."
    )


def find_source(name: str, data_dir: Path) -> Source:
    """Find the files of one corpus, without opening a recording; raises CorpusError if it is absent or unclear."""
    if is_own(name):
        return read_own(name)
    corpus = find_corpus(name)
    folder = find_folder(corpus, data_dir)
    return Source(corpus, folder, find_recordings(folder))


def _inspect_part(name, data_dir, cache):
    source = find_source(name, data_dir)
    corpus, folder, listing = source.corpus, source.folder, source.listing
    facts_of, misnamed = _read_names(corpus, folder, listing.recordings)
    files = read_recordings(folder, list(facts_of), cache=cache)
    table, unusable = _sort_out(corpus, folder, _with_hints(corpus, folder, files), facts_of)
    problems = pd.DataFrame([*listing.left_out, *misnamed, *unusable], columns=LeftOut._fields)
    problems = problems.sort_values("path", ignore_index=True)
    there = set(map(os.path.normpath, listing.files))
    problems["is_file"] = [os.path.normpath(path) in there for path in problems["path"]]
    problems["is_row"] = [source.n_rows > 0 and reason != NO_ROW for reason in problems["reason"]]
    problems = problems.astype(dict.fromkeys(("unusable", "is_file", "is_row"), bool))
    if table.empty and not problems["unusable"].any():
        n_files = len(listing.recordings)
        raise _absent(corpus, data_dir, f"there are {n_files} audio files in {folder}, none of them its own")
    for fact in ("utterance_id", "speaker", "emotion"):
        files[fact] = [facts_of[path][fact] for path in files["path"]]
    return CorpusReport(
        table,
        problems,
        _announce(corpus, table, int(problems["reason"].str.startswith(CLOSED).sum())),
        (corpus,),
        (folder,),
        files,
        n_files=len(listing.files),
        n_rows=source.n_rows,
        others=listing.others,
        notes=source.notes,
    )


def _read_names(corpus, folder, paths):
    """What the names say: {path: facts}, and the problems of the others."""
    codes = corpus.find_codes(folder) if corpus.find_codes else None
    facts_of, problems = {}, []
    for path in paths:
        try:
            facts_of[path] = corpus.utterance(Path(path).as_posix(), codes)
        except GrammarError as error:
            problems.append(LeftOut(path, str(error), not error.foreign))
    return facts_of, problems


def _with_hints(corpus, folder, files):
    """The files with reasons that say what to do, where the reader's table names what is not there or not read."""
    reasons = dict(unread_files(files["path"]))
    absent = [path for path in files["path"][files["size"] < 0] if corpus.is_own and path not in reasons]
    for path in absent[:20]:  # who errs in one path, errs in all of them
        if (meant := find_meant(folder, path)) not in ("", path):  # a link that leads nowhere is there itself
            # what looks the same may be written with other letters: then the letters' names tell
            is_alike = unicodedata.normalize("NFC", meant) == unicodedata.normalize("NFC", path)
            shown = f"{meant!a}, not {path!a}" if is_alike else repr(meant)
            reasons[path] = f"No such file; but there is {shown}: write the path like this"
    reasons |= {path: ADDRESS for path in absent if re.match("(https?|ftp|s3|gs):/", path)}
    return files.assign(reason=[reasons.get(*pair) for pair in files[["path", "reason"]].to_numpy()])


def _sort_out(corpus, folder, files, facts_of):
    """The utterance table, and the problems of the files that are not in it."""
    rows, problems, first_of = [], [], {}
    # of a corpus packed twice into one archive, the copy nearest to the top is used
    for file in sorted(files.to_dict("records"), key=lambda file: (file["path"].count(os.sep), file["path"])):
        facts = facts_of[file["path"]]
        duration_ms = file["duration_s"] * 1000
        if facts["utterance_id"] in corpus.broken:
            problems.append((file["path"], file["reason"] or "published without speech in it", False))
        elif file["reason"]:
            problems.append((file["path"], file["reason"], not is_unread(file["path"])))
        elif file["duration_s"] < SHORTEST_S:
            reason = f"{duration_ms:.0f} ms long; one segment is {SHORTEST_S * 1000:.0f} ms"
            problems.append((file["path"], reason, True))
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
        examples = "".join(f"\n  {path}: {why}" for path, why in zip(first["path"], first["reason"], strict=True))
        raise CorpusError(
            f"{corpus.title} in {report.folders[0]}: {len(unusable)} of {n_files} files are unusable, more than a "
            f"tenth.{examples}\n"
            f"make check-data DATASET={corpus.layout if corpus.is_own else corpus.name} lists them all."
        )


def _announce(corpus, table, n_closed):
    """What is missing of a corpus: folders, files, emotions, speakers; and who is unknown or there twice."""
    sentences = [f"{n_closed} folders cannot be read"] if n_closed else []
    if len(table) < corpus.n_files - len(corpus.broken):
        sentences.append(f"{len(table)} of {corpus.n_files} files")
        for what, n_present, n_published in (
            ("emotions", table["emotion"].nunique(), len(corpus.emotions)),
            ("speakers", table["speaker"].nunique(), len(corpus.speakers)),
        ):
            if n_present < n_published:
                sentences.append(f"{n_present} of {n_published} {what}")
    is_unknown = table["speaker"] == UNKNOWN
    if is_unknown.any():
        of_some = "" if is_unknown.all() else f" of {is_unknown.sum()} of {len(table)} files"
        sentences.append(f"speakers{of_some} unknown, taken as one")
    n_doubled = int((table.groupby("pcm_sha256")["speaker"].nunique() > 1).sum())
    if n_doubled and corpus.is_own:
        sentences.append(f"{n_doubled} recordings stand under more than one speaker")
    return ", ".join(sentences)


def _join(reports, keep_all):
    """Several corpora as one: speakers and utterances named after their corpus, one set of emotions."""
    names = [report.corpora[0].name for report in reports]
    if shared := find_shared_people(reports):
        raise CorpusError(shared[0])
    named = list(zip(names, reports, strict=True))
    tables = [_named_after(name, report.table) for name, report in named]
    table = pd.concat(tables).sort_values("utterance_id", ignore_index=True)
    present = [set(rows["emotion"]) for rows in tables]
    kept = set.union(*present) if keep_all else set.intersection(*present)
    if len(kept) < 2:
        raise CorpusError(f"{'+'.join(names)}: fewer than two emotions are in all of them. LABELS=all keeps all.")
    said = [f"{name}: {report.announcement}" for name, report in named if report.announcement]
    listed = ", ".join(emotion for emotion in EMOTIONS if emotion in kept)
    said.append(f"the {len(kept)} emotions that {'any' if keep_all else 'all'} of them have: {listed}")
    problems = [_named_after(name, report.problems) for name, report in named]
    dropped = table[~table["emotion"].isin(kept)]
    if len(dropped):
        others = ", ".join(sorted(set(dropped["emotion"])))
        said.append(f"{len(dropped)} files of {others} left out, as not all have them")
        own_names = {report.corpora[0].name for report in reports if report.n_rows}
        rows = {"path": dropped["path"], "reason": dropped["emotion"] + NOT_SHARED}
        flags = {"unusable": False, "is_file": True, "is_row": dropped["corpus"].isin(own_names)}
        problems.append(pd.DataFrame(rows | flags))
    return CorpusReport(
        table[table["emotion"].isin(kept)].reset_index(drop=True),
        pd.concat(problems, ignore_index=True),
        "; ".join(said),
        tuple(report.corpora[0] for report in reports),
        tuple(report.folders[0] for report in reports),
        pd.concat([_named_after(name, report.files) for name, report in named], ignore_index=True),
        n_files=sum(report.n_files for report in reports),
        n_rows=sum(report.n_rows for report in reports),
        others="; ".join(f"{name}: {report.others}" for name, report in named if report.others),
        notes=tuple(f"{name}: {note}" for name, report in named for note in report.notes),
    )


def find_shared_people(reports: Sequence[CorpusReport]) -> list[str]:
    """Find people or recordings that are in two parts and would become two, and two that would become one."""
    seen, heard, called, said = {}, {}, {}, []
    names = [report.corpora[0].name for report in reports]
    if len(set(names)) < len(names):
        return [
            f"Each corpus may be there once, under a name of its own. Received: {'+'.join(names)}. "
            f"Two tables of one name need two names."
        ]
    for report in reports:
        corpus = report.corpora[0]
        for speaker in corpus.speakers if corpus.is_own else ():
            other, spelling = seen.setdefault(speaker_key(speaker), (corpus, speaker))
            if other is not corpus and speaker != UNKNOWN:
                said.append(
                    f"{other.title} and {corpus.title} both have a speaker {spelling!r} ({speaker!r}). If that is one "
                    f"person, put all rows into one table; if not, give the two people different ids."
                )
        for samples, path in report.table[["pcm_sha256", "path"]].to_numpy():
            other, first = heard.setdefault(samples, (corpus, path))
            if other is not corpus and (other.is_own or corpus.is_own):
                said.append(
                    f"{other.title} and {corpus.title} share a recording, whose speaker would count as two people: "
                    f"{first} and {path}."
                )
        named = _named_after(corpus.name, report.files)
        for fact, what in (("speaker", "a speaker"), ("utterance_id", "an utterance")):
            for text in sorted(set(named[fact])):
                other = called.setdefault((fact, text), corpus)
                if other is not corpus:
                    said.append(
                        f"{other.title} and {corpus.title} would both have {what} {text!r}: in a join, the name of a "
                        f"corpus stands before its ids. Rename one of the two tables."
                    )
    return said


def _named_after(corpus, table):
    """Utterances, speakers and relative paths with the corpus's name before them."""
    table = table.copy()
    for column, mark in (("utterance_id", "_"), ("speaker", "_"), ("path", "/")):
        if column in table and not (column == "path" and "corpus" in table):  # there it is absolute
            table[column] = corpus + mark + table[column]
    return table
