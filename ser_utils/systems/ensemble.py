"""Several systems asked at once: the product of their probabilities, each raised to a weight.

Members are named beforehand (ser_utils/profiles/ensemble.toml). All of them answered for speakers they had not learned
from. The weights of a fold are fitted on the clips of other folds' speakers; the audit is told which, and that people chose
the members by looking at scores.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.model_selection import GroupKFold
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from ser_utils.evaluation.results import COSTS, Name, load_predictions, result_names
from ser_utils.evaluation.splits import audit_leakage, make_folds
from ser_utils.names import result_name
from ser_utils.workspace import Workspace, read_json

FEWEST_MEMBERS = 2
LEAST = 1e-6  # a probability; no member can rule out an emotion alone
LARGEST = 3.0  # of the logarithm of their scale, and of what sets each apart
INNER_FOLDS = 5
SHRINKAGES = (1.0, 10.0, 100.0, 1000.0)  # of weights towards equal ones
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


def _log_probabilities(members: Members) -> tuple[pd.DataFrame, list[str], np.ndarray]:
    """The first member's table, its columns of probabilities, and all members' logarithms (n_members, n_clips, n_classes)."""
    first = next(iter(members.values()))
    columns = [name for name in first if name.startswith("p_")]
    order = pd.MultiIndex.from_frame(first[["fold", "utterance_id"]])
    logs = []
    for label, table in members.items():
        table = table.set_index(["fold", "utterance_id"])
        if set(table.index) != set(order) or set(columns) - set(table.columns):
            raise ValueError(f"{label} decided about other clips, folds or emotions than {next(iter(members))}.")
        p = table.loc[order, columns].to_numpy(float)
        logs.append(np.log(np.maximum(p / p.sum(axis=1, keepdims=True), LEAST)))
    return first, columns, np.stack(logs)


def speakers_of_other_folds(folds: pd.DataFrame, fold: int) -> list[str]:
    """Clips that may choose something for a fold: those that other folds test, none of them its own.

    Under protocol `speaker`, whose folds test other speakers, they are clips of other speakers.
    """
    own = set(folds.loc[(folds["fold"] == fold) & (folds["role"] == "test"), "utterance_id"])
    others = folds.loc[(folds["fold"] != fold) & (folds["role"] == "test"), "utterance_id"]
    return sorted(set(others) - own)


def pool(
    members: Members, folds: pd.DataFrame, chosen_on: Callable = speakers_of_other_folds
) -> tuple[pd.DataFrame, pd.DataFrame, dict[int, list[str]]]:
    """Ask all members at once: p(emotion) is proportional to the product of their p(emotion) ** weight.

    Both the weights and how far they may differ from each other are fitted on the clips of other folds' speakers, as
    members answered for them that had learned from this fold's speakers. Its labels have this indirect way in, as in
    any stacking without a further round of trainings.

    Parameters
    ----------
    members : predictions tables of the same clips, in any order
    folds : fold table of the protocol
    chosen_on : function (folds, fold) -> ids of the clips that a fold's weights are fitted on

    Returns
    -------
    predictions in the first member's order; the weights, one row a fold and one column a member; and the clips that
    fitted them, {fold: ids}, for the audit

    Raises
    ------
    ValueError : if a member did not decide about exactly the clips and emotions of the first

    Source: Genest and Zidek 1986, Combining Probability Distributions (logarithmic opinion pool).
    """
    first, columns, logs = _log_probabilities(members)
    truth = ("p_" + first["emotion"]).map(columns.index).to_numpy()
    speakers, weights, told = first["speaker"].to_numpy(), {}, {}
    p = np.empty(logs.shape[1:])
    for fold in first["fold"].unique():
        told[fold] = chosen_on(folds, fold)
        seen, tested = first["utterance_id"].isin(told[fold]).to_numpy(), (first["fold"] == fold).to_numpy()
        with threadpool_limits(1):  # these products are small: more threads only wait for each other
            weights[fold] = _choose_weights(logs[:, seen], truth[seen], speakers[seen])
        p[tested] = softmax(np.tensordot(weights[fold], logs[:, tested], 1), axis=1)
    answers = np.array([name.removeprefix("p_") for name in columns])[p.argmax(axis=1)]
    pooled = first.assign(prediction=answers, **dict(zip(columns, p.T, strict=True)))
    return pooled, pd.DataFrame(weights, index=list(members)).T.rename_axis("fold"), told


def weigh(members: Members) -> pd.Series:
    """Fit the weights of members on all clips they answered for: those for a voice that no fold has, by member."""
    first, columns, logs = _log_probabilities(members)
    truth = ("p_" + first["emotion"]).map(columns.index).to_numpy()
    with threadpool_limits(1):
        return pd.Series(_choose_weights(logs, truth, first["speaker"].to_numpy()), list(members))


def _choose_weights(logs, truth, speakers):
    """Weights (n_members,): as equal as they may be within one standard error of the least loss on speakers left out.

    Of all shrinkages whose loss is within one standard error, over speakers, of the best one's, the largest is taken.
    Source: Breiman et al. 1984, Classification and Regression Trees (the rule of one standard error).
    """
    if len(np.unique(speakers)) < 2:
        return fit_weights(logs, truth, SHRINKAGES[-1])
    losses = np.array([_losses_of_speakers(logs, truth, speakers, shrinkage) for shrinkage in SHRINKAGES])
    excess = losses - losses[losses.sum(axis=1).argmin()]
    allowed = np.sqrt(excess.shape[1]) * excess.std(axis=1, ddof=1)
    return fit_weights(logs, truth, max(np.array(SHRINKAGES)[excess.sum(axis=1) <= allowed]))


def _losses_of_speakers(logs, truth, speakers, shrinkage):
    """Cross-entropy of each speaker's clips by weights that were fitted on other speakers' (n_speakers,)."""
    balance, losses = compute_sample_weight("balanced", truth), np.zeros(len(truth))
    parts = GroupKFold(min(INNER_FOLDS, len(np.unique(speakers)))).split(truth, groups=speakers)
    for learned, left_out in parts:
        weights = fit_weights(logs[:, learned], truth[learned], shrinkage)
        said = log_softmax(np.tensordot(weights, logs[:, left_out], 1), axis=1)
        losses[left_out] = -balance[left_out] * said[np.arange(len(left_out)), truth[left_out]]
    return pd.Series(losses).groupby(speakers).sum().to_numpy()


def fit_weights(logs: np.ndarray, truth: np.ndarray, shrinkage: float) -> np.ndarray:
    """Fit the weights of members to what was expressed: the least cross-entropy, classes counting equally.

    Parameters
    ----------
    logs : (n_members, n_clips, n_classes), logarithms of the members' probabilities
    truth : (n_clips,), classes
    shrinkage : price of the squared differences between the logarithms of the weights

    Returns
    -------
    (n_members,), positive; equal ones that sum to 1 if there are no clips
    """
    n_members, n_clips, n_classes = logs.shape
    if not n_clips:
        return np.full(n_members, 1 / n_members)
    balance, expressed = compute_sample_weight("balanced", truth), np.eye(n_classes)[truth]

    def loss(parameters):
        scale, apart = parameters[0], parameters[1:] - parameters[1:].mean()
        weights = np.exp(scale + apart) / n_members
        said = log_softmax(np.tensordot(weights, logs, 1), axis=1)
        of_logits = balance[:, None] * (np.exp(said) - expressed)
        of_weights = np.tensordot(logs, of_logits, 2) * weights
        slope = of_weights - of_weights.mean() + 2 * shrinkage * apart
        value = -(balance[:, None] * expressed * said).sum() + shrinkage * (apart**2).sum()
        return value, np.concatenate([[of_weights.sum()], slope])

    bounds = [(-LARGEST, LARGEST)] * (n_members + 1)
    fitted = minimize(loss, np.zeros(n_members + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return np.exp(fitted[0] + fitted[1:] - fitted[1:].mean()) / n_members


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


def evaluate_ensemble(
    workspace: Workspace, table: pd.DataFrame, model: str, wanted: list[str], protocol: str, folds: str
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Ask an ensemble's members, and save what they say together with its audit, weights and costs as `ensemble`.

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
    pooled, weights, told = pool(members, split)
    names = [Name(*label.split("-"), protocol, folds) for label in members]
    fitted = {"scaler": [], "encoder": [], "augmentation": [], "selection": told}
    own = audit_leakage(split, table, fit=fitted, system="ensemble", model=model)
    name = {"system": "ensemble", "model": model, "protocol": protocol, "folds": folds}
    workspace.save_folds(split, system="ensemble", protocol=protocol, folds=folds)
    workspace.save_audit(_join_audits(workspace, own, names), **name)
    workspace.save_costs(_add_costs(workspace, names), **name)
    workspace.save_predictions(pooled, **name)
    workspace.save_table(weights.reset_index(), f"ensemble_{model}_weights")
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
