"""The one loop over models and folds: what it learns from, what it records, and what it does only once."""

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.splits import audit_leakage, leaks_beyond
from ser_utils.features.store import build_store
from ser_utils.systems.spectrogram_cnn import clip_cnn
from ser_utils.training.fit import built_once
from ser_utils.training.folds import ClipBatches, FoldTask, run_folds, tasks_of, train_fold

SETTINGS = {
    "scale": "training",
    "batch_size": 2,
    "epochs": 2,
    "patience": 2,
    "learning_rate": 0.01,
    "one_cycle": False,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "mask_bands": 0,
    "mask_frames": 0,
    "resized_frames": 0,
}


@pytest.fixture
def utterances(tmp_path):
    """Sixteen clips of noise by four speakers, two emotions each; their recordings are never read."""
    rows = [
        {
            "utterance_id": f"{i:02d}",
            "corpus": "noise",
            "speaker": str(i // 4),
            "path": str(tmp_path / f"{i:02d}.wav"),
            "sentence": "",
            "emotion": "sadness" if i % 2 else "happiness",
            "pcm_sha256": str(i),
        }
        for i in range(16)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def folds(utterances):
    """Speaker 3 is tested, then speaker 2; the one before validates."""
    tables = []
    for fold, test in enumerate((3, 2)):
        role = utterances["speaker"].astype(int).map({test: "test", test - 1: "validation"}).fillna("train")
        tables.append(utterances[["utterance_id"]].assign(start_ms=np.nan, fold=fold, role=role))
    split = pd.concat(tables, ignore_index=True)
    split.attrs = {"protocol": "speaker", "folds": "2_speakers", "system": "feature_network", "notes": []}
    return split


def store_of(folder, utterances, monkeypatch):
    """Noise of 12 to 27 frames instead of what the paths would hold."""

    def load(path, rate):
        return np.full(1, int(path[-6:-4]), "float32"), 16_000

    monkeypatch.setattr("ser_utils.features.store.load_audio", load)

    def extract(signal, rate):
        i = int(signal[0])
        return np.random.default_rng(i).normal(size=(12 + i, 8)).astype("float32")

    return build_store(folder, utterances, extract, key="noise", jobs=1)


@pytest.fixture
def model(tmp_path, utterances, monkeypatch):
    store = store_of(tmp_path / "store", utterances, monkeypatch)
    network = partial(clip_cnn, filters=(4, 4))
    return FoldTask("noise", network, store.folder, None, SETTINGS, tmp_path / "models")


@pytest.fixture
def trainings(monkeypatch):
    """The number of calls of `fit` so far, in a list of one."""
    count, fit = [0], keras.Model.fit

    def counted(*arguments, **options):
        count[0] += 1
        return fit(*arguments, **options)

    monkeypatch.setattr(keras.Model, "fit", counted)
    return count


def test_a_corrected_label_trains_again_even_where_the_store_was_deleted_and_remade(
    tmp_path, model, folds, utterances, trainings, monkeypatch
):
    task = tasks_of(model, folds, "speaker")[0]
    train_fold(task)
    train_fold(task)
    assert trainings == [1]
    corrected = utterances.assign(emotion=utterances["emotion"].mask(utterances["utterance_id"] == "01", "happiness"))
    remade = store_of(tmp_path / "remade", corrected, monkeypatch)  # its `made_from.json` equals the first one's
    train_fold(replace(task, store=remade.folder))
    assert trainings == [2]


def test_what_was_fitted_and_chosen_on_what_reaches_the_audit(model, folds, utterances):
    by_speaker = replace(model, name="by_speaker", settings=SETTINGS | {"scale": "speaker"})
    plan = {m.name: tasks_of(m, folds, "speaker") for m in (model, by_speaker)}
    audits = {
        name: audit_leakage(folds, utterances, fit=result["learned_from"])
        for name, result in run_folds(plan, jobs=1).items()
    }
    assert all(audit["checked"].all() for audit in audits.values())
    assert leaks_beyond(audits["noise"], "speaker") == ""
    assert leaks_beyond(audits["by_speaker"], "speaker") == "scaler statistics on test"


def test_without_validation_the_record_says_that_test_chose_the_epoch(model, folds):
    role = folds["role"].mask(folds["role"] == "validation", "train")
    result = run_folds({"": tasks_of(model, folds.assign(role=role), "paper")}, jobs=1)[""]
    assert result["learned_from"]["selection"] == {0: ["test"], 1: ["test"]}


def test_the_second_fold_learns_what_it_would_learn_alone_although_nothing_is_built_again(model, folds, monkeypatch):
    built, build = [], FoldTask.build

    def counted(self, *arguments):
        built.append(self.name)
        return build(self, *arguments)

    monkeypatch.setattr("ser_utils.training.fit._built", {})
    monkeypatch.setattr(FoldTask, "build", counted)
    first, second = tasks_of(model, folds, "speaker")
    together = [train_fold(task)["predictions"] for task in (first, second)]
    if keras.backend.backend() == "tensorflow":
        assert built == ["noise-speaker-0"]
    monkeypatch.setattr("ser_utils.training.fit._built", {})
    alone = train_fold(replace(second, models=model.models / "again"))["predictions"]
    assert built[-1] == "noise-speaker-1"
    pd.testing.assert_frame_equal(alone, together[1])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends keep none")
def test_few_networks_are_kept(monkeypatch):
    made = []

    def build():
        network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        network.compile("adam", "mse")
        made.append(network)
        return network

    monkeypatch.setattr("ser_utils.training.fit._built", {})
    networks = [built_once(key, build, 0) for key in "abcdefghiba"]
    assert networks[9] is networks[1] and networks[10] is not networks[0] and len(made) == 10


def test_every_epoch_has_batches_of_its_own_and_tells_its_seconds(model, folds, monkeypatch):
    epochs, deal = [], ClipBatches._deal

    def counted(self):
        epochs.append((self.shuffle, self.epoch))
        deal(self)

    monkeypatch.setattr(ClipBatches, "_deal", counted)
    history = train_fold(tasks_of(model, folds, "speaker")[0])["history"]
    assert [epoch for shuffled, epoch in epochs if shuffled][:2] == [0, 1]
    assert len(history) == 2 and (history["seconds"] > 0).all()
