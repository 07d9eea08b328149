"""All scores in one table, from predictions alone, and how systems compare."""

import os
import platform
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ser_utils.evaluation import metrics
from ser_utils.evaluation.splits import PROTOCOLS, default_folds, leaks_beyond
from ser_utils.names import result_name
from ser_utils.profiles import systems
from ser_utils.workspace import Workspace, read_json

TO_BEAT = "baseline · mfcc"
NAME = ["system", "model", "protocol", "folds"]
SCORES = (
    "dataset", *NAME, "level", "n_speakers", "n_utterances", "uar", "uar_low", "uar_high", "uar_fold_mean",
    "accuracy", "macro_f1", "profile", "seed", "leaks",
)  # fmt: skip
NOT_AUDITED = "not audited"


# gathering ------------------------------------------------------------------------------------------------


def list_predictions(workspace):
    """What has been predicted: a table `system, model, protocol, folds`, in the order tables show it."""
    names = [path.stem.split("-") for path in (workspace.build / "predictions").glob("*.parquet")]
    table = pd.DataFrame([name for name in names if len(name) == 4 and name[0] in systems()], columns=NAME)
    return in_order(table)


def in_order(table):
    rank = {"system": list(systems()), "protocol": list(PROTOCOLS)}
    keys = [column for column in (*NAME, "level") if column in table]
    return table.sort_values(
        keys, key=lambda c: c.map(rank[c.name].index) if c.name in rank else c, ignore_index=True
    )


def stands_for_its_system(system, model):
    """Whether a model is one that its system is compared by: declared by name, and neither deaf nor of random weights."""
    declared = systems()[system]
    stands = any(fnmatch(model, pattern) for pattern in declared.models)
    return stands and model not in declared.not_compared and not model.startswith("random_")


def protocols_for(table):
    """What a system that takes no part in the choice is run under: {(protocol, folds)}, as far as the table
    has texts and speakers to keep apart."""
    texts = table["sentence"].fillna("").astype(str)
    wanted = {("paper", None), ("utterance", default_folds(table, "utterance"))}
    if texts.nunique() > 1 and not (texts == "").any():
        wanted.add(("sentence", default_folds(table, "sentence")))
    if len(table[["corpus", "speaker"]].drop_duplicates()) > 1:
        wanted.add(("speaker", default_folds(table, "speaker")))
    return wanted


def missing_systems(found):
    """Systems without predictions, and the notebook to run: "vae (06)", …"""
    return [
        f"{name} ({system.notebook})"
        for name, system in systems().items()
        if name not in set(found["system"])
    ]


def load_predictions(workspace, system, model, protocol, folds):
    """One predictions file; raises MissingResult if it is absent or damaged."""
    return workspace.load_table(
        f"predictions/{result_name(system, model, protocol, folds)}", made_by=systems()[system].notebook
    )


def gather_scores(workspace):
    """Score every predictions file: a table of SCORES, segments and voted utterances as rows of their own."""
    rows = []
    for name in list_predictions(workspace).itertuples(index=False):
        predictions = load_predictions(workspace, *name)
        voted = metrics.vote_utterances(predictions)
        about = dict(name._asdict(), dataset=workspace.name, profile=workspace.profile, seed=workspace.seed)
        about["leaks"] = _leaks(workspace, name)
        for table in [predictions] if voted is predictions else [predictions, voted]:
            rows.append(about | metrics.score_predictions(table))
    return in_order(pd.DataFrame(rows, columns=list(SCORES)))


def _leaks(workspace, name):
    audit = f"audits/{result_name(*name)}"
    if not workspace.has_table(audit):
        return NOT_AUDITED
    return leaks_beyond(workspace.load_table(audit), name.protocol)


def gather_costs(workspace):
    """What each result cost: parameters, seconds to train, milliseconds per utterance, the machine."""
    rows = []
    for name in list_predictions(workspace).itertuples(index=False):
        path = workspace.build / "costs" / f"{result_name(*name)}.json"
        rows.append(name._asdict() | (read_json(path) if path.exists() else {}))
    costs = pd.DataFrame(rows, columns=[*NAME, "parameters", "seconds_to_train", "ms_per_utterance"])
    return costs.assign(machine=f"{platform.machine()}, {os.cpu_count()} cores")


def gather_seeds(workspace):
    """Scores of every seed there is of this dataset and profile, as repeated runs.

    Returns `system, model, protocol, folds, level, n_seeds, uar_mean, uar_sd`, only where there are two or more.
    """
    every = [
        gather_scores(Workspace(workspace.dataset, workspace.profile, int(folder.name[5:]), workspace.root))
        for folder in sorted(workspace.build.parent.glob("seed_*"))
        if folder.name[5:].isdigit()
    ]
    keys = [*NAME, "level"]
    found = pd.concat(every).groupby(keys)["uar"].agg(["count", "mean", "std"]).reset_index()
    found.columns = [*keys, "n_seeds", "uar_mean", "uar_sd"]
    return in_order(found[found["n_seeds"] > 1])


# comparing ------------------------------------------------------------------------------------------------


def label_of(name):
    """How a result is called in figures: "vae · latent"."""
    return f"{name.system} · {name.model}".replace("_", " ")


