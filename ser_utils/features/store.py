"""Features on disk: one memory-mapped array of rows beside a table that says whose rows they are."""

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from ser_utils.features.audio import load_audio, reduce_noise
from ser_utils.progress import progress_bar
from ser_utils.workspace import atomic_path, read_json, seal, sealed, write_json

BATCH = 16  # utterances a worker takes at a time
WORTH_A_WORKER = 4  # batches; a worker's start, which imports all that it needs, costs seconds


@dataclass(frozen=True)
class FeatureStore:
    """Rows of all utterances one after another, and where each utterance's rows are.

    Parameters
    ----------
    folder : where it lives
    array : memory-mapped (n_rows, ...), read-only: segments, frames, statistics or samples
    table : the utterance table with `first_row` and `n_rows`, in the order of the rows
    """

    folder: Path
    array: np.ndarray
    table: pd.DataFrame

    def __reduce__(self):
        return load_store, (self.folder,)  # another process opens the files instead of being sent the array

    def of(self, utterance_id: str) -> np.ndarray:
        """The rows of one utterance.

        Raises
        ------
        KeyError : if it is not in the store
        """
        places = np.flatnonzero(self.table["utterance_id"] == utterance_id)
        if not len(places):
            raise KeyError(f"{utterance_id} is not among the {len(self.table)} utterances of {self.folder}")
        first, count = self.table.iloc[places[0]][["first_row", "n_rows"]]
        return self.array[first : first + count]

    def rows(self) -> pd.DataFrame:
        """A table with one line per row of `array`: `utterance_id` and `row`, its place in the utterance."""
        counts = self.table["n_rows"].to_numpy()
        starts = np.repeat(self.table["first_row"].to_numpy(), counts)
        names = np.repeat(self.table["utterance_id"].to_numpy(), counts)
        return pd.DataFrame({"utterance_id": names, "row": np.arange(counts.sum()) - starts})


def load_store(folder: str | Path) -> FeatureStore | None:
    """Open a finished store; None if it is absent, unfinished or not as it was sealed."""
    folder = Path(folder)
    facts = sealed(folder / "utterances.parquet")
    array = folder / "rows.npy"
    if facts is None or not array.exists() or array.stat().st_size != facts["array_bytes"]:
        return None
    table = pd.read_parquet(folder / "utterances.parquet")
    store = FeatureStore(folder, np.load(array, mmap_mode="r", allow_pickle=False), table)
    return store if _fingerprint(store.array) == facts["fingerprint"] else None


