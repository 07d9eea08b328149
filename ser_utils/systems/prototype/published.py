"""The system at its published settings, trained on an accelerator: what of it ships, and the table that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ser_utils.evaluation import metrics
from ser_utils.systems.prototype.data import PrototypeData, Run
from ser_utils.systems.prototype.runs import reconstruction_table
from ser_utils.systems.prototype.training import Coder, Trained
from ser_utils.workspace import atomic_path, sealed, write_checksums, write_csv, write_json

FOLDER = "accelerator_prototype"  # in results/<dataset>
TABLE = "01_published"  # its name there
SCORE = 74.0  # percent: the mean prototype score at which the published training log ends
MOST_POINTS = 600  # of a learning curve that ships
LEARNED = ("start_score", "prototype_score", "start_twins", "prototype_twins")  # of a classifier's history
OF_CLASSIFIER = ("classifier_epochs", "classifier_best_epoch", "classifier_seconds", "classifier_by_clock", *LEARNED)


def ship_published(data: PrototypeData, coders: dict[Run, Coder], trained: dict[Run, Trained], results: Path) -> None:
    """Write what the trainings of a corpus came to into a folder of results/<dataset>, and its table.

    Parameters
    ----------
    trained : both stages of those runs that have a classifier
    results : results/<dataset>
    """
    table = reconstruction_table(data, coders).drop(columns=["path", "start", "low_db", "high_db"])
    table["by_clock"] = [_by_clock(coder) for coder in coders.values()]
    classifiers = [_of_classifier(trained[run]) if run in trained else {} for run in coders]
    classifiers = pd.DataFrame(classifiers, columns=OF_CLASSIFIER)
    with atomic_path(results / FOLDER) as folder:
        folder.mkdir(parents=True)
        pd.concat([table, classifiers], axis=1).to_csv(folder / "trainings.csv", index=False, float_format="%.6g")
        pd.concat(_curves(coders, trained)).to_csv(folder / "histories.csv", index=False, float_format="%.5g")
        for protocol in dict.fromkeys(run.protocol for run in trained):
            predictions = [each.predictions for run, each in trained.items() if run.protocol == protocol]
            pd.concat(predictions, ignore_index=True).to_parquet(folder / f"{protocol}.parquet", index=False)
        write_json(folder / "provenance.json", _made_by(coders, trained))
    write_csv(results / f"{TABLE}.csv", summarise_published(results / FOLDER))
    write_checksums(results, f"{FOLDER}/*", f"{TABLE}.csv")


def _by_clock(stage) -> bool:
    return sealed(stage.path)["made_by"].get("stopped_at_time_limit", False)


def _made_by(coders, trained):
    """Where and with what autoencoders were trained, and `classifiers`, where those were trained with something else."""
    stages = [next(iter(coders.values())), *(each.fitted for each in list(trained.values())[:1])]
    facts = [sealed(stage.path)["made_by"] for stage in stages]
    told = [{name: fact for name, fact in made.items() if name != "stopped_at_time_limit"} for made in facts]
    return told[0] | ({"classifiers": told[-1]} if told[-1] != told[0] else {})


def _of_classifier(trained: Trained) -> dict[str, Any]:
    history = trained.fitted.history
    best = history["val_macro_f1"].idxmax()
    facts = len(history), best + 1, trained.fitted.seconds, _by_clock(trained.fitted)
    return dict(zip(OF_CLASSIFIER, (*facts, *history.loc[best, list(LEARNED)]), strict=True))


def _curves(coders, trained):
    stages = {("autoencoder", run): coder.history for run, coder in coders.items()}
    stages |= {("classifier", run): each.fitted.history for run, each in trained.items()}
    for (stage, run), history in stages.items():
        shown = history.assign(epoch=range(1, len(history) + 1)).iloc[:: -(-len(history) // MOST_POINTS)]
        shown = shown.drop(columns=["start_score", "start_twins"], errors="ignore")
        yield shown.assign(stage=stage, run=run.label)


def summarise_published(folder: Path) -> pd.DataFrame:
    """Score what ships from an accelerator.

    Returns
    -------
    table with a row per speaker, protocol and weight of edges, and the columns
    `protocol, model, λ, mae, mae_db, hfenn, epochs, best_epoch, seconds, by_clock` (whether time ended the training and
    not its patience), the same of the classifier, where there is one, and accuracy, macro-F1 and UAR of its test part by segment and by voted utterance
    """
    trainings = pd.read_csv(folder / "trainings.csv")
    return pd.DataFrame([row | _scores(folder, row) for row in trainings.to_dict("records")])


def tell_autoencoders(table: pd.DataFrame) -> list[str]:
    """Say in sentences how well voices come back at the published settings; `table` as `summarise_published` gives it."""
    told = []
    for protocol, rows in table[table["λ"] == table["λ"].mode().iloc[0]].groupby("protocol", sort=False):
        error, epochs, by_clock = rows["mae_db"], rows["epochs"], int(rows["by_clock"].sum())
        voices = f"{len(rows)} speaker{'s' * (len(rows) > 1)}"
        told.append(
            f"{protocol}: {error.mean():.2f} dB ({error.min():.2f} to {error.max():.2f}) over {voices} after "
            f"{epochs.min()} to {epochs.max()} epochs; the time limit ended {by_clock} of {len(rows)} trainings before early "
            "stopping did"
        )
    return told


def tell_edges(table: pd.DataFrame, histories: pd.DataFrame) -> list[str]:
    """Say what the weight of the edge term changed where one speaker was trained with several, after equally many epochs."""
    rows = table[table.duplicated(["protocol", "model"], keep=False)].sort_values("λ")
    if rows.empty:
        return []
    curves, epochs = histories[histories["stage"] == "autoencoder"], rows["epochs"].min()
    told = []
    for row in rows.itertuples():
        run = f"{row.protocol}-{row.model}" + ("" if row.λ == table["λ"].mode().iloc[0] else f"-hfenn_weight_{row.λ:g}")
        watched = curves.loc[(curves["run"] == run) & (curves["epoch"] <= epochs), "val_mae"]
        told.append(f"λ = {row.λ:g}: {watched.min() * row.mae_db / row.mae:.2f} dB")
    return [f"After {epochs} epochs, on the monitored segments of {rows['model'].iloc[0]}: {', '.join(told)}"]


def tell_classifiers(table: pd.DataFrame, histories: pd.DataFrame) -> list[str]:
    """Say in sentences what classifiers came to at the published settings; `histories` of the same folder."""
    told, curves = [], histories[histories["stage"] == "classifier"]
    for protocol, rows in table.dropna(subset="classifier_epochs").groupby("protocol", sort=False):
        scores = curves[curves["run"].str.startswith(f"{protocol}-") & (curves["prototype_score"] >= SCORE)]
        passed = scores.groupby("run")["epoch"].min() / rows["classifier_epochs"].mean()
        means = rows.mean(numeric_only=True)
        told.append(
            f"{protocol}: the mean prototype score rises from {means['start_score']:.0f} % to "
            f"{means['prototype_score']:.0f} % and passes the published {SCORE:.0f} % after {100 * passed.mean():.0f} % of "
            f"the training. Accuracy by segment is {means['segment_accuracy']:.2f} and macro-F1 "
            f"{means['segment_macro_f1']:.2f}, by voted utterance {means['utterance_accuracy']:.2f} and "
            f"{means['utterance_macro_f1']:.2f}"
        )
    return told


def read_curves(histories: pd.DataFrame, stage: str) -> dict[str, pd.DataFrame]:
    """Read the learning curves of a stage: name of a run -> its epochs, at most `MOST_POINTS` of them."""
    curves = histories[histories["stage"] == stage].dropna(axis="columns", how="all")
    return {run: rows.reset_index(drop=True) for run, rows in curves.groupby("run", sort=False)}


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
