"""Scores from predictions alone: recall by class first, with errors that respect who speaks.

Truth and prediction come first, as arrays of labels. Utterances of one speaker are not independent, so intervals and
tests take speakers as their units, not utterances.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

FEWEST_SPEAKERS = 5
TOO_FEW = f"fewer than {FEWEST_SPEAKERS} speakers: no interval, but the UAR of each speaker"


def _labels(truth, prediction) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = np.asarray(truth, dtype=object), np.asarray(prediction, dtype=object)
    if truth.shape != prediction.shape or truth.ndim != 1:
        shapes = f"{truth.shape}, {prediction.shape}"
        raise ValueError(f"truth and prediction must be equally long. Received: {shapes}")
    if not len(truth):
        raise ValueError("There is nothing to score: no predictions.")
    if pd.isna(truth).any() or pd.isna(prediction).any():
        raise ValueError("truth and prediction must be known for every row; found empty ones.")
    return truth.astype(str), prediction.astype(str)


def confusion(truth: Sequence, prediction: Sequence) -> np.ndarray:
    """Count pairs of truth (rows) and prediction (columns): int64 (n_classes, n_classes), all that occur, sorted."""
    return confusion_matrix(*_labels(truth, prediction))


def unweighted_average_recall(truth: Sequence, prediction: Sequence) -> float:
    """Average the recalls of the classes that occur in truth, each counting the same (UAR).

    A class that is only predicted has no recall and does not count, as in scikit-learn's balanced accuracy.
    audmetric's function of this name differs: it counts such a class as a recall of 0.

    Parameters
    ----------
    truth, prediction : labels (n,)

    Returns
    -------
    float within [0, 1]; chance is 1 / number of classes

    Source: Schuller et al. 2009, The INTERSPEECH 2009 Emotion Challenge.
    """
    return float(_mean_recall(confusion(truth, prediction)))


def accuracy(truth: Sequence, prediction: Sequence) -> float:
    """Share of predictions that are right, within [0, 1]."""
    return float(accuracy_score(*_labels(truth, prediction)))


def per_class(truth: Sequence, prediction: Sequence) -> pd.DataFrame:
    """Precision, recall, F1 and number of each class that occurs in truth, as a table indexed by class."""
    truth, prediction = _labels(truth, prediction)
    classes = pd.Index(np.unique(truth), name="emotion")
    columns = precision_recall_fscore_support(truth, prediction, labels=classes, zero_division=0)
    return pd.DataFrame(dict(zip(["precision", "recall", "f1", "n"], columns, strict=True)), index=classes)


def macro_f1(truth: Sequence, prediction: Sequence) -> float:
    """Mean F1 of the classes that occur in truth, within [0, 1]."""
    return float(per_class(truth, prediction)["f1"].mean())


def _mean_recall(counts: np.ndarray) -> np.ndarray:
    """UAR of confusion matrices (..., n_classes, n_classes), over the classes that occur in each."""
    of_class = counts.sum(axis=-1)
    recall = np.diagonal(counts, axis1=-2, axis2=-1) / np.maximum(of_class, 1)
    return recall.sum(axis=-1) / np.maximum((of_class > 0).sum(axis=-1), 1)


def _confusions(table, groups, column="prediction", classes=None) -> np.ndarray:
    """One confusion matrix for each value of each column in `groups`, (n_values, …, n_classes, n_classes)."""
    classes = classes or sorted(set(table["emotion"]) | set(table[column]))
    codes = [pd.factorize(table[name], sort=True) for name in groups]
    labels = [pd.Index(classes).get_indexer(table[name]) for name in ("emotion", column)]
    shape = (*(len(values) for _, values in codes), len(classes), len(classes))
    cell = np.ravel_multi_index([*(code for code, _ in codes), *labels], shape)
    return np.bincount(cell, minlength=np.prod(shape)).reshape(shape)


def _jackknife_error(left_out: np.ndarray) -> np.ndarray:
    """Standard error from what is found when each of n speakers is left out, (..., n) -> (...)."""
    return np.sqrt((left_out.shape[-1] - 1) * left_out.var(axis=-1))


def interval_of_counts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the pooled UAR: Student's t over speakers, on the logit scale.

    The standard error is that of the jackknife, which leaves out one speaker at a time. It is taken to the logit
    scale, where the interval is symmetric and cannot leave [0, 1]. Resampling speakers (percentile bootstrap, BCa)
    gives intervals that are too narrow for few speakers; a test holds the coverage of both.

    Parameters
    ----------
    counts : int (..., n_speakers, n_classes, n_classes), confusion matrices with truth in rows

    Returns
    -------
    low, high : float (...)

    Source: Tukey 1958 for the jackknife, Efron and Tibshirani 1993, chapter 11.
    """
    pooled = counts.sum(axis=-3)
    uar, left_out = _mean_recall(pooled), _mean_recall(pooled[..., None, :, :] - counts)
    return _logit_interval(uar, _jackknife_error(left_out), counts.shape[-3] - 1)


