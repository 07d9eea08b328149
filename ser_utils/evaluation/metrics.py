"""Scores from predictions alone: recall by class first, with errors that respect who speaks.

Truth and prediction come first, as arrays of labels. Utterances of one speaker are not independent, so
intervals and tests resample speakers, not utterances.
"""

import itertools

import numpy as np
import pandas as pd

FEWEST_SPEAKERS = 5  # below, an interval over speakers is shown but says little
TOO_FEW = f"fewer than {FEWEST_SPEAKERS} speakers: the interval is not to be trusted"


def _labels(truth, prediction):
    truth, prediction = np.asarray(truth, dtype=object), np.asarray(prediction, dtype=object)
    if truth.shape != prediction.shape or truth.ndim != 1:
        raise ValueError(
            f"truth and prediction must be equally long. Received: {truth.shape}, {prediction.shape}"
        )
    if not len(truth):
        raise ValueError("There is nothing to score: no predictions.")
    if pd.isna(truth).any() or pd.isna(prediction).any():
        raise ValueError("truth and prediction must be known for every row; found empty ones.")
    return truth, prediction


def confusion(truth, prediction, classes=None):
    """Count pairs of truth (rows) and prediction (columns).

    classes : order of labels; None is all that occur, sorted
    Returns int64 (n_classes, n_classes). Raises ValueError for a label that is not among `classes`.
    """
    truth, prediction = _labels(truth, prediction)
    classes = sorted(set(truth) | set(prediction)) if classes is None else list(classes)
    if strange := (set(truth) | set(prediction)) - set(classes):
        raise ValueError(f"Labels must be among {classes}. Received: {sorted(strange)}")
    row, column = (pd.Index(classes).get_indexer(labels) for labels in (truth, prediction))
    cell = row * len(classes) + column
    return np.bincount(cell, minlength=len(classes) ** 2).reshape(len(classes), len(classes))


def _mean_recall(counts):
    """UAR of confusion matrices (..., n_classes, n_classes), over the classes that occur in each."""
    of_class = counts.sum(axis=-1)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    recall = hits / np.maximum(of_class, 1)
    return recall.sum(axis=-1) / np.maximum((of_class > 0).sum(axis=-1), 1)


def unweighted_average_recall(truth, prediction):
    """Mean of the recalls of the classes that occur in truth, each counting the same (UAR).

    truth, prediction : labels (n,). Returns a float within [0, 1]; chance is 1 / number of classes.
    Source: Schuller et al., The INTERSPEECH 2009 Emotion Challenge.
    """
    return float(_mean_recall(confusion(truth, prediction)))


def accuracy(truth, prediction):
    """Share of predictions that are right."""
    truth, prediction = _labels(truth, prediction)
    return float(np.mean(truth == prediction))


def per_class(truth, prediction):
    """Precision, recall, F1 and number of each class that occurs in truth, as a table indexed by class."""
    classes = sorted(set(truth) | set(prediction))
    counts = confusion(truth, prediction, classes)
    hits, predicted, occurring = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    table = pd.DataFrame(
        {
            "precision": hits / np.maximum(predicted, 1),
            "recall": hits / np.maximum(occurring, 1),
            "f1": 2 * hits / np.maximum(predicted + occurring, 1),
            "n": occurring,
        },
        index=pd.Index(classes, name="emotion"),
    )
    return table[table["n"] > 0]


def macro_f1(truth, prediction):
    """Mean F1 of the classes that occur in truth."""
    return float(per_class(truth, prediction)["f1"].mean())


def _by_speaker(predictions, column="prediction"):
    """One confusion matrix per speaker, (n_speakers, n_classes, n_classes)."""
    classes = sorted(set(predictions["emotion"]) | set(predictions[column]))
    groups = predictions.groupby("speaker", sort=True)
    return np.stack([confusion(rows["emotion"], rows[column], classes) for _, rows in groups])


def bootstrap_interval(predictions, *, n_resamples=2000, confidence=0.95, seed=0):
    """Interval of the pooled UAR when speakers are drawn anew, with replacement (percentile bootstrap).

    predictions : table with speaker, emotion, prediction
    Returns (low, high); both NaN for a single speaker. See `TOO_FEW` for what few speakers mean.
    """
    counts = _by_speaker(predictions)
    if len(counts) < 2:
        return float("nan"), float("nan")
    drawn = _resamples(len(counts), n_resamples, seed)
    uar = _mean_recall(np.tensordot(drawn, counts, axes=1))
    tail = (1 - confidence) / 2
    return tuple(float(x) for x in np.quantile(uar, [tail, 1 - tail]))


