"""Folders of results/ as tables, and how their corpora and models are called and sorted."""

from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ser_utils.corpora.loading import CORPORA
from ser_utils.evaluation import metrics
from ser_utils.evaluation.results import NAME, SCORES, sort_results
from ser_utils.evaluation.splits import FITTED
from ser_utils.names import corpora_of, keeps_all
from ser_utils.profiles import System, systems
from ser_utils.systems.sigwavnet import accelerator
from ser_utils.workspace import read_json
from tools.shipped import damaged, load_provenance, named_if_damaged

NOT_RANDOM = ("opensmile", "baseline")  # their training has no seed
CHOSEN = "†"
NUMBERS = "n_speakers n_utterances uar uar_low uar_high uar_fold_mean accuracy macro_f1 seed".split()  # of scores.csv


class Dataset:
    """One folder of results/ as tables."""

    def __init__(self, folder: Path):
        self.name, self.title = folder.name, title_of(folder.name)
        self.scores, self.made = read_scores(folder / "scores.csv"), load_provenance(folder / "provenance.json")
        self.costs, self.speakers = self._table(folder, "costs"), self._table(folder, "11_speakers")
        self.seeds, self.fall = self._table(folder, "11_seeds"), self._table(folder, "11_fall")
        self.one_voice, self.beaten = self._table(folder, "11_one_voice"), self._table(folder, "11_beaten")
        self.published, self.adapted = self._table(folder, "11_published"), self._table(folder, "11_adapted")
        self.across, self.steps = self._table(folder, "11_across"), self._table(folder, "11_steps")
        self.corpora = self._table(folder, "11_corpora")
        trained = folder / "accelerator" / "04_provenance.json"  # the nets of 04_published
        self.departures = read_json(trained)["differs_from_the_source"] if trained.exists() else []
        self.caveat = caveat_of(folder, self.made)
        self.sizes = self._table(folder, accelerator.TABLE)
        self.wavelets = self._table(folder, accelerator.TABLES["sigwavnet"])
        self.nets, self.findings = self._table(folder, "04_published"), self._table(folder, "04_published_findings")
        self.splits, self.faults = (
            self._table(folder, "04_published_splits"),
            self._table(folder, "04_published_faults"),
        )

    @staticmethod
    def _table(folder, name):
        path = folder / f"{name}.csv"
        words = dict.fromkeys([*NAME, "speaker"], str)
        return pd.read_csv(path, dtype=words) if path.exists() else pd.DataFrame()

    @cached_property
    def whole(self) -> pd.DataFrame:
        """Scores of whole utterances, in the order of tables."""
        return sort_results(self.scores[self.scores["level"] == "utterance"])

    def extent(self) -> str:
        return extent(self.name, self.made["notebooks"][systems()["baseline"].notebook]["n_utterances"], self.scores)

    def cell(self, rows: pd.DataFrame) -> str:
        """UAR in percent of the row with the most utterances: with its interval, or with each speaker's own.

        Where several seeds were run it is their mean, and the interval holds the seeds too. CHOSEN marks what was chosen on
        test, unless the published protocol of the system chooses the epoch there.
        """
        if rows.empty:
            return "–"
        row = rows.loc[rows["n_utterances"].idxmax()]
        runs = same_result(self.seeds, row)
        uar, low, high = row["uar"], row["uar_low"], row["uar_high"]
        published = row["protocol"] == "paper" and systems()[row["system"]].epoch_chosen_on_test
        mark = CHOSEN if not published and FITTED["selection"] in row["leaks"].split("; ") else ""
        if len(runs):
            uar, low, high = runs.iloc[0][["uar_mean", "uar_low", "uar_high"]]
            mark += f" ±{100 * runs.iloc[0]['uar_sd']:.1f}"
        if not pd.isna(low):
            return f"{100 * uar:.1f}{mark} ({100 * low:.0f}–{100 * high:.0f})"
        return f"{100 * uar:.1f}{mark} {_each(same_result(self.speakers, row))}".rstrip()

    def n_seeds(self, row: pd.Series) -> str:
        """How many seeds a result rests on, or "–" where its training has none."""
        if row["system"] in NOT_RANDOM:
            return "–"
        runs = same_result(self.seeds, row)
        return str(runs.iloc[0]["n_seeds"]) if len(runs) else "1"


