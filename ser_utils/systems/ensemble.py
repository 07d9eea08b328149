"""Several systems asked at once: the mean of their probabilities, made as sure as it is right.

Members are named beforehand (ser_utils/profiles/ensemble.toml). All of them answered for speakers they had not learned
from. What is chosen here is chosen on the clips of other folds' speakers; the audit is told which, and that people chose the
members by looking at scores.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from ser_utils.evaluation.results import COSTS, Name, load_predictions, result_names
from ser_utils.evaluation.splits import audit_leakage, declare_choices, make_folds
from ser_utils.names import result_name
from ser_utils.workspace import Workspace, read_json

FEWEST_MEMBERS = 2
TEMPERATURES = (0.1, 3.0)
Members = Mapping[str, pd.DataFrame]  # predictions of each member on the same clips, by "system-model"


def find_members(
    workspace: Workspace, wanted: list[str], protocol: str, folds: str
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Read what the members of an ensemble said under a protocol.

    Parameters
    ----------
    wanted : names of models, "system-model"

    Returns
    -------
    predictions of those that were run, and the names of those that were not, both in the order of `wanted`
    """
    there = {f"{name.system}-{name.model}": name for name in result_names(workspace) if name[2:] == (protocol, folds)}
    members = {label: load_predictions(workspace, *there[label]) for label in wanted if label in there}
    return members, [label for label in wanted if label not in there]


def mean_probabilities(members: Members) -> pd.DataFrame:
    """Average what the members say of each clip.

    Parameters
    ----------
    members : predictions tables of the same clips, in any order

    Returns
    -------
    predictions table in the first member's order

    Raises
    ------
    ValueError : if a member did not decide about exactly the clips and emotions of the first
    """
    first = next(iter(members.values()))
    columns = [name for name in first if name.startswith("p_")]
    order = pd.MultiIndex.from_frame(first[["fold", "utterance_id"]])
    total = np.zeros((len(first), len(columns)))
    for label, table in members.items():
        table = table.set_index(["fold", "utterance_id"])
        if set(table.index) != set(order) or set(columns) - set(table.columns):
            raise ValueError(f"{label} decided about other clips, folds or emotions than {next(iter(members))}.")
        p = table.loc[order, columns].to_numpy(float)
        total += p / p.sum(axis=1, keepdims=True)
    return _with_probabilities(first, columns, total / len(members))


def _with_probabilities(table, columns, p):
    answers = np.array([name.removeprefix("p_") for name in columns])[p.argmax(axis=1)]
    return table.assign(prediction=answers, **dict(zip(columns, p.T, strict=True)))


def speakers_of_other_folds(folds: pd.DataFrame, fold: int) -> list[str]:
    """Clips that may choose something for a fold: those that other folds test, none of them of its own test speakers."""
    own = set(folds.loc[(folds["fold"] == fold) & (folds["role"] == "test"), "utterance_id"])
    others = folds.loc[(folds["fold"] != fold) & (folds["role"] == "test"), "utterance_id"]
    return sorted(set(others) - own)


def sharpen(
    predictions: pd.DataFrame, folds: pd.DataFrame, chosen_on: Callable = speakers_of_other_folds
) -> tuple[pd.DataFrame, dict[int, list[str]]]:
    """Make an ensemble as sure as it is right: raise each fold's probabilities to a power that fits other speakers' clips.

    The mean of several answers is less sure than each of them. The order of the emotions, and so the answer, stays.

    Parameters
    ----------
    predictions : of all folds
    chosen_on : function (folds, fold) -> ids of the clips that choose that fold's power

    Returns
    -------
    predictions, and the clips that chose, {fold: ids}, for the audit

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks (temperature).
    """
    columns = [name for name in predictions if name.startswith("p_")]
    parts, told = [], {}
    for fold, rows in predictions.groupby("fold", sort=False):
        told[fold] = chosen_on(folds, fold)
        seen = predictions[predictions["utterance_id"].isin(told[fold])]
        logarithm = np.log(np.maximum(rows[columns].to_numpy(float), 1e-9))
        parts.append(_with_probabilities(rows, columns, softmax(logarithm / _temperature(seen, columns), axis=1)))
    return pd.concat(parts), told