def _resamples(n, times, seed):
    """How often each of n speakers is drawn, (times, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=times)


def score_predictions(predictions, *, n_resamples=2000, seed=0):
    """All scores of one predictions file.

    predictions : table `utterance_id, start_ms, speaker, emotion, prediction, fold` (others are ignored);
        `start_ms` given means segments
    Returns a dict: level, n_speakers, n_utterances, uar (pooled over all folds), uar_low, uar_high (95 %, by
    bootstrap over speakers), uar_fold_mean, accuracy, macro_f1.
    """
    truth, prediction = _labels(predictions["emotion"], predictions["prediction"])
    low, high = bootstrap_interval(predictions, n_resamples=n_resamples, seed=seed)
    folds = predictions.groupby("fold") if "fold" in predictions else [(0, predictions)]
    return {
        "level": "segment" if _is_segments(predictions) else "utterance",
        "n_speakers": int(predictions["speaker"].nunique()),
        "n_utterances": int(predictions["utterance_id"].nunique()),
        "uar": unweighted_average_recall(truth, prediction),
        "uar_low": low,
        "uar_high": high,
        "uar_fold_mean": float(
            np.mean([unweighted_average_recall(rows["emotion"], rows["prediction"]) for _, rows in folds])
        ),
        "accuracy": accuracy(truth, prediction),
        "macro_f1": macro_f1(truth, prediction),
    }


def _is_segments(predictions):
    return "start_ms" in predictions and bool(predictions["start_ms"].notna().any())


def vote_utterances(predictions):
    """Decide for whole utterances from their segments: the emotion with the highest mean probability.

    predictions : segment predictions with p_<emotion>, or without, where each segment has one vote; equal
        votes go to the emotion first in the alphabet
    Returns utterance predictions of the same columns, `start_ms` empty. Utterances come back as they are.
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


def compare_paired(first, second, *, n_resamples=2000, seed=0):
    """How much better `first` is than `second` on the same utterances.

    first, second : predictions tables; utterances both have are compared, segments are voted on before
    Returns a dict: n_utterances, n_speakers, difference (of UAR), low, high (95 %, paired bootstrap over
    speakers), p (two-sided; permutation test that exchanges the two systems' answers speaker by speaker). All
    exchanges are tried for up to 12 speakers, so p is never below 2 / 2**n_speakers.
    Raises ValueError if they share no utterance or disagree about the truth.
    """
    first, second = (_one_answer(vote_utterances(table)) for table in (first, second))
    both = first.merge(second, on="utterance_id", suffixes=("", "_second"))
    if both.empty:
        raise ValueError("The two systems were not tested on any common utterance.")
    if (both["emotion"] != both["emotion_second"]).any():
        raise ValueError("The two systems disagree about the truth of the same utterances.")
    classes = sorted(set(both["emotion"]) | set(both["prediction"]) | set(both["prediction_second"]))
    groups = [rows for _, rows in both.groupby(["speaker"], sort=True)]
    one, two = (
        np.stack([confusion(rows["emotion"], rows[column], classes) for rows in groups])
        for column in ("prediction", "prediction_second")
    )
    drawn = _resamples(len(groups), n_resamples, seed)
    differences = _mean_recall(np.tensordot(drawn, one, axes=1)) - _mean_recall(
        np.tensordot(drawn, two, axes=1)
    )
    low, high = np.quantile(differences, [0.025, 0.975]) if len(groups) > 1 else (np.nan, np.nan)
    exchanged = _exchanges(len(groups), seed)
    swing = np.tensordot(exchanged, two - one, axes=1)
    gaps = _mean_recall(one.sum(axis=0) + swing) - _mean_recall(two.sum(axis=0) - swing)
    return {
        "n_utterances": len(both),
        "n_speakers": len(groups),
        "difference": float(gaps[0]),
        "low": float(low),
        "high": float(high),
        "p": float(np.mean(np.abs(gaps) >= abs(gaps[0]) - 1e-12)),
    }


def _one_answer(predictions):
    """Each utterance once: folds that test it again (repeated or nested ones) keep the first."""
    return predictions.sort_values(["fold", "utterance_id"], kind="stable").drop_duplicates("utterance_id")


def _exchanges(n_speakers, seed):
    """Who is exchanged, (n, n_speakers) of 0 and 1; the first row exchanges nobody."""
    if n_speakers <= 12:
        return np.array(list(itertools.product([0, 1], repeat=n_speakers)))
    random = np.random.default_rng(seed).integers(0, 2, size=(9999, n_speakers))
    return np.vstack([np.zeros((1, n_speakers), dtype=int), random])


def smallest_p(n_speakers):
    """The least p that `compare_paired` can give."""
    return 2 / 2**n_speakers if n_speakers <= 12 else 1 / 10_000


def holm(p_values):
    """Adjust p-values for how many there are (Holm 1979). Returns float (n,), NaN where NaN was given."""
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else steps
    return adjusted


def reliability(predictions, *, bins=10):
    """How sure the system was and how often it was right, by bins of its highest probability.

    predictions : table with p_<emotion>. Returns a table `confidence, accuracy, n`, one row per bin that is
    not empty. Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    sure = predictions.filter(regex="^p_").max(axis=1).to_numpy(float)
    right = (predictions["emotion"] == predictions["prediction"]).to_numpy(float)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    table = pd.DataFrame({"confidence": sure, "accuracy": right, "n": 1}).groupby(place)
    return table.agg({"confidence": "mean", "accuracy": "mean", "n": "sum"}).reset_index(drop=True)


def expected_calibration_error(predictions, *, bins=10):
    """Mean gap between confidence and accuracy over the bins of `reliability`, weighted by their size."""
    table = reliability(predictions, bins=bins)
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["n"]))
