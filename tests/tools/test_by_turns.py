"""Trainings by turns are what Keras's own fit would make of them."""

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score

from ser_utils.profiles import settings
from ser_utils.systems.prototype.autoencoder import build_autoencoder
from ser_utils.systems.prototype.classifier import build_prototype_classifier, mean_prototype_score, twin_share

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="trains on JAX alone: KERAS_BACKEND=jax")


@pytest.fixture(autouse=True)
def little_room(monkeypatch):
    """Few rows need no arrays of thousands."""
    from tools import by_turns

    monkeypatch.setattr(by_turns, "ROOM", 32)
    monkeypatch.setattr(by_turns, "AT_ONCE", 4)


CODER = settings("prototype", "paper") | {"filters": [4, 4, 4, 4, 4], "epochs": 30}
CLASSIFIER = settings("prototype_classifier", "paper") | {
    "per_class": 4,
    "epochs": 600,
    "most_passes": 3,
    "learning_rate": 0.1,
}


def pictures(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (n, 8, 7)).astype(np.float32)


def coders(changes, *trainings, **options):
    from tools.elsewhere_prototype import coders_by_turns

    by_turns = coders_by_turns(CODER | changes, (8, 7), 0)
    by_turns.fit(list(trainings), **options)
    return trainings


def training(n, n_watched=5, seed=0, name="one"):
    from tools.by_turns import Training

    x, watched = pictures(n, seed), pictures(n_watched, seed + 1)
    return Training(name, (x, x), (watched, watched))


def test_an_epoch_of_one_batch_is_keras_s_own_step():
    (learned,) = coders({"epochs": 1}, training(20))
    keras.utils.set_random_seed(0)
    model = build_autoencoder(8, 7, filters=CODER["filters"])
    log = model.fit(pictures(20), pictures(20), batch_size=128, epochs=1, verbose=0)
    for ours, theirs in zip(learned.weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert learned.history["loss"] == pytest.approx(log.history["loss"], rel=1e-4)
    loss, mae = model.evaluate(pictures(5, 1), pictures(5, 1), verbose=0)
    assert (learned.history["val_loss"], learned.history["val_mae"]) == (
        [pytest.approx(loss, rel=1e-4)],
        [pytest.approx(mae, rel=1e-4)],
    )


def test_a_training_among_others_of_other_sizes_is_what_it_is_alone():
    changes = {"batch_size": 8}
    (alone,) = coders(changes, training(20))
    among, other = coders(changes, training(20), training(31, 7, seed=3, name="other"))
    assert among.history == alone.history
    assert len(other.history["loss"]) == 30 and other.history["loss"] != among.history["loss"]


def test_every_segment_is_seen_once_an_epoch_and_the_loss_falls():
    (learned,) = coders({"batch_size": 8, "learning_rate": 0.0}, training(20))
    np.testing.assert_allclose(learned.history["loss"], learned.history["loss"][0], rtol=1e-5)  # whatever the order
    (learned,) = coders({"batch_size": 8}, training(20))
    assert learned.history["loss"][-1] < learned.history["loss"][0]


def test_patience_ends_a_training_and_the_best_epoch_is_kept():
    (learned,) = coders({"learning_rate": 1.0, "patience": 2, "epochs": 500}, training(20))
    values = learned.history["val_loss"]
    assert learned.has_stopped and len(values) == int(np.argmin(values)) + 3
    model = build_autoencoder(8, 7, filters=CODER["filters"])
    model.set_weights(learned.weights)
    assert model.evaluate(pictures(5, 1), pictures(5, 1), verbose=0)[0] == pytest.approx(min(values), rel=1e-3)


def test_no_turn_begins_after_the_time_is_over_and_the_clock_is_told_from_patience():
    (learned,) = coders({}, training(20), until=0.0)
    assert learned.history == {} and not learned.has_stopped


def test_classifiers_learn_and_their_figures_are_the_package_s():
    from tools.by_turns import Training
    from tools.elsewhere_prototype import classifiers_by_turns

    random, labels = np.random.default_rng(0), np.arange(60) % 3
    x = (np.eye(3)[labels] @ random.normal(size=(3, 6)) + random.normal(0, 0.3, (60, 6))).astype(np.float32)
    parts = [(x[rows], np.eye(3, dtype=np.float32)[labels[rows]]) for rows in (slice(0, 40), slice(40, 60))]
    learned = Training("one", *parts)
    classifiers_by_turns(CLASSIFIER, 3, (40, 6), 0).fit([learned])
    history, model = learned.history, build_prototype_classifier(6, 3, 12)
    model.set_weights(learned.weights)
    best = int(np.argmax(history["val_macro_f1"]))
    said = model.predict(x[40:], verbose=0).argmax(axis=1)
    assert history["val_macro_f1"][best] == pytest.approx(f1_score(labels[40:], said, average="macro"), abs=1e-6)
    assert history["val_accuracy"][best] == pytest.approx((said == labels[40:]).mean())
    assert history["prototype_score"][best] == pytest.approx(mean_prototype_score(model.fc_weights), abs=0.01)
    assert history["prototype_twins"][best] == pytest.approx(twin_share(model.prototypes))
    assert len(set(history["start_score"])) == 1 and max(history["val_macro_f1"]) > 0.8
    assert len(history["loss"]) == 200  # of 600 passes, three an epoch


@pytest.mark.parametrize("n_frames", [6, 7])
def test_products_of_patches_are_the_autoencoder_s_convolutions(n_frames):
    from tools.patches import autoencode

    model, random = build_autoencoder(8, n_frames, filters=(6, 5, 4, 3, 2)), np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.3, values.shape) for values in model.get_weights()])
    x = random.uniform(0, 1, (3, 8, n_frames)).astype(np.float32)
    returned = autoencode([variable.value for variable in model.trainable_variables], x)
    np.testing.assert_allclose(returned, model(x), atol=1e-5)
