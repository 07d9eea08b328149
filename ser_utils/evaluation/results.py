"""All scores in one table, from predictions alone, and how systems compare."""

import os
import platform
from collections.abc import Mapping
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from ser_utils.evaluation import metrics
from ser_utils.evaluation.splits import ADAPTED, FITTED, PROTOCOLS, default_folds, leaks_beyond
from ser_utils.names import STAND_INS, result_name
from ser_utils.profiles import systems
from ser_utils.workspace import Workspace, read_json

TO_BEAT = "baseline · mfcc"
NAME = ["system", "model", "protocol", "folds"]
SCORES = tuple(
    ["dataset", *NAME]
    + "level n_speakers n_utterances uar uar_low uar_high uar_fold_mean accuracy macro_f1 profile seed leaks".split()
)
COSTS = ("parameters", "seconds_to_train", "ms_per_utterance")
NOT_AUDITED = "not audited"
SETUP = ["classes", "clips", "n_folds", "parameters", "epochs"]  # what has to agree for one protocol to be the same
DIFFERENCE = "n_utterances n_speakers difference low high p".split()
# What was tried to be better on new speakers of whom nothing is known: the step, the model with it and the one without
STEPS = (
    ("pitch, timbre and rhythm instead of MFCC alone", ("baseline", "voice"), ("baseline", "mfcc")),
    ("discriminant instead of SVC", ("baseline", "voice_lda"), ("baseline", "voice")),
    ("discriminant instead of SVC", ("opensmile", "egemaps_lda"), ("opensmile", "egemaps")),
    ("discriminant instead of SVC", ("opensmile", "compare_lda"), ("opensmile", "compare")),
    ("descriptors over time instead of functionals", ("opensmile", "lld"), ("opensmile", "compare")),
    ("clips at their own length", ("spectrogram_cnn", "clip_4_layers"), ("spectrogram_cnn", "image_4_layers")),
    ("artificial copies", ("spectrogram_cnn", "clip_artificial"), ("spectrogram_cnn", "clip_4_layers")),
    ("log-mel instead of MFCC", ("feature_network", "deep_cnn_log_mel"), ("feature_network", "deep_cnn_mfcc")),
    ("BiLSTM after the CNN", ("feature_network", "cnn_bilstm_log_mel"), ("feature_network", "deep_cnn_log_mel")),
    ("mean of four networks", ("feature_network", "all_four"), ("feature_network", "deep_cnn_log_mel")),
    ("latent of a VAE beside features", ("vae", "both"), ("vae", "features")),
    ("GRU over time", ("cnn_n_gru", "over_time"), ("cnn_n_gru", "network")),
    ("several systems together", ("ensemble", "new_speaker"), ("opensmile", "compare")),
)


class Name(NamedTuple):
    """What names a result, and its files."""

    system: str
    model: str
    protocol: str
    folds: str


Decisions = dict[Name, pd.DataFrame]  # utterance predictions of every result
Epochs = Mapping[str | tuple[str, str], int]  # of a system, or of a model: (system, model)
Labelled = Mapping[str, pd.DataFrame]  # utterance predictions of several systems under one protocol, by label


def list_predictions(workspace: Workspace) -> pd.DataFrame:
    """List what has been predicted: a table `system, model, protocol, folds`, in the order tables show it.

    Models with encoders that were never trained (STAND_INS) have no meaning and are left out.
    """
    names = [path.stem.split("-") for path in (workspace.build / "predictions").glob("*.parquet")]
    names = [name for name in names if len(name) == 4 and name[0] in systems()]
    return sort_results(pd.DataFrame([n for n in names if not n[1].startswith(STAND_INS)], columns=NAME))


def result_names(workspace: Workspace) -> list[Name]:
    """The rows of `list_predictions` as names."""
    return [Name(*row) for row in list_predictions(workspace).itertuples(index=False)]


