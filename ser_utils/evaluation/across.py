"""Trained on some corpora, tested on another: fold tables, and what is lost on the way.

A corpus differs from another in its language, its recording, its actors and its idea of each emotion, all at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ser_utils.evaluation.metrics import compare_paired, holm, score_predictions
from ser_utils.evaluation.splits import make_folds

NORMALISED = {"none": "no normalisation", "corpus": "normalised by corpus"}
LABEL = ["model", "normalised", "trained_on", "tested_on"]


class Crossing(NamedTuple):
    """Which corpora a model is trained on, and on which one it is tested."""

    trained_on: tuple[str, ...]
    tested_on: str

    @property
    def is_within(self) -> bool:
        """Whether training hears the tested corpus, other speakers of it."""
        return self.tested_on in self.trained_on


Crossed = dict[tuple[str, str, Crossing], pd.DataFrame]  # (model, normalised, crossing) -> predictions


def training_sets(corpora: Iterable[str]) -> list[tuple[str, ...]]:
    """List what models are trained on: each corpus alone, all but one, and all together.

    Parameters
    ----------
    corpora : names; their order, without repetition, is kept
    """
    names = tuple(dict.fromkeys(corpora))
    without = [tuple(name for name in names if name != left_out) for left_out in names]
    return list(dict.fromkeys([*((name,) for name in names), *filter(None, without), names]))


def keep_shared(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the utterances of emotions that every corpus has; one set for all crossings, so that chance is the same."""
    n_corpora = table.groupby("emotion")["corpus"].transform("nunique")
    return table[n_corpora == table["corpus"].nunique()].reset_index(drop=True)


def cross_folds(
    table: pd.DataFrame, trained_on: Sequence[str], *, folds: str = "5_speakers", seed: int = 0
) -> pd.DataFrame:
    """Make the folds of all models that are trained on some corpora: no speaker is trained on and tested.

    Parameters
    ----------
    table : utterance table of all corpora
    trained_on : one corpus, all of them, or any others
    folds : how speakers are folded where training hears the tested corpus too, as `make_folds` takes it

    Returns
    -------
    fold table of protocol `speaker`. One corpus, or all of them, are tested fold by fold. What training does not hear is
    tested in one more fold, all of it; there a fifth of the training speakers validates.
    """
    is_source = table["corpus"].isin(trained_on)
    sources, others = table[is_source], table[~is_source]
    parts = []
    if len(trained_on) == 1 or others.empty:
        parts.append(make_folds(sources, "speaker", folds=folds, seed=seed))
    if len(others):
        number = parts[0]["fold"].max() + 1 if parts else 0
        of_five = make_folds(sources, "speaker", folds="5_speakers", seed=seed)
        watched = of_five.query("fold == 0 and role == 'test'")["utterance_id"]
        role = np.where(sources["utterance_id"].isin(watched), "validation", "train")
        parts += [_rows(sources, number, role), _rows(others, number, "test")]
    made = pd.concat(parts).sort_values(["fold", "utterance_id"], ignore_index=True)
    name = "from_" + "_".join(trained_on)
    made.attrs = {"protocol": "speaker", "folds": name, "system": "", "seed": seed, "notes": []}
    return made


def _rows(table, fold, role):
    return table[["utterance_id"]].assign(start_ms=np.nan, fold=fold, role=role)


def by_crossing(
    predictions: pd.DataFrame, table: pd.DataFrame, trained_on: Sequence[str]
) -> dict[Crossing, pd.DataFrame]:
    """Part what the models of one training set said by the corpus they were tested on."""
    tested_on = predictions["utterance_id"].map(table.set_index("utterance_id")["corpus"])
    names = [name for name in table["corpus"].unique() if (tested_on == name).any()]
    return {Crossing(tuple(trained_on), name): predictions[tested_on == name] for name in names}


def score_crossings(crossed: Crossed) -> pd.DataFrame:
    """Score every crossing.

    Returns
    -------
    table `model, normalised, trained_on` (joined by "+"), `tested_on`, `n_speakers, n_utterances, uar, uar_low, uar_high`
    """
    columns = ["n_speakers", "n_utterances", "uar", "uar_low", "uar_high"]
    rows = []
    for (model, normalised, crossing), predictions in crossed.items():
        scores = score_predictions(predictions)
        rows.append([model, normalised, "+".join(crossing.trained_on), crossing.tested_on, *map(scores.get, columns)])
    return pd.DataFrame(rows, columns=[*LABEL, *columns])


def measure_adding(crossed: Crossed) -> pd.DataFrame:
    """Tell whether training on all corpora helps, beside training on the tested one alone.

    Returns
    -------
    table `model, normalised, tested_on`, and of the difference (together less alone) on the same clips what
    `metrics.compare_paired` gives, with `p_holm` over all rows
    """
    rows = []
    for (model, normalised, crossing), alone in crossed.items():
        together = [key for key in crossed if key[:2] == (model, normalised) and _adds_to(crossing, key[2])]
        for key in together:
            about = {"model": model, "normalised": normalised, "tested_on": crossing.tested_on}
            rows.append(about | compare_paired(crossed[key], alone))
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"])) if len(table) else table


def _adds_to(alone, other):
    is_alone = alone.trained_on == (alone.tested_on,)
    return is_alone and other.is_within and other.tested_on == alone.tested_on and len(other.trained_on) > 1


def measure_losses(crossed: Crossed, worn: Mapping[tuple[str, Crossing], pd.DataFrame]) -> pd.DataFrame:
    """Tell what is lost from a corpus's own models to models of another corpus, in two parts that add up.

    `recording` is what normalising each corpus by its own mean and deviation gives back: level, microphone, room, and
    whatever else moves the features of a whole corpus alike. `rest` is what remains lost: language, acting, and what the
    actors were asked for. Language cannot be told from acting, since here no two corpora share one.

    Parameters
    ----------
    crossed : of models with both kinds of NORMALISED
    worn : (model, crossing) -> predictions of the tested corpus's own models on its clips in the statistics of the other
        corpus: the recording changes, the language does not

    Returns
    -------
    table `model, trained_on, tested_on`, `within` (UAR of own models), `across, across_normalised, worn`; `recording` and
    `rest` with `_low, _high, _p` as `metrics.compare_paired` gives them
    """
    rows = []
    for model, normalised, crossing in crossed:
        if crossing.is_within or len(crossing.trained_on) > 1 or normalised != "none":
            continue
        within = Crossing((crossing.tested_on,), crossing.tested_on)
        tables = {
            "within": crossed.get((model, "none", within)),
            "across": crossed[model, "none", crossing],
            "across_normalised": crossed.get((model, "corpus", crossing)),
            "worn": worn.get((model, crossing)),
        }
        row = dict(zip(LABEL, (model, "", crossing.trained_on[0], crossing.tested_on), strict=True))
        row |= {name: score_predictions(table)["uar"] for name, table in tables.items() if table is not None}
        row |= _paired("recording", tables["across_normalised"], tables["across"])
        row |= _paired("rest", tables["within"], tables["across_normalised"])
        rows.append(row)
    return pd.DataFrame(rows).drop(columns="normalised", errors="ignore")


def _paired(name, better, worse) -> dict[str, Any]:
    if better is None or worse is None:
        return {}
    gap = compare_paired(better, worse)
    return {name: gap["difference"]} | {f"{name}_{key}": gap[key] for key in ("low", "high", "p")}
