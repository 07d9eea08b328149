"""A recording of one's own: numbers that are what the networks say, and errors by their words."""

import math
import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils import predict
from ser_utils.profiles import settings
from ser_utils.workspace import MissingResult, Workspace
from tests.conftest import REPOSITORY
from tests.listening import workspace_of_05
from tools import answer

RATE_HZ = 16_000
EMOTIONS = ("anger", "sadness")
NETWORKS = ("--dataset", "demo", "--model", "deep_cnn_log_mel")  # what is asked, in a folder that has none


def _voice(f0_hz, seconds=0.8, seed=0):
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * np.sign(np.sin(2 * np.pi * f0_hz * t)) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """What notebook 05 leaves: frames, folds, predictions, and two networks that were not trained."""
    root, rows = tmp_path_factory.mktemp("root"), []
    for number, speaker in enumerate(("09", "10")):
        for emotion in EMOTIONS:
            path = root / f"{speaker}{emotion}.wav"
            soundfile.write(path, _voice(100 if emotion == "anger" else 300, seed=number), RATE_HZ)
            facts = {"utterance_id": path.stem, "pcm_sha256": path.stem, "path": str(path)}
            rows.append(facts | {"speaker": speaker, "corpus": "emodb", "emotion": emotion})
    return workspace_of_05(root, "emodb", pd.DataFrame(rows))


def test_probabilities_are_the_mean_of_the_networks(workspace):
    import keras

    signal = _voice(200)
    found = predict.predict_emotion(workspace, signal, RATE_HZ)
    assert found.probabilities.sum() == pytest.approx(1) and set(found.probabilities.index) == set(EMOTIONS)
    assert found.probabilities.is_monotonic_decreasing and found.n_networks == 2
    assert found.tested["uar"] == 0.5 and found.tested["chance"] == 0.5

    # literally, with statistics of the training utterances alone
    from ser_utils.features.frames import clip_frames
    from ser_utils.features.store import load_store

    chosen = settings("feature_network", "smoke")
    grid = {k: chosen[k] for k in ("n_mels", "n_fft", "hop_length", "n_mfcc", "deltas")}
    frames = clip_frames(signal, RATE_HZ, kind="log_mel", **grid)
    store = load_store(workspace.build / "features" / "feature_network" / "log_mel")
    p = 0
    for fold, trained in ((0, "10"), (1, "09")):
        rows = np.concatenate([store.of(f"{trained}{emotion}") for emotion in EMOTIONS])
        x = (frames - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-3)
        network = keras.saving.load_model(
            workspace.build / "models" / f"feature_network-deep_cnn_log_mel-speaker-{fold}.keras"
        )
        p = p + network.predict([x[None].astype("float32"), np.array([len(x)])], verbose=0)[0] / 2
    expected = dict(zip(EMOTIONS, p, strict=True))
    for emotion in EMOTIONS:
        assert found.probabilities[emotion] == pytest.approx(expected[emotion], abs=1e-5)


def test_folds_are_those_of_the_predictions(workspace):
    """An earlier fold table is still there, and comes first in the alphabet."""
    path = workspace.save_folds(
        pd.DataFrame({"utterance_id": ["x"], "fold": [7], "role": ["train"]}),
        system="feature_network",
        protocol="speaker",
        folds="five",
    )
    found = predict.predict_emotion(workspace, _voice(200), RATE_HZ)
    path.unlink()
    assert found.n_networks == 2


def test_windows_of_the_explanation_cover_the_recording(workspace):
    windows = predict.predict_emotion(workspace, _voice(200), RATE_HZ).windows
    assert windows["start_s"].iloc[0] == 0 and windows["end_s"].iloc[-1] == pytest.approx(0.8, abs=0.05)
    assert np.allclose(windows["start_s"].iloc[1:], windows["end_s"].iloc[:-1])
    assert np.isfinite(windows["support"]).all()


