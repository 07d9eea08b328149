"""Fisher vectors: one vector for a clip of any length, which says how its frames differ from those of all clips."""

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

FURTHEST = 5.0  # deviations; a frame that is further from the mean of a descriptor counts as that far
LEAST_VARIANCE = 1e-3  # of a Gaussian; frames have about 1 in the first directions


class FisherVectors(TransformerMixin, BaseEstimator):
    """Encode clips by the gradient of the likelihood of their frames under mixtures of Gaussians.

    Fitting standardises the frames, turns them so that they are uncorrelated, and describes them by Gaussians with diagonal
    covariances. A clip's vector holds, for each Gaussian, how the mean and the variance of the clip's frames near it differ
    from its own. It then gets signed square roots and length 1. Several mixtures, which start from other frames, make the
    vector depend less on chance.

    Parameters
    ----------
    n_gaussians : how many Gaussians describe the frames
    n_mixtures : how often they do
    n_directions : how many principal components of a frame are kept, if it has so many
    n_frames : frames that are drawn for the fit, from all clips
    seed : of the draw and the fit

    Source: Sánchez et al. 2013, Image Classification with the Fisher Vector: the gradients for means and deviations, not
    those for shares; square roots and length as there.
    """

    def __init__(
        self, n_gaussians: int = 16, n_mixtures: int = 4, n_directions: int = 60, n_frames: int = 40_000, seed: int = 0
    ) -> None:
        self.n_gaussians, self.n_mixtures, self.n_directions = n_gaussians, n_mixtures, n_directions
        self.n_frames, self.seed = n_frames, seed

    def fit(self, clips: Sequence[np.ndarray], y: object = None) -> "FisherVectors":
        """Describe the frames of clips, (n_frames, n_descriptors) each."""
        frames = np.concatenate(list(clips))
        self.scaler_ = StandardScaler().fit(frames)
        drawn = np.random.default_rng(self.seed).choice(len(frames), min(len(frames), self.n_frames), replace=False)
        scaled = self._scale(frames[drawn])
        self.directions_ = PCA(min(self.n_directions, *scaled.shape), random_state=self.seed).fit(scaled)
        turned = self.directions_.transform(scaled)
        settings = {"covariance_type": "diag", "reg_covar": LEAST_VARIANCE, "max_iter": 200}
        self.mixtures_ = [
            GaussianMixture(min(self.n_gaussians, len(turned)), **settings, random_state=self.seed + i).fit(turned)
            for i in range(self.n_mixtures)
        ]
        return self

    def transform(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Encode clips: float32 (n_clips, 2 * n_mixtures * n_gaussians * n_directions), of length 1."""
        turned = [self.directions_.transform(self._scale(clip)) for clip in clips]
        vectors = np.array(
            [np.concatenate([_gradient(clip, mixture) for mixture in self.mixtures_]) for clip in turned]
        )
        vectors = np.sign(vectors) * np.sqrt(np.abs(vectors))
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    @property
    def n_parameters(self) -> int:
        """Numbers that the fit keeps."""
        of_mixtures = sum(2 * mixture.means_.size + mixture.weights_.size for mixture in self.mixtures_)
        return 2 * self.scaler_.mean_.size + self.directions_.components_.size + of_mixtures

    def _scale(self, frames):
        return np.clip(self.scaler_.transform(frames), -FURTHEST, FURTHEST)


def _gradient(frames, mixture):
    share, mean, variance = mixture.weights_[:, None], mixture.means_, mixture.covariances_
    near = mixture.predict_proba(frames) / len(frames)  # (n_frames, n_gaussians)
    count, first, second = near.sum(axis=0)[:, None], near.T @ frames, near.T @ frames**2
    of_means = (first - count * mean) / np.sqrt(variance * share)
    of_variances = (second - 2 * mean * first + count * (mean**2 - variance)) / (variance * np.sqrt(2 * share))
    return np.concatenate([of_means.ravel(), of_variances.ravel()])