def _fingerprint(array, rows=512):
    """A checksum of rows spread evenly over the array: whole for small ones, a sample of large ones."""
    sample = array[:: max(1, len(array) // rows)]
    return joblib.hash(np.ascontiguousarray(sample))


def build_store(
    folder: str | Path,
    table: pd.DataFrame,
    extract: Callable[[np.ndarray, int], np.ndarray],
    *,
    key: str,
    sample_rate_hz: int | None = None,
    denoise: bool = False,
    jobs: int | None = None,
    title: str = "features",
) -> FeatureStore:
    """Compute features of every utterance once, and keep them.

    Memory stays at a few utterances, whatever the size of the corpus.

    Parameters
    ----------
    folder : where the store lives; a store of the same `key` and the same recordings is opened, not made again. Where only
        another seed has it, it is taken over from there
    table : utterance table; `path` is read, `pcm_sha256` says whether a recording changed; what else it says is brought
        up to date in a store that is opened
    extract : of (signal (n_samples,), sample_rate) → array (rows, ...), the trailing shape always equal
    key : names the extraction and its settings
    sample_rate_hz : Hz to resample to; None leaves the recordings as they are
    denoise : whether to reduce noise first
    jobs : processes; None is SER_JOBS or all cores, and fewer where there are few recordings
    title : of the progress bar, and of errors

    Raises
    ------
    ValueError : if utterances give rows of different shapes
    """
    folder = Path(folder)
    recordings = joblib.hash(table[["utterance_id", "pcm_sha256"]].astype(str).to_numpy().tolist())
    wanted = {"key": key, "sample_rate_hz": sample_rate_hz, "denoise": denoise, "recordings": recordings}
    there = read_json(folder / "made_from.json") if (folder / "made_from.json").exists() else {}
    if "labels" in there:
        wanted["labels"] = _labels(table)
    if {**there, "labels": ""} == {**wanted, "labels": ""} and (store := load_store(folder)) is not None:
        return _with_table(store, table, wanted)
    if twin := _twin(folder, wanted):
        with atomic_path(folder) as temporary:
            shutil.copytree(twin, temporary, copy_function=_link)
        return _with_table(load_store(folder), table, wanted)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        counts = _write_rows(temporary / "rows.npy", table, extract, sample_rate_hz, denoise, jobs, title)
        indexed = table.reset_index(drop=True).assign(n_rows=counts, first_row=np.cumsum(counts) - counts)
        indexed.to_parquet(temporary / "utterances.parquet", index=False)
        array = np.load(temporary / "rows.npy", mmap_mode="r", allow_pickle=False)
        size = (temporary / "rows.npy").stat().st_size
        seal(temporary / "utterances.parquet", array_bytes=size, fingerprint=_fingerprint(array))
        write_json(temporary / "made_from.json", wanted)
    return load_store(folder)


def _twin(folder, wanted) -> Path | None:
    """The same store where another seed made it, in build/<dataset>/<profile>/seed_<n>/…"""
    for place in folder.parents:
        if place.name.startswith("seed_"):
            facts = sorted(place.parent.glob(f"seed_*/{folder.relative_to(place)}/made_from.json"))
            return next((path.parent for path in facts if read_json(path) == wanted and load_store(path.parent)), None)
    return None


def _link(source, target):
    """Give an array a second name instead of a copy, where the disk can: it is replaced, never changed."""
    if source.endswith(".npy"):
        with contextlib.suppress(OSError):
            return os.link(source, target)
    return shutil.copy2(source, target)


def _labels(table):
    return joblib.hash(table.filter(["emotion", "speaker"]).astype(str).to_numpy().tolist())


def _with_table(store, table, made_from):
    """The store with `table` for its own; labels that changed join `made_from`, which is part of a model's key."""
    path = store.folder / "utterances.parquet"
    places = {column: store.table[column] for column in ("n_rows", "first_row")}
    indexed = table.reset_index(drop=True).assign(**places)
    if indexed.to_parquet(index=False) == path.read_bytes():
        return store
    if _labels(table) != _labels(store.table):
        # not from the beginning: models of labels that never changed keep their keys
        write_json(store.folder / "made_from.json", made_from | {"labels": _labels(table)})
    facts = sealed(path)
    with atomic_path(path) as temporary:
        indexed.to_parquet(temporary, index=False)
    seal(path, **facts)
    return load_store(store.folder)


def _write_rows(path, table, extract, sample_rate_hz, denoise, jobs, title):
    paths = table["path"].tolist()
    batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    work = joblib.delayed(_extract_batch)
    counts = []
    # the header's room does not depend on the number of rows: it is written last, over a first draft
    with open(path, "wb") as target, _workers(jobs, len(batches)) as parallel:
        results = parallel(work(batch, extract, sample_rate_hz, denoise) for batch in batches)
        for arrays in progress_bar(results, total=len(batches), desc=title, unit="batch", mininterval=1):
            if not counts:
                first = arrays[0]
                _write_header(target, 0, first)
            for rows in arrays:
                if rows.shape[1:] != first.shape[1:] or rows.dtype != first.dtype:
                    received = f"{rows.dtype}{rows.shape[1:]} after {first.dtype}{first.shape[1:]}"
                    raise ValueError(
                        f"{title}: every utterance must give rows of one shape and type. Received: {received}; is the "
                        f"corpus of one rate?"
                    )
                target.write(np.ascontiguousarray(rows).tobytes())
                counts.append(len(rows))
        target.seek(0)
        _write_header(target, sum(counts), first)
    return np.asarray(counts)


def _write_header(target, n_rows, first):
    kind = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(target, kind | {"shape": (n_rows, *first.shape[1:])})


def _workers(jobs, n_batches):
    jobs = jobs or min(int(os.environ.get("SER_JOBS") or os.cpu_count()), max(1, n_batches // WORTH_A_WORKER))
    return joblib.Parallel(n_jobs=min(jobs, n_batches), return_as="generator", pre_dispatch="2*n_jobs")


def _extract_batch(paths, extract, sample_rate_hz, denoise):
    arrays = []
    for path in paths:
        signal, rate = load_audio(path, sample_rate_hz)
        if denoise:
            signal = reduce_noise(signal, rate)
        arrays.append(np.asarray(extract(signal, rate)))
    return arrays
