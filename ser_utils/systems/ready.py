"""A model to use at once: small, trained on one corpus, kept as arrays and JSON beside the results.

One vector a clip (`utterance_statistics`), and a logistic regression for each number of clips known of the speaker. It
needs neither a network nor openSMILE, and answers within seconds.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from ser_utils.corpora import CORPORA
from ser_utils.evaluation.splits import make_folds
from ser_utils.names import dataset_name, dataset_parts
from ser_utils.systems.adaptation import Population, adapt, fit_for_known
from ser_utils.systems.known_clips import adaptation_curve
from ser_utils.workspace import (
    MissingResult,
    Workspace,
    WorkspaceError,
    atomic_path,
    file_digest,
    made_by,
    read_checksums,
    read_json,
    write_checksums,
    write_json,
)

COUNTS = (0, 1, 2, 5, 10, 20)  # clips known of a speaker, a regression each
DRAWS = 5  # of the known clips, when it is tested
PENALTY = 0.01  # scikit-learn's C: features are many and go together
GROUPS = {  # of features, by how their names begin
    "pitch": ("pitch", "voiced", "share voiced"),
    "level": ("level",),
    "rhythm": ("modulation", "seconds", "share sounding"),
}
REST = "timbre"
MOMENTS = ("mean", "within", "between")  # arrays of a Population
FACTS = {  # that a model's JSON must have, and of which type
    **dict.fromkeys(("title", "licence", "language"), str),
    **dict.fromkeys(("n_clips", "n_speakers"), int),
    **dict.fromkeys(("emotions", "features", "tested"), list),
}


def regression() -> LogisticRegression:
    """The classifier, not fitted."""
    return LogisticRegression(C=PENALTY, max_iter=500)


@dataclass(frozen=True)
class ReadyModel:
    """A model that recognises emotions in the statistics of a clip.

    Parameters
    ----------
    population : of the training speakers
    weights : {number of known clips: (n_classes, n_features + 1)}, the intercept last
    facts : what it learned from and what it reaches: dataset, title, licence, citation, language, seed, n_clips,
        n_speakers, emotions, features (names), tested (rows of `adaptation_curve`), made_by
    """

    population: Population
    weights: dict[int, np.ndarray]
    facts: dict[str, Any]

    def probabilities(self, features: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Probabilities (n_clips, n_classes) of one speaker's clips.

        Parameters
        ----------
        features : (n_clips, n_features), of one speaker
        known : (n_known, n_features), clips of the same speaker without labels; may be empty
        """
        return softmax(self._parts(features, known).sum(axis=-1), axis=1)

    def reasons(self, features: np.ndarray, known: np.ndarray, emotion: str) -> pd.Series:
        """How much each group of features raises the log-odds of an emotion over the other emotions' mean, (n_groups,).

        Parameters
        ----------
        features : (1, n_features)
        """
        parts = self._parts(features, known)[0, :, :-1]  # the intercept is nobody's
        raised = parts[self.facts["emotions"].index(emotion)] - parts.mean(axis=0)
        return pd.Series(raised).groupby([_group_of(name) for name in self.facts["features"]]).sum().sort_values()[::-1]

    def _parts(self, features, known):
        """What each feature adds to each class's score, (n_clips, n_classes, n_features + 1)."""
        weights = self.weights[max(number for number in self.weights if number <= len(known))]
        x = adapt(np.asarray(features, float), np.asarray(known, float), self.population)
        return np.column_stack([x, np.ones(len(x))])[:, None, :] * weights


def _group_of(name) -> str:
    return next((group for group, starts in GROUPS.items() if name.startswith(starts)), REST)


def learn_model(table: pd.DataFrame, features: np.ndarray, names: list[str], dataset: str, seed: int = 0) -> ReadyModel:
    """Learn from all clips of a table, and test the same recipe on speakers it did not learn from.

    Parameters
    ----------
    table : utterance table of two speakers or more
    features : (n_utterances, n_features); names : of the features
    dataset : its name
    """
    speakers = (table["corpus"] + "/" + table["speaker"]).to_numpy()
    about = (features, speakers, table["emotion"].to_numpy())
    fitted = {n: fit_for_known(regression(), *about, n, seed=seed) for n in COUNTS}
    folds = make_folds(table, "speaker", system="baseline", seed=seed)
    asked = {"counts": list(COUNTS), "draws": DRAWS, "seed": seed, "build": regression}
    tested = adaptation_curve({"voice": features}, table, folds, **asked).round(4)
    corpora = [CORPORA[name] for name in dataset_parts(dataset) if name in CORPORA]
    facts = {
        "dataset": dataset_name(dataset),
        "title": " + ".join(corpus.title for corpus in corpora) or dataset_name(dataset),
        "licence": "; ".join(corpus.licence for corpus in corpora),
        "citation": " ".join(corpus.citation for corpus in corpora),
        "language": ", ".join(sorted(set(table["language"].dropna()) - {""})) if "language" in table else "",
        "seed": seed,
        "n_clips": len(table),
        "n_speakers": len(set(speakers)),
        "emotions": [str(name) for name in fitted[0].classifier.classes_],
        "features": names,
        "tested": tested.to_dict("records"),
        "made_by": made_by(),
    }
    return ReadyModel(fitted[0].population, {n: _weights(m.classifier) for n, m in fitted.items()}, facts)


