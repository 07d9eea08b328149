"""How many unlabelled clips of a new speaker does it take? UAR against their number, and against what they express."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_utils.evaluation import metrics
from ser_utils.systems.adaptation import SpeakerModel, fit_for_known
from ser_utils.systems.baselines import probabilities

CHOICES = ("random", "neutral", "neutral_told", "lopsided")
QUIET = ("neutral", "calm")
LOPSIDED_SHARE = 0.8  # of the known clips that express one emotion
COLUMNS = ("known", "n_known", "n_draws", "uar", "uar_low", "uar_high", "uar_sd")


def draw_clips(emotions: np.ndarray, choice: str, n_known: int, rng: np.random.Generator) -> np.ndarray | None:
    """Draw the known clips of one speaker.

    Parameters
    ----------
    emotions : (n_clips,), what each clip of the speaker expresses: who records somebody knows whether it was neutral
    choice : "random"; "neutral" and "neutral_told", which include calm; or "lopsided", of which four fifths express one
        emotion

    Returns
    -------
    int (n_known,), places; None where the speaker has not enough such clips

    Raises
    ------
    ValueError : for another choice
    """
    if choice not in CHOICES:
        raise ValueError(f"choice must be one of {', '.join(CHOICES)}. Received: choice={choice!r}")
    order = rng.permutation(len(emotions))
    if choice.startswith("neutral"):
        order = order[np.isin(emotions[order], QUIET)]
    if choice == "lopsided":
        n_same = int(np.ceil(LOPSIDED_SHARE * n_known))
        names, counts = np.unique(emotions, return_counts=True)
        if not (counts >= n_same).any():
            return None
        is_same = emotions[order] == rng.choice(names[counts >= n_same])
        order = np.concatenate([order[is_same][:n_same], order[~is_same]])
    return order[:n_known] if len(order) >= n_known else None


def adaptation_curve(
    feature_sets: Mapping[str, np.ndarray],
    table: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    counts: list[int],
    draws: int,
    seed: int = 0,
    build: Callable[[], Any] | None = None,
) -> pd.DataFrame:
    """Measure UAR on new speakers when so many of their clips are known without labels.

    Tested are the clips that are not known, or all where all are known. The answer is the mean of one
    classifier for each set of features, trained for that number of known clips (`fit_for_known`). In the choice
    "neutral_told" it is told that the clips are neutral: its training speakers were known by neutral clips, too.

    Parameters
    ----------
    feature_sets : (n_utterances, n_features) each, in the order of `table`
    table : utterance table; folds : speaker-independent fold table
    counts : numbers of known clips; all of a speaker's clips are added as the last
    draws : of the known clips; the interval holds draws and speakers
    build : makes a classifier of scikit-learn; None is an RBF SVC as it is by default

    Returns
    -------
    table of COLUMNS: `known` is one of CHOICES, or "all"; a choice that some speaker has not enough clips for is left out
    """
    speakers = (table["corpus"] + "/" + table["speaker"]).to_numpy()
    rows = []
    for n_known in [*counts, None]:
        about = (feature_sets, table, speakers, folds, n_known, seed, build or _svc)
        models, told = _fit_folds(*about), None
        for choice in CHOICES if n_known else CHOICES[:1]:
            if choice == "neutral_told" and rows[-1][:2] == ("neutral", n_known):
                told = _fit_folds(*about, eligible=table["emotion"].isin(QUIET).to_numpy())
            asked = models if choice != "neutral_told" else told
            draw_numbers = range(draws if n_known else 1)
            runs = [asked and _predict(feature_sets, asked, table, speakers, choice, n_known, i) for i in draw_numbers]
            if runs[0] is not None:
                rows.append(_row(choice, n_known, runs, table))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _fit_folds(feature_sets, table, speakers, folds, n_known, seed, build, eligible=None):
    """[(places of the test clips, {set: SpeakerModel})], one per fold."""
    place, models = pd.Series(np.arange(len(table)), index=table["utterance_id"]), []
    for _, fold in folds.groupby("fold"):
        is_test = fold["role"] == "test"
        train, test = (place.loc[fold.loc[side, "utterance_id"]].to_numpy() for side in (~is_test, is_test))
        about = (speakers[train], table["emotion"].to_numpy()[train], n_known)
        drawn = {"seed": seed, "eligible": None if eligible is None else eligible[train]}
        fitted = {name: fit_for_known(build(), x[train], *about, **drawn) for name, x in feature_sets.items()}
        models.append((test, fitted))
    return models


def _svc():
    # a kernel of scikit-learn's own is a product of matrices, and many times as fast as libsvm's for long vectors
    return make_pipeline(StandardScaler(), SVC(kernel=rbf_kernel))


def _predict(feature_sets, models, table, speakers, choice, n_known, draw):
    """Predictions on the test clips of every fold; None where a speaker has too few clips of that choice."""
    emotions, tested = table["emotion"].to_numpy(), []
    for test, fitted in models:
        for speaker in sorted(set(speakers[test])):
            clips = test[speakers[test] == speaker]
            known = clips
            if n_known is not None:
                rng = np.random.default_rng(
                    [zlib.crc32(f"{choice.removesuffix('_told')}/{speaker}".encode()), n_known, draw]
                )
                drawn = draw_clips(emotions[clips], choice, n_known, rng)
                if drawn is None or len(drawn) == len(clips):
                    return None
                known = clips[drawn]
            asked = clips if n_known is None else np.setdiff1d(clips, known)
            p = np.mean([_ask(model, feature_sets[name], asked, known) for name, model in fitted.items()], axis=0)
            classes = next(iter(fitted.values())).classifier.classes_
            tested.append(
                table.iloc[asked][["utterance_id", "speaker", "emotion"]].assign(prediction=classes[p.argmax(1)])
            )
    return pd.concat(tested, ignore_index=True)


def _ask(model: SpeakerModel, features, asked, known):
    return probabilities(model.classifier, model.adapted(features[asked], features[known]))


def _row(choice, n_known, runs, table):
    if n_known is None:
        n_known = int(table.groupby(["corpus", "speaker"]).size().median())
        choice = "all"
    if len(runs) > 1:
        scored = metrics.score_seeds(runs)
        return choice, n_known, len(runs), *(scored[name] for name in ("uar_mean", "uar_low", "uar_high", "uar_sd"))
    scored = metrics.score_predictions(runs[0].assign(fold=0))
    return choice, n_known, 1, scored["uar"], scored["uar_low"], scored["uar_high"], 0.0


def clips_needed(curve: pd.DataFrame) -> int | None:
    """The fewest random clips with which UAR is better than with none, for every number from there on; None if never."""
    drawn = curve[curve["known"] == "random"].sort_values("n_known")
    without = drawn.loc[drawn["n_known"] == 0, "uar"].max()
    worse = drawn.loc[(drawn["n_known"] > 0) & (drawn["uar"] <= without), "n_known"]
    better = drawn.loc[drawn["n_known"] > (worse.max() if len(worse) else 0), "n_known"]
    return int(better.min()) if len(better) else None