def _temperature(predictions, columns) -> float:
    """The temperature with the least cross-entropy."""
    if predictions.empty:
        return 1.0
    logarithm = np.log(np.maximum(predictions[columns].to_numpy(float), 1e-9))
    truth = ("p_" + predictions["emotion"]).map(columns.index).to_numpy()

    def loss(temperature):
        return -np.log(softmax(logarithm / temperature, axis=1)[np.arange(len(truth)), truth]).mean()

    return float(minimize_scalar(loss, bounds=TEMPERATURES, method="bounded").x)


def agreement(members: Members, together: pd.DataFrame) -> pd.DataFrame:
    """Tell how often the ensemble is right where so many of its members say what it says.

    Parameters
    ----------
    together : predictions of the ensemble

    Returns
    -------
    table `members_agreeing, n_utterances, share_right`
    """
    answer = together.set_index("utterance_id")["prediction"]
    said = [table.set_index("utterance_id").loc[answer.index, "prediction"] == answer for table in members.values()]
    table = pd.DataFrame({"members_agreeing": sum(part.astype(int) for part in said)})
    table["right"] = (together["prediction"] == together["emotion"]).to_numpy()
    grouped = table.groupby("members_agreeing")["right"].agg(["size", "mean"]).reset_index()
    return grouped.set_axis(["members_agreeing", "n_utterances", "share_right"], axis=1)


def evaluate(
    workspace: Workspace, table: pd.DataFrame, model: str, wanted: list[str], protocol: str, folds: str
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Ask an ensemble's members, and save their mean with its audit and its costs as `ensemble`.

    Parameters
    ----------
    table : utterance table
    model : name of the ensemble
    wanted : its members, as in `find_members`

    Returns
    -------
    predictions of the members that were run, and the names of those that were not. With fewer than FEWEST_MEMBERS
    nothing is saved.
    """
    members, missing = find_members(workspace, wanted, protocol, folds)
    if len(members) < FEWEST_MEMBERS:
        return members, missing
    split = make_folds(table, protocol, system="ensemble", folds=folds, seed=workspace.seed)
    together, told = sharpen(mean_probabilities(members), split)
    names = [Name(*label.split("-"), protocol, folds) for label in members]
    own = audit_leakage(split, table, fit={"scaler": [], "encoder": [], "augmentation": [], "selection": told})
    own = declare_choices(own, together, table, system="ensemble", model=model)
    name = {"system": "ensemble", "model": model, "protocol": protocol, "folds": folds}
    workspace.save_folds(split, system="ensemble", protocol=protocol, folds=folds)
    workspace.save_audit(_join_audits(workspace, own, names), **name)
    workspace.save_costs(_add_costs(workspace, names), **name)
    workspace.save_predictions(together, **name)
    return members, missing


def _join_audits(workspace, own, names) -> pd.DataFrame:
    """What leaks into any member leaks into the ensemble, and what one of them did not tell is unknown."""
    files = [f"audits/{result_name(*name)}" for name in names]
    audits = [workspace.load_table(file) if workspace.has_table(file) else own.assign(checked=False) for file in files]
    joined = pd.concat([own, *audits]).groupby(["fold", "kind"], sort=False)
    return joined.agg({"count": "max", "allowed": "first", "checked": "all"}).reset_index()


def _add_costs(workspace, names) -> dict[str, Any]:
    paths = [workspace.build / "costs" / f"{result_name(*name)}.json" for name in names]
    costs = [read_json(path) for path in paths if path.exists()]
    return {key: sum(cost.get(key, 0) for cost in costs) for key in COSTS}
