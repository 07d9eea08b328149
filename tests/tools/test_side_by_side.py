"""Trainings side by side are those that each would be alone."""

import keras
import numpy as np
import pytest

from ser_utils.profiles import settings
from ser_utils.systems.sigwavnet.recipe import make_network

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="trains on JAX alone: KERAS_BACKEND=jax")

LABELS = np.arange(18) % 2
SMALL = {"n": 3, "channels": 2, "gru_units": 3, "batch_size": 4, "epochs": 6, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def clips():
    """A high and a low tone in noise, of unequal lengths."""
    rng = np.random.default_rng(0)
    return [
        (np.sin(np.arange(length) * (0.9, 0.2)[label]) + rng.normal(0, 0.1, length)).astype("float32")
        for length, label in zip(rng.integers(900, 1400, len(LABELS)), LABELS, strict=True)
    ]


def trainings(*seeds):
    from tools.side_by_side import Training

    rows = np.arange(len(LABELS))
    return [Training({"train": rows[:10], "validation": rows[10:14], "test": rows[14:]}, s) for s in seeds]


def side_by_side(clips, seeds, **options):
    from tools.side_by_side import SideBySide

    chosen = settings("cnn_n_gru", "smoke") | SMALL
    return SideBySide(lambda: make_network("cnn_n_gru", 2, chosen), clips, LABELS, trainings(*seeds), chosen, **options)


def trained(clips, seeds, **options):
    together = side_by_side(clips, seeds, **options)
    together.compile()
    return together.fit()


@pytest.fixture(scope="module")
def both(clips):
    return trained(clips, [0, 1])


def assert_equal(first, second):
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-3)
    np.testing.assert_allclose(first.history["val_loss"], second.history["val_loss"], atol=1e-3)


def test_a_training_among_others_is_what_it_is_alone(clips, both):
    (alone,) = trained(clips, [1])
    assert_equal(both[1], alone)
    assert not np.allclose(both[0].probabilities, both[1].probabilities, atol=1e-3)


@pytest.mark.slow
def test_where_memory_is_small_trainings_take_turns_and_shapes_change_nothing(clips, both):
    for turn, once in zip(trained(clips, [0, 1], at_once=1, shapes=[1100]), both, strict=True):
        assert_equal(turn, once)


def test_the_loss_falls_and_the_test_part_is_asked(both):
    for outcome in both:
        assert outcome.history["loss"][-1] < outcome.history["loss"][0]
        assert outcome.probabilities.shape == (4, 2)
        np.testing.assert_allclose(outcome.probabilities.sum(axis=1), 1, atol=1e-5)


def test_no_epoch_begins_after_the_time_is_over(clips):
    assert side_by_side(clips, [0]).fit(until=0.0)[0].history == {}
