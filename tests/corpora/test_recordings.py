"""Recordings in a folder: every file is found, and judged by what a network will hear of it."""

import os

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils.corpora import inspect_corpus
from ser_utils.corpora.recordings import describe_remarks, read_recording
from ser_utils.corpora.sources import find_recordings

RATE_HZ = 16_000


def voice(seconds=0.5, seed=0, rate_hz=RATE_HZ):
    return 0.2 * np.random.default_rng(seed).standard_normal(int(seconds * rate_hz)).clip(-3, 3)


def write(path, samples, rate_hz=RATE_HZ, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, **options)
    return path


def click(seconds):
    samples = np.zeros(int(seconds * RATE_HZ))
    samples[len(samples) // 2] = 0.5
    return samples


@pytest.mark.parametrize(
    ("samples", "rate_hz", "reason"),
    [
        (np.stack([voice(), -voice()], 1), RATE_HZ, "silent after its 2 channels are averaged"),
        (np.full(RATE_HZ, 0.3), RATE_HZ, "constant"),
        (1e-6 * voice(), RATE_HZ, "silent"),
        (np.sin(np.arange(96_000) * 2.3), 48_000, "silent at 16000 Hz"),  # 17.6 kHz
        (click(3), RATE_HZ, "10 ms of sound in 3.0 s"),
        (0.4 + click(3), RATE_HZ, "10 ms of sound in 3.0 s"),
        (np.concatenate([np.zeros(8000), voice(0.05), np.zeros(8000)]), RATE_HZ, "0 ms of sound in 1.1 s"),
    ],
    ids=["channels cancel", "constant", "tiny scale", "beyond hearing", "click", "click off zero", "50 ms of sound"],
)
def test_what_a_network_would_not_hear_is_refused_with_the_reason(tmp_path, samples, rate_hz, reason):
    facts = read_recording(write(tmp_path / "a.wav", samples, rate_hz, subtype="FLOAT"))
    assert reason in facts["reason"] and facts["pcm_sha256"] and facts["sha256"]


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 96_000])
def test_voices_are_heard_at_any_rate(tmp_path, rate_hz):
    facts = read_recording(write(tmp_path / "a.wav", voice(rate_hz=rate_hz), rate_hz))
    assert facts["reason"] == facts["remark"] == "" and facts["duration_s"] == 0.5


def test_a_corpus_tells_which_headers_are_wrong_and_uses_the_files(tmp_path):
    for number in range(4):
        path = write(tmp_path / "emodb" / "wav" / f"03a0{number + 1}Wa.wav", voice(seed=number))
        if number < 2:
            path.write_bytes(path.read_bytes()[:-8])
    report = inspect_corpus("emodb", tmp_path, cache=tmp_path / "facts.parquet")
    assert len(report.table) == 4
    (sentence,) = describe_remarks(report.files)
    assert sentence.startswith("2 of 4 files are read with a remark: wav/03a01Wa.wav (its header promises 8 byte(s)")
    remembered = inspect_corpus("emodb", tmp_path, cache=tmp_path / "facts.parquet").files
    pd.testing.assert_frame_equal(remembered, report.files)


def test_linked_folders_are_read_and_loops_of_links_survive(tmp_path):
    write(tmp_path / "elsewhere" / "1.wav", voice())
    write(tmp_path / "corpus" / "sad" / "2.wav", voice())
    os.symlink(tmp_path / "elsewhere", tmp_path / "corpus" / "angry")
    os.symlink(tmp_path / "corpus", tmp_path / "corpus" / "sad" / "again")
    os.symlink(tmp_path / "corpus", tmp_path / "elsewhere" / "back")
    found = find_recordings(tmp_path / "corpus")
    assert found.recordings == [os.path.join("angry", "1.wav"), os.path.join("sad", "2.wav")]


def test_formats_that_are_not_read_are_listed_with_what_to_do(tmp_path):
    for name in ("a.wav", "b.WAVE", "c.sph", "d.m4a", "e.WebM", "f.amr", "notes.txt", "._g.wav", ".hidden/h.m4a"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = find_recordings(tmp_path)
    assert found.recordings == ["a.wav", "b.WAVE", "c.sph"]
    left_out = {path: why for path, why, _ in found.left_out}
    assert list(left_out) == ["d.m4a", "e.WebM", "f.amr"]
    assert left_out["d.m4a"] == ".m4a is not read: convert it, e.g. ffmpeg -i d.m4a d.wav"


def test_films_beside_a_published_corpus_are_told_and_do_not_count_against_it(tmp_path):
    write(tmp_path / "emodb" / "wav" / "03a01Wa.wav", voice())
    (tmp_path / "emodb" / "wav" / "03a01Wa.mp4").write_bytes(b"x")
    report = inspect_corpus("emodb", tmp_path, cache=tmp_path / "facts.parquet")
    assert report.problems["path"].tolist() == ["wav/03a01Wa.mp4"] and not report.problems["unusable"].any()
