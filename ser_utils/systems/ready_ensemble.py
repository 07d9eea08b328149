"""The ensemble of notebook 11, asked about recordings of a voice that no corpus has.

Its members that are features and a classifier are fitted here, on the whole corpus. The answers of all members that ship
tell their weights, and what they reach together on speakers they had not learned from.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.evaluation.metrics import score_predictions
from ser_utils.features.audio import resample
from ser_utils.profiles import settings
from ser_utils.systems import baselines, ensemble
from ser_utils.systems.adaptation import rank_by_speaker
from ser_utils.workspace import MissingResult, Workspace

NETWORK = "networks, which this command does not ask"
NOT_INSTALLED = "openSMILE is not installed (make setup-extras)"
NOT_STORED = "their answers do not ship"


@dataclass(frozen=True)
class ReadyEnsemble:
    """An ensemble whose members were fitted on a whole corpus.

    Parameters
    ----------
    model : "new_speaker", or "adapted", which ranks features among the speaker's clips
    classifiers : {member: fitted classifier of scikit-learn}
    weights : of the members, by name
    columns : {kind of features: its columns} in what `extract` returns
    emotions : in the order of the probabilities
    missing : {why members are not asked: their names}
    tested, whole : scores of these members, and of all, on speakers they had not learned from (see `score_predictions`)
    """

    model: str
    classifiers: dict[str, Any]
    weights: pd.Series
    columns: dict[str, slice]
    emotions: list[str]
    missing: dict[str, list[str]]
    tested: dict[str, Any]
    whole: dict[str, Any]

    def shares(self, features: np.ndarray) -> np.ndarray:
        """What each member adds to the logarithm of each emotion's probability.

        Parameters
        ----------
        features : (n_clips, n_features), as `extract` gives them, of all clips of one speaker

        Returns
        -------
        (n_members, n_clips, n_classes); the softmax of their sum over members is the answer
        """
        if self.model == "adapted":
            features = rank_by_speaker(features, ["the speaker"] * len(features))
        return np.stack([weight * self._logarithms(member, features) for member, weight in self.weights.items()])

    def _logarithms(self, member, features):
        kind, classifier = _kind(member), self.classifiers[member]
        p = pd.DataFrame(classifier.predict_proba(features[:, self.columns[kind]]), columns=classifier.classes_)
        return np.log(np.maximum(p.reindex(columns=self.emotions, fill_value=0), ensemble.LEAST))


def _kind(member) -> str:
    return baselines.features_of(member.split("-")[1])


def kinds_of_features() -> list[str]:
    """The features of all members that can be fitted here: those of openSMILE where it is installed."""
    return ["voice", *(baselines.OPENSMILE_SETS if baselines.has_opensmile() else [])]


def extract(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Compute the features of all members, side by side: (1, n_features).

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate : Hz, that of the corpus
    """
    vectors = []
    for extractor, rate in (baselines.EXTRACTORS[kind] for kind in kinds_of_features()):
        heard = resample(signal, sample_rate, rate) if rate not in (None, sample_rate) else signal
        vectors.append(extractor(heard, rate or sample_rate))
    return np.nan_to_num(np.concatenate(vectors, axis=1))


def fit_ready_ensemble(workspace: Workspace, table: pd.DataFrame, model: str) -> ReadyEnsemble:
    """Fit the members that need no network, and their weights on what they answered for speakers they had not heard.

    Parameters
    ----------
    workspace : of the corpus, with results
    table : its utterance table
    model : "new_speaker" or "adapted"

    Raises
    ------
    MissingResult : if the answers of fewer than `ensemble.FEWEST_MEMBERS` such members are in the results
    """
    members, missing, whole = _stored(workspace, model)
    if len(members) < ensemble.FEWEST_MEMBERS:
        raise MissingResult(
            f"The ensemble of {workspace.dataset} has too few members that can be asked: {', '.join(members) or 'none'}. "
            f"{workspace.command('11')} stores the answers that it needs."
        )
    folds = next(iter(members.values()))[["utterance_id", "fold"]].assign(role="test")
    features = {
        kind: baselines.load_features(workspace.folder("features"), table, kind) for kind in kinds_of_features()
    }
    ends = np.cumsum([x.shape[1] for x in features.values()])
    columns = {kind: slice(end - x.shape[1], end) for (kind, x), end in zip(features.items(), ends, strict=True)}
    if model == "adapted":
        speakers = table["corpus"] + "/" + table["speaker"]
        features = {kind: rank_by_speaker(x, speakers) for kind, x in features.items()}
    label = table["emotion"].to_numpy()
    return ReadyEnsemble(
        model,
        {name: baselines.build_classifier(name.split("-")[1]).fit(features[_kind(name)], label) for name in members},
        ensemble.weigh(members),
        columns,
        [name.removeprefix("p_") for name in whole if name.startswith("p_")],
        missing,
        score_predictions(ensemble.pool(members, folds)[0]),
        score_predictions(whole),
    )


def _stored(workspace, model):
    """Answers of the members that can be fitted here, why others cannot, and the answers of the whole ensemble."""
    folder = workspace.root / "results" / workspace.name / "decisions" / "predictions"
    paths = sorted(folder.glob(f"ensemble-{model}-speaker-*.parquet"))
    if not paths:
        raise MissingResult(
            f"No answers of an ensemble of {workspace.dataset} are in {folder}: {workspace.command('11')} stores them."
        )
    members, missing = {}, {}
    for name in settings("ensemble", workspace.profile)[model]:
        path = folder / paths[0].name.replace(f"ensemble-{model}", name)
        system = name.split("-")[0]
        if system not in ("baseline", "opensmile"):
            missing.setdefault(NETWORK, []).append(name)
        elif _kind(name) not in kinds_of_features():
            missing.setdefault(NOT_INSTALLED, []).append(name)
        elif not path.exists():
            missing.setdefault(NOT_STORED, []).append(name)
        else:
            members[name] = pd.read_parquet(path)
    return members, missing, pd.read_parquet(paths[0])
