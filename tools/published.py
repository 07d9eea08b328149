"""Put what an accelerator's trainings of the prototype system came to into results/, for notebooks 01 and 02."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ser_utils.systems.prototype.data import PrototypeData, Run
from ser_utils.systems.prototype.published import FOLDER, TABLE, summarise_published
from ser_utils.systems.prototype.runs import reconstruction_table
from ser_utils.systems.prototype.training import Coder, Trained
from ser_utils.workspace import atomic_path, sealed, write_checksums, write_csv, write_json

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
