"""The system at its published settings, trained on an accelerator: scores of what ships, and what they tell."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ser_utils.evaluation import metrics

FOLDER = "accelerator_prototype"  # in results/<dataset>
TABLE = "01_published"  # its name there
SCORE = 74.0  # percent: the mean prototype score at which the published training log ends


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
    """Read the learning curves of a stage: name of a run -> its epochs, as far as they ship."""
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
