"""What lies in a folder of recordings: found, read once, and remembered."""

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from ser_utils.features.audio import HEARD_DB, NO_FILE, UNREADABLE, AudioError, hear, heard_seconds, read_samples
from ser_utils.workspace import REPOSITORY, atomic_path, file_digest

SUFFIXES = frozenset(
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .sph .nist".split()
)
# sound and film that people have beside it, and that libsndfile does not read
LEFT_OUT = frozenset(
    ".m4a .m4b .mp4 .aac .3gp .webm .mkv .mka .mov .avi .amr .awb .wma .wmv .ac3 .ape .wv .mpc .ra .spx .shn".split()
)
HEARD_HZ = 16_000  # no network hears more than the half of it
SHORTEST_S = 0.1  # one segment of the prototype paper
MOST_NAMED = 3  # files of a kind
KEYS = ["path", "size", "changed_ns"]
UNREAD = {
    "reason": "",
    "remark": "",
    "sample_rate_hz": 0,
    "channels": 0,
    "duration_s": 0.0,
    "peak": 0.0,
    "rms": 0.0,
    "clipped": 0.0,
    "sha256": "",
    "pcm_sha256": "",
}


def printable(path: str) -> str:
    """Write everything in a path that is not UTF-8 or not printable as escapes, so that it can be shown and stored."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def read_recordings(folder: str | Path, paths: list[str], *, cache: str | Path | None = None) -> pd.DataFrame:
    """Read what each file holds.

    A file of unchanged size and change time is not read again, unless it could not be read. That time (ctime) moves
    with the content, the name and the rights of a file, and no program can set it back.

    Parameters
    ----------
    folder : where `paths` start
    paths : of the files
    cache : parquet file that remembers; None is one per folder under build/

    Returns
    -------
    A table in the order of `paths`: path, size (bytes), changed_ns, reason (why it cannot be used, or ""), remark
    (what its header says that is not so, or ""), sample_rate_hz, channels, duration_s, peak and rms (1.0 is full
    scale), clipped (share of samples at full scale), sha256 of the file, and pcm_sha256 of its samples as interleaved
    little-endian float32, which is the same for wav and FLAC.
    """
    table = pd.DataFrame({"path": pd.Series(paths, dtype=str)})
    stats = [_stat(os.path.join(folder, path)) for path in paths]
    table["size"] = pd.Series([size for size, _ in stats], dtype="int64")
    table["changed_ns"] = pd.Series([time for _, time in stats], dtype="int64")
    if cache is None:
        place = hashlib.sha256(os.fsencode(Path(folder).resolve())).hexdigest()[:12]
        cache = REPOSITORY / "build" / "corpora" / f"{place}.parquet"
    known = _read_cache(cache)
    merged = table.merge(known, on=KEYS, how="left", validate="one_to_one")
    new = np.flatnonzero(merged["reason"].isna())
    if len(new):
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and hashing leave the GIL
            facts = list(pool.map(read_recording, [os.path.join(folder, paths[row]) for row in new]))
        fresh = pd.concat([table.iloc[new].reset_index(drop=True), pd.DataFrame(facts)], axis=1)
        _write_cache(cache, pd.concat([fresh, known]).drop_duplicates("path"))
        merged = table.merge(pd.concat([merged.drop(new), fresh]), on=KEYS, how="left")
    return merged.astype({name: type(value) for name, value in UNREAD.items()})


def read_recording(path: str | Path) -> dict:
    """Read the facts about one file, as `read_recordings` lists them.

    Silence and length are judged by what a network will hear: one channel of at most HEARD_HZ, without the silence
    around the voice.
    """
    facts = dict(UNREAD)
    try:
        samples, rate, remark = read_samples(path)
        size = np.abs(samples)
        facts |= {
            "remark": remark,
            "sample_rate_hz": rate,
            "channels": samples.shape[1],
            "duration_s": len(samples) / rate,
            "peak": float(size.max()),
            "rms": float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))),
            "clipped": float(np.mean(size >= 32767 / 32768)),
            "pcm_sha256": hashlib.sha256(samples.astype("<f4", copy=False).tobytes()).hexdigest(),
            "reason": _find_silence(samples, rate),
        }
    except AudioError as error:
        facts["reason"] = error.reason
        if error.reason == NO_FILE:  # to read it would never end
            return facts
    try:
        return facts | {"sha256": file_digest(path)}
    except OSError as error:
        return facts | {"reason": f"{UNREADABLE}{error.strerror}"}


def _find_silence(samples, rate):
    """Why a network would hear nothing of a recording, or too little; "" if it would."""
    try:
        seconds = heard_seconds(hear(samples, rate, min(rate, HEARD_HZ)), min(rate, HEARD_HZ))
    except ValueError as error:
        return str(error)
    duration_s = len(samples) / rate
    if seconds >= SHORTEST_S or duration_s < SHORTEST_S:  # whoever asks for a length tells of the latter
        return ""
    return (
        f"{1000 * seconds:.0f} ms of sound in {duration_s:.1f} s, all else is {HEARD_DB} dB below it: one segment is "
        f"{1000 * SHORTEST_S:.0f} ms"
    )


def describe_remarks(files: pd.DataFrame) -> list[str]:
    """Tell which files were read although their headers are not as they should be.

    Parameters
    ----------
    files : as `read_recordings` gives them

    Returns
    -------
    one sentence for each kind of remark, numbers apart; MOST_NAMED files are named
    """
    remarked = files[(files["remark"] != "") & (files["reason"] == "")]
    kinds = remarked["remark"].str.replace(r"[-+]?\d[\d.]*", "…", regex=True)
    sentences = []
    for _, group in remarked.groupby(kinds, sort=False):
        named = [f"{row.path} ({row.remark})" for row in group.head(MOST_NAMED).itertuples()]
        more = f" and {len(group) - MOST_NAMED} more" if len(group) > MOST_NAMED else ""
        sentences.append(f"{len(group)} of {len(files)} files are read with a remark: {', '.join(named)}{more}.")
    return sentences


def _stat(path):
    try:
        stat = os.stat(path)
        return stat.st_size, stat.st_ctime_ns
    except (OSError, ValueError):
        return -1, -1


def _read_cache(cache):
    try:
        known = pd.read_parquet(cache, columns=[*KEYS, *UNREAD])
        return known[~known["reason"].str.startswith(UNREADABLE)]
    except Exception:  # absent, cut off, or of an earlier form: in each case it is made again
        return pd.DataFrame(columns=[*KEYS, *UNREAD]).astype({"path": str, "size": int, "changed_ns": int})


def _write_cache(cache, table):
    # without it nothing is lost but time: the place may be read-only, or full
    with contextlib.suppress(OSError), atomic_path(cache) as temporary:
        table.to_parquet(temporary, index=False)
