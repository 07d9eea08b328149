"""What a new speaker's other recordings are worth without any label: features on the speaker's own scale.

Nothing here sees an emotion. A model that uses it knows clips of the tested speakers: its audit says "adapted".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

PRIOR_CLIPS = 5  # that the usual spread within a speaker counts as much as
LEAST_BETWEEN = 0.25  # of the variance within: speakers are taken to differ at least so much in everything
LEAST_DEVIATION = 1e-6  # of a speaker's frames
DRAWS = 2  # of the clips that are known of each training speaker


@dataclass(frozen=True)
class Population:
    """How features vary, learned without labels from several clips of each of several speakers.

    Parameters
    ----------
    mean : (n_features,), over speakers' means
    within : (n_features,), variance within a speaker, mean over speakers
    between : (n_features,), variance of the speakers' true means, at least LEAST_BETWEEN of `within`
    """

    mean: np.ndarray
    within: np.ndarray
    between: np.ndarray


def learn_population(features: np.ndarray, speakers: Sequence[str]) -> Population:
    """Learn how features vary within and between speakers.

    Parameters
    ----------
    features : (n_clips, n_features)
    speakers : (n_clips,) names
    """
    voices = [features[members] for members in _clips_of(speakers).values()]
    means, variances = (np.array([getattr(clips, moment)(axis=0) for clips in voices]) for moment in ("mean", "var"))
    chance = np.mean([variance / len(clips) for variance, clips in zip(variances, voices, strict=True)], axis=0)
    within = variances.mean(axis=0)
    # a constant has no scale: it is left as it is
    within = np.where(within > 1e-12 * np.maximum(1, means.mean(axis=0) ** 2), within, 1)
    return Population(means.mean(axis=0), within, np.maximum(means.var(axis=0) - chance, LEAST_BETWEEN * within))


def adapt(features: np.ndarray, known: np.ndarray, population: Population) -> np.ndarray:
    """Put one speaker's features on that speaker's own scale, as well as the known clips tell it.

    The speaker's mean and variance are estimated by empirical Bayes: each known clip draws them away from the population's,
    a mean the faster the more speakers differ in that feature. Without a known clip they are the population's.

    Parameters
    ----------
    features : (n_clips, n_features), of one speaker
    known : (n_known, n_features), clips of the same speaker, whatever they express; may be empty

    Returns
    -------
    (n_clips, n_features), about 0 with a variance of about 1

    Source: Efron and Morris 1973 for the means; the variance has a scaled inverse chi-square prior of PRIOR_CLIPS.
    """
    n_known = len(known)
    if not n_known:
        return (features - population.mean) / np.sqrt(population.within)
    trust = n_known * population.between / (n_known * population.between + population.within)
    mean = population.mean + trust * (known.mean(axis=0) - population.mean)
    squares = PRIOR_CLIPS * population.within + ((known - mean) ** 2).sum(axis=0)
    return (features - mean) / np.sqrt(squares / (PRIOR_CLIPS + n_known))


@dataclass(frozen=True)
class SpeakerModel:
    """A classifier of features as they look when some clips of the speaker are known.

    Parameters
    ----------
    classifier : of scikit-learn, fitted
    population : of the training speakers
    """

    classifier: Any
    population: Population

    def adapted(self, features: np.ndarray, known: np.ndarray) -> np.ndarray:
        """What the classifier is given for one speaker's features; see `adapt`."""
        return adapt(features, known, self.population)


def fit_for_known(
    classifier: Any,
    features: np.ndarray,
    speakers: Sequence[str],
    emotions: Sequence[str],
    n_known: int | None,
    *,
    eligible: np.ndarray | None = None,
    seed: int = 0,
) -> SpeakerModel:
    """Fit a classifier for speakers of whom so many clips are known.

    Every training speaker is put on the scale that so many clips, drawn at random, give: a classifier that has only seen
    voices known through and through would take the rest of a voice for an emotion.

    Parameters
    ----------
    classifier : of scikit-learn, not fitted
    features : (n_clips, n_features); speakers, emotions : (n_clips,), of the training part
    n_known : clips known of each speaker; None is all
    eligible : bool (n_clips,), which clips may be the known ones; None is all. A speaker with fewer is known by these.
    """
    population, rng, emotions = learn_population(features, speakers), np.random.default_rng(seed), np.asarray(emotions)
    rows, labels = [], []
    for members in _clips_of(speakers).values():
        for _ in range(DRAWS if n_known else 1):
            may_be = members if eligible is None else members[eligible[members]]
            known = may_be if n_known is None else rng.permutation(may_be)[:n_known]
            rows.append(adapt(features[members], features[known], population))
            labels.append(emotions[members])
    return SpeakerModel(classifier.fit(np.concatenate(rows), np.concatenate(labels)), population)


def rank_by_speaker(features: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
    """Replace every feature by its rank among all clips of the same speaker, as a normal score.

    Where all clips of a speaker are known this is steadier than taking off a mean and dividing by a deviation: a single
    strange clip moves neither.

    Parameters
    ----------
    features : (n_clips, n_features)
    speakers : (n_clips,) names

    Returns
    -------
    float32 (n_clips, n_features), within about -3 and 3; equal values share their mean rank

    Source: van der Waerden 1952 for the scores.
    """
    scores = np.zeros(np.shape(features), np.float32)
    for members in _clips_of(speakers).values():
        scores[members] = norm.ppf((rankdata(features[members], axis=0) - 0.5) / len(members))
    return scores


def scale_by_speaker(clips: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
    """Give all frames of a speaker mean 0 and deviation 1: an array (n_clips,) of frames (n_frames, n_features)."""
    scaled = np.empty(len(clips), object)
    for members in _clips_of(speakers).values():
        frames = np.concatenate(list(clips[members]))
        mean, deviation = frames.mean(axis=0), np.maximum(frames.std(axis=0), LEAST_DEVIATION)
        for place in members:
            scaled[place] = (clips[place] - mean) / deviation
    return scaled


def centre_by_speaker(vectors: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
    """Take the mean over all clips of the same speaker off vectors (n_clips, n_features)."""
    centred = vectors.copy()
    for members in _clips_of(speakers).values():
        centred[members] -= vectors[members].mean(axis=0)
    return centred


def _clips_of(speakers) -> dict[str, np.ndarray]:
    speakers = np.asarray(speakers)
    return {name: np.flatnonzero(speakers == name) for name in sorted(set(speakers))}
