"""All scores in one table, from predictions alone; the same table recomputed and compared; README's share of it."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd

from ser_utils import metrics
from ser_utils.baselines import has_opensmile
from ser_utils.splits import PROTOCOLS, default_folds, leaks_beyond
from ser_utils.workspace import (
    REPOSITORY,
    Workspace,
    WorkspaceError,
    atomic_path,
    file_digest,
    read_json,
    seal,
)

# system → the notebook that makes its predictions
SYSTEMS = {
    "prototype": "02",
    "spectrogram_cnn": "04",
    "feature_network": "05",
    "vae": "06",
    "sigwavnet": "07",
    "cnn_n_gru": "07",
    "speech_transformer": "08",
    "opensmile": "10",
    "baseline": "10",
}
NAME = ["system", "model", "protocol", "folds"]
SCORES = (
    "dataset", *NAME, "level", "n_speakers", "n_utterances", "uar", "uar_low", "uar_high", "uar_fold_mean",
    "accuracy", "macro_f1", "profile", "seed", "leaks",
)  # fmt: skip
NOT_AUDITED = "not audited"
# How far recomputed scores may lie from committed ones. A network's training amplifies the last bit of another
# processor's sums; what is deterministic up to rounding gets almost nothing.
TOLERANCE = {"opensmile": 0.005, "baseline": 0.005}
TOLERANCE_OF_NETWORKS = 0.1
SUMS = "SHA256SUMS"
# What scores are made of, as it lies in build/ and, in results/<dataset>/decisions, ships
DECISIONS = ("predictions", "audits", "costs")
MARKS = ("<!-- scores -->", "<!-- /scores -->")
# The models that stand for their system in README, fixed before any was scored; scores.csv has all of them.
IN_README = {
    "prototype": ["per_speaker", "all_speakers"],
    "spectrogram_cnn": ["clip_4_layers", "image_4_layers"],
    "feature_network": ["deep_cnn_log_mel", "all_four"],
    "vae": ["both"],
    "sigwavnet": ["*"],
    "cnn_n_gru": ["*"],
    "speech_transformer": ["*_pooled"],
    "opensmile": ["*"],
    "baseline": ["duration", "loudness", "mfcc"],
}


# gathering ------------------------------------------------------------------------------------------------


def list_predictions(workspace):
    """What has been predicted: a table `system, model, protocol, folds`, in the order tables show it."""
    names = [path.stem.split("-") for path in (workspace.build / "predictions").glob("*.parquet")]
    table = pd.DataFrame([name for name in names if len(name) == 4 and name[0] in SYSTEMS], columns=NAME)
    return _in_order(table)


def _in_order(table):
    rank = {"system": list(SYSTEMS), "protocol": list(PROTOCOLS)}
    keys = [column for column in (*NAME, "level") if column in table]
    return table.sort_values(
        keys, key=lambda c: c.map(rank[c.name].index) if c.name in rank else c, ignore_index=True
    )


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
        f"{system} ({notebook})" for system, notebook in SYSTEMS.items() if system not in set(found["system"])
    ]


def load_predictions(workspace, system, model, protocol, folds):
    """One predictions file; raises MissingResult if it is absent or damaged."""
    return workspace.load_table(f"predictions/{system}-{model}-{protocol}-{folds}", made_by=SYSTEMS[system])


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
    return _in_order(pd.DataFrame(rows, columns=list(SCORES)))


def _leaks(workspace, name):
    audit = f"audits/{'-'.join(name)}"
    if not workspace.has_table(audit):
        return NOT_AUDITED
    return leaks_beyond(workspace.load_table(audit), name.protocol)


def gather_costs(workspace):
    """What each result cost: parameters, seconds to train, milliseconds per utterance, the machine."""
    rows = []
    for name in list_predictions(workspace).itertuples(index=False):
        path = workspace.build / "costs" / f"{'-'.join(name)}.json"
        rows.append(name._asdict() | (read_json(path) if path.exists() else {}))
    costs = pd.DataFrame(rows, columns=[*NAME, "parameters", "seconds_to_train", "ms_per_utterance"])
    return costs.assign(machine=f"{platform.machine()}, {os.cpu_count()} cores")


def save_results(workspace, **tables):
    """Write tables as results/<dataset>/<name>.csv with six decimals, then the checksums of all files there."""
    for name, table in tables.items():
        with atomic_path(workspace.results / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    _write_sums(workspace.results, "*.csv")


def _write_sums(folder, pattern):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
    with atomic_path(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{file_digest(folder / name)}  {name}\n" for name in names), "utf-8")


def keep_decisions(workspace):
    """Put what every model said of every test clip beside the scores, which can be made again from it alone.

    results/<dataset>/decisions gets predictions, audits and costs as build/ has them, and their checksums.
    """
    with atomic_path(workspace.results / "decisions") as temporary:
        for kind in DECISIONS:
            (temporary / kind).mkdir(parents=True)
            for name in list_predictions(workspace).itertuples(index=False):
                for path in workspace.build.glob(f"{kind}/{'-'.join(name)}.*"):
                    shutil.copyfile(path, temporary / kind / path.name)
        _write_sums(temporary, "*/*")


def restore_decisions(workspace, shipped):
    """The way back: a results folder's decisions become those of a workspace, as if they had been made there.

    shipped : folder results/<dataset>. Raises WorkspaceError if a file there is missing or was altered.
    """
    if wrong := altered_files(shipped / "decisions"):
        raise WorkspaceError(f"{shipped / 'decisions'}: {'; '.join(wrong)}")
    for kind in DECISIONS:
        for path in sorted((shipped / "decisions" / kind).iterdir()):
            with atomic_path(workspace.build / kind / path.name) as temporary:
                shutil.copyfile(path, temporary)
            seal(workspace.build / kind / path.name)


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
    return _in_order(found[found["n_seeds"] > 1])


# comparing ------------------------------------------------------------------------------------------------


def label_of(name):
    """How a result is called in figures: "vae · latent"."""
    return f"{name.system} · {name.model}".replace("_", " ")


def decisions(workspace, protocol):
    """The utterance-level predictions of everything under one protocol: {label: table}.

    Where a protocol was folded in several ways the one with the most test utterances is taken.
    """
    found = {}
    for name in list_predictions(workspace).query("protocol == @protocol").itertuples(index=False):
        table = metrics.vote_utterances(load_predictions(workspace, *name))
        label = label_of(name)
        if label not in found or table["utterance_id"].nunique() > found[label]["utterance_id"].nunique():
            found[label] = table
    return found


def compare_all(found):
    """Every pair of systems on the utterances both decided, p adjusted for the number of pairs (Holm).

    found : {label: utterance predictions}. Returns `first, second` and what `metrics.compare_paired` gives,
    with `p_holm`; pairs without a common utterance are left out.
    """
    rows, labels = [], list(found)
    for i, first in enumerate(labels):
        for second in labels[i + 1 :]:
            if set(found[first]["utterance_id"]) & set(found[second]["utterance_id"]):
                gap = metrics.compare_paired(found[first], found[second])
                rows.append({"first": first, "second": second} | gap)
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
    return _in_order(wide)


def load_published():
    """What was published: `system, model, dataset, protocol, metric, value, how, source`."""
    return pd.read_csv(Path(__file__).with_name("published.csv"), keep_default_na=False)


def beside_published(scores):
    """Each published figure of this dataset beside ours, same system and protocol; "none published" where so.

    Returns `system, model, protocol, metric, published, ours, how, source`.
    """
    ours = scores[scores["level"] == "utterance"]
    published = load_published()
    rows = []
    for system, own in ours.groupby("system", sort=False):
        if system == "baseline":
            continue
        known = published[(published["system"] == system) & published["dataset"].isin(set(own["dataset"]))]
        for one in known.to_dict("records"):
            same = own[own["protocol"] == one["protocol"]]
            same = same[same["folds"] == one["folds"]] if one["folds"] else same
            same = same[same["model"] == one["model"]] if one["model"] in set(same["model"]) else same
            best = same.loc[same[one["metric"]].idxmax()] if len(same) else {}
            ours = {"ours": best.get(one["metric"], np.nan), "our_model": best.get("model", "not run")}
            rows.append(one | {"published": one["value"]} | ours)
        if known.empty:
            ours = {"ours": np.nan, "our_model": "", "model": "", "protocol": "", "how": "", "source": ""}
            rows.append({"system": system, "metric": "", "published": "none published"} | ours)
    columns = "system model protocol metric published ours our_model how source".split()
    return pd.DataFrame(rows, columns=columns)


# verifying ------------------------------------------------------------------------------------------------


def altered_files(folder):
    """Result files that are not what notebook 10 wrote: one sentence each."""
    if not (folder / SUMS).exists():
        return [f"{SUMS} is not there: run notebook 10"]
    known = dict(reversed(line.split("  ", 1)) for line in (folder / SUMS).read_text("utf-8").splitlines())
    found = []
    for name, digest in known.items():
        if not (folder / name).exists():
            found.append(f"{name} is missing")
        elif file_digest(folder / name) != digest:
            found.append(f"{name} was altered since notebook 10 wrote it")
    return found


def compare_scores(committed, fresh, tolerance=None):
    """List where two score tables differ by more than `tolerance`, by default TOLERANCE: one sentence each.

    Names, counts and leaks have to be equal. Recomputed, openSMILE's rows are left out where it is not installed.
    """
    if tolerance is None and not has_opensmile():
        committed, fresh = (table[table["system"] != "opensmile"] for table in (committed, fresh))
    keys = [*NAME, "level"]
    both = committed.merge(fresh, on=keys, how="outer", suffixes=("", "_fresh"), indicator=True)
    found = []
    for row in both.to_dict("records"):
        name = "-".join(row[key] for key in NAME) + f" ({row['level']})"
        if row["_merge"] != "both":
            found.append(f"{name}: {'not recomputed' if row['_merge'] == 'left_only' else 'not in results/'}")
            continue
        near = TOLERANCE.get(row["system"], TOLERANCE_OF_NETWORKS) if tolerance is None else tolerance
        for column in (c for c in SCORES if c not in keys):
            was, now = row[column], row[f"{column}_fresh"]
            if pd.isna(was) and pd.isna(now):
                continue
            within = (
                abs(was - now) <= near
                if isinstance(was, float) and not pd.isna([was, now]).any()
                else was == now
            )
            if not within:
                limit = f", tolerance {near}" if isinstance(was, float) else ""
                found.append(f"{name}: {column} was {was}, is {now}{limit}")
    return found


def verify(workspace, recomputed=None):
    """Recompute a dataset's results with the profile and seed they were made with, and list what differs.

    workspace : whose root holds the results; recomputed : root of a finished second run, None makes one under
    build/verify. Returns a list of sentences, empty when everything holds.
    """
    folder = workspace.root / "results" / workspace.name
    if not (folder / "scores.csv").exists():
        return [f"{folder} has no scores.csv: nothing to verify"]
    made = read_json(folder / "provenance.json")
    found = altered_files(folder)
    if recomputed is None:
        recomputed = workspace.root / "build" / "verify"
        given = {
            "DATASET": workspace.dataset,
            "PROFILE": made["profile"],
            "SEED": made["seed"],
            "ROOT": recomputed,
        }
        command = [
            "make",
            "-C",
            str(REPOSITORY),
            "10",  # and what it reads: all that has a score
            *(f"{key}={value}" for key, value in given.items()),
        ]
        if subprocess.run(command, check=False).returncode:
            return [*found, "the second run failed, see above"]
    fresh = Path(recomputed) / "results" / workspace.name / "scores.csv"
    return found + compare_scores(_read_scores(folder / "scores.csv"), _read_scores(fresh))


def rescore(workspace):
    """Score the decisions that ship anew and list what differs from the scores that ship: no training, no corpus."""
    folder = workspace.root / "results" / workspace.name
    made = read_json(folder / "provenance.json")
    with tempfile.TemporaryDirectory() as root:
        again = Workspace(workspace.dataset, made["profile"], made["seed"], root)
        restore_decisions(again, folder)
        fresh = gather_scores(again)
    return altered_files(folder) + compare_scores(_read_scores(folder / "scores.csv"), fresh, tolerance=1e-6)


def _read_scores(path):
    return pd.read_csv(path, dtype={key: str for key in NAME}, keep_default_na=False, na_values={"uar_low": [""], "uar_high": [""]})  # fmt: skip


# README ---------------------------------------------------------------------------------------------------


def shown_models(scores):
    """Whole-utterance rows of the models that stand for their system, in the order tables show them."""
    rows = scores[scores["level"] == "utterance"]
    is_shown = [any(fnmatch(one.model, p) for p in IN_README[one.system]) for one in rows.itertuples()]
    return _in_order(rows[is_shown])


def dataset_table(scores, costs):
    """One dataset's models by protocol, UAR in percent with its interval, as a table in Markdown.

    Shown are the models of IN_README. A cost is that of the strictest protocol the model was run under.
    """
    rows = shown_models(scores)
    lines = [f"| system | model | {' | '.join(PROTOCOLS)} | parameters | s to train | ms per utterance |"]
    lines.append("|---|---|" + "---:|" * (len(PROTOCOLS) + 3))
    costs = costs.set_index(NAME)
    for one in rows.groupby(["system", "model"], sort=False).tail(1).itertuples():
        own = rows[(rows["system"] == one.system) & (rows["model"] == one.model)]
        cost = costs.reindex([tuple(getattr(one, key) for key in NAME)]).iloc[0]
        cells = [_cell(own[own["protocol"] == protocol]) for protocol in PROTOCOLS]
        forms = {"parameters": ",.0f", "seconds_to_train": ".0f", "ms_per_utterance": ".1f"}
        cells += ["–" if pd.isna(cost[name]) else format(cost[name], form) for name, form in forms.items()]
        lines.append(f"| {one.system} | {one.model} | {' | '.join(cells)} |")
    if rows["n_speakers"].max() < metrics.FEWEST_SPEAKERS:
        lines += ["", f"{metrics.TOO_FEW.capitalize()}."]
    return "\n".join(lines)


def readme_table(scores_of):
    """All datasets side by side: each model under the published split and under the strictest it was run under.

    scores_of : {dataset: scores}. Returns a table in Markdown; UAR in percent with its interval.
    """
    rows = pd.concat([shown_models(scores) for scores in scores_of.values()])
    names = [f"{name}, {split}" for name in scores_of for split in ("paper", "strictest")]
    lines = [f"| system | model | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for (system, model), own in _in_order(rows).groupby(["system", "model"], sort=False):
        cells = []
        for name in scores_of:
            here = own[own["dataset"] == name]
            strictest = here["protocol"].map(PROTOCOLS.index).max()
            last = here[here["protocol"].map(PROTOCOLS.index) == strictest]
            cells.append(_cell(here[here["protocol"] == "paper"]))
            honest = len(last) and strictest > PROTOCOLS.index("paper")
            cells.append(f"{_cell(last)} {PROTOCOLS[strictest]}" if honest else "–")
        lines.append(f"| {system} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows):
    if rows.empty:
        return "–"
    row = rows.loc[rows["n_utterances"].idxmax()]
    interval = "" if pd.isna(row["uar_low"]) else f" ({100 * row['uar_low']:.0f}–{100 * row['uar_high']:.0f})"
    return f"{100 * row['uar']:.1f}{interval}"


def write_readme(root=REPOSITORY):
    """Put the table of all real corpora in results/ between the marks in README. Returns the datasets shown."""
    found = {path.parent.name: _read_scores(path) for path in sorted(root.glob("results/*/scores.csv"))}
    found = {name: scores for name, scores in found.items() if name != "demo"} or found
    made = {name: read_json(root / "results" / name / "provenance.json") for name in found}
    profiles = ", ".join(
        f"{name} (profile {one['profile']}, seed {one['seed']})" for name, one in made.items()
    )
    few = [name for name, scores in found.items() if scores["n_speakers"].max() < metrics.FEWEST_SPEAKERS]
    text = (
        f"{readme_table(found)}\n\nUAR in % of whole utterances, with 95 % intervals by bootstrap over speakers: "
        f"{profiles}. `paper` is the published split, which leaks; beside it the strictest split that the model was "
        "run under, `speaker` being speaker-independent. Models were named before any was scored; all models, "
        "protocols and costs are in `results/*/scores.csv` and `costs.csv`, from which this table is generated."
    )
    if few:
        text += f" {', '.join(few)}: {metrics.TOO_FEW}."
    if "demo" in found:
        text += " The demo corpus is synthetic: nothing here is a finding about people."
    readme = root / "README.md"
    page = readme.read_text("utf-8")
    if page.count(MARKS[0]) != 1 or page.count(MARKS[1]) != 1:
        raise SystemExit(f"{readme} needs the marks {' … '.join(MARKS)} once each, around the table.")
    head, rest = page.split(MARKS[0])
    with atomic_path(readme) as temporary:
        temporary.write_text(f"{head}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}", "utf-8")
    return list(found)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m ser_utils.results", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    about = {
        "verify": "train everything again and compare the scores",
        "rescore": "make the scores again from the decisions that ship, and compare",
        "restore": "take the decisions that ship for those of this run: notebook 10 needs no other then",
        "readme": "write README's tables from results/",
    }
    command = {name: commands.add_parser(name, help=text) for name, text in about.items()}
    for name in ("verify", "rescore", "restore"):
        command[name].add_argument("--dataset", default="demo")
        command[name].add_argument("--root", default="")
    command["verify"].add_argument("--recomputed", help="root of a finished second run; none: it is made now")
    given = parser.parse_args(arguments)
    if given.command == "readme":
        print(f"README tables written: {', '.join(write_readme()) or 'none'}")
        return
    workspace = Workspace(given.dataset, root=given.root)
    if given.command == "restore":
        shipped = REPOSITORY / "results" / workspace.name
        made = read_json(shipped / "provenance.json")
        restore_decisions(Workspace(given.dataset, made["profile"], made["seed"], given.root), shipped)
        print(f"{workspace.name}, profile {made['profile']}: now run notebook 10")
        return
    if given.command == "verify":
        differences = verify(workspace, given.recomputed)
        tolerances = ", ".join(f"{system} {near}" for system, near in TOLERANCE.items())
        print(
            f"Tolerances of scores: {tolerances}, trained networks {TOLERANCE_OF_NETWORKS}; all else is to be equal."
        )
    else:
        differences = rescore(workspace)
    print(*differences, sep="\n")
    print("differs" if differences else f"results/{given.dataset}: {given.command} finds them right")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
