"""The system at its published settings, trained on an accelerator: what of it ships, and the table that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ser_utils.evaluation import metrics
from ser_utils.systems.prototype.runs import reconstruction_table
from ser_utils.systems.prototype.training import Coder, Trained
from ser_utils.workspace import atomic_path, sealed, write_checksums, write_json

FOLDER = "accelerator_prototype"  # in results/<dataset>
TABLE = "01_published"  # its name there
SCORE = 74.0  # percent: the mean prototype score at which the published training log ends
MOST_POINTS = 200  # of a learning curve that ships
OF_CLASSIFIER = ("start_score", "prototype_score", "start_twins", "prototype_twins")


def ship_published(data: Any, coders: dict, trained: dict, results: Path) -> None:
    """Write what the trainings of a corpus came to into a folder of results/<dataset>, and its table.

    Parameters
    ----------
    data : PrototypeData; coders : Run -> Coder; trained : Run -> Trained, where there is a classifier
    """
    table = reconstruction_table(data, coders).drop(columns=["path", "start", "low_db", "high_db"])
    table["by_clock"] = [_by_clock(coder) for coder in coders.values()]
    classifiers = pd.DataFrame([_of_classifier(trained[run]) if run in trained else {} for run in coders])
    with atomic_path(results / FOLDER) as folder:
        folder.mkdir(parents=True)
        pd.concat([table, classifiers], axis=1).to_csv(folder / "trainings.csv", index=False, float_format="%.6g")
        pd.concat(_curves(coders, trained)).to_csv(folder / "histories.csv", index=False, float_format="%.5g")
        for protocol in dict.fromkeys(run.protocol for run in trained):
            predictions = [each.predictions for run, each in trained.items() if run.protocol == protocol]
            pd.concat(predictions, ignore_index=True).to_parquet(folder / f"{protocol}.parquet", index=False)
        write_json(folder / "provenance.json", sealed(next(iter(coders.values())).path)["made_by"])
    with atomic_path(results / f"{TABLE}.csv") as temporary:
        summarise_published(results / FOLDER).to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    write_checksums(results, f"{FOLDER}/*", f"{TABLE}.csv")


def _by_clock(stage: Coder | Any) -> bool:
    return sealed(stage.path)["made_by"]["stopped_at_time_limit"]


def _of_classifier(trained: Trained) -> dict[str, Any]:
    history = trained.fitted.history
    best = history["val_macro_f1"].idxmax()
    facts = {"classifier_epochs": len(history), "classifier_best_epoch": best + 1}
    facts |= {"classifier_seconds": trained.fitted.seconds, "classifier_by_clock": _by_clock(trained.fitted)}
    return facts | history.loc[best, list(OF_CLASSIFIER)].to_dict()


def _curves(coders, trained):
    stages = {("autoencoder", run): coder.history for run, coder in coders.items()}
    stages |= {("classifier", run): each.fitted.history for run, each in trained.items()}
    for (stage, run), history in stages.items():
        shown = history.assign(epoch=range(1, len(history) + 1)).iloc[:: -(-len(history) // MOST_POINTS)]
        shown = shown.drop(columns=["start_score", "start_twins"], errors="ignore")
        yield shown.assign(stage=stage, run=run.label)


def summarise_published(folder: Path) -> pd.DataFrame:
    """Score what ships from an accelerator: a row per speaker and protocol, and one of all speakers together.

    Returns
    -------
    table `protocol, model, λ, mae_db, hfenn, epochs, best_epoch, by_clock, seconds, …` of both stages, and accuracy,
    macro-F1 and UAR of its test part by segment and by voted utterance
    """
    trainings = pd.read_csv(folder / "trainings.csv")
    rows = [row | _scores(folder, row) for row in trainings.to_dict("records")]
    return pd.DataFrame(rows)


def _scores(folder, row) -> dict[str, float]:
    path = folder / f"{row['protocol']}.parquet"
    if pd.isna(row["classifier_epochs"]) or not path.exists():
        return {}
    segments = pd.read_parquet(path)
    segments = segments[segments["speaker"] == row["model"].removeprefix("speaker_")]
    levels = {"segment": segments, "utterance": metrics.vote_utterances(segments)}
    scored = {level: metrics.score_predictions(table) for level, table in levels.items()}
    names = ("accuracy", "macro_f1", "uar")
    return {f"{level}_{name}": scores[name] for level, scores in scored.items() for name in names}