def sort_results(table: pd.DataFrame) -> pd.DataFrame:
    """Put the rows of results in the order tables show them: by system, model, protocol, folds, level."""
    rank = {"system": list(systems()), "protocol": list(PROTOCOLS)}
    keys = [column for column in (*NAME, "level") if column in table]
    return table.sort_values(keys, key=lambda c: c.map(rank[c.name].index) if c.name in rank else c, ignore_index=True)


def stands_for_its_system(system: str, model: str) -> bool:
    """Tell whether its system is compared by this model: named in its toml, neither deaf nor of random weights."""
    declared = systems()[system]
    stands = any(fnmatch(model, pattern) for pattern in declared.models)
    return stands and model not in declared.not_compared and not model.startswith(STAND_INS)


def protocols_for(table: pd.DataFrame) -> set[tuple[str, str | None]]:
    """List what the baselines run under: {(protocol, folds)}, as far as the table has texts and speakers for it."""
    texts = table["sentence"].fillna("").astype(str)
    wanted = {("paper", None), ("utterance", default_folds(table, "utterance"))}
    if texts.groupby(table["corpus"]).nunique().min() > 1 and not (texts == "").any():
        wanted.add(("sentence", default_folds(table, "sentence")))
    if len(table[["corpus", "speaker"]].drop_duplicates()) > 1:
        wanted.add(("speaker", default_folds(table, "speaker")))
    return wanted


def missing_systems(scores: pd.DataFrame) -> list[str]:
    """Name the systems without predictions, and the notebook to run: "vae (06)", …"""
    there = set(scores["system"])
    return [f"{name} ({system.notebook})" for name, system in systems().items() if name not in there]


def load_predictions(workspace: Workspace, system: str, model: str, protocol: str, folds: str) -> pd.DataFrame:
    """Read one predictions file; raises MissingResult if it is absent or damaged."""
    name = f"predictions/{result_name(system, model, protocol, folds)}"
    return workspace.load_table(name, made_by=systems()[system].notebook)


def gather_scores(workspace: Workspace) -> pd.DataFrame:
    """Score every predictions file: a table of SCORES, segments and voted utterances as rows of their own."""
    rows = []
    for name in result_names(workspace):
        about = dict(name._asdict(), dataset=workspace.name, profile=workspace.profile, seed=workspace.seed)
        about["leaks"] = _leaks(workspace, name)
        rows += [about | metrics.score_predictions(table) for table in _levels(workspace, name)]
    return sort_results(pd.DataFrame(rows, columns=list(SCORES)))


def _levels(workspace, name) -> list[pd.DataFrame]:
    """A result's predictions, and for segments the utterances they vote for."""
    predictions = load_predictions(workspace, *name)
    voted = metrics.vote_utterances(predictions)
    return [predictions] if voted is predictions else [predictions, voted]


def _leaks(workspace, name) -> str:
    audit = f"audits/{result_name(*name)}"
    if not workspace.has_table(audit):
        return NOT_AUDITED
    return leaks_beyond(workspace.load_table(audit), name.protocol)


def gather_costs(workspace: Workspace) -> pd.DataFrame:
    """Gather what each result cost: parameters, seconds to train, milliseconds per utterance, the machine."""
    rows = []
    for name in result_names(workspace):
        path = workspace.build / "costs" / f"{result_name(*name)}.json"
        rows.append(name._asdict() | (read_json(path) if path.exists() else {}))
    costs = pd.DataFrame(rows, columns=[*NAME, *COSTS])
    return costs.assign(machine=f"{platform.machine()}, {os.cpu_count()} cores")


def seeds_of(workspace: Workspace) -> list[Workspace]:
    """The workspaces of every seed that was run with this dataset and profile, lowest first."""
    seeds = [int(p.name[5:]) for p in workspace.build.parent.glob("seed_*") if p.name[5:].isdigit()]
    return [Workspace(workspace.dataset, workspace.profile, seed, workspace.root) for seed in sorted(seeds)]


