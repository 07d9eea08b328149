"""The recipe of training: what is published is what is done."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from ser_utils.features.store import build_store
from ser_utils.profiles import PROFILES, settings
from ser_utils.systems.sigwavnet import recipe
from ser_utils.systems.sigwavnet.training import WaveformTask, build_network
from ser_utils.training.fit import best_epoch
from ser_utils.training.folds import ClipBatches, fold_data, train_fold

RATE = 4000
SMALL = {"sample_rate_hz": RATE, "n": 3, "channels": 2, "gru_units": 3, "batch_size": 4, "epochs": 5}


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Sixteen clips of noise by four speakers, of two emotions and unequal lengths; no recording is read."""

    def load(path, rate):
        i = int(path)
        return np.random.default_rng(i).normal(size=900 + 20 * i).astype("float32"), rate

    monkeypatch.setattr("ser_utils.features.store.load_audio", load)
    rows = [(f"{i:02d}", "noise", str(i // 4), f"{i}", ("sadness", "happiness")[i % 2], str(i)) for i in range(16)]
    columns = ["utterance_id", "corpus", "speaker", "path", "emotion", "pcm_sha256"]
    table = pd.DataFrame(rows, columns=columns)
    store = build_store(tmp_path / "store", table, lambda signal, _: signal, key="noise", sample_rate_hz=RATE, jobs=1)
    role = table["speaker"].map({"2": "validation", "3": "test"}).fillna("train")
    fold = table[["utterance_id"]].assign(start_ms=np.nan, role=role, fold=0)
    chosen = settings("cnn_n_gru", "paper") | SMALL
    return WaveformTask("cnn", "cnn_n_gru", store.folder, fold, chosen, tmp_path / "models")


def test_paper_trains_cnn_n_gru_as_published():
    published = {
        "n": 18,
        "channels": 0,
        "gru_units": 64,
        "gru_layers": 1,
        "dropout": 0.0,
        "gamma": 0.0,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 1e-5,
        "schedule": "step",
        "decay_epochs": 20,
        "batch_size": 32,
        "class_weights": False,
        "monitor": "val_loss",
    }
    assert published.items() <= settings("cnn_n_gru", "paper").items()


def test_classes_are_weighed_as_published_but_in_smoke():
    weighed = {
        system: [settings(system, p)["class_weights"] for p in PROFILES] for system in ("sigwavnet", "cnn_n_gru")
    }
    assert PROFILES == ("smoke", "quick", "paper")
    assert weighed == {"sigwavnet": [False, True, True], "cnn_n_gru": [False, False, False]}


@pytest.mark.parametrize(
    ("schedule", "rates"), [("step", [1, 1, 0.1, 0.1]), ("constant", [1] * 4), ("cosine", [1, 0.853553, 0.5, 0.146447])]
)
def test_the_rate_changes_by_the_epoch(schedule, rates):
    chosen = {"learning_rate": 1.0, "schedule": schedule, "decay_epochs": 2, "epochs": 4}
    np.testing.assert_allclose([recipe.learning_rate(chosen, i) for i in range(4)], rates, atol=1e-6)


def test_weight_decay_is_a_gradient_as_in_pytorch():
    chosen = {"optimizer": "sgd", "learning_rate": 0.5, "weight_decay": 0.1, "schedule": "constant"}
    for optimizer, moved in (("sgd", 0.5 * 0.1 * 2.0), ("adam", 0.5)):  # Adam divides the gradient by its size
        weight = keras.Variable([2.0])
        step = recipe.make_optimizer(chosen | {"optimizer": optimizer})
        step.apply([keras.ops.zeros(1)], [weight])
        np.testing.assert_allclose(np.asarray(weight), [2.0 - moved], rtol=1e-4)


def test_the_loss_weighs_classes_only_where_the_settings_say_so(task):
    data = fold_data(task)
    assert float(np.ravel(task.build(data, 1).loss.alpha)[0]) == 1.0
    weighed = replace(task, settings=task.settings | {"class_weights": True})
    assert len(weighed.build(data, 1).loss.alpha) == len(data.classes)


def test_the_lowest_validation_loss_is_kept_and_the_rate_steps_down(task):
    result = train_fold(replace(task, settings=task.settings | {"learning_rate": 0.05, "decay_epochs": 3}))
    history = result["history"]
    np.testing.assert_allclose(history["learning_rate"], [0.05] * 3 + [0.005] * 2, rtol=1e-5)
    kept = keras.saving.load_model(result["path"])
    data = fold_data(task)
    loss = kept.evaluate(task.batches(data, "validation"), verbose=0, return_dict=True)["loss"]
    best = history["val_loss"].iloc[best_epoch(history) - 1]
    assert loss == pytest.approx(best, abs=1e-4) and best == history["val_loss"].min()


def test_batches_of_the_published_recipe_mix_all_lengths(task):
    assert task.settings["length_jitter"] == 10
    clips = [np.zeros(n, "float32") for n in range(100, 164)]
    spread = {
        jitter: np.mean([np.ptp(batches.lengths[rows]) for rows in batches.batches])
        for jitter in (0.0, 10.0)
        for batches in [ClipBatches(clips, batch_size=8, shuffle=True, jitter=jitter)]
    }
    assert spread[0.0] == 7 and spread[10.0] > 35


def test_a_network_of_one_fold_costs_no_trace_in_the_next(task):
    data = fold_data(task)
    assert task.built_from(data, 3) == task.built_from(data, 9)


def test_an_optimizer_of_another_name_is_refused():
    with pytest.raises(KeyError, match="rmsprop"):
        build_network("cnn_n_gru", 2, settings("cnn_n_gru", "smoke") | {"optimizer": "rmsprop"})
