"""Models carried from corpus to corpus: classical features with an SVC, and the networks of 05."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.evaluation.across import LABEL, Crossed, Crossing, by_crossing, cross_folds, training_sets
from ser_utils.evaluation.metrics import score_predictions
from ser_utils.evaluation.splits import make_folds
from ser_utils.systems.baselines import cross_validate
from ser_utils.training.folds import FoldTask, clip_scale, run_folds, tasks_of
from ser_utils.workspace import Workspace


@dataclass(frozen=True)
class OnOwnScale(FoldTask):
    """A network whose clips are brought to the scale of their own corpus, test clips included; no label is used."""

    def scale(self, clips, table):
        return clip_scale(clips, table, "corpus", np.ones(len(clips), bool))

    def learned_from(self, data):
        return super().learned_from(data) | {"scaler": ["train", "validation", "test"]}


def standardise_groups(features: np.ndarray, groups: Iterable[str]) -> np.ndarray:
    """Bring every group to zero mean and unit deviation in each feature, float (n, n_features).

    It uses no label, but all clips of a group, those of its test part too.
    """
    mean, deviation = _moments(features, groups)
    return (features - mean) / deviation


def wear_statistics(features: np.ndarray, groups: Iterable[str], other: str) -> np.ndarray:
    """Give every clip the mean and deviation of the group `other`, in place of its own group's."""
    groups = np.asarray(groups)
    mean, deviation = _moments(features, groups)
    row = np.flatnonzero(groups == other)[0]
    return (features - mean) / deviation * deviation[row] + mean[row]


def _moments(features, groups):
    groups, features = np.asarray(groups), np.asarray(features, np.float64)
    mean, deviation = np.empty_like(features), np.empty_like(features)
    for group in np.unique(groups):
        members = groups == group
        mean[members], deviation[members] = features[members].mean(axis=0), features[members].std(axis=0) + 1e-9
    return mean, deviation


def cross_features(
    features: np.ndarray, table: pd.DataFrame, model: str, *, folds: str = "5_speakers", seed: int = 0
) -> Crossed:
    """Train and test an SVC from every training set on every corpus, without normalisation and with.

    Parameters
    ----------
    features : (n_utterances, n_features) in the order of table
    table : utterance table of several corpora, with emotions that all have
    model : the name of the result
    folds : of speakers, see `across.cross_folds`
    """
    heard, crossed = {"none": features, "corpus": standardise_groups(features, table["corpus"])}, {}
    for trained_on in training_sets(table["corpus"]):
        split = cross_folds(table, trained_on, folds=folds, seed=seed)
        for normalised, values in heard.items():
            predictions, _ = cross_validate(values, table, split)
            tested = by_crossing(predictions, table, trained_on)
            crossed |= {(model, normalised, crossing): rows for crossing, rows in tested.items()}
    return crossed


def wear_other_recordings(
    features: np.ndarray, table: pd.DataFrame, model: str, *, folds: str = "5_speakers", seed: int = 0
) -> dict[tuple[str, Crossing], pd.DataFrame]:
    """Test each corpus's own models on its clips in the statistics of each other corpus, as `measure_losses` takes it."""
    worn, corpora = {}, table["corpus"].unique()
    for target, source in itertools.permutations(corpora, 2):
        split = make_folds(table[table["corpus"] == target], "speaker", folds=folds, seed=seed)
        changed = wear_statistics(features, table["corpus"], source)
        predictions, _ = cross_validate(features, table, split, test_features=changed)
        worn[model, Crossing((source,), target)] = predictions
    return worn


def tell_corpora(features: np.ndarray, table: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """Tell how well the corpus itself is recognised from features, of speakers not heard before.

    Parameters
    ----------
    folds : speaker-independent fold table of all corpora

    Returns
    -------
    table `normalised, uar, uar_low, uar_high, chance`, a row for each of NORMALISED
    """
    asked = table.assign(emotion=table["corpus"])
    heard, rows = {"none": features, "corpus": standardise_groups(features, table["corpus"])}, []
    for normalised, values in heard.items():
        scores = score_predictions(cross_validate(values, asked, folds)[0])
        rows.append({"normalised": normalised} | {key: scores[key] for key in ("uar", "uar_low", "uar_high")})
    return pd.DataFrame(rows).assign(chance=1 / table["corpus"].nunique())


def cross_network(
    table: pd.DataFrame, task: FoldTask, model: str, *, folds: str = "5_speakers", **running: Any
) -> Crossed:
    """Train and test a network of frames from every training set on every corpus, without normalisation and with.

    Parameters
    ----------
    table : utterance table of several corpora, with emotions that all have
    task : the network, without its fold
    model : the name of the result
    folds : of speakers, see `across.cross_folds`
    running : options of `run_folds`
    """
    plan = {}
    for trained_on in training_sets(table["corpus"]):
        split = cross_folds(table, trained_on, folds=folds, seed=task.seed)
        for normalised, kind in {"none": FoldTask, "corpus": OnOwnScale}.items():
            carried = kind(**vars(task) | {"name": f"{task.name}-{normalised}"})
            plan[normalised, trained_on] = tasks_of(carried, split, split.attrs["folds"])
    crossed = {}
    for (normalised, trained_on), result in run_folds(plan, **running).items():
        tested = by_crossing(result["predictions"], table, trained_on)
        crossed |= {(model, normalised, crossing): rows for crossing, rows in tested.items()}
    return crossed


def save_crossed(workspace: Workspace, crossed: Crossed, name: str) -> None:
    """Keep what models said under every crossing, for another notebook."""
    parts = []
    for (model, normalised, crossing), predictions in crossed.items():
        about = {"trained_on": "+".join(crossing.trained_on), "tested_on": crossing.tested_on}
        parts.append(predictions.assign(model=model, normalised=normalised, **about))
    workspace.save_table(pd.concat(parts, ignore_index=True), name)


def load_crossed(workspace: Workspace, name: str, *, made_by: str) -> Crossed:
    """Read what `save_crossed` kept; raises MissingResult where it is absent."""
    table = workspace.load_table(name, made_by=made_by)
    groups = table.groupby(LABEL, sort=False)
    return {
        (model, normalised, Crossing(tuple(trained_on.split("+")), tested_on)): rows.reset_index(drop=True)
        for (model, normalised, trained_on, tested_on), rows in groups
    }
