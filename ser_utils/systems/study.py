"""A system's models under its protocols: folds, training, audit, saving and scores, as notebooks want them."""

from typing import Any

import pandas as pd

from ser_utils.evaluation.metrics import score_predictions
from ser_utils.evaluation.splits import FITTED, audit_leakage, leaks_beyond, make_all_folds
from ser_utils.tables import CorpusError
from ser_utils.training.folds import FoldTask, run_folds, save_result, tasks_of
from ser_utils.workspace import Workspace

Results = dict[tuple[str, str], dict[str, Any]]  # (model, protocol) -> what `run_folds` gives, and its audit
COST_COLUMNS = {"weights": "parameters", "seconds": "seconds_to_train"}
SCORES = ("uar", "uar_low", "uar_high", "uar_fold_mean", "accuracy", "macro_f1")


def make_system_folds(
    workspace: Workspace, table: pd.DataFrame, system: str, settings: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """Make and save a system's folds under each of settings["protocols"] that the corpus allows.

    Protocols that it does not allow are printed with the reason. settings["<protocol>_folds"], where there is
    one, is the number of folds that are kept, the first ones; 0 keeps all.

    Parameters
    ----------
    table : utterance table

    Returns
    -------
    dict protocol -> fold table

    Raises
    ------
    CorpusError : if the corpus has too few recordings even for `utterance`, and for all protocols beside `paper`
    """
    folds, impossible = make_all_folds(table, None, settings["protocols"], system=system, seed=workspace.seed)
    if "utterance" in impossible and not set(folds) - {"paper"}:
        raise CorpusError(
            f"{len(table)} recordings of {table['emotion'].nunique()} emotions and {table['speaker'].nunique()} speakers are "
            f"too few to train {system} and to test it on others. {impossible['utterance']}"
        )
    for protocol, reason in impossible.items():
        print(f"{system}: {protocol} is left out: {reason}")
    folds = {name: _first_folds(rows, settings.get(f"{name}_folds", 0)) for name, rows in folds.items()}
    for protocol, rows in folds.items():
        workspace.save_folds(rows, system=system, protocol=protocol, folds=rows.attrs["folds"])
    return folds


def _first_folds(folds, limit):
    n_folds = folds["fold"].nunique()
    if not limit or limit >= n_folds:
        return folds
    first = folds[folds["fold"].isin(sorted(folds["fold"].unique())[:limit])].reset_index(drop=True)
    first.attrs = folds.attrs | {"folds": f"{limit}_of_{folds.attrs['folds']}"}
    return first


def describe_folds(folds: dict[str, pd.DataFrame], table: pd.DataFrame) -> pd.DataFrame:
    """One row per protocol: how many models, the share of all clips one learns from, and what folds share."""
    rows = {}
    for protocol, split in folds.items():
        n_models = split["fold"].nunique()
        rows[protocol] = {
            "folds": split.attrs["folds"],
            "models": n_models,
            "learned_from": (split["role"] == "train").sum() / n_models / len(table),
            "leaks beyond its promise": leaks_beyond(_audit_of_split(split, table), protocol),
            "notes": "; ".join(split.attrs["notes"]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("protocol")


def _audit_of_split(split, table):
    """What a split itself shares, before anything is trained on it."""
    nothing_yet = dict.fromkeys(FITTED, ())
    return audit_leakage(split, table, fit=nothing_yet | split.attrs.get("fit", {}))


def strictest(folds: dict[str, pd.DataFrame]) -> str:
    """The protocol that keeps most apart: `speaker`, or `utterance` where there is one speaker."""
    return next(protocol for protocol in ("speaker", "utterance", *folds) if protocol in folds)


def train_models(
    workspace: Workspace,
    table: pd.DataFrame,
    folds: dict[str, pd.DataFrame],
    models: dict[str, FoldTask],
    *,
    main: str | None = None,
    elsewhere: list[str] | None = None,
    save: bool = True,
    **running: Any,
) -> Results:
    """Train, test, audit and save a system's models, one network per model, protocol and fold.

    Parameters
    ----------
    table : utterance table; folds : of `make_system_folds`
    models : the task of each model, without its fold
    main, elsewhere : under other protocols than `main` only the models `elsewhere` are trained; None is all
    save : whether the workspace keeps what was predicted, for the comparison to read
    running : options of `run_folds`: title, jobs, engine

    Returns
    -------
    dict (model, protocol) -> dict as `run_folds` gives it, with `audit`
    """
    plan = {
        (name, protocol): tasks_of(task, split, protocol)
        for name, task in models.items()
        for protocol, split in folds.items()
        if elsewhere is None or protocol == main or name in elsewhere
    }
    results = run_folds(plan, **running)
    return {
        (model, protocol): save_audited(workspace, table, folds[protocol], result, model=model, save=save)
        for (model, protocol), result in results.items()
    }


def save_audited(
    workspace: Workspace,
    table: pd.DataFrame,
    folds: pd.DataFrame,
    result: dict[str, Any],
    *,
    model: str,
    save: bool = True,
) -> dict[str, Any]:
    """The result with its audit, saved for the comparison.

    The audit is of what the training code recorded, and of what people chose by looking at scores.
    """
    name = {key: folds.attrs[key] for key in ("system", "protocol", "folds")}
    audit = audit_leakage(folds, table, fit=result["learned_from"], system=name["system"], model=model)
    if save:
        save_result(workspace, result, audit, model=model, **name)
    return result | {"audit": audit}


def score_results(results: Results) -> pd.DataFrame:
    """One row per model and protocol: scores with intervals, weights, seconds of training, and leaks."""
    rows = []
    for (model, protocol), result in results.items():
        measured = score_predictions(result["predictions"])
        rows.append(
            {"model": model, "protocol": protocol}
            | {key: measured[key] for key in SCORES}
            | {column: result[key] for column, key in COST_COLUMNS.items() if key in result}
            | {"leaks": leaks_beyond(result["audit"], protocol)}
        )
    return pd.DataFrame(rows)


def first_histories(results: Results, protocol: str | None = None) -> tuple[dict, dict]:
    """Histories of each model's first fold, and the epochs kept, as `figures.networks.learning_curves` takes them.

    protocol : None is all, and names them
    """
    shown = {
        model if protocol else f"{model} {name}": result
        for (model, name), result in results.items()
        if result["histories"] and protocol in (None, name)
    }
    histories = {name: result["histories"][0] for name, result in shown.items()}
    return histories, {name: result["kept"][0] for name, result in shown.items()}
