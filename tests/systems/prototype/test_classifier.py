"""Similarities and scores against the published values; the losses; a classifier that learns and survives saving."""

import keras
import numpy as np
import pytest

from ser_utils.systems.prototype.classifier import (
    PrototypeClassifier,
    PrototypeLayer,
    PrototypeLog,
    build_prototype_classifier,
    crowding_loss,
    mean_prototype_score,
    prototype_scores,
    prototype_similarity,
    similarity_loss,
    twin_share,
)
from tests.conftest import GOLDEN_DIR

GOLDEN = np.load(GOLDEN_DIR / "prototype_paper.npz")
PROTOTYPES = GOLDEN["prototypes_columns"].T


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture(scope="module")
def clusters():
    """Three classes of two clusters each in twelve dimensions."""
    random = np.random.default_rng(0)
    centres = 3 * random.random((6, 12))
    of_cluster = random.integers(0, 6, 240)
    embeddings = (centres[of_cluster] + 0.1 * random.standard_normal((240, 12))).astype(np.float32)
    return embeddings, of_cluster % 3


@pytest.mark.parametrize("distance", ["l2", "l3", "l4", "l8"])
def test_similarity_agrees_with_the_published_values(distance):
    similarity = prototype_similarity(GOLDEN["embedding"], PROTOTYPES, distance)
    np.testing.assert_allclose(array(similarity), GOLDEN[f"similarity_{distance}"], atol=1e-5)


def test_euclidean_is_l2_and_similarity_to_itself_is_one():
    similarity = array(prototype_similarity(PROTOTYPES, PROTOTYPES, "euclidean"))
    np.testing.assert_array_equal(similarity, array(prototype_similarity(PROTOTYPES, PROTOTYPES, "l2")))
    np.testing.assert_allclose(np.diag(similarity), 1, atol=0.01)
    assert (similarity.argmax(axis=1) == np.arange(len(PROTOTYPES))).all()


def test_an_unknown_distance_names_those_there_are():
    with pytest.raises(ValueError, match=r"euclidean, l2, .*l8.*distance='l9'"):
        prototype_similarity(PROTOTYPES, PROTOTYPES, "l9")
    with pytest.raises(ValueError, match="cosine"):
        PrototypeLayer(3, "cosine")


@pytest.mark.parametrize("number, method", [(0, "positive"), (1, "min_max"), (2, "softmax")])
def test_scores_agree_with_the_published_values(number, method):
    scores = prototype_scores(GOLDEN["fc_weights"], method)
    np.testing.assert_allclose(scores, GOLDEN[f"prototype_scores_{number}"], atol=1e-9)


def test_scores_of_prototypes_that_say_nothing():
    assert prototype_scores([[-1.0, -2.0]], "positive").tolist() == [[0, 0]]
    assert prototype_scores([[3.0, 3.0]], "min_max").tolist() == [[0, 0]]
    assert prototype_scores([[1000.0, 0.0]]).tolist() == [[100, 0]]
    with pytest.raises(ValueError, match="positive, min_max, softmax.*method='max'"):
        prototype_scores([[1.0]], "max")


def test_mean_score_rounds_the_weights_first():
    weights = GOLDEN["fc_weights"] + 0.004
    expected = GOLDEN["prototype_scores_2"].max(axis=1).mean()
    assert mean_prototype_score(weights) == pytest.approx(expected, abs=1e-9)


def test_similarity_loss_is_focal_against_the_one_hot_of_the_own_maximum():
    similarity = GOLDEN["similarity_l4"]
    own = np.eye(similarity.shape[1])[similarity.argmax(axis=1)]
    expected = keras.losses.CategoricalFocalCrossentropy(alpha=0.25, gamma=2.0)(own, similarity)
    assert float(similarity_loss(similarity)) == pytest.approx(float(expected), rel=1e-5)


def test_the_similarity_loss_is_part_of_the_training_loss():
    embeddings, targets = GOLDEN["embedding"], np.eye(4, dtype=np.float32)[np.arange(8) % 4]
    losses = {}
    for weight in (0.0, 10.0):
        keras.utils.set_random_seed(0)
        model = build_prototype_classifier(40, 4, 15, similarity_weight=weight)
        losses[weight] = model.evaluate(embeddings, targets, verbose=0, return_dict=True)["loss"]
        similarity = model.get_layer("prototypes")(embeddings)
    assert losses[10.0] - losses[0.0] == pytest.approx(10 * float(similarity_loss(similarity)), rel=1e-3)


