"""Fetch corpora that may be fetched; say whom to ask for the others.

python -m tools.download NAME
"""

import argparse
import email.utils
import errno
import hashlib
import http.client
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from ser_utils.corpora.facts.grammar import Files
from ser_utils.corpora.loading import CorpusError, find_corpus, find_folder, inspect_parts
from ser_utils.corpora.sources import find_recordings
from ser_utils.names import corpora_of
from ser_utils.workspace import Workspace, WorkspaceError, file_digest, read_json, write_json
from tools.check_data import load_index

BLOCK = 1 << 18
ATTEMPTS = 4
WAIT_S = 2.0  # before the second attempt; doubled each time
TIMEOUT_S = 60
CHECKSUM = re.compile("(md5|sha256):[0-9a-f]+")
MOST_INFLATED = 20  # times an archive's own size: sound is hardly compressible, more is no corpus


class DownloadError(Exception):
    """A download that did not come to its end; the text says what to do."""


class BadArchive(DownloadError):
    """An archive that is damaged, or that does what a corpus does not."""


def download_file(url: str, path: str | Path, *, checksum: str = "", progress: bool = True) -> Path:
    """Download `url` to `path`, which appears only when it is whole.

    A download that was cut off is taken up again where it stopped, from what lies in `<path>.part`, if the server
    still has the same file. Each failure is tried again a few times.

    Parameters
    ----------
    checksum : "md5:…", "sha256:…" or "" for none

    Returns
    -------
    `path`

    Raises
    ------
    DownloadError : if the server cannot be reached or refuses, the disk is full, or the checksum is wrong
    """
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    failure = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        try:
            _fetch(url, partial, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(f"{url}: the server says {error.code} {error.reason}.") from error
            failure = error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DownloadError(
                    f"The disk of {path.parent} is full. Make room and run again: it goes on where it stopped."
                ) from error
            failure = error
        except http.client.HTTPException as error:
            failure = error
    else:
        raise DownloadError(
            f"{url} could not be downloaded in {ATTEMPTS} attempts ({failure}). What came is kept: run again to go on."
        ) from failure
    if checksum:
        _hold_to(checksum, partial, url)
    os.replace(partial, path)
    _notes(partial).unlink(missing_ok=True)
    return path


def _notes(partial):
    return partial.with_name(partial.name + ".json")


def _noted(path, pattern):
    """The texts in notes of an earlier run that are as `pattern` wants; none where the notes are damaged."""
    try:
        notes = read_json(path)
    except (OSError, WorkspaceError):
        return {}
    return {key: text for key, text in notes.items() if isinstance(text, str) and re.fullmatch(pattern, text)}


def _fetch(url, partial, progress):
    """Append to `partial` what is missing of it; raises an OSError or HTTPException where it stops short."""
    have = partial.stat().st_size if partial.exists() else 0
    version = _noted(_notes(partial), "[ -~]+").get("version", "")
    request = urllib.request.Request(url, headers={"User-Agent": "ser-utils", "Accept-Encoding": "identity"})
    if have and version:  # without a name for the version, two different files could be joined
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing beyond what we have, or it is another file now
            partial.unlink()
            raise ConnectionError("the rest cannot be had; starting anew") from error
        raise
    with answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status == 206 and not resumed:
            partial.unlink()
            raise ConnectionError("the server sent another part than was asked for")
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        wanted = have + int(length) if length else None
        _want_room(partial.parent, wanted - have if wanted else 0)
        bar = tqdm(total=wanted, initial=have, unit="B", unit_scale=True, desc=partial.name[:-5], disable=not progress)
        with bar, open(partial, "ab" if resumed else "wb") as target:
            if not resumed:  # only after the old bytes are gone: they are not of this version
                write_json(_notes(partial), {"url": url, "version": _version(answer.headers)})
            while block := answer.read(BLOCK):
                target.write(block)
                bar.update(len(block))
                have += len(block)
        if wanted is not None and have < wanted:
            raise ConnectionError(f"cut off after {have} of {wanted} bytes")


def _version(headers):
    """What If-Range can ask for: a strong ETag, or a date that is old enough to be one."""
    tag = headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    modified, now = headers.get("Last-Modified"), headers.get("Date")
    if modified and now:
        age = email.utils.parsedate_to_datetime(now) - email.utils.parsedate_to_datetime(modified)
        return modified if age.total_seconds() >= 1 else ""
    return ""


def _want_room(folder, n_bytes):
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OSError(errno.ENOSPC, f"{n_bytes / 1e6:.0f} MB are wanted, {free / 1e6:.0f} MB are free")


def _hold_to(checksum, path, url):
    """Delete `path` and raise DownloadError unless it has the checksum, "md5:…" or "sha256:…"."""
    kind, wanted = checksum.split(":")
    with open(path, "rb") as source:
        received = hashlib.file_digest(source, kind).hexdigest()
    if received != wanted:
        path.unlink()
        _notes(path).unlink(missing_ok=True)
        raise DownloadError(
            f"{url}: wrong checksum. Expected {kind} {wanted}, received {received}. The file was deleted; run again, "
            f"and if it happens twice the publisher's file has changed."
        )


def extract_zip(archive: str | Path, folder: str | Path) -> None:
    """Unpack the files of a zip into an empty or new `folder`.

    Raises
    ------
    BadArchive : before anything is written, if the archive is damaged or holds a link, a path that leaves the folder,
        or far more than its size allows
    DownloadError : if the disk is full
    """
    folder = Path(folder)
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [member for member in packed.infolist() if not member.filename.endswith("/")]
            total = sum(member.file_size for member in members)
            faults = [*_find_faults(members)]
            if total > MOST_INFLATED * os.path.getsize(archive) + BLOCK:
                faults.append(f"it would inflate to {total / 1e6:.0f} MB")
            if faults:
                raise BadArchive(f"{archive} is not unpacked: {faults[0]}.")
            if damaged := packed.testzip():
                raise zipfile.BadZipFile(f"{damaged!r} is damaged")
            folder.mkdir(parents=True, exist_ok=True)
            _want_room(folder, total)
            for member in members:
                packed.extract(member, folder)
    # RuntimeError: a password is wanted, or the method is unknown; OSError: see below
    except (zipfile.BadZipFile, EOFError, RuntimeError, zlib.error, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise DownloadError(f"The disk of {folder} is too full to unpack {archive}: {error.strerror}.") from error
        # a place before the file's beginning is an invalid argument, damaged bzip2 an error without number
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise BadArchive(f"{archive} is no whole zip ({error}). Run again.") from error


def _find_faults(members):
    """What the members of a zip do that those of a corpus do not."""
    names = [PurePosixPath(member.filename.replace("\\", "/")) for member in members]
    folders = {PurePosixPath(), *(parent for name in names for parent in name.parents)}
    for member, name in zip(members, names, strict=True):
        if name in folders:
            yield f"{member.filename!r} is a folder, and a file too"
        elif name.is_absolute() or ".." in name.parts or ":" in name.parts[0] or "\0" in member.filename:
            yield f"{member.filename!r} leads out of its folder"
        elif stat.S_ISLNK(member.external_attr >> 16):
            yield f"{member.filename!r} is a link"


def download_corpus(name: str, data_dir: str | Path, *, progress: bool = True) -> str:
    """Bring a corpus to data_dir/name; what is there and as published is left alone.

    Returns
    -------
    one sentence about what was done

    Raises
    ------
    DownloadError : if it does not come, or has to be asked for
    CorpusError : for an unknown name
    """
    corpus = find_corpus(name)
    if name == "demo":
        return "The demo corpus is synthetic: make reproduce makes it."
    data_dir = Path(data_dir)
    if is_complete(name, data_dir):
        return f"{corpus.title} is complete in {find_folder(corpus, data_dir)}: nothing to do."
    if corpus.source is None:
        raise DownloadError(
            f"{corpus.title} cannot be downloaded without asking. {corpus.how_to_get}\n"
            f"Put it so that its recordings are {data_dir / corpus.layout}, then: make check-data DATASET={name}\n"
            f"Licence: {corpus.licence}. Please cite: {corpus.citation}"
        )
    download = _download_files if isinstance(corpus.source, Files) else _download_archive
    download(corpus, corpus.source, data_dir, progress)
    report = inspect_parts(name, data_dir)[0]
    return (
        f"{corpus.title}: {len(report.table)} recordings in {report.folders[0]}"
        f"{f' ({report.announcement})' if report.announcement else ''}. Licence: {corpus.licence}. "
        f"Please cite: {corpus.citation}"
    )


def is_complete(name: str, data_dir: str | Path) -> bool:
    """Whether all published utterances of a corpus are there and readable."""
    try:
        report = inspect_parts(name, data_dir)[0]
    except CorpusError:
        return False
    return bool(report.corpora[0].n_files) and not report.announcement


def _download_archive(corpus, source, data_dir, progress):
    kept = data_dir / ".downloads"
    archive = kept / f"{corpus.name}.zip"
    record = kept / "checksums.json"
    recorded = _noted(record, CHECKSUM)
    checksum = source.checksum or (recorded.get(source.url, "") if source.is_steady else "")
    was_there = archive.exists()
    if not was_there:
        download_file(source.url, archive, checksum=checksum, progress=progress)
    elif checksum:
        _hold_to(checksum, archive, source.url)
    # on the same disk as the corpus, so that files are moved and never half copied
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=data_dir) as unpacked:
        try:
            extract_zip(archive, Path(unpacked))
            _refuse_altered(corpus, Path(unpacked), source.url)
        except BadArchive as error:
            if not was_there:
                archive.unlink()
                raise BadArchive(f"{error} What was downloaded is deleted.") from error
            bad = archive.with_name(f"{archive.name}.bad")
            os.replace(archive, bad)
            raise BadArchive(f"{error} It lay there before and is now {bad}. Run again to download it.") from error
        folder = data_dir / corpus.name
        for path in sorted(Path(unpacked).rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(unpacked)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
    if source.is_steady and not source.checksum and not was_there:
        write_json(record, {source.url: f"sha256:{file_digest(archive)}"} | recorded)
    archive.unlink()


def _refuse_altered(corpus, folder, url):
    """Raise BadArchive if files of the committed index are not as published, or none is of this corpus."""
    index = load_index(corpus.name)
    published = dict(zip(index["utterance_id"], index["sha256"], strict=True)) if index is not None else {}
    altered, n_known = [], 0
    for path in find_recordings(folder).recordings:
        try:
            utterance = corpus.utterance(Path(path).as_posix())["utterance_id"]
        except ValueError:
            continue
        n_known += 1
        if published.get(utterance) and file_digest(folder / path) != published[utterance]:
            altered.append(path)
    if altered or not n_known:
        what = f"{len(altered)} files are not as published ({', '.join(altered[:3])}, …)" if altered else "none of it"
        raise BadArchive(f"{url}: {what} of {n_known} recordings of {corpus.title}. Nothing was put in place.")


def _download_files(corpus, source, data_dir, progress):
    folder = data_dir / corpus.name / source.folder
    index = load_index(corpus.name)
    wanted = [
        (name, checksum)
        for name, checksum in zip(index["utterance_id"], index["sha256"], strict=True)
        if not (folder / f"{name}.wav").exists() or file_digest(folder / f"{name}.wav") != checksum
    ]

    # a handful that a publisher has withdrawn or renamed does not spoil a corpus; more ends the attempt
    allowed, failures = len(index) // 100, []

    def fetch(item):
        name, checksum = item
        if len(failures) > allowed:
            return
        try:
            path = folder / f"{name}.wav"
            download_file(f"{source.url}/{name}.wav", path, checksum=f"sha256:{checksum}", progress=False)
        except DownloadError as error:
            failures.append(str(error))

    with ThreadPoolExecutor(8) as pool:
        every = tqdm(pool.map(fetch, wanted), corpus.title, len(wanted), unit="file", disable=not progress)
        for _ in every:
            pass
    if len(failures) > allowed:
        listed = "\n  ".join(failures[:5])
        raise DownloadError(f"{corpus.title}: too many files did not come. Run again to go on.\n  {listed}")
    for failure in failures:
        print(failure, file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Download what NAME stands for; returns 0 if it is there then, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.download", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a corpus, or several joined by +")
    parser.add_argument("--data-dir", type=Path, help="where it is put (default: SER_DATA_DIR, or data/)")
    options = parser.parse_args(arguments)
    failed = False
    for name in corpora_of(options.name):
        try:
            print(download_corpus(name, options.data_dir or Workspace("emodb").data_dir))
        except (DownloadError, CorpusError, WorkspaceError, OSError) as error:
            print(error, file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
