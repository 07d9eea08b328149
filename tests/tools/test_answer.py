import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils.features.utterance import RATE_HZ, describe_utterance, utterance_statistics
from ser_utils.systems import ready
from ser_utils.workspace import REPOSITORY, Workspace
from tools import answer


def voice(pitch_hz, seconds=1.0, seed=0):
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    noise = 0.005 * np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * np.sign(np.sin(2 * np.pi * pitch_hz * t)) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A model of low and high voices, as it ships."""
    root, rows, features = tmp_path_factory.mktemp("root"), [], []
    for speaker in range(4):
        for emotion, pitch_hz in (("calm", 100), ("fear", 200)):
            for take in range(3):
                rows.append((f"{speaker}{emotion}{take}", str(speaker), emotion))
                signal = voice(pitch_hz * (1 + 0.1 * speaker + 0.02 * take), seed=take)
                features.append(utterance_statistics(signal, RATE_HZ)[0])
    table = pd.DataFrame(rows, columns=["utterance_id", "speaker", "emotion"]).assign(corpus="ravdess", gender="")
    names = list(describe_utterance(voice(100), RATE_HZ))
    model = ready.learn_model(table, np.array(features), names, "ravdess")
    ready.save_model(model, ready.model_folder(Workspace("ravdess", "quick", 0, root)))
    return root


def test_a_recording_is_answered_at_once_with_what_the_model_learned_from(root, tmp_path, capsys):
    soundfile.write(tmp_path / "mine.wav", np.tile(voice(215)[:, None], (1, 2)), 22_050)
    answer.main([str(tmp_path / "mine.wav"), "--root", str(root)])
    said = capsys.readouterr().out
    assert said.split("\n  ")[1].startswith("fear")
    for words in (
        "24 recordings of 4 speakers of RAVDESS",
        "CC BY-NC-SA 4.0",
        "guessing gives 50%",
        "do not say what this",
    ):
        assert words in said
    assert "What speaks for fear" in said and "unlabelled" not in said


def test_other_recordings_of_the_voice_are_known_without_labels(root, tmp_path, capsys):
    for take, pitch_hz in enumerate((150, 160, 300, 320, 155)):
        soundfile.write(tmp_path / f"{take}.wav", voice(pitch_hz, seed=take), RATE_HZ)
    (tmp_path / "notes.txt").write_text("not a recording")
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    answer.main(["--files", str(tmp_path), "--root", str(root)])
    captured = capsys.readouterr()
    lines = {line.split()[0]: line.split()[1] for line in captured.out.splitlines() if ".wav" in line}
    assert lines == {"0.wav": "calm", "1.wav": "calm", "2.wav": "fear", "3.wav": "fear", "4.wav": "calm"}
    assert "Here 5 are known" in captured.out and "known recordings should be mixed" in captured.out
    assert "left out" in captured.err and "broken.wav" in captured.err
    answer.main([str(tmp_path / "2.wav"), "--files", str(tmp_path), "--root", str(root)])
    assert "What speaks for fear" in capsys.readouterr().out


def test_one_recording_under_several_names_is_known_once(root, tmp_path, capsys):
    for take, pitch_hz in (("a", 150), ("b", 300), ("copy_of_a", 150)):
        soundfile.write(tmp_path / f"{take}.wav", voice(pitch_hz), RATE_HZ)
    answer.main(["--files", str(tmp_path), "--root", str(root)])
    captured = capsys.readouterr()
    assert "left out: 'copy_of_a.wav': the same recording as 'a.wav'" in captured.err
    assert "Here 2 are known" in captured.out


def test_a_long_recording_is_heard_in_pieces(root, tmp_path, capsys):
    soundfile.write(tmp_path / "long.wav", voice(210, 23.0), RATE_HZ)
    answer.main([str(tmp_path / "long.wav"), "--root", str(root)])
    assert "heard in 3 pieces" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "FILE=my.wav, or FILES=folder"),
        (["absent.wav"], "No such file"),
        ([f"{'x' * 300}.wav"], r"File name too long(.|\n)*Wanted: a recording of speech"),
        (["short.wav"], "short.wav: a recording of 0.10 s, .* is too short"),
        (["--files", "short.wav"], "FILES must be a folder"),
        (["--files", "empty"], "no recording that can be heard"),
        (["mine.wav", "--dataset", "emodb"], "no model of emodb to use at once; there is one of ravdess"),
        (["mine.wav", "--seed", "x"], "SEED must be an integer"),
    ],
)
def test_errors_say_what_is_wanted(root, tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    soundfile.write("mine.wav", voice(200), RATE_HZ)
    soundfile.write("short.wav", voice(200, 0.1), RATE_HZ)
    with pytest.raises(SystemExit, match=words):
        answer.main([*given, "--root", str(root)])


def test_what_the_answer_says_of_occlusion_is_what_the_verdicts_say():
    tables = [pd.read_csv(path) for path in (REPOSITORY / "results").glob("*/10_verdicts.csv")]
    verdicts = pd.concat(tables).query("method == 'occlusion'")["verdict"]
    assert len(tables) >= 5 and not verdicts.eq("trust").any()