def gather_seeds(workspace: Workspace) -> pd.DataFrame:
    """Score what was run with several seeds: mean and spread, and an interval that holds speakers and seeds.

    Returns
    -------
    table `system, model, protocol, folds, n_seeds, uar_mean, uar_sd, uar_low, uar_high` of whole utterances, only where
    there are two seeds or more
    """
    runs: dict[Name, list] = {}
    for space in seeds_of(workspace):
        for name, table in load_decisions(space).items():
            runs.setdefault(name, []).append(table)
    rows = [name._asdict() | metrics.score_seeds(tables) for name, tables in runs.items() if len(tables) > 1]
    columns = [*NAME, "n_seeds", "uar_mean", "uar_sd", "uar_low", "uar_high"]
    return sort_results(pd.DataFrame(rows, columns=columns))


def load_decisions(workspace: Workspace) -> Decisions:
    """Read what every model said of whole utterances, in the order of tables."""
    return {name: _levels(workspace, name)[-1] for name in result_names(workspace)}


def score_speakers(decided: Decisions) -> pd.DataFrame:
    """Score every speaker alone: a table `system, model, protocol, folds, speaker, n_utterances, uar`."""
    tables = [metrics.speaker_scores(table).assign(**name._asdict()) for name, table in decided.items()]
    return pd.concat(tables, ignore_index=True)[[*NAME, "speaker", "n_utterances", "uar"]]


def score_corpora(decided: Decisions, utterances: pd.DataFrame) -> pd.DataFrame:
    """Score every model on each of several corpora: a table `system, model, protocol, folds, corpus` and its scores.

    Parameters
    ----------
    utterances : with `utterance_id, corpus`; without corpora, or with one, the table is empty
    """
    columns, rows = ["n_speakers", "n_utterances", "uar", "uar_low", "uar_high"], []
    corpus_of = utterances.set_index("utterance_id")["corpus"] if "corpus" in utterances else pd.Series(dtype=str)
    for name, table in decided.items() if corpus_of.nunique() > 1 else ():
        for corpus, group in table.groupby(table["utterance_id"].map(corpus_of)):
            scores = metrics.score_predictions(group)
            rows.append(name._asdict() | {"corpus": corpus} | {column: scores[column] for column in columns})
    return pd.DataFrame(rows, columns=[*NAME, "corpus", *columns])


def _by_model(decided, protocol) -> dict[tuple[str, str], tuple[Name, pd.DataFrame]]:
    """Each model's result under a protocol; of several ways to fold it the one with the most test utterances."""
    there = {name: table for name, table in decided.items() if name.protocol == protocol}
    most = sorted(there, key=lambda name: there[name]["utterance_id"].nunique())
    last = {name[:2]: name for name in most}
    return {name[:2]: (name, there[name]) for name in there if last[name[:2]] == name}


def conditions(scores: pd.DataFrame) -> pd.Series:
    """The protocol of each row of scores, and ", adapted" where the model used unlabelled clips of the tested speakers.

    It knew them, or scaled features by the speaker's own mean and deviation.
    """
    used = {ADAPTED, FITTED["scaler"]}
    is_adapted = scores["leaks"].str.split("; ").map(lambda kinds: not used.isdisjoint(kinds))
    return scores["protocol"] + np.where(is_adapted, f", {ADAPTED}", "")


def measure_adaptation(decided: Decisions) -> pd.DataFrame:
    """Tell what a speaker's unlabelled clips are worth: each adapted model against the one that knows nothing of them.

    Returns
    -------
    table `system, model, protocol, knows_nothing` (the other model's name), `uar` and `uar_without` on the clips that both
    tested, and of their difference what `metrics.compare_paired` gives
    """
    rows = []
    for name, table in decided.items():
        models = _by_model(decided, name.protocol)
        without = systems()[name.system].adapted.get(name.model)
        if (name.system, without) in models:
            about = dict(zip(NAME[:3], name, strict=False), knows_nothing=without)
            rows += _on_same_clips(about, {"uar": table, "uar_without": models[name.system, without][1]})
    return pd.DataFrame(rows, columns=[*NAME[:3], "knows_nothing", "uar", "uar_without", *DIFFERENCE])