def decisions(workspace, protocol):
    """The utterance-level predictions, under one protocol, of the models that stand for their systems: {label: table}.

    Where a protocol was folded in several ways the one with the most test utterances is taken.
    """
    found = {}
    for name in list_predictions(workspace).query("protocol == @protocol").itertuples(index=False):
        if not stands_for_its_system(name.system, name.model):
            continue
        table = metrics.vote_utterances(load_predictions(workspace, *name))
        label = label_of(name)
        if label not in found or table["utterance_id"].nunique() > found[label]["utterance_id"].nunique():
            found[label] = table
    return found


def compare_all(found, against=None):
    """Every pair of systems on the utterances both decided, p adjusted for the number of pairs (Holm).

    found : {label: utterance predictions}; against : label, only pairs with it, in second place
    Returns `first, second` and what `metrics.compare_paired` gives, with `p_holm`; pairs without a common utterance
    are left out.
    """
    pairs = combinations(found, 2)
    if against is not None:
        pairs = [(label, against) for label in found if against in found and label != against]
    rows = [
        {"first": first, "second": second} | metrics.compare_paired(found[first], found[second])
        for first, second in pairs
        if set(found[first]["utterance_id"]) & set(found[second]["utterance_id"])
    ]
    columns = "first second n_utterances n_speakers difference low high p".split()
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=metrics.holm(table["p"]))


def square(pairs, column, labels, *, sign=-1):
    """One column of `compare_all` as a table systems × systems; the other triangle is `sign` times it."""
    table = pd.DataFrame(np.nan, labels, labels)
    for row in pairs.to_dict("records"):
        table.loc[row["first"], row["second"]] = row[column]
        table.loc[row["second"], row["first"]] = sign * row[column]
    return table


def by_gender(found, utterances):
    """UAR of each system for female and male speakers; empty where the corpus does not say."""
    gender_of, rows = utterances.set_index("utterance_id")["gender"], []
    for label, table in found.items():
        groups = table.groupby(table["utterance_id"].map(gender_of))
        uar = {name: metrics.unweighted_average_recall(g["emotion"], g["prediction"]) for name, g in groups}
        rows.append({"label": label} | uar)
    table = pd.DataFrame(rows, columns=["label", "female", "male"])
    return table.assign(difference=table["female"] - table["male"])


def errors(found):
    """Who is wrong about what: a table of booleans, utterances × systems, on the utterances all decided."""
    wrong = {
        label: table.drop_duplicates("utterance_id").set_index("utterance_id").eval("emotion != prediction")
        for label, table in found.items()
    }
    return pd.DataFrame(wrong).dropna().astype(bool).sort_index()


def failing_together(wrong):
    """Cohen's kappa of the errors of each two systems: 1 they fail on the same clips, 0 as independent ones would.

    wrong : as `errors` gives it. Returns a table systems × systems.
    """
    x = wrong.to_numpy(float)
    agree = (x.T @ x + (1 - x).T @ (1 - x)) / max(len(x), 1)
    rate = x.mean(axis=0)
    expected = np.outer(rate, rate) + np.outer(1 - rate, 1 - rate)
    kappa = np.divide(agree - expected, 1 - expected, out=np.ones_like(agree), where=expected < 1)
    return pd.DataFrame(kappa, wrong.columns, wrong.columns)


def fall(scores):
    """UAR by protocol, one row per system and model, utterance level, and how far it falls to the strictest.

    Where a protocol was folded in several ways the one with the most utterances is taken.
    """
    rows = scores[scores["level"] == "utterance"].sort_values("n_utterances", kind="stable")
    wide = rows.drop_duplicates(["system", "model", "protocol"], keep="last")
    wide = wide.pivot(index=["system", "model"], columns="protocol", values="uar")
    wide = wide.reindex(columns=list(PROTOCOLS)).reset_index().rename_axis(columns=None)
    known = wide[list(PROTOCOLS)]
    wide["fall"] = wide["paper"] - known.iloc[:, 1:].ffill(axis=1).iloc[:, -1]
    return in_order(wide)


def load_published():
    """What was published: `system, model, dataset, protocol, metric, value, how, source`."""
    return pd.read_csv(Path(__file__).with_name("published.csv"), keep_default_na=False)


def beside_published(scores):
    """Each published figure of this dataset beside ours, same model and protocol; "none published" where so.

    Returns `system, model, protocol, metric, published, ours, how, source`; `ours` is NaN where it was not run.
    """
    ours = scores[scores["level"] == "utterance"]
    published = load_published()
    rows = []
    for system, own in ours.groupby("system", sort=False):
        if system == "baseline":
            continue
        known = published[(published["system"] == system) & published["dataset"].isin(set(own["dataset"]))]
        for one in known.to_dict("records"):
            same = own[(own["protocol"] == one["protocol"]) & (own["model"] == one["model"])]
            same = same[same["folds"] == one["folds"]] if one["folds"] else same
            most = same.loc[same["n_utterances"].idxmax()] if len(same) else {}
            rows.append(one | {"published": one["value"], "ours": most.get(one["metric"], np.nan)})
        if known.empty:
            none = dict.fromkeys(["model", "protocol", "metric", "how", "source"], "")
            rows.append({"system": system, "published": "none published", "ours": np.nan} | none)
    columns = "system model protocol metric published ours how source".split()
    return pd.DataFrame(rows, columns=columns)
