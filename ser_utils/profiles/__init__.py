"""Hyperparameters and what each system is: one toml a system, one table a profile.

    smoke  seconds per notebook; proves that everything runs
    quick  a laptop CPU; thins, caps and shrinks, and says so; results mean something
    paper  the published settings

A table of a corpus's name inside a profile holds for that corpus alone: `demo`, from which nothing is to be learned but
that it runs, is trained for less time. A table `joined` holds for several corpora at once.
"""

import functools
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_utils.names import dataset_parts

if TYPE_CHECKING:
    import pandas as pd

PROFILES = ("smoke", "quick", "paper")  # shortest first
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class System:
    """One published system or baseline, as its toml declares it under `[system.<name>]`.

    Parameters
    ----------
    name : as in tables and file names
    notebook : number of the notebook that makes its predictions
    models : those that stand for the system in tables, chosen by name and not by score; patterns may have a "*"
    not_compared : of these, the ones that nobody asks whether they are better
    adapted : models that know unlabelled clips of the tested speakers, each with the one that knows nothing of them
    split : shares of the published split, e.g. {"train": 0.8, "test": 0.2}
    folds : name of the published folds
    stratified : whether the published split keeps the shares of the emotions
    epoch_chosen_on_test : the source reports the best test epoch
    needs_validation : the epoch is chosen on a validation part outside `paper`; else a fold may do without
    within_speaker : a model knows one speaker, so every split is made within each speaker
    note : what the published split has to be told with
    needs : what has to be run before it has results that mean something, such as `make weights`
    chosen_on_test : models (patterns may have a "*") with a setting that was chosen by looking at scores of tested clips,
        by the corpus of these clips. notebooks/choices.md says what was chosen and when.
    """

    name: str
    notebook: str
    models: tuple[str, ...]
    split: dict[str, float] = field(hash=False)
    not_compared: tuple[str, ...] = ()
    adapted: dict[str, str] = field(default_factory=dict, hash=False)
    folds: str = "holdout"
    stratified: bool = True
    epoch_chosen_on_test: bool = False
    needs_validation: bool = True
    within_speaker: bool = False
    note: str = ""
    needs: str = ""
    chosen_on_test: dict[str, list[str]] = field(default_factory=dict, hash=False)

    def looked_at(self, model: str) -> set[str]:
        """Corpora on whose test clips a setting of this model was chosen."""
        chosen = self.chosen_on_test.items()
        return {corpus for corpus, models in chosen if any(fnmatch(model, pattern) for pattern in models)}


@functools.cache
def _tables() -> dict[str, Any]:
    import tomllib  # only from Python 3.11 on, of which tools/graph.py has to be able to tell

    tables, systems = {}, {}
    for path in sorted(FOLDER.glob("*.toml")):
        content = tomllib.loads(path.read_text("utf-8"))
        systems |= content.pop("system", {})
        tables |= content
    return tables | {"system": systems}


@functools.cache
def systems() -> dict[str, System]:
    """All systems by name, in the order of their notebooks, which is the order of tables."""
    declared = sorted(_tables()["system"].items(), key=lambda item: item[1]["notebook"])
    made = {}
    for name, facts in declared:
        lists = {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
        made[name] = System(name, **facts | lists)
    return made


def settings(table: str, profile: str, dataset: str = "") -> dict[str, Any]:
    """Read the settings of one system under one profile.

    Parameters
    ----------
    table : such as "prototype" or "prototype_classifier"
    profile : "smoke", "quick" or "paper"
    dataset : where the profile has a table of that name, such as `demo`, or `joined` and there are several corpora,
        what stands there comes first

    Returns
    -------
    dict, a fresh copy

    Raises
    ------
    ValueError : for an unknown table or profile; lists the accepted ones
    """
    known = sorted(_tables().keys() - {"system"})
    if table not in known:
        raise ValueError(f"system must be one of {', '.join(known)}. Received: system={table!r}")
    if profile not in _tables()[table]:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}. Received: profile={profile!r}")
    values = _tables()[table][profile]
    common = {name: value for name, value in values.items() if not isinstance(value, dict)}
    return common | values.get("joined" if len(dataset_parts(dataset)) > 1 else dataset, {})


def settings_table(table: str) -> "pd.DataFrame":
    """Set all profiles of a system side by side, for showing: one row per setting."""
    import pandas as pd

    columns = {}
    for profile in (name for name in PROFILES if name in _tables()[table]):
        columns[profile] = settings(table, profile)
        for dataset, values in _tables()[table][profile].items():
            if isinstance(values, dict):
                columns[f"{profile}, {dataset}"] = settings(table, profile, dataset)
    return pd.DataFrame(columns)