def _weights(regression) -> np.ndarray:
    weights = np.column_stack([regression.coef_, regression.intercept_])
    return weights if len(weights) > 1 else np.concatenate([0 * weights, weights])  # of two classes there is one row


def licence_word(licence: str) -> str:
    """The licence as part of a file's name: "cc-by-4.0"; "own" where it is not a Creative Commons licence.

    >>> licence_word("free to use with citation; published as CC0-1.0 by audEERING")
    'cc0-1.0'
    """
    licences = re.findall(r"CC(?:0|[ -]BY[A-Z-]*)[ -]\d\.\d", licence)
    return "+".join(text.lower().replace(" ", "-") for text in licences) or "own"


def model_folder(workspace: Workspace) -> Path:
    """Where a dataset's model is kept: it ships only where every corpus lets models be shared."""
    names = dataset_parts(workspace.dataset)
    may_ship = all(name in CORPORA and CORPORA[name].models_may_be_shared for name in names)
    return workspace.results / "model" if may_ship else workspace.build / "model"


def save_model(model: ReadyModel, folder: Path) -> Path:
    """Write arrays (npz, no pickles) and facts (JSON), named by corpus, licence and seed. Returns the JSON's path.

    The checksums come last: arrays without their facts, which a killed run may leave, are not taken for a model.
    """
    facts = model.facts
    name = f"{facts['dataset']}_{licence_word(facts['licence'])}_seed_{facts['seed']}"
    arrays = {key: getattr(model.population, key) for key in MOMENTS}
    arrays |= {f"weights_{number}": weights for number, weights in model.weights.items()}
    with atomic_path(folder / f"{name}.npz") as temporary:
        np.savez_compressed(temporary, **{key: value.astype(np.float32) for key, value in arrays.items()})
    write_json(folder / f"{name}.json", facts)
    write_checksums(folder, f"{name}.npz", f"{name}.json")
    return folder / f"{name}.json"


def load_model(path: Path) -> ReadyModel:
    """Read a model; path : of its JSON.

    Raises
    ------
    WorkspaceError : if it is damaged, or is not what the checksums of its folder, or of its results, say
    """
    folder = path.parent
    known = read_checksums(folder.parent)
    known |= {f"{folder.name}/{name}": digest for name, digest in read_checksums(folder).items()}
    again = "`git checkout` brings back one that ships; notebook 11 makes it anew"
    try:
        for file in (path, path.with_suffix(".npz")):
            name = f"{folder.name}/{file.name}"
            if name not in known:
                raise WorkspaceError(f"{file} has no checksum, so it may not be what was made. {again}.")
            if known[name] != file_digest(file):
                raise WorkspaceError(f"{file} was altered since it was made. {again}.")
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        facts = read_json(path)
        _refuse_misfit(arrays, facts if isinstance(facts, dict) else {})
        weights = {int(key.removeprefix("weights_")): arrays[key] for key in arrays if key.startswith("weights_")}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise WorkspaceError(f"The model {path.with_suffix('')} is damaged ({error}). {again}.") from error
    return ReadyModel(Population(*(arrays[key] for key in MOMENTS)), dict(sorted(weights.items())), facts)


def _refuse_misfit(arrays, facts):
    """Hold the arrays and facts of a model against what an answer needs; raises ValueError."""
    if wrong := [name for name, kind in FACTS.items() if not isinstance(facts.get(name), kind)]:
        raise ValueError(f"its facts must be {', '.join(FACTS)}; missing or of another type: {', '.join(wrong)}")
    for name in ("emotions", "features"):
        words = facts[name]
        if len({word for word in words if isinstance(word, str) and word}) < max(2, len(words)):
            raise ValueError(f"its {name} must be different words, at least two. Received: {words!s:.80}")
    reached = {row["n_known"]: row["uar"] for row in facts["tested"] if row["known"] == "random"}
    if 0 not in reached or min(reached) < 0 or not all(0 <= uar <= 1 for uar in reached.values()):
        raise ValueError("`tested` must say what share it recognises where no clip is known, and where some are")
    n_features = len(facts["features"])
    shapes = dict.fromkeys(MOMENTS, (n_features,))
    shapes |= {key: (len(facts["emotions"]), n_features + 1) for key in ("weights_0", *arrays) if key not in MOMENTS}
    for name, shape in shapes.items():
        values = arrays.get(name, np.empty(0))
        if values.shape != shape or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite numbers {shape}. Received: {values.dtype} {values.shape}")
    if arrays["within"].min() <= 0 or arrays["between"].min() < 0:
        raise ValueError("variances must be above 0 within speakers, and not below 0 between them")


def find_model(workspace: Workspace) -> Path:
    """Find the model of a dataset: made here, or one that ships.

    Raises
    ------
    MissingResult : if there is none; says what makes it, and which datasets have one
    """
    places = [workspace.build / "model", workspace.root / "results" / workspace.name / "model"]
    models = [path for place in places for path in sorted(place.glob("*.json"))]
    if not models:
        there = sorted(path.parents[1].name for path in workspace.root.glob("results/*/model/*.json"))
        raise MissingResult(
            f"There is no model of {workspace.dataset} to use at once; there is one of {', '.join(there) or 'none'}. "
            f"{workspace.command('11')} makes one."
        )
    return models[0]
