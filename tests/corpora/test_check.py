import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils.corpora import recordings
from ser_utils.corpora.check import find_regularities, find_traps
from ser_utils.corpora.loading import inspect_corpus
from tests.corpora.synthetic import record


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    monkeypatch.delenv("STRICT", raising=False)
    monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")


def files_with(**columns):
    n = len(next(iter(columns.values())))
    usual = {"path": [f"{i}.wav" for i in range(n)], "sample_rate_hz": 16_000, "channels": 1, "rms": 0.1}
    usual |= {"clipped": 0.0, "pcm_sha256": [str(i) for i in range(n)], "emotion": ["anger", "fear"] * (n // 2)}
    usual |= {"duration_s": [1 + i / 997 for i in range(n)]}
    return pd.DataFrame(usual | columns)


def test_nothing_is_said_where_nothing_stands_out():
    assert find_regularities(files_with(rms=[0.1] * 40)) == []


def test_a_length_that_gives_the_emotion_away_is_told():
    lengths = [1.0 if i % 2 else 1.5 for i in range(40)]
    said = find_regularities(files_with(duration_s=lengths))
    assert said[0] == (
        "The exact length of a clip gives away its emotion in 100% of cases (always the commonest: 50%)."
    )
    assert "100% of the clips of anger are 24000 samples long." in said


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"pcm_sha256": ["same"] * 3 + [str(i) for i in range(37)]}, "One recording is there 3 times"),
        ({"rms": [1e-4] * 2 + [0.1] * 38}, "2 of 40 files are very quiet"),
        ({"clipped": [0.01] * 5 + [0.0] * 35}, "5 of 40 files are clipped"),
        ({"sample_rate_hz": [44_100] * 4 + [16_000] * 36}, "36 with 16000 Hz, 4 with 44100 Hz"),
        ({"channels": [2] * 4 + [1] * 36}, "36 with 1 channel(s), 4 with 2 channel(s)"),
        ({"duration_s": [60.0] + [1 + i / 997 for i in range(39)]}, "1 files are more than ten times as long"),
    ],
)
def test_other_traps_are_told(columns, words):
    assert words in " ".join(find_regularities(files_with(**columns)))


def test_a_corpus_is_looked_over_for_what_could_fool_a_model(tmp_path):
    for seed, name in enumerate(["DC_a04", "DC_a05", "DC_d01", "JE_a04", "JE_a06", "JE_h01"]):
        record(tmp_path / "savee" / f"{name}.wav", seed)
    said = " ".join(find_traps(inspect_corpus("savee", tmp_path)))
    assert "Classes differ in size: 4 of anger, 1 of disgust" in said
    assert "savee has 2 speakers here" in said
    assert "In savee, 4 of 6 utterances have a text that goes with one emotion alone." in said


def test_joined_corpora_are_looked_over_for_what_tells_them_apart(tmp_path):
    for seed, name in enumerate(["03a01Wa", "03a02Ta", "08b01Wa", "08b02Ta"]):
        record(tmp_path / "emodb" / f"{name}.wav", seed)
    (tmp_path / "aesdd").mkdir()
    for i, name in enumerate(["a01 (1)", "s01 (1)", "d01 (1)"]):
        soundfile.write(tmp_path / "aesdd" / f"{name}.wav", np.resize([0.001, -0.001], 16_000) * (i + 1), 16_000)
    said = " ".join(find_traps(inspect_corpus("emodb+aesdd+all", tmp_path)))
    assert "emodb has no disgust" in said and "Loudness tells the corpora apart" in said
    assert "aesdd has only 1 text(s)" in said
