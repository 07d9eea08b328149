import librosa
import numpy as np
import pandas as pd
import pytest

from ser_utils.corpora.demo import make_demo_corpus
from ser_utils.training.folds import FoldData
from ser_utils.workspace import REPOSITORY
from tools import trials

MELS = librosa.mel_frequencies(64, fmax=8000)


def test_a_shorter_vocal_tract_moves_every_band_up():
    clip = np.exp(-(((MELS - 1000) / 150) ** 2)).astype(np.float32)[None]
    assert np.array_equal(trials.warp_bands(clip, 1.0, MELS), clip)
    for factor in (0.9, 1.1):
        moved = trials.warp_bands(clip, factor, MELS)
        assert MELS[moved.argmax()] == pytest.approx(1000 * factor, rel=0.04)


def test_speed_changes_the_length_and_keeps_the_ends():
    clip = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    for n_frames in (40, 50, 60):
        changed = trials.change_length(clip, n_frames)
        assert len(changed) == n_frames and np.allclose(changed[:, 0], np.linspace(0, 1, n_frames), atol=1e-6)


def batches(change, clips, targets, **options):
    scale = np.zeros((len(clips), 64), np.float32), np.ones((len(clips), 64), np.float32)
    options = {"augment": lambda clip, rng: clip, "batch_size": 4, "scale": scale} | options
    return trials.ChangedBatches(clips, targets, change=change, frequencies=MELS, **options)


def test_mixed_clips_have_mixed_targets():
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 2, 3, 0, 1])
    clips = [np.full((n, 64), label, np.float32) for n, label in zip(rng.integers(20, 40, 6), labels, strict=True)]
    targets = np.eye(4, dtype=np.float32)[labels]
    for place in range(2):
        (mixed, n_frames), answers = batches("mixup", clips, targets)[place]
        assert np.allclose(answers.sum(axis=1), 1) and mixed.shape[1] >= n_frames.max()
        # a frame that both clips have is as much of each as its target says
        assert np.allclose(mixed[:, 10, 0], answers @ np.arange(4), atol=1e-5)


def test_every_epoch_hears_another_voice_and_the_seed_decides_which():
    clips = [np.random.default_rng(n).normal(size=(30 + n, 64)).astype(np.float32) for n in range(8)]
    targets = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
    for change in ("speed", "vocal_tract"):
        first, again = (batches(change, clips, targets, seed=3)[0][0][0] for _ in range(2))
        assert np.array_equal(first, again)
        later = batches(change, clips, targets, seed=3)
        later.epoch = 1
        assert not np.array_equal(first[0, :20], later[0][0][0][0, :20])


def test_confusions_are_of_training_speakers_and_never_of_an_emotion_with_itself():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"emotion": ["anger", "fear", "sadness"] * 20, "speaker": np.repeat([*"abcdef"], 10)})
    centre = {"anger": 0.0, "fear": 0.3, "sadness": 9.0}  # anger and fear are alike
    clips = [rng.normal(centre[name], 1, (10, 4)) for name in table["emotion"]]
    table["role"] = np.where(table["speaker"] == "f", "validation", "train")
    taken_for = trials.confusions(FoldData(clips, table, None))
    assert np.allclose(taken_for.sum(axis=1), 1) and np.array_equal(np.diag(taken_for), np.zeros(3))
    assert taken_for[0, 1] > 0.5 and taken_for[1, 0] > 0.5


def test_the_table_that_ships_follows_from_its_folds():
    kept = pd.read_csv(REPOSITORY / "notebooks" / trials.TABLE, keep_default_na=False)
    assert trials.describe(kept) in (REPOSITORY / "notebooks" / "choices.md").read_text("utf-8")


@pytest.mark.slow
def test_all_changes_are_tried_in_the_same_folds_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "FOLDS", "2_speakers")
    make_demo_corpus(tmp_path / "build" / "demo" / "corpus" / "demo")
    tried = trials.try_changes("demo", tmp_path, profile="smoke")
    assert tried.groupby("change").size().to_dict() == dict.fromkeys(["", *trials.CHANGES], 2)
    assert tried["val_uar"].between(0, 1).all() and np.isfinite(tried["val_loss"]).all()
    assert tried.groupby("change")["val_loss"].first().nunique() == 1 + len(trials.CHANGES)  # each changed something
    told = trials.describe(tried)
    assert told.count("\n") == 5 and "mixup of the clips of a batch | " in told and "Demo corpus" in told
