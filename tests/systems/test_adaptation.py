import numpy as np
import pytest

from ser_utils.systems.adaptation import adapt, centre_by_speaker, learn_population, rank_by_speaker, scale_by_speaker


@pytest.fixture(scope="module")
def clips():
    """40 clips of each of 12 speakers: speakers differ in the first feature, not in the second; the third never changes."""
    random = np.random.default_rng(0)
    speakers = np.repeat([f"{i:02d}" for i in range(12)], 40)
    of_speaker = np.repeat(5 * random.standard_normal(12), 40)
    features = np.stack([of_speaker, np.zeros(480), np.zeros(480)], axis=1) + random.standard_normal((480, 3)) * [
        1,
        2,
        0,
    ]
    return features + [100, 0, 7], speakers


def test_the_population_is_recovered(clips):
    population = learn_population(*clips)
    assert population.mean == pytest.approx([100, 0, 7], abs=3)
    assert population.within == pytest.approx([1, 4, 1], rel=0.2)
    assert 10 < population.between[0] < 50 and population.between[1:] == pytest.approx([1, 0.25], rel=0.2)


def test_ranks_know_neither_a_speakers_mean_nor_its_deviation(clips):
    features, speakers = clips
    scores = rank_by_speaker(features, speakers)
    stretched = features * np.linspace(1, 5, 12).repeat(40)[:, None] + np.arange(12).repeat(40)[:, None]
    assert rank_by_speaker(stretched, speakers) == pytest.approx(scores)
    for name in set(speakers):
        own = scores[speakers == name]
        assert own.mean(axis=0) == pytest.approx(0, abs=1e-5)
        assert own.std(axis=0) == pytest.approx([1, 1, 0], abs=0.03)  # what never changes says nothing
        assert (np.argsort(own[:, 0]) == np.argsort(features[speakers == name, 0])).all()


def test_no_clip_leaves_the_population_and_many_reach_the_speaker(clips):
    features, speakers = clips
    population, own = learn_population(features, speakers), features[speakers == "03"]
    unknown = adapt(own, own[:0], population)
    assert unknown == pytest.approx((own - population.mean) / np.sqrt(population.within))
    wholly = adapt(own, own, population)
    assert wholly[:, 0] == pytest.approx((own[:, 0] - own[:, 0].mean()) / own[:, 0].std(), abs=0.2)
    assert abs(wholly[:, 0].mean()) < 0.1 < abs(unknown[:, 0].mean())


def test_a_mean_moves_the_faster_the_more_speakers_differ(clips):
    features, speakers = clips
    population, own = learn_population(features, speakers), features[speakers == "05"]
    strange = own[:1] + [3, 3, 0]
    moved = adapt(own, own, population) - adapt(own, strange, population)
    one_clip = population.between[:2] / (population.between[:2] + population.within[:2])
    assert one_clip[0] > 0.9 and one_clip[1] < 0.25
    assert abs(moved[:, 1].mean()) < 0.5 < abs(moved[:, 0].mean())


def test_labels_and_order_change_nothing(clips):
    features, speakers = clips
    order = np.random.default_rng(1).permutation(len(features))
    shuffled = rank_by_speaker(features[order], speakers[order])
    assert shuffled == pytest.approx(rank_by_speaker(features, speakers)[order], abs=1e-5)


def test_frames_and_vectors_lose_what_a_speaker_has_in_common():
    random = np.random.default_rng(0)
    speakers = ["a", "b", "a", "b", "b"]
    lengths = (5, 40, 9, 7, 30)
    clips = [random.normal(10 * (name == "b"), 3, (n, 2)) for n, name in zip(lengths, speakers, strict=True)]
    scaled = scale_by_speaker(np.array(clips, object), speakers)
    assert [len(clip) for clip in scaled] == list(lengths)
    for name in "ab":
        frames = np.concatenate([clip for clip, other in zip(scaled, speakers, strict=True) if other == name])
        np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(frames.std(axis=0), 1)
    silent = scale_by_speaker(np.array([np.ones((3, 2)), np.ones((4, 2))], object), ["a", "a"])
    assert not np.concatenate(list(silent)).any()
    vectors = random.normal(size=(5, 3))
    centred = centre_by_speaker(vectors, speakers)
    np.testing.assert_allclose(centred[0] - centred[2], vectors[0] - vectors[2])
    np.testing.assert_allclose(centred[[1, 3, 4]].mean(axis=0), 0, atol=1e-12)