def measure_steps(decided: Decisions) -> pd.DataFrame:
    """Tell what each of STEPS brought on new speakers.

    Returns
    -------
    table `step, system, model, without` (the other model, "system model"), `uar` and `uar_without` on the clips that both
    tested, and of their difference what `metrics.compare_paired` gives
    """
    models, rows = _by_model(decided, "speaker"), []
    for step, first, second in STEPS:
        if {first, second} <= models.keys():
            about = {"step": step, "system": first[0], "model": first[1], "without": " ".join(second)}
            rows += _on_same_clips(about, {"uar": models[first][1], "uar_without": models[second][1]})
    return pd.DataFrame(rows, columns=["step", "system", "model", "without", "uar", "uar_without", *DIFFERENCE])


def label_of(name: Any) -> str:
    """Name a result in figures: "vae · latent"."""
    return f"{name.system} · {name.model}".replace("_", " ")


def stand_side_by_side(decided: Decisions, protocol: str) -> dict[str, pd.DataFrame]:
    """Pick the models that stand for their systems, under one protocol: {label: utterance predictions}."""
    models = _by_model(decided, protocol).values()
    return {label_of(name): table for name, table in models if stands_for_its_system(*name[:2])}


def compare_all(tables: Labelled, against: str | None = None) -> pd.DataFrame:
    """Compare every pair of systems on the utterances both decided, p adjusted for the number of pairs (Holm).

    Parameters
    ----------
    against : label; only pairs with it, in second place

    Returns
    -------
    table `first, second` and what `metrics.compare_paired` gives, with `p_holm`; pairs without a common utterance are
    left out
    """
    pairs = combinations(tables, 2)
    if against is not None:
        pairs = [(label, against) for label in tables if against in tables and label != against]
    rows = [
        {"first": first, "second": second} | metrics.compare_paired(tables[first], tables[second])
        for first, second in pairs
        if set(tables[first]["utterance_id"]) & set(tables[second]["utterance_id"])
    ]
    table = pd.DataFrame(rows, columns=["first", "second", *DIFFERENCE])
    return table.assign(p_holm=metrics.holm(table["p"]))


def square(pairs: pd.DataFrame, column: str, labels: list[str], *, sign: int = -1) -> pd.DataFrame:
    """Lay one column of `compare_all` out as systems × systems; the other triangle is `sign` times it."""
    table = pd.DataFrame(np.nan, labels, labels)
    for row in pairs.to_dict("records"):
        table.loc[row["first"], row["second"]] = row[column]
        table.loc[row["second"], row["first"]] = sign * row[column]
    return table


def score_genders(tables: Labelled, utterances: pd.DataFrame) -> pd.DataFrame:
    """UAR of each system for female and male speakers; empty where the corpus does not say."""
    gender_of, rows = utterances.set_index("utterance_id")["gender"], []
    for label, table in tables.items():
        groups = table.groupby(table["utterance_id"].map(gender_of))
        rows.append({"label": label} | {gender: _uar(group) for gender, group in groups})
    table = pd.DataFrame(rows, columns=["label", "female", "male"])
    return table.assign(difference=table["female"] - table["male"])


def _uar(predictions) -> float:
    return metrics.unweighted_average_recall(predictions["emotion"], predictions["prediction"])


def calibration_errors(tables: Labelled) -> pd.DataFrame:
    """Expected calibration error of each system: a table `label, ece`."""
    rows = [(label, metrics.expected_calibration_error(table)) for label, table in tables.items()]
    return pd.DataFrame(rows, columns=["label", "ece"])


def errors(tables: Labelled) -> pd.DataFrame:
    """Tell who is wrong about what: booleans, utterances × systems, on the utterances all decided."""
    wrong = {
        label: table.drop_duplicates("utterance_id").set_index("utterance_id").eval("emotion != prediction")
        for label, table in tables.items()
    }
    return pd.DataFrame(wrong).dropna().astype(bool).sort_index()