def test_silence_around_the_voice_changes_nothing_but_the_times(workspace):
    """As in training, where it is trimmed; the seconds told are those of the whole recording."""
    silence = np.zeros(RATE_HZ // 2, np.float32)
    padded = np.concatenate([silence, _voice(200), silence])
    windows = predict.predict_emotion(workspace, padded, RATE_HZ).windows
    assert windows["start_s"].iloc[0] == pytest.approx(0.5, abs=0.1)
    assert windows["end_s"].iloc[-1] == pytest.approx(1.3, abs=0.1)


def test_report_says_what_the_number_does_not_mean(workspace, tmp_path, capsys):
    soundfile.write(tmp_path / "mine.wav", np.tile(_voice(200)[:, None], (1, 2)), 22_050)
    where = ["--dataset", "emodb", "--profile", "smoke", "--root", str(workspace.root)]
    answer.main([str(tmp_path / "mine.wav"), *where])
    text = capsys.readouterr().out
    assert "mine.wav" in text and "trained on EmoDB" in text and "%" in text
    assert "do not say what this person feels" in text and "guessing gives 50%" in text


def test_another_rate_gives_the_same_answer(workspace):
    from ser_utils.features.audio import resample

    signal = _voice(200)
    found = predict.predict_emotion(workspace, resample(signal, RATE_HZ, 48_000), 48_000)
    assert found.probabilities["anger"] == pytest.approx(
        predict.predict_emotion(workspace, signal, RATE_HZ).probabilities["anger"], abs=0.02
    )
    assert found.windows["end_s"].iloc[-1] == pytest.approx(0.8, abs=0.05)


def test_the_cell_that_the_site_shows_runs(workspace, tmp_path, monkeypatch, capsys):
    text = (REPOSITORY / "tools" / "site" / "pages" / "reproduce.md").read_text("utf-8")
    cell = re.search(r"```python\n(.*?)```", text, re.S)[1]
    soundfile.write(tmp_path / "my.wav", _voice(200), RATE_HZ)
    monkeypatch.chdir(tmp_path)
    given = f'Workspace("emodb", "smoke", 0, {str(workspace.root)!r})'
    assert 'Workspace("ravdess")' in cell
    exec(cell.replace('Workspace("ravdess")', given), {})
    said = capsys.readouterr().out
    assert "anger" in said and "start_s" in said and "do not say what this person feels" in said


def test_a_damaged_network_is_not_asked(workspace):
    path = workspace.build / "models" / "feature_network-deep_cnn_log_mel-speaker-1.keras"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(MissingResult, match="gone or damaged: make 05 DATASET=emodb"):
        predict.predict_emotion(workspace, _voice(200), RATE_HZ)
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.wav", None, "No such file"),
        ("words.wav", b"these are words", "not audio"),
        ("empty.wav", b"", "empty file"),
    ],
)
def test_errors_name_the_file_and_the_reason(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        answer.main([str(tmp_path / name), *NETWORKS, "--root", str(tmp_path)])
    assert name in str(stop.value) and words in str(stop.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([""], "FILE=my.wav"),
        (["mine.wav"], "make 05 DATASET=demo PROFILE=quick SEED=0"),
        (["mine.wav", "--profile", "long"], "profile must be one of smoke, quick, paper"),
        (["mine.wav", "--model", "oracle"], "MODEL must be ensemble, or networks of notebook 05 .deep_cnn_log_mel"),
        (["mine.wav", "--seed", "x"], "SEED must be an integer"),
        (["short.wav"], "too short"),
    ],
)
def test_errors_say_what_is_wanted(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    soundfile.write("mine.wav", _voice(200), RATE_HZ)
    soundfile.write("short.wav", _voice(200, 0.1), RATE_HZ)
    with pytest.raises(SystemExit, match=words):
        answer.main([*NETWORKS, *given, "--root", str(tmp_path)])


# long recordings, and what is not heard ------------------------------------------------------------------------


def _speech(seconds, seed=0):
    """Half-seconds of voice at changing pitch."""
    pitches = np.random.default_rng(seed).uniform(100, 300, math.ceil(seconds / 0.5))
    return np.concatenate([_voice(pitch, 0.5, seed) for pitch in pitches])


def test_a_long_recording_is_heard_in_pieces_whose_mean_is_told(workspace, capfd):
    signal = _speech(25)
    prediction = predict.predict_emotion(workspace, signal, RATE_HZ)
    assert prediction.n_pieces == 3 and len(prediction.windows) == 3
    assert "25.0 s long, far longer than anything the networks learned from (at most 0." in prediction.remark
    assert "heard in 3 pieces" in prediction.remark
    assert prediction.probabilities.sum() == pytest.approx(1)
    assert "2 networks listen" in capfd.readouterr().err
    p = [
        predict.predict_emotion(workspace, signal[round(row.start_s * RATE_HZ) : round(row.end_s * RATE_HZ)], RATE_HZ)
        for row in prediction.windows.itertuples()
    ]
    mean = np.mean([part.probabilities["anger"] for part in p])
    assert prediction.probabilities["anger"] == pytest.approx(mean, abs=5e-3)


def test_memory_is_bounded_for_minutes_of_speech(workspace):
    """One piece after the other: what is allocated beyond the samples does not grow with them."""
    signal = np.tile(_speech(30), 8)
    predict.predict_emotion(workspace, signal[: 30 * RATE_HZ], RATE_HZ)
    tracemalloc.start()
    prediction = predict.predict_emotion(workspace, signal, RATE_HZ)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert prediction.n_pieces == 24 and peak < 10 * signal.nbytes


def test_pieces_without_a_voice_are_left_out_and_told(workspace):
    pause = 1e-5 * np.random.default_rng(0).standard_normal(40 * RATE_HZ).astype(np.float32)
    prediction = predict.predict_emotion(workspace, np.concatenate([_speech(6), pause, _speech(6)]), RATE_HZ)
    assert "more pieces are silent and were left out" in prediction.remark
    assert len(prediction.windows) == prediction.n_pieces < 6


def test_a_recording_as_long_as_those_of_training_needs_no_remark(workspace):
    assert predict.predict_emotion(workspace, _voice(200), RATE_HZ).remark == ""


def _click():
    signal = np.zeros(3 * RATE_HZ, np.float32)
    signal[RATE_HZ] = 0.5
    return signal


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (_click(), "0.01 s of it sound, is too short"),
        (0.3 + _click(), "0.01 s of it sound, is too short"),
        (np.concatenate([np.zeros(RATE_HZ), _voice(200, 0.2), np.zeros(RATE_HZ)]), "0.20 s of it sound, is too short"),
        (np.zeros(RATE_HZ), "silent"),
        (np.full(RATE_HZ, 0.25), "constant"),
        (1e-7 * _voice(200), "silent"),
    ],
    ids=["a click", "a click off zero", "a fifth of a second", "zeros", "a constant", "a tiny scale"],
)
def test_what_cannot_be_heard_is_not_judged(tmp_path, signal, words):
    soundfile.write(tmp_path / "mine.wav", signal, RATE_HZ, subtype="FLOAT")
    with pytest.raises(SystemExit, match=words):
        answer.main([str(tmp_path / "mine.wav"), *NETWORKS, "--root", str(tmp_path)])
    with pytest.raises(ValueError, match=words):
        predict.predict_emotion(Workspace("emodb", "smoke", 0, tmp_path), np.asarray(signal, "float32"), RATE_HZ)


def test_channels_that_cancel_each_other_are_not_judged(tmp_path):
    soundfile.write(tmp_path / "mine.wav", np.stack([_voice(200), -_voice(200)], 1), RATE_HZ)
    with pytest.raises(SystemExit, match="mine.wav.*silent after its 2 channels are averaged"):
        answer.main([str(tmp_path / "mine.wav"), *NETWORKS, "--root", str(tmp_path)])


def test_a_wrong_header_is_told_and_the_home_folder_is_known(workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    soundfile.write(tmp_path / "mine.wav", _voice(200), RATE_HZ)
    (tmp_path / "mine.wav").write_bytes((tmp_path / "mine.wav").read_bytes()[:-8])
    answer.main(["~/mine.wav", "--dataset", "emodb", "--profile", "smoke", "--root", str(workspace.root)])
    assert "mine.wav: 0.80 s (its header promises 8 byte(s) more than are there)" in capsys.readouterr().out
