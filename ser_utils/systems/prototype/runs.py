"""All models of the prototype system on one corpus: the bookkeeping of notebooks 01 and 02."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.evaluation import metrics
from ser_utils.evaluation.splits import SEGMENT_MS, leaks_beyond
from ser_utils.systems.prototype.autoencoder import reconstruction_errors
from ser_utils.systems.prototype.classifier import mean_prototype_score, twin_share
from ser_utils.systems.prototype.data import PrototypeData, Run
from ser_utils.systems.prototype.segments import overlap_share
from ser_utils.systems.prototype.training import Coder, Trained, train_and_predict
from ser_utils.training.fit import best_epoch
from ser_utils.training.parallel import run_tasks


def autoencoder_runs(data: PrototypeData) -> list[Run]:
    """List the autoencoders of notebook 01: each speaker under each protocol, and all speakers under `utterance`.

    The published system has no model of all speakers: profile `paper` sets `all_epochs` to 0.
    A voice with too few clips to learn from and to be tested on is left out.

    Raises
    ------
    ValueError : if no voice is left for a model of its own under `utterance`, whose models the notebooks compare
    """
    runs = [Run(p, model) for model in data.people for p in data.of_coder["protocols"] if p in data.folds]
    of_all = [("utterance", "all")] if data.of_coder["all_epochs"] else []
    runs = [run for run in runs if run.is_own or (run.protocol, run.model) in of_all]
    runs = [run for run in runs if all(len(data.pick(run, role)) for role in ("train", "test"))]
    if not any(run.is_own and run.protocol == "utterance" for run in runs):
        raise ValueError(
            "A prototype model learns from some recordings of a voice and is tested on others, so at least one speaker must "
            f"have several of each emotion. Received: too few of each of {', '.join(data.people)}. Add recordings, or run "
            f"notebooks that do without such a voice: {data.workspace.command('05 07')}"
        )
    return runs


def reconstruction_table(data: PrototypeData, coders: dict[Run, Coder]) -> pd.DataFrame:
    """Measure every autoencoder on the test segments of its run: one row each, errors as `reconstruction_errors`."""
    rows = []
    for run, coder in coders.items():
        settings, scale = data.coder_settings(run), coder.scale
        tested = data.pick(run, "test", most=settings["most_test"])["row"]
        facts = {"protocol": run.protocol, "model": run.model, "λ": settings["hfenn_weight"]}
        facts["start"] = "shared" if data.shared_run(run) else "alone"
        facts |= reconstruction_errors(*coder.reconstruct(data.store.array[tested]), scale.range_db)
        n_epochs = len(coder.history)
        kept = best_epoch(coder.history) if settings["patience"] else n_epochs
        facts |= {"epochs": n_epochs, "best_epoch": kept}
        facts |= {"seconds": coder.seconds, "low_db": scale.low, "high_db": scale.high}
        rows.append(facts | {"path": str(coder.path.relative_to(data.workspace.build))})
    return pd.DataFrame(rows)


class PrototypeRuns:
    """The trained models of one corpus and what they say.

    Parameters
    ----------
    trained : one Trained a run, in the order in which tables list them
    """

    def __init__(self, data: PrototypeData, trained: dict[Run, Trained]):
        self.data, self.trained = data, trained

    @classmethod
    def train(cls, data: PrototypeData, variants: Iterable[dict[str, float]] = ()) -> PrototypeRuns:
        """Train or open each speaker's own model under each protocol, then those over all speakers.

        A speaker with fewer than two emotions to learn, or with nothing to test on, is named and left out.

        Parameters
        ----------
        variants : settings with which some speakers' own models are trained once more under `utterance`
        """
        names = [model for model in data.people if Run("", model).is_own]
        runs = [Run(p, model) for model in names for p in data.of_coder["protocols"] if p in data.folds]
        compared = [run for run in runs if run.protocol == "utterance"][: data.of_coder["compared"]]
        runs += [run.but(**changes) for changes in variants for run in compared]
        for protocol in (p for p in data.of_classifier["all_protocols"] if p in data.folds):
            numbers = sorted(set(data.folds[protocol]["fold"]))
            runs += [Run(protocol, "all", fold, len(numbers)) for fold in numbers]
        tasks = [(data.cut_to(run), run) for run in runs]
        outcomes = run_tasks(lambda task: train_and_predict(*task), tasks, progress="models")
        for run in (run for run, outcome in zip(runs, outcomes, strict=True) if outcome is None):
            print(f"{run.label} is left out: too few clips or emotions")
        return cls(data, {run: trained for run, trained in zip(runs, outcomes, strict=True) if trained})

    def __iter__(self) -> Iterator[Trained]:
        return (trained for run, trained in self.trained.items() if not run.changes)

    def own(self, protocol: str, **changes: float) -> dict[str, Trained]:
        """The speakers' own models under one protocol, as they are or with some settings changed, by name."""
        wanted = protocol, tuple(changes.items())
        runs = [run for run in self.trained if run.is_own and (run.protocol, run.changes) == wanted]
        return {run.model: self.trained[run] for run in runs}

    def by_speaker(self) -> dict[str, dict[str, Trained]]:
        """The speakers' own models, by name and protocol."""
        models = {}
        for trained in (trained for trained in self if trained.run.is_own):
            models.setdefault(trained.run.model, {})[trained.run.protocol] = trained
        return models

    @property
    def shown_protocol(self) -> str:
        """The first protocol that does not leak, from which prototypes and confusions are shown."""
        return next(trained.run.protocol for trained in self if trained.run.protocol != "paper")

    def by_system(self) -> dict[tuple[str, str], list[Trained]]:
        """The models that answer together, for different speakers or folds, by (protocol, system)."""
        groups = {}
        for trained in self:
            groups.setdefault((trained.run.protocol, trained.run.system), []).append(trained)
        return groups

    def save(self) -> pd.DataFrame:
        """Save predictions, audits and costs of each system. Returns what leaks beyond each protocol's promise."""
        return pd.DataFrame([self._save(*key, members) for key, members in self.by_system().items()])

    def _save(self, protocol, system, members):
        workspace, folds = self.data.workspace, self.data.folds[protocol].attrs["folds"]
        name = {"system": "prototype", "model": system, "protocol": protocol, "folds": folds}
        predictions = pd.concat([trained.predictions for trained in members], ignore_index=True)
        workspace.save_predictions(predictions, **name)
        models = dict.fromkeys(trained.run.model for trained in members)
        audit = self.data.audit(protocol, models, answers_as=system, selection=members[0].run.watched)
        workspace.save_audit(audit, **name)
        costs = {"parameters": max(trained.parameters for trained in members)}
        costs["ms_per_utterance"] = float(np.mean([trained.ms_per_utterance for trained in members]))
        costs["seconds_to_train"] = sum(trained.seconds for trained in members)
        workspace.save_costs(costs, **name)
        return {"protocol": protocol, "model": system, "leaks beyond its promise": leaks_beyond(audit, protocol)}

    def votes(self) -> pd.DataFrame:
        """Count the segments that decide a clip, and the share that overlaps a segment its model learned from."""
        rows, most = [], self.data.of_classifier["most_train"]
        for (protocol, system), members in self.by_system().items():
            learned = [self.data.pick(trained.run, "train", most=most) for trained in members]
            pairs = zip((trained.predictions for trained in members), learned, strict=True)
            near = np.mean([overlap_share(*pair, within_ms=SEGMENT_MS) for pair in pairs])
            votes = pd.concat([trained.predictions.groupby("utterance_id").size() for trained in members])
            counts = {"segments that decide a clip": votes.median(), "overlap what was learned (%)": 100 * near}
            rows.append({"model": system, "protocol": protocol} | counts)
        return pd.DataFrame(rows)

    def scores(self) -> pd.DataFrame:
        """Score each system and each speaker's model, by segment and by voted utterance."""
        members = self.by_system()
        by_speaker = self.by_speaker().items()
        members |= {(p, model): [trained] for model, by_protocol in by_speaker for p, trained in by_protocol.items()}
        scored = [score_models(group, protocol=p, model=model) for (p, model), group in members.items()]
        return pd.DataFrame([row for levels in scored for row in levels])

    def recall(self) -> pd.DataFrame:
        """Recall of each emotion (columns) by the segments of each speaker's own models (rows)."""
        answers = {f"{t.run.model} · {t.run.protocol}": t.predictions for t in self if t.run.is_own}
        recalls = {name: metrics.per_class(table["emotion"], table["prediction"]) for name, table in answers.items()}
        return pd.DataFrame({name: table["recall"] for name, table in recalls.items()}).T

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """List the classifiers and where they are kept, and the nearest training segments of their prototypes."""
        listed, neighbours, build = [], [], self.data.workspace.build
        for trained in self:
            key = {"protocol": trained.run.protocol, "model": trained.run.model, "fold": trained.run.fold}
            files = {"path": trained.fitted.path, "coder_path": trained.coder.path}
            files = {name: str(path.relative_to(build)) for name, path in files.items()}
            scale = {"low_db": trained.coder.scale.low, "high_db": trained.coder.scale.high}
            listed.append(key | files | scale | {"classes": " ".join(trained.classes)})
            neighbours.append(trained.neighbours.assign(**key, prototype=range(len(trained.neighbours))))
        return pd.DataFrame(listed), pd.concat(neighbours, ignore_index=True)


def score_models(members: Iterable[Trained], **facts: Any) -> list[dict[str, Any]]:
    """Score models that answer together, by segment and by voted utterance: a row each, `facts` first.

    Returns
    -------
    rows with prototype_score (mean, percent) and prototype_twins (share), each after training and at the start
    """
    segments = pd.concat([trained.predictions for trained in members], ignore_index=True)
    models = [trained.fitted.model for trained in members]
    facts["prototype_score"] = np.mean([mean_prototype_score(model.fc_weights) for model in models])
    facts["prototype_twins"] = np.mean([twin_share(model.prototypes) for model in models])
    starts = pd.DataFrame([trained.fitted.history.iloc[0] for trained in members])
    facts |= starts[["start_score", "start_twins"]].mean().to_dict()
    levels = map(metrics.score_predictions, (segments, metrics.vote_utterances(segments)))
    columns = ("level", "n_utterances", "accuracy", "macro_f1", "uar")
    return [facts | {name: scored[name] for name in columns} for scored in levels]
