import numpy as np
import pytest

from ser_utils.features.fisher import FisherVectors


@pytest.fixture(scope="module")
def clips():
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 6))
    return [random.normal(size=(n, 6)) @ mixing for n in (40, 90, 200, 33, 150)]


def test_a_vector_is_the_gradient_of_the_likelihood(clips):
    encoder = FisherVectors(n_gaussians=3, n_mixtures=1, n_directions=4).fit(clips)
    mixture, frames = encoder.mixtures_[0], encoder.directions_.transform(encoder.scaler_.transform(clips[0]))
    assert np.abs(encoder.scaler_.transform(clips[0])).max() < 5  # nothing is cut off
    expected = []
    for kind in ("means_", "covariances_"):
        for k in range(3):
            for d in range(4):
                step = 1e-5
                moved = []
                for sign in (1, -1):
                    kept = getattr(mixture, kind).copy()
                    changed = kept.copy()
                    changed[k, d] += sign * step
                    setattr(mixture, kind, changed)
                    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
                    moved.append(mixture.score(frames))  # mean log-likelihood of a frame
                    setattr(mixture, kind, kept)
                slope = (moved[0] - moved[1]) / (2 * step)
                variance, share = mixture.covariances_[k, d], mixture.weights_[k]
                # Fisher information: share / variance of a mean, share / (2 variance²) of a variance
                expected.append(
                    slope * (np.sqrt(variance / share) if kind == "means_" else variance * np.sqrt(2 / share))
                )
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    expected = np.sign(expected) * np.sqrt(np.abs(expected))
    np.testing.assert_allclose(encoder.transform(clips[:1])[0], expected / np.linalg.norm(expected), atol=1e-4)


def test_clips_of_any_length_become_vectors_of_length_one(clips):
    encoder = FisherVectors(n_gaussians=3, n_mixtures=2, n_directions=4).fit(clips)
    vectors = encoder.transform([*clips, clips[0][:1]])
    assert vectors.shape == (6, 2 * 2 * 3 * 4) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    twice, shuffled = np.concatenate([clips[1]] * 2), np.random.default_rng(1).permutation(clips[1])
    for same in encoder.transform([twice, shuffled]):  # frames in any order, as often as one likes
        np.testing.assert_allclose(same, vectors[1], atol=1e-6)
    again = FisherVectors(n_gaussians=3, n_mixtures=2, n_directions=4).fit(clips).transform(clips)
    np.testing.assert_array_equal(again, vectors[:5])


def test_how_a_clip_differs_is_what_its_vector_says(clips):
    encoder = FisherVectors(n_gaussians=1, n_mixtures=1, n_directions=6).fit(clips)
    frames = np.concatenate(clips)
    first = encoder.scaler_.inverse_transform(encoder.directions_.components_[:1]) - encoder.scaler_.mean_
    moved, wider = encoder.transform([frames + first, (frames - frames.mean(0)) * 1.2 + frames.mean(0)])
    assert moved[:6].argmax() == 0 and moved[0] > 0.75  # the mean in the first direction
    assert wider[6:].min() > 0.3 and np.abs(wider[:6]).max() < 0.1  # the variance in every direction


def test_few_frames_have_few_gaussians():
    encoder = FisherVectors().fit([np.random.default_rng(0).normal(size=(5, 3))])
    assert len(encoder.mixtures_[0].means_) == 5 and encoder.directions_.n_components_ == 3
    assert encoder.n_parameters == 2 * 3 + 9 + 4 * (2 * 5 * 3 + 5)
