"""Hyperparameters, one table per system and profile, from profiles.toml."""

import tomllib
from functools import cache
from pathlib import Path

PROFILES = ("smoke", "quick", "paper")  # shortest first


@cache
def _tables():
    return tomllib.loads(Path(__file__).with_name("profiles.toml").read_text("utf-8"))


def settings(system, profile, dataset=""):
    """The settings of one system under one profile.

    system : a table name of profiles.toml, e.g. "prototype"; profile : "smoke", "quick" or "paper"
    dataset : where the table has a table of that name, such as `demo`, what stands there goes before the rest
    Returns a dict, a fresh copy. Raises ValueError for an unknown system or profile, listing the accepted ones.
    """
    if system not in _tables():
        raise ValueError(f"system must be one of {', '.join(sorted(_tables()))}. Received: system={system!r}")
    if profile not in _tables()[system]:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}. Received: profile={profile!r}")
    table = _tables()[system][profile]
    own = table.get(dataset, {})
    return {name: value for name, value in table.items() if not isinstance(value, dict)} | own


def settings_table(system):
    """All profiles of a system side by side, for showing. Returns a DataFrame, one row per setting."""
    import pandas as pd

    columns = {}
    for profile in (name for name in PROFILES if name in _tables()[system]):
        columns[profile] = settings(system, profile)
        for dataset in (name for name, own in _tables()[system][profile].items() if isinstance(own, dict)):
            columns[f"{profile}, {dataset}"] = settings(system, profile, dataset)
    return pd.DataFrame(columns)
