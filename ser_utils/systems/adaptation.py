"""What a new speaker's other recordings are worth without any label: features on the speaker's own scale.

Nothing here sees an emotion. A model that uses it knows clips of the tested speakers: its audit says "adapted".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRIOR_CLIPS = 10  # that the usual spread within a speaker counts as much as


@dataclass(frozen=True)
class Population:
    """How features vary, learned without labels from several clips of each of several speakers.

    Parameters
    ----------
    mean : (n_features,), over speakers' means
    within : (n_features,), variance within a speaker, mean over speakers
    between : (n_features,), variance of the speakers' true means; 0 where they do not differ more than by chance
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
    own = [features[members] for members in _clips_of(speakers).values()]
    means, variances = np.array([clips.mean(axis=0) for clips in own]), np.array([clips.var(axis=0) for clips in own])
    chance = np.mean([variance / len(clips) for variance, clips in zip(variances, own, strict=True)], axis=0)
    within = variances.mean(axis=0)
    # a constant has no scale: it is left as it is
    within = np.where(within > 1e-12 * np.maximum(1, means.mean(axis=0) ** 2), within, 1)
    return Population(means.mean(axis=0), within, np.maximum(means.var(axis=0) - chance, 0))


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


def standardise_by_speaker(features: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
    """Take from every speaker's features the mean of all of that speaker's clips, and divide by their deviation.

    Parameters
    ----------
    features : (n_clips, n_features)
    speakers : (n_clips,) names

    Returns
    -------
    (n_clips, n_features); 0 where a speaker's feature never changes
    """
    standardised = np.zeros(np.shape(features), np.float32)
    for members in _clips_of(speakers).values():
        clips = np.asarray(features, float)[members]
        centred, spread = clips - clips.mean(axis=0), clips.std(axis=0)
        changes = spread > 1e-6 * np.maximum(abs(clips).max(axis=0), 1e-6)
        standardised[members] = np.where(changes, centred / np.where(changes, spread, 1), 0)
    return standardised


def _clips_of(speakers) -> dict[str, np.ndarray]:
    speakers = np.asarray(speakers)
    return {name: np.flatnonzero(speakers == name) for name in sorted(set(speakers))}