def _logit_interval(value, error, freedom):
    inside = np.clip(value, 1e-3, 1 - 1e-3)
    reach = stats.t.ppf(0.975, freedom) * error / (inside * (1 - inside))
    low, high = (special.expit(special.logit(inside) + sign * reach) for sign in (-1, 1))
    return np.where(error > 0, low, value), np.where(error > 0, high, value)


def speaker_interval(predictions: pd.DataFrame) -> tuple[float, float]:
    """95 % interval of the pooled UAR over the speakers of a predictions table; see `interval_of_counts`.

    Parameters
    ----------
    predictions : table with speaker, emotion, prediction

    Returns
    -------
    low, high : both NaN below `FEWEST_SPEAKERS` speakers: show `speaker_scores` instead
    """
    counts = _confusions(predictions, ["speaker"])
    if len(counts) < FEWEST_SPEAKERS:
        return float("nan"), float("nan")
    low, high = interval_of_counts(counts)
    return float(low), float(high)


def speaker_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """UAR of each speaker alone: a table `speaker, n_utterances, uar`."""
    uar = _mean_recall(_confusions(predictions, ["speaker"]))
    table = predictions.groupby("speaker", sort=True)["utterance_id"].nunique().rename("n_utterances")
    return table.reset_index().assign(uar=uar)


