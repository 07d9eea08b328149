"""Corpora as utterance tables."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ser_utils.audio import AudioError, read_samples
from ser_utils.corpus_facts import CORPORA, EMODB, EMOTIONS, Corpus, GrammarError
from ser_utils.workspace import REPOSITORY, atomic_path, file_digest

__all__ = ["CORPORA", "COLUMNS", "EMOTIONS", "CorpusError", "CorpusReport", "inspect_corpus", "load_corpus"]

COLUMNS = (
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
)
SHORTEST_S = 0.1  # one segment of the prototype paper
AUDIO_SUFFIXES = frozenset(".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .caf .w64 .mp4".split())


class CorpusError(Exception):
    """A corpus that is absent or cannot be used; the text says what to do."""


@dataclass(frozen=True)
class CorpusReport:
    """A corpus as found.

    table : the utterance table, sorted by utterance_id
    problems : path, reason of every file left out, and whether that counts against the corpus (`unusable`)
    files : what was read of each file, whether it is used or not (see `read_files`)
    announcement : "339 of 535 files, 4 of 7 emotions" if partial, else ""
    """

    corpus: Corpus
    folder: Path
    table: pd.DataFrame
    problems: pd.DataFrame
    files: pd.DataFrame
    announcement: str


def load_corpus(name, data_dir, *, strict=None):
    """The utterance table of a corpus.

    name : one of CORPORA, or "demo"; data_dir : the folder where corpora are looked for
    strict : refuse a partial corpus; None asks the environment variable STRICT
    Returns a table of COLUMNS, sorted by utterance_id; `attrs["announcement"]` says what is missing.
    Raises CorpusError as `inspect_corpus` does.
    """
    return inspect_corpus(name, data_dir, strict=strict).table


def inspect_corpus(name, data_dir, *, strict=None, cache=None, jobs=None):
    """Read every file of a corpus, once: what has not changed since is not read again.

    cache : parquet file that remembers what was read; None keeps it under build/
    jobs : int, files read at a time; None is one a core
    Returns a CorpusReport. Raises CorpusError if the corpus is unknown, absent, more than a tenth of it is
    unusable, or it is partial and `strict`.
    """
    corpus = find_corpus(name)
    folder = find_folder(corpus, Path(data_dir))
    files = read_files(folder, cache=cache, jobs=jobs)
    table, problems = _sort_out(corpus, folder, files)
    if len(table) == 0:
        raise _absent(corpus, folder, f"no usable recording among {len(files)} audio files")
    _refuse_mostly_broken(corpus, folder, table, problems)
    announcement = _announce(corpus, table)
    if strict is None:
        strict = os.environ.get("STRICT", "") not in ("", "0")
    if strict and announcement:
        raise CorpusError(
            f"{corpus.title} in {folder} is partial ({announcement}), which STRICT=1 refuses. "
            f"make check-data DATASET={name} lists what is missing."
        )
    table.attrs = {"announcement": announcement, "left_out": len(problems)}
    return CorpusReport(corpus, folder, table, problems, files, announcement)


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
    from ser_utils.demo_corpus import SPEAKERS

    speakers = {speaker: voice.gender for speaker, voice in SPEAKERS.items()}
    demo = replace(EMODB, name="demo", title="the synthetic demo corpus", layout="demo/wav/*.wav")
    return replace(demo, n_files=0, speakers=speakers, language="", sentences={}, folders=())


def find_folder(corpus, data_dir):
    """The folder of `corpus` under `data_dir`, in any capitalisation; raises CorpusError."""
    wanted = (corpus.name, *corpus.folders)
    if data_dir.is_dir():
        found = {entry.name.lower(): entry for entry in sorted(data_dir.iterdir()) if entry.is_dir()}
        for name in wanted:
            if name in found:
                return found[name]
    raise _absent(corpus, data_dir / corpus.name, "the folder is not there")


def _absent(corpus, folder, what):
    return CorpusError(
        f"{corpus.title}: expected {corpus.n_files or ''} recordings like {folder.parent / corpus.layout}, "
        f"but {what}. To get it: make data DATASET={corpus.name}; or put it there and say where with "
        f"SER_DATA_DIR. See data/README.md."
    )


def list_audio(folder):
    """Paths of audio files under `folder`, relative and sorted; hidden ones are passed over."""
    found = []
    for place, folders, names in os.walk(folder):
        # macOS leaves shadows of every file, "._name.wav", in the archives it packs
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found += [
            os.path.relpath(os.path.join(place, name), folder)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES
        ]
    return sorted(found)


def read_files(folder, *, cache=None, jobs=None):
    """What each audio file under `folder` holds.

    Returns a table, one row per file: path (relative), size, modified_ns, reason ("" if readable),
    sample_rate_hz, channels, duration_s, peak, rms, clipped (share of samples at full scale), sha256 of the
    file, and pcm_sha256 of its samples as interleaved little-endian float32, equal for wav and FLAC.
    """
    paths = list_audio(folder)
    stats = [os.stat(os.path.join(folder, path)) for path in paths]
    table = pd.DataFrame({"path": pd.Series([_printable(path) for path in paths], dtype=str)})
    table["size"] = [stat.st_size for stat in stats]
    table["modified_ns"] = [stat.st_mtime_ns for stat in stats]
    if cache is None:
        place = hashlib.sha256(os.fsencode(Path(folder).resolve())).hexdigest()[:12]
        cache = REPOSITORY / "build" / "corpora" / f"{place}.parquet"
    keys = ["path", "size", "modified_ns"]
    known = _read_cache(cache, keys)
    merged = table.merge(known, on=keys, how="left", validate="one_to_one")
    new = np.flatnonzero(merged["reason"].isna())
    if len(new):
        with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
            facts = list(pool.map(_read_file, [os.path.join(folder, paths[row]) for row in new]))
        fresh = pd.concat([table.iloc[new].reset_index(drop=True), pd.DataFrame(facts)], axis=1)
        merged = pd.concat([merged.drop(new), fresh]).sort_values("path", ignore_index=True)
        try:
            with atomic_path(cache) as temporary:
                merged.to_parquet(temporary, index=False)
        except OSError:
            pass  # nothing is lost but time: a checkout may be read-only
    return merged


_UNREAD = {
    "reason": "",
    "sample_rate_hz": 0,
    "channels": 0,
    "duration_s": 0.0,
    "peak": 0.0,
    "rms": 0.0,
    "clipped": 0.0,
    "sha256": "",
    "pcm_sha256": "",
}


def _read_cache(cache, keys):
    try:
        return pd.read_parquet(cache, columns=[*keys, *_UNREAD]).drop_duplicates(keys)
    except Exception:  # absent, cut off, or of an earlier form: in each case it is made again
        return pd.DataFrame(columns=[*keys, *_UNREAD]).astype({"path": str, "size": int, "modified_ns": int})


def _read_file(path):
    try:
        samples, rate = read_samples(path)
        size = np.abs(samples)
        return _UNREAD | {
            "sample_rate_hz": rate,
            "channels": samples.shape[1],
            "duration_s": len(samples) / rate,
            "peak": float(size.max()),
            "rms": float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))),
            "clipped": float(np.mean(size >= 32767 / 32768)),
            "sha256": file_digest(path),
            "pcm_sha256": hashlib.sha256(samples.astype("<f4", copy=False).tobytes()).hexdigest(),
        }
    except AudioError as error:
        try:
            return _UNREAD | {"reason": error.reason, "sha256": file_digest(path)}
        except OSError:
            return _UNREAD | {"reason": error.reason}


def _printable(path):
    """`path` with what is not UTF-8, or not printable, as escapes: safe to print and to store."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _sort_out(corpus, folder, files):
    """Utterance table and problems."""
    rows, problems, first_of = [], [], {}
    # of a corpus packed twice into one archive, the copy nearest to the top is used
    depth = files["path"].str.count("/")
    for file in files.iloc[np.lexsort([files["path"], depth])].to_dict("records"):
        try:
            facts = corpus.utterance(file["path"])
        except GrammarError as error:
            problems.append((file["path"], str(error), not error.foreign))
            continue
        if file["reason"] or file["duration_s"] < SHORTEST_S:
            short = (
                f"shorter than one segment ({file['duration_s'] * 1000:.0f} of {SHORTEST_S * 1000:.0f} ms)"
            )
            problems.append((file["path"], file["reason"] or short, True))
            continue
        first = first_of.setdefault(facts["utterance_id"], file)
        if first is not file:
            same = first["pcm_sha256"] == file["pcm_sha256"]
            reason = "copy of" if same else "another recording under the name of"
            problems.append((file["path"], f"{reason} {first['path']}", not same))
            continue
        path = str(folder / file["path"])
        rows.append(file | facts | {"path": path, "corpus": corpus.name, "language": corpus.language})
    table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("utterance_id", ignore_index=True)
    problems = pd.DataFrame(problems, columns=["path", "reason", "unusable"])
    return table, problems.sort_values("path", ignore_index=True)


def _refuse_mostly_broken(corpus, folder, table, problems):
    unusable = problems[problems["unusable"]]
    n_files = len(table) + len(unusable)
    if len(unusable) > n_files / 10:
        examples = "".join(f"\n  {path}: {reason}" for path, reason, _ in unusable.head(10).to_numpy())
        raise CorpusError(
            f"{corpus.title} in {folder}: {len(unusable)} of {n_files} files are unusable, more than a tenth."
            f"{examples}\nmake check-data DATASET={corpus.name} lists them all."
        )


def _announce(corpus, table):
    if not corpus.n_files or len(table) >= corpus.n_files - len(corpus.broken):
        return ""
    parts = [f"{len(table)} of {corpus.n_files} files"]
    for what, there, published in (
        ("emotions", table["emotion"].nunique(), len(corpus.emotions)),
        ("speakers", table["speaker"].nunique(), len(corpus.speakers)),
    ):
        if there < published:
            parts.append(f"{there} of {published} {what}")
    return ", ".join(parts)