def test_classes_are_decided_without_bias():
    model = PrototypeClassifier(40, 7, 15)
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [(15, 40), (15, 7)]
    logits = array(prototype_similarity(GOLDEN["embedding"], model.prototypes)) @ model.fc_weights
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(array(model(GOLDEN["embedding"])), expected, atol=1e-5)


def test_training_learns_clusters_and_moves_prototypes(clusters):
    embeddings, labels = clusters
    keras.utils.set_random_seed(0)
    model = build_prototype_classifier(12, 3, 9, steps_per_epoch=4).start_from(embeddings, labels)
    before = model.prototypes
    targets = np.eye(3, dtype=np.float32)[labels]
    history = model.fit(embeddings, targets, batch_size=64, epochs=40, verbose=0).history
    assert history["accuracy"][-1] > 0.95 and history["macro_f1"][-1] > 0.95
    assert np.abs(model.prototypes - before).max() > 0.01
    assert np.isfinite(model.prototypes).all()


def test_starting_prototypes_are_training_segments_of_every_class(clusters):
    embeddings, labels = clusters
    model = PrototypeClassifier(12, 3, 10).start_from(embeddings, labels, seed=1)
    places = [int(np.flatnonzero((embeddings == one).all(axis=1))[0]) for one in model.prototypes]
    assert len(set(places)) == 10
    assert (labels[places] == np.arange(10) % 3).all()
    assert (model.fc_weights.argmax(axis=1) == np.arange(10) % 3).all()
    few = PrototypeClassifier(12, 3, 10).start_from(embeddings[:6], np.array([0, 0, 0, 0, 1, 2]))
    assert few.prototypes.shape == (10, 12)


def test_a_start_on_segments_leaves_scores_to_be_learned(clusters):
    embeddings, labels = clusters
    model = PrototypeClassifier(12, 3, 9).start_from(embeddings, labels)
    assert mean_prototype_score(model.fc_weights) == pytest.approx(100 * np.e / (np.e + 2), abs=0.01)
    sure = PrototypeClassifier(12, 3, 9).start_from(embeddings, labels, weight=5)
    assert mean_prototype_score(sure.fc_weights) > 98


def test_crowding_is_high_where_prototypes_repeat_each_other():
    apart = 5 * np.eye(6, dtype=np.float32)
    alike = np.vstack([apart[:3], apart[:3]])
    assert float(crowding_loss(alike)) > 0.95 > 0.3 > float(crowding_loss(apart))
    assert twin_share(alike) == 1 and twin_share(apart) == 0


def test_the_crowding_term_drives_prototypes_apart(clusters):
    embeddings, labels = clusters
    nearest = {}
    for weight in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        model = build_prototype_classifier(12, 3, 9, crowding_weight=weight, steps_per_epoch=4)
        model.start_from(embeddings, labels)
        model.fit(embeddings, np.eye(3, dtype=np.float32)[labels], batch_size=64, epochs=20, verbose=0)
        nearest[weight] = float(crowding_loss(model.prototypes))
    assert nearest[1.0] < nearest[0.0]


def test_the_log_tells_scores_and_twins_at_the_start_and_after_each_epoch(clusters):
    embeddings, labels = clusters
    model = build_prototype_classifier(12, 3, 9, steps_per_epoch=4).start_from(embeddings, labels)
    targets = np.eye(3, dtype=np.float32)[labels]
    options = {"batch_size": 64, "epochs": 3, "verbose": 0, "callbacks": [PrototypeLog()]}
    history = model.fit(embeddings, targets, **options).history
    assert history["start_score"] == [pytest.approx(57.6, abs=0.1)] * 3
    assert history["prototype_score"][-1] == mean_prototype_score(model.fc_weights)
    assert history["prototype_twins"][-1] == twin_share(model.prototypes)


def test_save_and_load_keep_prototypes_and_answers(tmp_path, clusters):
    embeddings, labels = clusters
    model = build_prototype_classifier(12, 3, 9, distance="l3").start_from(embeddings, labels)
    model.save(tmp_path / "classifier.keras")
    loaded = keras.saving.load_model(tmp_path / "classifier.keras")
    np.testing.assert_array_equal(loaded.prototypes, model.prototypes)
    np.testing.assert_array_equal(loaded.fc_weights, model.fc_weights)
    np.testing.assert_allclose(array(loaded(embeddings)), array(model(embeddings)), atol=1e-6)