def failing_together(wrong: pd.DataFrame) -> pd.DataFrame:
    """Cohen's kappa of the errors of each two systems: 1 they fail on the same clips, 0 as independent ones would.

    Parameters
    ----------
    wrong : as `errors` gives it

    Returns
    -------
    table systems × systems
    """

    def kappa(first, second):
        return cohen_kappa_score(first, second, labels=[0, 1], replace_undefined_by=1.0)

    return wrong.astype(int).corr(kappa)


def hardest_clips(wrong: pd.DataFrame, utterances: pd.DataFrame) -> pd.DataFrame:
    """Order clips by the share of systems that are wrong about them, with speaker and emotion."""
    share = wrong.mean(axis=1).rename("share of systems wrong").reset_index()
    table = share.merge(utterances[["utterance_id", "speaker", "emotion"]])
    return table.sort_values(["share of systems wrong", "utterance_id"], ascending=[False, True])


def measure_falls(decided: Decisions) -> pd.DataFrame:
    """Tell how far each model falls from each protocol to its strictest one, on the same clips.

    Returns
    -------
    table `system, model, protocol, strictest`, `loose` and `strict` (UAR on the clips that both tested), and of their
    difference what `metrics.compare_paired` gives
    """
    models = {protocol: _by_model(decided, protocol) for protocol in PROTOCOLS}
    rows = []
    for model in dict.fromkeys(name[:2] for name in decided):
        known = [protocol for protocol in PROTOCOLS if model in models[protocol]]
        for protocol in known[:-1]:
            pair = [models[p][model][1] for p in (protocol, known[-1])]
            about = dict(zip(NAME[:2], model, strict=True), protocol=protocol, strictest=known[-1])
            rows += _on_same_clips(about, {"loose": pair[0], "strict": pair[1]})
    columns = ["system", "model", "protocol", "strictest", "loose", "strict", *DIFFERENCE]
    return sort_results(pd.DataFrame(rows, columns=columns))


def _on_same_clips(about, tables) -> list[dict]:
    """A row of UAR on the clips that all tables have, and how the first two differ; none where there are no such."""
    clips = set.intersection(*(set(table["utterance_id"]) for table in tables.values()))
    if not clips:
        return []
    tables = {name: table[table["utterance_id"].isin(clips)] for name, table in tables.items()}
    uar = {name: _uar(table.drop_duplicates("utterance_id")) for name, table in tables.items()}
    return [about | uar | metrics.compare_paired(*list(tables.values())[:2])]


def models_of_one_voice(decided: Decisions) -> pd.DataFrame:
    """Set the models that know one speaker beside the baselines, on exactly the same clips.

    Returns
    -------
    table `system, model, protocol`, `uar, mfcc, loudness` on the clips that all three tested, and of the difference
    from mfcc what `metrics.compare_paired` gives
    """
    asked_about_others = {name[:2] for name in decided if name.protocol == "speaker"}
    rows = []
    for name, table in decided.items():
        if not systems()[name.system].within_speaker or name[:2] in asked_about_others:
            continue
        models = _by_model(decided, name.protocol)
        baselines = {m: models["baseline", m][1] for m in ("mfcc", "loudness") if ("baseline", m) in models}
        if len(baselines) == 2:
            rows += _on_same_clips(name._asdict(), {"uar": table} | baselines)
    return pd.DataFrame(rows, columns=[*NAME[:3], "uar", "mfcc", "loudness", *DIFFERENCE])


def load_published() -> pd.DataFrame:
    """Read what was published: `system, model, dataset, protocol, metric, value, how, source`, and the SETUP of it.

    `parameters` and `epochs` (at most) are "–" where a method has none; empty is unknown.
    """
    return pd.read_csv(
        Path(__file__).with_name("published.csv"), keep_default_na=False, dtype=dict.fromkeys(SETUP, str)
    )


