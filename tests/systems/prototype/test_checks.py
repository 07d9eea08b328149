import numpy as np
import pytest

from ser_utils.explanation import attribution as explain
from ser_utils.explanation import faithfulness
from ser_utils.systems.prototype import checks
from ser_utils.systems.prototype.classifier import PrototypeClassifier, prototype_similarity
from ser_utils.training.fit import set_seed


@pytest.fixture(scope="module")
def two_clouds():
    """Two classes as clouds in four dimensions, and a classifier with two prototypes in each."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    embeddings = (rng.normal(0, 0.3, (80, 4)) + np.where(labels, 2, -2)[:, None]).astype("float32")
    set_seed(0)
    classifier = PrototypeClassifier(4, 2, 4)
    return classifier.start_from(embeddings, labels), embeddings, labels


def test_similarities_and_decisions_are_the_classifiers(two_clouds):
    classifier, embeddings, labels = two_clouds
    similarity = checks.similarities(classifier, embeddings)
    wanted = np.asarray(prototype_similarity(embeddings, classifier.prototypes))
    np.testing.assert_allclose(similarity, wanted, rtol=1e-5)
    decided = checks.decide(similarity, classifier.fc_weights)
    np.testing.assert_array_equal(decided, np.asarray(classifier(embeddings)).argmax(axis=1))
    np.testing.assert_array_equal(decided, labels)
    assert checks.classes_spoken_for(classifier.fc_weights)[0].tolist() == [0, 1, 0, 1]


def test_projection_puts_prototypes_on_segments_and_moves_those_that_are_none(two_clouds):
    classifier, embeddings, _ = two_clouds
    away = PrototypeClassifier(4, 2, 4)
    away.set_weights(classifier.get_weights())
    shifted = classifier.prototypes + np.array([[0.0], [0.0], [0.5], [0.0]], "float32")
    away.get_layer("prototypes").prototypes.assign(shifted)
    projected, moved = checks.project(away, embeddings)
    distances = np.linalg.norm(embeddings[:, None] - projected.prototypes[None], axis=-1)
    assert distances.min(axis=0).max() == pytest.approx(0, abs=1e-5)
    assert moved[2] > 0.02 and moved[[0, 1, 3]].max() < 1e-5
    np.testing.assert_allclose(away.prototypes, shifted), "the classifier itself stays"
    np.testing.assert_array_equal(projected.fc_weights, away.fc_weights)


def test_accuracy_falls_when_a_class_has_lost_its_prototypes(two_clouds):
    classifier, embeddings, labels = two_clouds
    similarity = checks.similarities(classifier, embeddings)
    shares, scores = checks.removal(similarity, classifier.fc_weights, labels, np.array([1, 0, 3, 2]), steps=4)
    np.testing.assert_allclose(shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(scores, [1, 1, 1, 0.5, 0.5])


def test_the_strongest_of_every_class_come_before_the_next_of_any():
    weights = np.array([[9, 0], [8, 0], [0, 2], [0, 1], [7, 0]])
    assert checks.by_strength(weights).tolist() == [0, 2, 1, 3, 4]


def test_purity_tells_prototypes_among_their_own_from_those_among_others(two_clouds):
    classifier, embeddings, labels = two_clouds
    similarity = checks.similarities(classifier, embeddings)
    np.testing.assert_array_equal(checks.purity(similarity, classifier.fc_weights, labels), 1)
    np.testing.assert_array_equal(checks.purity(similarity, classifier.fc_weights, 1 - labels), 0)


def test_redundancy_counts_twins_and_axes():
    rng = np.random.default_rng(0)
    free = rng.random((500, 6))
    apart, twins = checks.redundancy(free), checks.redundancy(np.hstack([free, free[:, :2]]))
    assert apart["twins"] == 0 and twins["twins"] == pytest.approx(4 / 8)
    assert apart["effective_number"] == pytest.approx(6, abs=0.2)
    assert checks.redundancy(np.repeat(free[:, :1], 5, axis=1) + 1e-9 * rng.random((500, 5)))[
        "effective_number"
    ] == pytest.approx(1, abs=0.01)


def test_agreement_does_not_depend_on_the_order_of_prototypes(two_clouds):
    classifier, embeddings, _ = two_clouds
    similarity, weights = checks.similarities(classifier, embeddings), classifier.fc_weights
    order = [2, 0, 3, 1]
    chance = checks.shuffled_similarities(classifier, embeddings)
    same = checks.compare_trainings((similarity, weights), (similarity[:, order], weights[order]), chance)
    assert same["correlation"] == pytest.approx(1) and same["same_class"] == same["same_decision"] == 1
    other = np.random.default_rng(0).random(similarity.shape)
    assert checks.compare_trainings((similarity, weights), (other, weights), [other])["correlation"] < 0.5


def test_chance_pairs_prototypes_as_agreement_does():
    rng = np.random.default_rng(0)
    one, other = (rng.random((30, 20)), rng.random((30, 20)))  # of no relation; the best pairs are alike all the same
    weights = rng.random((20, 2))
    found = checks.compare_trainings((one, weights), (other, weights), [rng.random((30, 20)) for _ in range(5)])
    assert found["by_chance"] == pytest.approx(found["correlation"], abs=0.06) and found["by_chance"] > 0.2


def test_shuffled_prototypes_have_the_same_coordinates_dealt_anew(two_clouds):
    classifier, embeddings, _ = two_clouds
    before = classifier.prototypes.copy()
    one, other = (checks.shuffled_similarities(classifier, embeddings, draws=2, seed=seed) for seed in (0, 0))
    np.testing.assert_array_equal(one, other)
    assert np.shape(one) == (2, len(embeddings), 4) and not np.allclose(one[0], one[1])
    np.testing.assert_array_equal(classifier.prototypes, before)


def test_contributions_sum_to_the_logit_and_name_the_prototype(two_clouds):
    classifier, embeddings, labels = two_clouds
    similarity, weights = checks.similarities(classifier, embeddings), classifier.fc_weights
    added = checks.contributions(similarity, weights, 1)
    logits = similarity @ weights
    np.testing.assert_allclose(added.sum(axis=1), logits[:, 1] - logits.mean(axis=1), rtol=1e-4, atol=1e-5)
    found = checks.sounds_like(similarity, weights, 1)
    assert labels[found["segment"].head(40)].all(), "segments of the class come first"
    assert set(found["prototype"].head(40)) <= {1, 3}
    apart = checks.spread_out(found, most=3, apart=5)
    assert len(apart) == 3 and np.diff(np.sort(apart["segment"])).min() >= 5
    assert apart["segment"][0] == found["segment"][0]


def test_an_utterance_is_decided_by_the_mean_of_its_segments(two_clouds):
    classifier, embeddings, _ = two_clouds
    vote = checks.utterance_vote(classifier)
    given = np.asarray(vote(np.stack([embeddings[:10], embeddings[10:20]])))
    for row, part in zip(given, (embeddings[:10], embeddings[10:20]), strict=True):
        np.testing.assert_allclose(row, np.asarray(classifier(part)).mean(axis=0), rtol=1e-5)


def test_prototypes_are_explanations_that_see_the_model(two_clouds):
    classifier, embeddings, labels = two_clouds
    vote = checks.utterance_vote(classifier)
    subject = checks.SegmentSubject(vote, embeddings.mean(axis=0), (2, -1), (1, -1))
    x = embeddings[None, :9]
    found = subject.maps(x, 1)
    assert found["prototypes"].shape == x.shape and "gradient" in found
    assert faithfulness.localisation(found["prototypes"][0, :, 0], labels[:9]) == 1
    assert faithfulness.weighted_layers(vote) == ["classes", "prototypes"]
    cascading = faithfulness.randomisations(vote)["cascading"]
    likeness = faithfulness.sanity(subject, cascading, [explain.Clip("a", x, 1)], [found])
    assert likeness.query("name == 'prototypes' and method == 'prototypes'")["spearman"].item() < 0.9
    np.testing.assert_array_equal(vote.get_layer("classes").get_weights()[0], classifier.fc_weights)
