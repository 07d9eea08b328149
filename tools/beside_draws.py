"""Answer the test clips of the published draws with the baselines, so that networks and baselines stand on the same clips.

python -m tools.beside_draws [ravdess emodb] [--root .]

The networks of a corpus that were trained at their published sizes ship in results/<corpus>/accelerator. For each draw of
`paper` that they were tested on, the baselines are fitted on what those networks trained and validated on. Their answers are
written beside them, and the tables made of both.
"""

import argparse
import os
import tempfile
from pathlib import Path

import pandas as pd

from ser_utils.corpora.loading import load_corpus
from ser_utils.evaluation.splits import make_folds
from ser_utils.systems.baselines import cross_validate, load_features
from ser_utils.systems.sigwavnet.accelerator import BESIDE, TABLES, baseline_path, published_tables
from ser_utils.workspace import atomic_path, write_checksums, write_csv


def published_draws(table: pd.DataFrame, system: str, answers: pd.DataFrame, folds: str) -> list[pd.DataFrame]:
    """Make again the folds of `paper` that a network was tested on.

    Parameters
    ----------
    table : utterance table
    answers : of the network; `fold` is the draw, or the fold
    folds : "<n>_draws", or "<n>_folds" of the first draw

    Returns
    -------
    fold tables, one per draw or fold, in their order

    Raises
    ------
    ValueError : if today's folds test other clips
    """
    numbers = sorted(answers["fold"].unique())
    if folds.endswith("draws"):
        drawn = [make_folds(table, "paper", system=system, seed=int(number)).assign(fold=number) for number in numbers]
    else:
        drawn = [
            part for fold, part in make_folds(table, "paper", system=system, seed=0).groupby("fold") if fold in numbers
        ]
    for number, draw in zip(numbers, drawn, strict=True):
        tested = set(answers.loc[answers["fold"] == number, "utterance_id"])
        if tested != set(draw.loc[draw["role"] == "test", "utterance_id"]):
            raise ValueError(f"{system}: draw {number} of today tests other clips than the network was tested on")
    return drawn


def answer(corpus: str, table: pd.DataFrame, results: Path) -> None:
    """Write what the baselines say of the test clips of every draw, and the tables that follow.

    Parameters
    ----------
    table : utterance table
    results : folder of the corpus in results/
    """
    folder = results / "accelerator"
    with tempfile.TemporaryDirectory() as features:
        features_of = {model: load_features(Path(features), table, model) for model in BESIDE}
    for system in TABLES:
        # all networks of a system were tested on the same draws
        paths = sorted(folder.glob(f"{system}-*-paper-*.parquet"))
        if not paths:
            continue
        drawn = published_draws(table, system, pd.read_parquet(paths[0]), paths[0].stem.split("-")[-1])
        for model, features in features_of.items():
            said, _ = cross_validate(features, table, pd.concat(drawn), model=model)
            with atomic_path(baseline_path(folder, model, system)) as temporary:
                said.to_parquet(temporary, index=False)
    for name, summary in published_tables(folder, pd.read_csv(results / "scores.csv")).items():
        write_csv(results / f"{name}.csv", summary)
    write_checksums(results, "accelerator/*", *(f"{name}.csv" for name in TABLES.values()))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", default=["ravdess", "emodb"])
    parser.add_argument("--root", type=Path, default=Path())
    given = parser.parse_args(arguments)
    for corpus in given.corpora:
        table = load_corpus(corpus, os.environ.get("SER_DATA_DIR", "data")).sort_values(
            "utterance_id", ignore_index=True
        )
        answer(corpus, table, given.root / "results" / corpus)


if __name__ == "__main__":
    main()