def gather_setups(decided: Decisions, costs: pd.DataFrame, epochs: Epochs) -> pd.DataFrame:
    """Describe how our results were obtained: a table `system, model, protocol, folds` and SETUP.

    Parameters
    ----------
    costs : as `gather_costs` gives it
    epochs : at most, of each system, or of each of its models
    """
    counted = {"classes": "emotion", "clips": "utterance_id", "n_folds": "fold"}
    rows = [
        name._asdict()
        | {fact: table[column].nunique() for fact, column in counted.items()}
        | {"epochs": epochs.get((name.system, name.model), epochs.get(name.system))}
        for name, table in decided.items()
    ]
    return pd.DataFrame(rows).merge(costs[[*NAME, "parameters"]], how="left")


def beside_published(scores: pd.DataFrame, setups: pd.DataFrame) -> pd.DataFrame:
    """Set each published figure of this dataset beside ours, same model and kind of split.

    Parameters
    ----------
    scores : as `gather_scores` gives it; setups : as `gather_setups` gives it

    Returns
    -------
    table `system, model, protocol, metric, published, ours`, of every item of SETUP the published one and ours, `agree`
    (whether all of SETUP does; a size within 1 %), `how, source`. `ours` is NaN where it was not run; a system of
    which nothing was published has "none published".
    """
    ours = scores[scores["level"] == "utterance"].merge(setups, on=NAME).sort_values("n_utterances")
    published, rows = load_published(), []
    for system in dict.fromkeys(ours["system"]):
        known = published[(published["system"] == system) & published["dataset"].isin(ours["dataset"])]
        for figure in known.to_dict("records"):
            wanted = {key: figure[key] for key in NAME if figure[key]}
            same = ours[(ours[list(wanted)] == pd.Series(wanted)).all(axis=1)]
            rows.append(_pair(figure, same.iloc[-1] if len(same) else None))
        if known.empty and system != "baseline":
            rows.append({"system": system, "published": "none published"})
    pairs = [name for key in SETUP for name in (key, f"our {key}")]
    columns = [*NAME[:3], "metric", "published", "ours", *pairs, "agree", "how", "source"]
    return pd.DataFrame(rows, columns=columns)


def _pair(figure, result) -> dict[str, Any]:
    pair = figure | {"published": figure["value"], "ours": np.nan if result is None else result[figure["metric"]]}
    if result is None:
        return pair
    agree = []
    for key in SETUP:
        pair[f"our {key}"] = result[key]
        near = 0.01 * result[key] if key == "parameters" else 0
        agree.append(figure[key] == "–" or (figure[key] != "" and abs(float(figure[key]) - result[key]) <= near))
    return pair | {"agree": all(agree)}


def strictest_protocol(scores: pd.DataFrame) -> str:
    """The protocol under which systems are compared: `speaker` where it was run, else `utterance`."""
    return "speaker" if "speaker" in set(scores["protocol"]) else "utterance"


def derived_tables(
    workspace: Workspace, utterances: pd.DataFrame, scores: pd.DataFrame, epochs: Epochs
) -> dict[str, pd.DataFrame]:
    """Make every table that follows from scores and decisions alone, by the name it is saved under.

    Parameters
    ----------
    utterances : utterance table; `utterance_id, speaker, gender, emotion` are used
    scores : as `gather_scores` gives it
    epochs : as in `gather_setups`
    """
    decided = load_decisions(workspace)
    tables = stand_side_by_side(decided, strictest_protocol(scores))
    setups = gather_setups(decided, gather_costs(workspace), epochs)
    return {
        "11_speakers": score_speakers(decided),
        "11_corpora": score_corpora(decided, utterances),
        "11_fall": measure_falls(decided),
        "11_one_voice": models_of_one_voice(decided),
        "11_adapted": measure_adaptation(decided),
        "11_steps": measure_steps(decided),
        "11_beaten": compare_all(tables, against=TO_BEAT),
        "11_significance": compare_all(tables),
        "11_gender": score_genders(tables, utterances),
        "11_calibration": calibration_errors(tables),
        "11_hardest": hardest_clips(errors(tables), utterances).head(50),
        "11_published": beside_published(scores, setups),
        "11_seeds": gather_seeds(workspace),
    }