def caveat_of(folder: Path, made: Mapping) -> str:
    """What else a reader has to know of results; "" where caveat.md is missing or is about another run.

    Its first line names the commit of notebook 11's run.

    Parameters
    ----------
    folder : results/<dataset>
    made : its provenance
    """
    path = folder / "caveat.md"
    if not path.exists():
        return ""
    commit, _, text = path.read_text("utf-8").partition("\n")
    run = made["notebooks"].get(systems()["baseline"].notebook, {})
    return text.strip() if commit == run.get("commit") else ""


def same_result(table, row) -> pd.DataFrame:
    return table[(table[NAME] == row[NAME]).all(axis=1)] if len(table) else table


def recorded_setting(made: Mapping, system: System, key: str) -> Any:
    """A setting of a system as a provenance has it; None where it has none."""
    settings = made["notebooks"].get(system.notebook, {}).get("settings", {})
    return settings.get(f"{system.name}.{key}", settings.get(key))


def _each(speakers) -> str:
    """The UAR of each of a few speakers: "[36 45 49]"."""
    if speakers.empty or len(speakers) >= metrics.FEWEST_SPEAKERS:
        return ""
    return f"[{' '.join(f'{100 * uar:.0f}' for uar in speakers['uar'])}]"


def read_scores(path: Path) -> pd.DataFrame:
    """Read a scores.csv, whose text columns may look like numbers or be empty.

    Raises
    ------
    WorkspaceError : where it is no table, lacks a column, or has words where numbers belong
    """
    empty = {"uar_low": [""], "uar_high": [""]}
    with named_if_damaged(path, ValueError):
        scores = pd.read_csv(path, dtype=dict.fromkeys(NAME, str), keep_default_na=False, na_values=empty)
    if missing := [column for column in SCORES if column not in scores]:
        raise damaged(path, f"it has no column {', '.join(missing)}")
    if words := [column for column in NUMBERS if not pd.api.types.is_numeric_dtype(scores[column])]:
        raise damaged(path, f"expected numbers in column {', '.join(words)}")
    return scores


def title_of(dataset: str) -> str:
    """ "ravdess+emodb" → "RAVDESS + EmoDB"; "ravdess+emodb+all" → "RAVDESS + EmoDB, all emotions"."""
    if dataset == "demo":
        return "Demo corpus (synthetic)"
    titles = [CORPORA[name].title if name in CORPORA else name for name in corpora_of(dataset)]
    return " + ".join(titles) + ", all emotions" * keeps_all(dataset)


def listing_place(dataset: str) -> tuple:
    """Sort key of datasets: corpora in the order they are listed in, readers' own, several together, synthetic speech last."""
    known, first = [*CORPORA], dataset.split("+")[0]
    return dataset == "demo", dataset.count("+"), known.index(first) if first in known else len(known), dataset


def score_files(root: Path) -> list[Path]:
    """Every results/*/scores.csv, in the order datasets are listed in."""
    return sorted(root.glob("results/*/scores.csv"), key=lambda path: listing_place(path.parent.name))


def extent(dataset: str, n_utterances: int, scores: pd.DataFrame) -> str:
    """What the scores of a dataset are of: "339 of 535 recordings, 10 speakers, 4 of 7 emotions, chance 25.0"."""
    corpus, n_speakers = CORPORA.get(dataset), scores["n_speakers"].max()
    chance = scores.loc[scores["model"] == "chance", "uar"].max()
    counts = [(n_utterances, corpus.n_files - len(corpus.broken) if corpus else 0, "recordings")]
    counts += [(n_speakers, len(corpus.speakers) if corpus else 0, "speakers")]
    if chance > 0:
        counts += [(round(1 / chance), len(corpus.emotions) if corpus else 0, "emotions")]
    parts = [f"{n:,} of {whole:,} {what}" if whole > n else f"{n:,} {what}" for n, whole, what in counts]
    return ", ".join(parts + ([f"chance {100 * chance:.1f}"] if chance > 0 else []))


def shown_models(scores: pd.DataFrame) -> list[tuple[str, str]]:
    """The models that stand for their systems, as (system, model), in the order of tables."""
    there = dict.fromkeys(scores[NAME[:2]].itertuples(index=False, name=None))
    return [
        (name, model)
        for name, declared in systems().items()
        for pattern in declared.models
        for system, model in there
        if system == name and fnmatch(model, pattern)
    ]
