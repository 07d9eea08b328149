"""The ensemble of notebook 11, asked about recordings of a voice that no corpus has.

Its members that are features and a classifier are fitted here, on the whole corpus. The answers of all members that ship
tell their weights, and what they reach together on speakers they had not learned from.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ser_utils.evaluation.metrics import score_predictions
from ser_utils.features.audio import resample
from ser_utils.features.fisher import FisherVectors
from ser_utils.profiles import settings
from ser_utils.systems import baselines, ensemble
from ser_utils.systems.adaptation import centre_by_speaker, rank_by_speaker, scale_by_speaker
from ser_utils.workspace import MissingResult, Workspace

NETWORK = "networks, which this command does not ask"
NOT_INSTALLED = "openSMILE is not installed (make setup-extras)"
NOT_STORED = "their answers do not ship"


@dataclass(frozen=True)
class ReadyEnsemble:
    """An ensemble whose members were fitted on a whole corpus.

    Parameters
    ----------
    model : "new_speaker", or "adapted", which ranks features among the speaker's clips, and takes the speaker's mean and
        deviation off frames
    classifiers : {member: fitted classifier of scikit-learn}
    weights : of the members, by name
    encoder : of openSMILE's frames, fitted; None where no member asks for them
    emotions : in the order of the probabilities
    missing : why a member is not asked, by name
    tested, whole : UAR of these members, and of all, on speakers they had not learned from
    n_known : clips of each of these speakers, mean
    """

    model: str
    classifiers: dict[str, Any]
    weights: pd.Series
    encoder: FisherVectors | None
    emotions: list[str]
    missing: pd.Series
    tested: float
    whole: float
    n_known: float

    def shares(self, heard: np.ndarray) -> np.ndarray:
        """What each member adds to the logarithm of each emotion's probability.

        Parameters
        ----------
        heard : (n_clips, n_kinds), as `extract` gives it, of all clips of one speaker

        Returns
        -------
        (n_members, n_clips, n_classes); the softmax of their sum over members is the answer
        """
        speakers = ["the speaker"] * len(heard) if self.model == "adapted" else None
        clips = dict(zip(kinds_of_features(), heard.T, strict=True))
        scaled = {kind: _on_own_scale(clips[kind], speakers) for kind in {_kind(name) for name in self.classifiers}}
        seen = {kind: _encoded(clips, speakers, self.encoder) for kind, clips in scaled.items()}
        shares = []
        for member, classifier in self.classifiers.items():
            p = classifier.predict_proba(seen[_kind(member)])
            p = pd.DataFrame(p, columns=classifier.classes_).reindex(columns=self.emotions, fill_value=0)
            shares.append(self.weights[member] * np.log(np.maximum(p, ensemble.LEAST)))
        return np.stack(shares)


def _on_own_scale(clips, speakers) -> np.ndarray:
    """Clips (n_clips,), each a vector or frames, on their speakers' own scale; speakers : None leaves them as they are."""
    if clips[0].ndim == 1:
        vectors = np.stack(list(clips))
        return vectors if speakers is None else rank_by_speaker(vectors, speakers)
    return clips if speakers is None else scale_by_speaker(clips, speakers)


def _encoded(clips, speakers, encoder) -> np.ndarray:
    """What classifiers see of clips as `_on_own_scale` gives them: vectors as they are, frames as Fisher vectors."""
    if clips[0].ndim == 1:
        return clips
    vectors = encoder.transform(clips)
    return vectors if speakers is None else centre_by_speaker(vectors, speakers)


def _kind(member) -> str:
    return baselines.features_of(member.split("-")[1])


def kinds_of_features() -> list[str]:
    """The features of all members that can be fitted here: those of openSMILE where it is installed."""
    return ["voice", *([*baselines.OPENSMILE_SETS, baselines.DESCRIPTORS] if baselines.has_opensmile() else [])]


def extract(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Compute the features of all members: (1, n_kinds), each a vector, or frames (n_frames, n_descriptors).

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate : Hz, that of the corpus
    """
    kinds = kinds_of_features()
    described = np.empty((1, len(kinds)), object)
    for place, kind in enumerate(kinds):
        extractor, rate = baselines.EXTRACTORS[kind]
        heard = signal if rate in (None, sample_rate) else resample(signal, sample_rate, rate)
        features = np.nan_to_num(extractor(heard, rate or sample_rate))
        described[0, place] = features if kind == baselines.DESCRIPTORS else features[0]
    return described


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
    speakers = table["corpus"] + "/" + table["speaker"] if model == "adapted" else None
    classifiers, encoder = {}, None
    for kind in {_kind(name): None for name in members}:
        clips = _on_own_scale(baselines.load_features(workspace.folder("features"), table, kind), speakers)
        if kind == baselines.DESCRIPTORS:
            with threadpool_limits(1):  # these products are small: more threads only wait for each other
                encoder = FisherVectors().fit(clips)
        x = _encoded(clips, speakers, encoder)
        for name in filter(lambda name: _kind(name) == kind, members):
            classifiers[name] = baselines.build_classifier(name.split("-")[1]).fit(x, table["emotion"])
    emotions = [name.removeprefix("p_") for name in whole if name.startswith("p_")]
    pooled, _, _ = ensemble.pool(members, whole.assign(role="test"))
    uar, n_known = (
        [score_predictions(answers)["uar"] for answers in (pooled, whole)],
        whole["speaker"].value_counts().mean(),
    )
    return ReadyEnsemble(model, classifiers, ensemble.weigh(members), encoder, emotions, missing, *uar, n_known)


def _stored(workspace, model):
    """Stored answers of the members that can be fitted here, why others cannot, and the answers of the whole ensemble."""
    folder = workspace.root / "results" / workspace.name / "decisions" / "predictions"
    names = settings("ensemble", workspace.profile)[model]
    for path in sorted(folder.glob(f"ensemble-{model}-speaker-*.parquet")):
        paths = {name: path.with_name(path.name.replace(f"ensemble-{model}", name)) for name in names}
        missing = pd.Series({name: _why_missing(name, paths[name]) for name in names})
        members = {name: pd.read_parquet(paths[name]) for name in missing.index[missing == ""]}
        if len(members) >= ensemble.FEWEST_MEMBERS:
            return members, missing[missing != ""], pd.read_parquet(path)
    raise MissingResult(
        f"The ensemble {model} of {workspace.dataset} needs the stored answers of at least {ensemble.FEWEST_MEMBERS} members "
        f"that are no networks. {workspace.command('11')} stores them in {folder}."
    )


def _why_missing(name, path) -> str:
    if not name.startswith(("baseline", "opensmile")):
        return NETWORK
    if _kind(name) not in kinds_of_features():
        return NOT_INSTALLED
    return "" if path.exists() else NOT_STORED
