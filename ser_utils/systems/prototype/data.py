"""A corpus as the prototype system sees it: who gets a model, whose recordings prepare it, which segments it sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.evaluation.splits import audit_leakage, make_all_folds
from ser_utils.features.store import FeatureStore, load_store
from ser_utils.figures.style import in_order
from ser_utils.systems.prototype import segments as of_segments
from ser_utils.workspace import Workspace


@dataclass(frozen=True)
class Run:
    """One model under one protocol in one fold.

    Parameters
    ----------
    protocol : what is kept apart; "shared" for an autoencoder that other speakers' start from
    model : "speaker_<id>", "all", or the teachers of a shared autoencoder ("others…")
    fold, n_folds : number of the fold, and of how many
    changes : (setting, value) pairs in which it differs from the profile
    """

    protocol: str
    model: str
    fold: int = 0
    n_folds: int = 1
    changes: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        """The name of its files."""
        fold = [str(self.fold)] if self.n_folds > 1 else []
        return "-".join([self.protocol, self.model, *fold, *(f"{k}_{v:g}" for k, v in self.changes)])

    @property
    def watched(self) -> str:
        """The role that chooses the epoch: test under `paper`, as published and for comparison only."""
        return "test" if self.protocol == "paper" else "validation"

    @property
    def is_own(self) -> bool:
        """Whether the model knows one speaker."""
        return self.model.startswith("speaker_")

    @property
    def system(self) -> str:
        """The name its predictions are saved under, with those of other speakers or folds."""
        return "per_speaker" if self.is_own else f"{self.model}_speakers"

    def but(self, **changes: float) -> Run:
        """The same run with other settings."""
        return replace(self, changes=(*self.changes, *changes.items()))


@dataclass(frozen=True)
class PrototypeData:
    """The segments of a corpus, their folds, and who gets a model.

    Parameters
    ----------
    folds : fold table of each protocol; impossible : why a protocol is left out
    people : speakers of each model, {"speaker_09": ["09"], "all": […], "others": […], …}
    taught_by : which shared autoencoder a speaker's own starts from, {"speaker_09": "others", …}
    of_coder, of_classifier : settings of "prototype" and "prototype_classifier"
    """

    workspace: Workspace
    utterances: pd.DataFrame
    store: FeatureStore
    segments: pd.DataFrame
    folds: dict[str, pd.DataFrame]
    impossible: dict[str, str]
    people: dict[str, list[str]]
    taught_by: dict[str, str]
    of_coder: dict[str, Any]
    of_classifier: dict[str, Any]

    @property
    def emotions(self) -> list[str]:
        """Those of the corpus, in the order of the predictions' columns."""
        return in_order(self.utterances["emotion"])

    def pick(self, run: Run, role: str, **limits) -> pd.DataFrame:
        """Select the segments that play `role` in a run; `limits` as `select_segments` takes them."""
        speakers = self.people[run.model]
        folds = self._shared_folds(speakers) if run.protocol == "shared" else self.folds[run.protocol]
        return of_segments.select_segments(self.segments, folds, role, speakers=speakers, fold=run.fold, **limits)

    def _shared_folds(self, teachers):
        """Every tenth utterance watches a shared autoencoder's training; nothing is tested on its speakers."""
        spoken = self.utterances.loc[self.utterances["speaker"].isin(teachers), "utterance_id"]
        role = np.where(np.arange(len(spoken)) % 10, "train", "validation")
        return pd.DataFrame({"utterance_id": spoken, "start_ms": np.nan, "fold": 0, "role": role})

    def shared_run(self, run: Run) -> Run | None:
        """Say which autoencoder a run's starts from: none for all speakers, nor where `shared` is 0."""
        wanted = (self.of_coder | dict(run.changes))["shared"]
        return Run("shared", self.taught_by[run.model]) if wanted and run.model in self.taught_by else None

    def coder_run(self, run: Run) -> Run:
        """The run without changes that concern only its classifier: so that both share one autoencoder."""
        return replace(run, changes=tuple(change for change in run.changes if change[0] in self.of_coder))

    def coder_settings(self, run: Run) -> dict[str, Any]:
        """Gather the settings of a run's autoencoder; those of shared ones, of all speakers and of speakers alone differ."""
        settings = self.of_coder | dict(run.changes)
        kind = "shared_" if run.protocol == "shared" else "alone_" if run.is_own else "all_"
        if self.shared_run(run) is None:
            settings |= {name: settings.get(kind + name, settings[name]) for name in ("epochs", "most_train")}
        return settings

    def coder_rows(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Say which rows of the store a run's autoencoder learns from, and which watch it."""
        settings = self.coder_settings(run)
        limits = {"train": settings["most_train"], run.watched: settings["most_test"]}
        return tuple(self.pick(run, role, most=most)["row"].to_numpy() for role, most in limits.items())

    def cut_to(self, run: Run) -> PrototypeData:
        """Keep what one run needs, to be sent to a worker."""
        speakers = [*self.people[run.model], *self.people.get(self.taught_by.get(run.model), ())]
        segments, folds = self.segments[self.segments["speaker"].isin(speakers)], {}
        if run.protocol in self.folds:
            table = self.folds[run.protocol]
            folds[run.protocol] = table[table["utterance_id"].isin(set(segments["utterance_id"]))]
        return replace(self, segments=segments, folds=folds)

    def learned_share(self, run: Run, *, within_ms: float) -> float:
        """Measure the share of watched segments that begin within some ms of one that a run's autoencoder learns."""
        learned, watched = (self.segments.iloc[rows] for rows in self.coder_rows(run))
        return of_segments.overlap_share(watched, learned, within_ms=within_ms)

    def audit(self, protocol: str, models: Iterable[str], *, answers_as: str = "", **fit: str) -> pd.DataFrame:
        """Audit what the test part of some models shares with what was fitted on.

        answers_as : the name under which they are scored together; fit : as `audit_leakage` has it
        """
        runs = [Run(protocol, model) for model in models]
        teachers = [speaker for run in filter(None, map(self.shared_run, runs)) for speaker in self.people[run.model]]
        tested, heard = (
            set(self.utterances.loc[self.utterances["speaker"].isin(speakers), "utterance_id"])
            for speakers in ([speaker for run in runs for speaker in self.people[run.model]], teachers)
        )
        folds = self.folds[protocol]
        fit = {"encoder": heard or "train", "scaler": "train"} | fit
        tested_folds = folds[folds["utterance_id"].isin(tested)]
        return audit_leakage(tested_folds, self.utterances, fit=fit, system="prototype", model=answers_as)


def open_data(
    workspace: Workspace, of_coder: dict, of_classifier: dict | None = None, *, speakers: str = ""
) -> PrototypeData:
    """Open what notebook 00 made of a corpus and split it; folds are saved beside the models.

    Parameters
    ----------
    of_coder, of_classifier : settings of "prototype" and, in notebook 02, of "prototype_classifier"
    speakers : as `choose_speakers` takes them
    """
    utterances = workspace.load_table("utterances")
    store = load_store(workspace.folder("features") / "segments")
    segments, of_classifier = of_segments.segment_table(store), dict(of_classifier or {})
    shown = of_segments.choose_speakers(utterances, speakers, most=of_coder["most_speakers"])
    everybody = of_segments.groups_of(utterances)["all"]
    people = {f"speaker_{speaker}": [speaker] for speaker in shown} | {"all": everybody}
    teachers, taught_by = teachers_of(shown, everybody)
    protocols = dict.fromkeys([*of_coder["protocols"], *of_classifier.get("all_protocols", ())])
    folds, impossible = make_all_folds(utterances, segments, protocols, seed=workspace.seed)
    for protocol, table in folds.items():
        workspace.save_folds(table, system="prototype", protocol=protocol, folds=table.attrs["folds"])
    if of_classifier:
        elsewhere = of_classifier["prototypes_per_class"]
        of_classifier["per_class"] = n_prototypes_per_class(utterances, elsewhere)
    made = folds, impossible, people | teachers, taught_by
    return PrototypeData(workspace, utterances, store, segments, *made, of_coder, of_classifier)


def teachers_of(shown: list[str], everybody: list[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Choose whose recordings teach a shared autoencoder: speakers who are not shown, so that nothing leaks.

    Where all are shown, the shown are dealt into two halves, each of which teaches the autoencoder of the other.

    Returns
    -------
    teachers : {"others": ids}, or {"others_0": ids, "others_1": ids}
    taught_by : {"speaker_09": "others", …}; empty where there is but one speaker
    """
    others = [speaker for speaker in everybody if speaker not in shown]
    if others:
        return {"others": others}, {f"speaker_{speaker}": "others" for speaker in shown}
    if len(shown) < 2:
        return {}, {}
    teachers = {"others_0": shown[1::2], "others_1": shown[::2]}
    return teachers, {f"speaker_{speaker}": f"others_{n % 2}" for n, speaker in enumerate(shown)}


def n_prototypes_per_class(table: pd.DataFrame, elsewhere: int) -> int:
    """Count the prototypes of a class: the phonemes of the language where the paper names them, else `elsewhere`."""
    corpus = of_segments.published_corpus(table)
    return (corpus and corpus.n_phonemes) or elsewhere
