"""Trainings at the published sizes that ran on an accelerator: what of them ships, and the table that follows from it.

A folder holds provenance.json, histories.csv and a table of predictions per model and protocol, named as in
`names.result_name`; its fold is the draw of a split, or the fold. What baselines say of the same draws lies beside.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from ser_utils.evaluation.metrics import accuracy, score_predictions
from ser_utils.workspace import read_json

BESIDE = ("loudness", "mfcc")  # baselines
TABLE = "07_published_sizes"  # of CNN-n-GRU; its name in results/<dataset>
TABLES = {"cnn_n_gru": TABLE, "sigwavnet": "07_published_sigwavnet"}


def read_histories(folder: Path) -> pd.DataFrame:
    """Read the epochs of every training: a table `model, protocol, fold, epoch, loss, uar, val_loss, …`."""
    return pd.read_csv(folder / "histories.csv")


def read_decisions(folder: Path) -> dict[tuple[int, str], pd.DataFrame]:
    """Read CNN-n-GRU's answers for every test clip: (n, protocol) -> predictions, the largest network first."""
    trained = read_json(folder / "provenance.json")["models"]
    paths = {path: path.stem.split("-") for path in folder.glob("cnn_n_gru-*.parquet")}
    keys = {path: (trained[model]["settings"]["n"], protocol) for path, (_, model, protocol, _) in paths.items()}
    ordered = sorted(keys, key=lambda path: (keys[path][1], -keys[path][0]))
    return {keys[path]: pd.read_parquet(path) for path in ordered}


def baseline_path(folder: Path, model: str, system: str) -> Path:
    """Say where the answers of a baseline lie, for the draws of `paper` that a system's networks were tested on."""
    return folder / f"baseline-{model}-paper-{system}.parquet"


def published_tables(folder: Path, scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Make all tables of TABLES, by the name they are saved under; those without rows are left out.

    Parameters
    ----------
    folder, scores : as in `summarise_published_sizes`
    """
    tables = {name: summarise_published_sizes(folder, scores, system) for system, name in TABLES.items()}
    return {name: table for name, table in tables.items() if not table.empty}


def summarise_published_sizes(folder: Path, scores: pd.DataFrame, system: str = "cnn_n_gru") -> pd.DataFrame:
    """Score what ships from an accelerator, the largest network first.

    Parameters
    ----------
    folder : see the module
    scores : as `gather_scores` gives it, for the baselines beside those for new speakers
    system : of `TABLES`

    Returns
    -------
    table `system, model, n, protocol, folds, trainings, epochs, parameters, accuracy_mean, accuracy_sd` (over the draws
    or folds), `uar, uar_low, uar_high` (all of them together), `loudness, mfcc` (their UAR for the same clips);
    SigWavNet has no n, and a table without rows where none ships
    """
    if not (folder / "provenance.json").exists():
        return pd.DataFrame()
    trained = read_json(folder / "provenance.json")["models"]
    rows = [_summarise(path, trained, scores) for path in sorted(folder.glob(f"{system}-*.parquet"))]
    if not rows:
        return pd.DataFrame()
    if system == "cnn_n_gru":
        return pd.DataFrame(rows).sort_values(["protocol", "n"], ascending=[True, False], ignore_index=True)
    return pd.DataFrame(rows).drop(columns="n")


def _summarise(path, trained, scores) -> dict[str, Any]:
    system, model, protocol, folds = path.stem.split("-")
    predictions, made = pd.read_parquet(path), trained[model]
    measured = score_predictions(predictions)
    alone = [accuracy(table["emotion"], table["prediction"]) for _, table in predictions.groupby("fold")]
    return {
        "system": system,
        "model": model,
        "n": made["settings"].get("n"),
        "protocol": protocol,
        "folds": folds,
        "trainings": len(alone),
        "epochs": made["epochs"],
        "parameters": made["parameters"],
        "accuracy_mean": pd.Series(alone).mean(),
        "accuracy_sd": pd.Series(alone).std(),
        **{key: measured[key] for key in ("uar", "uar_low", "uar_high")},
        **_beside(path.parent, system, protocol, predictions, scores),
    }


def _beside(folder, system, protocol, predictions, scores) -> dict[str, float | None]:
    """UAR of the baselines for the clips that a network was tested on; None where they did not answer exactly these."""
    if protocol != "paper":  # all clips are tested
        rows = scores[(scores["system"] == "baseline") & (scores["protocol"] == protocol)]
        uar_of = rows.drop_duplicates("model").set_index("model")["uar"]
        return {name: uar_of.get(name) for name in BESIDE}
    paths = {name: baseline_path(folder, name, system) for name in BESIDE}
    answers = {name: pd.read_parquet(path) for name, path in paths.items() if path.exists()}
    same = [name for name, table in answers.items() if _tested(table) == _tested(predictions)]
    return {name: score_predictions(answers[name])["uar"] if name in same else None for name in BESIDE}


def _tested(predictions) -> set[tuple[int, str]]:
    return set(predictions[["fold", "utterance_id"]].itertuples(index=False, name=None))
