import gzip
import hashlib
import io
import os
import shutil
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

from ser_utils.corpora import recordings
from ser_utils.corpora.facts.grammar import Archive, Files
from ser_utils.corpora.loading import CORPORA, CorpusError, load_corpus
from tools import check_data, download
from tools.download import BadArchive, DownloadError, download_corpus, download_file, extract_zip, main

CONTENT = np.random.default_rng(0).bytes(600_000)


class Server(ThreadingHTTPServer):
    """A server on this machine that can be told to misbehave."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/a.bin": CONTENT}
        self.cut_after = None  # bytes of a body after which the line goes dead, once
        self.requests = []  # (path, Range header)
        self.etag = '"one"'
        self.ranges = True
        self.status = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        body = server.files.get(self.path)
        status = server.status or (404 if body is None else 200)
        if status != 200:
            return self.send_error(status)
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        rest = body[start:]
        if server.cut_after is not None:
            rest, server.cut_after = rest[: server.cut_after], None
        self.wfile.write(rest)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAIT_S", 0.01)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


# one file -----------------------------------------------------------------------------------------------------


def test_a_whole_file_arrives_and_nothing_else_stays(server, tmp_path):
    path = download_file(f"{server.url}/a.bin", tmp_path / "new" / "a.bin", checksum=sha256(CONTENT))
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]


def test_a_line_that_goes_dead_is_taken_up_where_it_stopped(server, tmp_path):
    server.cut_after = 250_000
    download_file(f"{server.url}/a.bin", tmp_path / "a.bin", checksum=sha256(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests == [("/a.bin", None), ("/a.bin", "bytes=250000-")]


def test_a_killed_download_is_taken_up_by_the_next_run(server, tmp_path, monkeypatch):
    server.cut_after = 250_000
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with pytest.raises(DownloadError, match=r"cut off after 250000 of 600000 bytes.*run again to go on"):
        download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists() and (tmp_path / "a.bin.part").stat().st_size == 250_000
    download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and server.requests[-1][1] == "bytes=250000-"


def test_a_file_that_changed_meanwhile_is_not_joined_to_its_old_half(server, tmp_path, monkeypatch):
    server.cut_after = 250_000
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with pytest.raises(DownloadError):
        download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    server.files["/a.bin"], server.etag = CONTENT[::-1], '"two"'
    download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_name_for_the_version_it_begins_anew(server, tmp_path, etag):
    server.etag, server.cut_after = etag, 250_000
    download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and server.requests[-1][1] is None


@pytest.mark.parametrize("notes", ["{", "[]", '{"version": []}', '{"version": "a\\nb"}'])
def test_damaged_notes_are_no_notes(server, tmp_path, notes):
    (tmp_path / "a.bin.part").write_bytes(b"of another file")
    (tmp_path / "a.bin.part.json").write_text(notes)
    assert download_file(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests == [("/a.bin", None)]


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.ranges, server.cut_after = False, 250_000
    download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.bin.part.json").write_text('{"version": "\\"one\\""}')
    download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=r"wrong checksum. Expected md5 0+, received [0-9a-f]{32}"):
        download_file(f"{server.url}/a.bin", tmp_path / "a.bin", checksum="md5:" + "0" * 32)
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_gone_is_said_in_words(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=r"could not be downloaded in 4 attempts \(.*refused"):
        download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


def test_a_refusal_is_not_tried_again_but_a_fault_is(server, tmp_path):
    with pytest.raises(DownloadError, match="the server says 404"):
        download_file(f"{server.url}/none", tmp_path / "a.bin")
    assert len(server.requests) == 1
    server.status = 503
    with pytest.raises(DownloadError, match="in 4 attempts .*503"):
        download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert len(server.requests) == 5


def test_a_disk_too_small_is_known_beforehand(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DownloadError, match=r"The disk of .* is full. Make room and run again"):
        download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_disk_that_fills_up_meanwhile_is_said_in_words(server, tmp_path):
    (tmp_path / "a.bin.part").symlink_to("/dev/full")  # every write says: no space left on device
    with pytest.raises(DownloadError, match=r"The disk of .* is full. Make room and run again"):
        download_file(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists() and len(server.requests) == 1


# archives -----------------------------------------------------------------------------------------------------


def zipped(files, links=()):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            packed.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def encrypted(content):
    """Marked as such in the directory at the end and before the file itself."""
    content = bytearray(content)
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


TEXT = b"".join(b"%d," % i for i in range(2000))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped({"ok.wav": b"1", "../out.wav": b"2"}), "'../out.wav' leads out of its folder"),
        (zipped({"/etc/out.wav": b"2"}), "leads out of its folder"),
        (zipped({"a\\..\\..\\out.wav": b"2"}), "leads out of its folder"),
        (zipped({"C:/out.wav": b"2"}), "leads out of its folder"),
        (zipped({"ok.wav": b"1"}, links=["link.wav"]), "'link.wav' is a link"),
        (zipped({"zeros.wav": bytes(50_000_000)}), "would inflate to 50 MB"),
        (zipped({"ok.wav": CONTENT})[:-100], "no whole zip"),
        (flipped(zipped({"ok.wav": b"1", "text": TEXT}), 200), "no whole zip"),  # the deflated stream
        (flipped(zipped({"ok.wav": b"1", "a.wav": CONTENT}), 9000), "no whole zip"),  # its content
        (encrypted(zipped({"a.wav": b"1"})), "no whole zip .*encrypted"),
        (zipped({"ok.wav": b"1", ".": b"2"}), "'.' is a folder, and a file too"),
        (zipped({"a": b"1", "a/b.wav": b"2"}), "'a' is a folder, and a file too"),
        (zipped({"a/b.wav": b"1", "a": b"2"}), "'a' is a folder, and a file too"),
        (b"<html>please log in</html>", "no whole zip"),
    ],
)
def test_hostile_and_damaged_archives_are_refused_before_anything_is_written(tmp_path, content, words):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadArchive, match=words):
        extract_zip(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists() and len(list(tmp_path.iterdir())) == 1


# corpora ------------------------------------------------------------------------------------------------------


def wav(seed):
    buffer = io.BytesIO()
    samples = np.random.default_rng(seed).integers(-9999, 9999, 4000, np.int16)
    soundfile.write(buffer, samples, 16_000, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """EmoDB as a zip of four files and CREMA-D as single files, with an index; returns the data folder."""
    emodb = {f"wav/{name}.wav": wav(i) for i, name in enumerate(("03a01Wa", "08a01Na", "09a02Fa", "10b01Ta"))}
    cremad = {f"/cremad/10{i:02d}_DFA_ANG_XX.wav": wav(i) for i in range(1, 31)}
    server.files |= {"/emodb.zip": zipped(emodb | {"erklaerung.txt": b"read me"})} | cremad
    index = tmp_path / "index"
    index.mkdir()
    for name, files in (("emodb", emodb), ("cremad", cremad)):
        rows = [f"{path[-11:-4] if name == 'emodb' else path[8:-4]},,{sha256(c)[7:]}," for path, c in files.items()]
        (index / f"{name}.csv.gz").write_bytes(
            gzip.compress("\n".join(["utterance_id,bytes,sha256,pcm_sha256", *rows]).encode())
        )
    monkeypatch.setattr(check_data, "INDEX", index)
    monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")
    for name, source in (
        ("emodb", Archive(f"{server.url}/emodb.zip")),
        ("cremad", Files(f"{server.url}/cremad", "AudioWAV")),
    ):
        monkeypatch.setitem(CORPORA, name, replace(CORPORA[name], source=source))
    check_data.load_index.cache_clear()
    yield tmp_path / "data"
    check_data.load_index.cache_clear()


def test_a_corpus_is_downloaded_checked_and_put_in_place(published, server):
    said = download_corpus("emodb", published, progress=False)
    assert said.startswith("EmoDB: 4 recordings in ") and "Please cite: Burkhardt" in said
    assert len(load_corpus("emodb", published)) == 4
    assert sorted(path.name for path in published.iterdir()) == [".downloads", "emodb"]
    assert [path.name for path in (published / ".downloads").iterdir()] == ["checksums.json"]


def test_an_undocumented_checksum_is_recorded_and_later_downloads_are_held_to_it(published, server):
    download_corpus("emodb", published, progress=False)
    shutil.rmtree(published / "emodb")
    server.files["/emodb.zip"] += b" "  # still a zip of the same files, but not the same zip
    with pytest.raises(DownloadError, match="wrong checksum. Expected sha256"):
        download_corpus("emodb", published, progress=False)
    assert not (published / "emodb").exists()


def test_an_archive_that_lies_there_is_held_to_its_checksum_before_anything_is_replaced(published, server, monkeypatch):
    kept = published / "emodb" / "wav" / "03a01Wa.wav"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(wav(0))
    (published / ".downloads").mkdir()
    (published / ".downloads" / "emodb.zip").write_bytes(zipped({"wav/03a01Wa.wav": wav(77)}))
    documented = Archive(f"{server.url}/emodb.zip", checksum=sha256(server.files["/emodb.zip"]))
    monkeypatch.setitem(CORPORA, "emodb", replace(CORPORA["emodb"], source=documented))
    with pytest.raises(DownloadError, match="wrong checksum"):
        download_corpus("emodb", published, progress=False)
    assert kept.read_bytes() == wav(0)


def test_files_that_are_not_as_published_are_not_put_in_place(published, server):
    server.files["/emodb.zip"] = zipped({"wav/03a01Wa.wav": wav(77), "wav/08a01Na.wav": wav(1)})
    with pytest.raises(DownloadError, match=r"1 files are not as published \(wav/03a01Wa.wav"):
        download_corpus("emodb", published, progress=False)
    assert not (published / "emodb").exists()


def test_an_archive_of_something_else_is_refused(published, server):
    good, server.files["/emodb.zip"] = server.files["/emodb.zip"], zipped({"index.html": b"moved"})
    with pytest.raises(BadArchive, match="none of it of 0 recordings"):
        download_corpus("emodb", published, progress=False)
    server.files["/emodb.zip"] = good  # and nothing was learned from the wrong one
    assert "4 recordings" in download_corpus("emodb", published, progress=False)


def test_a_damaged_archive_is_not_kept(published, server):
    good = server.files["/emodb.zip"]
    server.files["/emodb.zip"] = flipped(good, 300)
    with pytest.raises(BadArchive, match="no whole zip.*What was downloaded is deleted"):
        download_corpus("emodb", published, progress=False)
    server.files["/emodb.zip"] = good
    assert "4 recordings" in download_corpus("emodb", published, progress=False)


@pytest.mark.parametrize("recorded", ["[]", '{"%s": "abc"}', '{"%s": 1}'])
def test_damaged_checksums_of_earlier_downloads_are_none(published, server, recorded):
    (published / ".downloads").mkdir(parents=True)
    record = published / ".downloads" / "checksums.json"
    record.write_text(recorded.replace("%s", f"{server.url}/emodb.zip"))
    assert "4 recordings" in download_corpus("emodb", published, progress=False)
    assert "sha256:" in record.read_text()


def test_an_archive_that_lay_there_and_cannot_be_used_is_put_aside(published, server):
    archive = published / ".downloads" / "emodb.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"not a zip")
    with pytest.raises(BadArchive, match=r"no whole zip.*It lay there before and is now .*emodb\.zip\.bad"):
        download_corpus("emodb", published, progress=False)
    assert archive.with_name("emodb.zip.bad").read_bytes() == b"not a zip" and not archive.exists()


def test_what_a_user_has_put_beside_it_stays(published):
    (published / "emodb").mkdir(parents=True)
    (published / "emodb" / "my notes.txt").write_text("mine")
    download_corpus("emodb", published, progress=False)
    assert (published / "emodb" / "my notes.txt").read_text() == "mine"


def test_a_complete_corpus_is_left_alone(published, server, monkeypatch):
    monkeypatch.setattr(download, "is_complete", lambda name, data_dir: True)
    (published / "emodb").mkdir(parents=True)
    assert "nothing to do" in download_corpus("emodb", published) and not server.requests


def test_single_files_are_fetched_and_only_the_missing_ones(published, server):
    download_corpus("cremad", published, progress=False)
    assert len(load_corpus("cremad", published)) == 30 and len(server.requests) == 30
    (published / "cremad" / "AudioWAV" / "1003_DFA_ANG_XX.wav").write_bytes(b"spoilt")
    download_corpus("cremad", published, progress=False)
    assert len(server.requests) == 31 and len(load_corpus("cremad", published)) == 30


def test_a_server_that_lacks_most_files_is_not_asked_for_all_of_them(published, server):
    server.files = {}
    with pytest.raises(DownloadError, match="CREMA-D: too many files did not come(.|\n)*404"):
        download_corpus("cremad", published, progress=False)
    assert len(server.requests) < 30


@pytest.mark.parametrize("name", ["savee", "aesdd", "emomatch", "iemocap"])
def test_others_are_told_whom_to_ask_and_where_to_put_it(tmp_path, name, capsys):
    assert main([name, "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "cannot be downloaded without asking" in said and "http" in said and str(tmp_path / name) in said
    assert f"make check-data DATASET={name}" in said and CORPORA[name].licence in said


def test_the_exit_status_tells_whether_it_is_there(published, capsys):
    assert main(["emodb", "--data-dir", str(published)]) == 0
    assert "EmoDB: 4 recordings" in capsys.readouterr().out
    assert main(["nonesuch", "--data-dir", str(published)]) == 1
    assert "Accepted: demo" in capsys.readouterr().err
    with pytest.raises(CorpusError):
        download_corpus("nonesuch", published)


def test_documented_checksums_are_of_a_known_kind():
    for corpus in CORPORA.values():
        source = corpus.source
        assert not isinstance(source, Archive) or source.checksum.split(":")[0] in ("", "md5", "sha256")
        assert bool(source) != bool(corpus.how_to_get), "downloaded, or asked for"