def score_seeds(runs: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """Mean and spread of a model's UAR over its seeds, with an interval that holds speakers and seeds.

    Parameters
    ----------
    runs : one predictions table a seed, of the same speakers

    Returns
    -------
    dict of n_seeds, uar_mean, uar_sd, uar_low, uar_high. The interval's variance is the jackknife's over speakers, of
    the mean over seeds, plus the variance of that mean over seeds; its degrees of freedom are Satterthwaite's (1946).
    """
    counts = _confusions(pd.concat(runs, keys=range(len(runs)), names=["run"]).reset_index("run"), ["run", "speaker"])
    pooled, (n_seeds, n_speakers) = counts.sum(axis=1), counts.shape[:2]
    uar, left_out = _mean_recall(pooled), _mean_recall(pooled[:, None] - counts).mean(axis=0)
    mean, spread = float(uar.mean()), float(uar.std(ddof=1))
    parts = np.array([_jackknife_error(left_out) ** 2, spread**2 / n_seeds])
    low, high = np.nan, np.nan
    if n_speakers >= FEWEST_SPEAKERS and parts.sum() > 0:
        freedom = parts.sum() ** 2 / (parts**2 / [n_speakers - 1, n_seeds - 1]).sum()
        low, high = _logit_interval(mean, np.sqrt(parts.sum()), freedom)
    return {"n_seeds": n_seeds, "uar_mean": mean, "uar_sd": spread, "uar_low": float(low), "uar_high": float(high)}


def score_predictions(predictions: pd.DataFrame) -> dict[str, Any]:
    """All scores of one predictions file.

    Parameters
    ----------
    predictions : table `utterance_id, start_ms, speaker, emotion, prediction, fold` (others are ignored);
        `start_ms` given means segments

    Returns
    -------
    dict of level, n_speakers, n_utterances, uar (pooled over all folds), uar_low, uar_high (95 %, over speakers; NaN
    below `FEWEST_SPEAKERS`), uar_fold_mean, accuracy, macro_f1
    """
    truth, prediction = _labels(predictions["emotion"], predictions["prediction"])
    low, high = speaker_interval(predictions)
    table = predictions if "fold" in predictions else predictions.assign(fold=0)
    return {
        "level": "segment" if _is_segments(predictions) else "utterance",
        "n_speakers": int(predictions["speaker"].nunique()),
        "n_utterances": int(predictions["utterance_id"].nunique()),
        "uar": unweighted_average_recall(truth, prediction),
        "uar_low": low,
        "uar_high": high,
        "uar_fold_mean": float(_mean_recall(_confusions(table, ["fold"])).mean()),
        "accuracy": accuracy(truth, prediction),
        "macro_f1": macro_f1(truth, prediction),
    }


def _is_segments(predictions) -> bool:
    return "start_ms" in predictions and bool(predictions["start_ms"].notna().any())


def vote_utterances(predictions: pd.DataFrame) -> pd.DataFrame:
    """Decide for whole utterances from their segments: the emotion with the highest mean probability.

    Parameters
    ----------
    predictions : segment predictions with p_<emotion>, or without, where each segment has one vote; equal votes go
        to the emotion first in the alphabet

    Returns
    -------
    Utterance predictions of the same columns, `start_ms` empty. Utterances come back as they are.
    """
    if not _is_segments(predictions):
        return predictions
    shares = predictions.filter(regex="^p_")
    if shares.empty:
        shares = pd.get_dummies(predictions["prediction"], prefix="p", dtype=float)
    keys = ["fold", "utterance_id", "speaker", "emotion"]
    voted = shares[sorted(shares)].groupby([predictions[key] for key in keys], sort=True).mean()
    prediction = voted.idxmax(axis=1).str.removeprefix("p_")
    voted = voted.assign(prediction=prediction, start_ms=np.nan).reset_index()
    return voted[["utterance_id", "start_ms", "speaker", "emotion", "prediction", *sorted(shares), "fold"]]


def compare_paired(first: pd.DataFrame, second: pd.DataFrame, *, seed: int = 0) -> dict[str, Any]:
    """Tell how much better `first` is than `second` on the same utterances.

    Parameters
    ----------
    first, second : predictions tables; the utterances both have are compared, segments are voted on before

    Returns
    -------
    dict of n_utterances, n_speakers, difference (of UAR), low, high (95 %, Student's t with the jackknife's error over
    speakers; NaN below `FEWEST_SPEAKERS`), p (two-sided; permutation test that exchanges the two systems' answers
    speaker by speaker). All exchanges are tried for up to 12 speakers, so p is never below 2 / 2**n_speakers.

    Raises
    ------
    ValueError : if they share no utterance, disagree about the truth, or have utterances in place of speakers
    """
    first, second = (_first_answer(vote_utterances(table)) for table in (first, second))
    pairs = first.merge(second, on="utterance_id", suffixes=("", "_second"))
    if pairs.empty:
        raise ValueError("The two systems were not tested on any common utterance.")
    if (pairs["emotion"] != pairs["emotion_second"]).any():
        raise ValueError("The two systems disagree about the truth of the same utterances.")
    if (pairs["speaker"] == pairs["utterance_id"]).all():
        raise ValueError("speaker must say who speaks, for speakers are the units. Received: utterance ids")
    columns = ("prediction", "prediction_second")
    classes = sorted(set(pairs[["emotion", *columns]].to_numpy().ravel()))
    first, second = (_confusions(pairs, ["speaker"], column, classes) for column in columns)
    # as floats, whose products have fast code
    swing = np.tensordot(_exchanges(len(first), seed).astype(float), (second - first).astype(float), axes=1)
    gaps = _mean_recall(first.sum(axis=0) + swing) - _mean_recall(second.sum(axis=0) - swing)
    reach = _paired_reach(first, second)
    return {
        "n_utterances": len(pairs),
        "n_speakers": len(first),
        "difference": float(gaps[0]),
        "low": float(max(gaps[0] - reach, -1)),
        "high": float(min(gaps[0] + reach, 1)),
        "p": float(np.mean(np.abs(gaps) >= abs(gaps[0]) - 1e-12)),
    }


def _paired_reach(first, second) -> float:
    """Half the width of the interval of a difference; NaN for too few speakers."""
    if len(first) < FEWEST_SPEAKERS:
        return np.nan
    left_out = [_mean_recall(counts.sum(axis=0) - counts) for counts in (first, second)]
    return stats.t.ppf(0.975, len(first) - 1) * _jackknife_error(left_out[0] - left_out[1])


def _first_answer(predictions) -> pd.DataFrame:
    """Each utterance once: folds that test it again (repeated or nested ones) keep the first."""
    return predictions.sort_values(["fold", "utterance_id"], kind="stable").drop_duplicates("utterance_id")


def _exchanges(n_speakers, seed) -> np.ndarray:
    """Who is exchanged, (n, n_speakers) of 0 and 1; the first row exchanges nobody."""
    if n_speakers <= 12:
        return np.array(list(itertools.product([0, 1], repeat=n_speakers)))
    random = np.random.default_rng(seed).integers(0, 2, size=(9999, n_speakers))
    return np.vstack([np.zeros((1, n_speakers), dtype=int), random])


def smallest_p(n_speakers: int) -> float:
    """The least p that `compare_paired` can give."""
    return 2 / 2**n_speakers if n_speakers <= 12 else 1 / 10_000


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjust p-values for how many there are (Holm 1979). Returns float (n,), NaN where NaN was given."""
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else steps
    return adjusted


def reliability(predictions: pd.DataFrame) -> pd.DataFrame:
    """Tell how sure the system was and how often it was right, by tenths of its highest probability.

    Parameters
    ----------
    predictions : table with emotion, prediction, p_<emotion>

    Returns
    -------
    table `confidence, accuracy, n`, one row per tenth that is not empty

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    sure = predictions.filter(regex="^p_").max(axis=1).to_numpy(float)
    right = (predictions["emotion"] == predictions["prediction"]).to_numpy(float)
    place = np.minimum((sure * 10).astype(int), 9)
    table = pd.DataFrame({"confidence": sure, "accuracy": right, "n": 1}).groupby(place)
    return table.agg({"confidence": "mean", "accuracy": "mean", "n": "sum"}).reset_index(drop=True)


def expected_calibration_error(predictions: pd.DataFrame) -> float:
    """Mean gap between confidence and accuracy over the tenths of `reliability`, weighted by their size."""
    table = reliability(predictions)
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["n"]))
