"""What ships in results/: tables and decisions with their checksums, verified, and README's share of them."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from ser_utils.corpora.loading import CORPORA
from ser_utils.evaluation import metrics
from ser_utils.evaluation.results import NAME, SCORES, gather_scores, in_order, list_predictions
from ser_utils.evaluation.splits import PROTOCOLS
from ser_utils.names import result_name
from ser_utils.profiles import systems
from ser_utils.systems.baselines import has_opensmile
from ser_utils.workspace import (
    REPOSITORY,
    Workspace,
    WorkspaceError,
    atomic_path,
    file_digest,
    read_json,
    replace_between,
    seal,
)

# How far recomputed scores may lie from committed ones. A network's training amplifies the last bit of another
# processor's sums; what is deterministic up to rounding gets almost nothing. Networks get 2 / √n where fewer than 400
# clips were tested: chance then moves a score further.
TOLERANCE = {"opensmile": 0.005, "baseline": 0.005}
TOLERANCE_OF_NETWORKS = 0.1
SUMS = "SHA256SUMS"
# What scores are made of, as it lies in build/ and, in results/<dataset>/decisions, ships
DECISIONS = ("predictions", "audits", "costs")
MARKS = ("<!-- scores -->", "<!-- /scores -->")


# shipping ------------------------------------------------------------------------------------------------


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
                for path in workspace.build.glob(f"{kind}/{result_name(*name)}.*"):
                    shutil.copyfile(path, temporary / kind / path.name)
        _write_sums(temporary, "*/*")


def restore_decisions(dataset, folder, root=""):
    """The way back: decisions that ship become those of a workspace, as if they had been made there.

    folder : results/<dataset>; root : of the workspace, which takes profile and seed from the provenance there
    Returns the workspace. Raises WorkspaceError if a file there is missing or was altered.
    """
    made = read_json(folder / "provenance.json")
    if wrong := altered_files(folder / "decisions"):
        raise WorkspaceError(f"{folder / 'decisions'}: {'; '.join(wrong)}")
    workspace = Workspace(dataset, made["profile"], made["seed"], root)
    for kind in DECISIONS:
        for path in sorted((folder / "decisions" / kind).iterdir()):
            with atomic_path(workspace.build / kind / path.name) as temporary:
                shutil.copyfile(path, temporary)
            seal(workspace.build / kind / path.name)
    return workspace


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
        near = _tolerance_of(row) if tolerance is None else tolerance
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
                limit = f", tolerance {near:.2g}" if isinstance(was, float) else ""
                found.append(f"{name}: {column} was {was}, is {now}{limit}")
    return found


def closeness(committed, fresh):
    """How near two score tables are within their tolerances, as a sentence: one machine gives equal ones."""
    keys = [*NAME, "level"]
    both = committed.merge(fresh, on=keys, suffixes=("", "_fresh"))
    equal = [
        all(row[c].equals(row[f"{c}_fresh"]) for c in SCORES if c not in keys)
        for _, row in both.groupby(keys)
    ]
    text = f"Equal to the last digit: {sum(equal)} of {len(equal)} rows of scores"
    if all(equal):
        return f"{text}."
    off = (both["uar"] - both["uar_fresh"]).abs()
    furthest = both.loc[off.idxmax()]
    name = f"{'-'.join(furthest[key] for key in NAME)} ({furthest['level']})"
    return f"{text}; the UAR furthest off: {name}, {furthest['uar']:.3f} and {furthest['uar_fresh']:.3f}."


def _tolerance_of(row):
    by_chance = max(TOLERANCE_OF_NETWORKS, 2 / max(row["n_utterances"], 1) ** 0.5)
    return TOLERANCE.get(row["system"], by_chance)


def verify(workspace, recomputed=None):
    """Recompute a dataset's results with the profile and seed they were made with, and list what differs.

    workspace : whose root holds the results; recomputed : root of a finished second run, None makes one under
    build/verify. Returns a list of sentences, empty when everything holds; prints how near the scores are.
    """
    folder = workspace.root / "results" / workspace.name
    if not (folder / "scores.csv").exists():
        return [f"{folder} has no scores.csv: nothing to verify"]
    made = read_json(folder / "provenance.json")
    found = altered_files(folder)
    if recomputed is None:
        recomputed = workspace.root / "build" / "verify"
        for target in ("00", "10"):  # 10 and what it reads: all that has a score
            if _make(target, workspace, made, recomputed):
                return [*found, "the second run failed, see above"]
            if other := _other_recordings(made, Path(recomputed) / "results" / workspace.name):
                return [*found, other]
    fresh = Path(recomputed) / "results" / workspace.name / "scores.csv"
    tables = _read_scores(folder / "scores.csv"), _read_scores(fresh)
    print(closeness(*tables))
    return found + compare_scores(*tables)


def _make(target, workspace, made, root):
    given = {"DATASET": workspace.dataset, "PROFILE": made["profile"], "SEED": made["seed"], "ROOT": root}
    command = ["make", "-C", str(REPOSITORY), target, *(f"{key}={value}" for key, value in given.items())]
    return subprocess.run(command, check=False).returncode


def _other_recordings(made, folder):
    """What to say where a second run has heard other recordings than the first; "" where they are the same."""
    first, second = (one["notebooks"]["00"] for one in (made, read_json(folder / "provenance.json")))
    if first["corpus"] == second["corpus"]:
        return ""
    return (
        f"the recordings are not those of the results: {second['n_utterances']} here, {first['n_utterances']} there, "
        "compared sample by sample. Nothing was trained."
    )


def rescore(workspace):
    """Score the decisions that ship anew and list what differs from the scores that ship: no training, no corpus."""
    folder = workspace.root / "results" / workspace.name
    with tempfile.TemporaryDirectory() as root:
        fresh = gather_scores(restore_decisions(workspace.dataset, folder, root))
    return altered_files(folder) + compare_scores(_read_scores(folder / "scores.csv"), fresh, tolerance=1e-6)


def _read_scores(path):
    return pd.read_csv(path, dtype={key: str for key in NAME}, keep_default_na=False, na_values={"uar_low": [""], "uar_high": [""]})  # fmt: skip


# README ---------------------------------------------------------------------------------------------------


def title_of(dataset):
    """ "ravdess+emodb" → "RAVDESS + EmoDB"."""
    if dataset == "demo":
        return "Demo corpus (synthetic)"
    return " + ".join(CORPORA[name].title if name in CORPORA else name for name in dataset.split("+"))


def listing_place(dataset):
    """Sort key of datasets: corpora in the order they are listed in, then readers' own, synthetic speech last."""
    known, first = [*CORPORA], dataset.split("+")[0]
    return dataset == "demo", known.index(first) if first in known else len(known), dataset


def score_files(root):
    """results/*/scores.csv of all datasets, in the order they are listed in."""
    return sorted(root.glob("results/*/scores.csv"), key=lambda path: listing_place(path.parent.name))


def extent(dataset, n_utterances, scores):
    """ "339 of 535 recordings, 10 speakers, 4 of 7 emotions, chance 25.0": what the scores of a dataset are of."""
    corpus, n_speakers = CORPORA.get(dataset), scores["n_speakers"].max()
    chance = scores.loc[scores["model"] == "chance", "uar"].max()
    counts = [(n_utterances, corpus.n_files - len(corpus.broken) if corpus else 0, "recordings")]
    counts += [(n_speakers, len(corpus.speakers) if corpus else 0, "speakers")]
    if chance > 0:
        counts += [(round(1 / chance), len(corpus.emotions) if corpus else 0, "emotions")]
    parts = [f"{n:,} of {whole:,} {what}" if whole > n else f"{n:,} {what}" for n, whole, what in counts]
    return ", ".join(parts + ([f"chance {100 * chance:.1f}"] if chance > 0 else []))


def shown_models(scores, most=None):
    """Whole-utterance rows of the models that stand for their system (`most` of each), in the order of tables."""
    rows = in_order(scores[scores["level"] == "utterance"])
    found = []
    for system, declared in systems().items():
        own = rows[rows["system"] == system]
        found += [own[own["model"].map(lambda name, p=p: fnmatch(name, p))] for p in declared.models[:most]]
    return pd.concat(found)


def dataset_table(scores, costs):
    """One dataset's models by protocol, UAR in percent with its interval, as a table in Markdown.

    Shown are the models that stand for their systems. A cost is that of the strictest protocol the model was run under.
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
    return "\n".join(lines + _footnotes(rows))


def _footnotes(rows):
    found = []
    if (rows["n_speakers"] < metrics.FEWEST_SPEAKERS).any():
        found += ["", f"† {metrics.TOO_FEW}."]
    if rows["model"].str.startswith("random_").any():
        found += [
            "",
            "`random_…`: a tiny encoder with random weights, where published ones could not be had. No meaning.",
        ]
    return found


def readme_table(scores_of):
    """All datasets side by side, one model of each system, under the published split and the strictest it was run under.

    scores_of : {dataset: scores}. Returns a table in Markdown; UAR in percent with its interval.
    """
    rows = pd.concat([shown_models(scores, most=1) for scores in scores_of.values()])
    rows = rows[~rows["model"].str.startswith("random_")]
    names = [f"{title_of(name)}, {split}" for name in scores_of for split in ("`paper`", "strictest")]
    lines = [f"| system | model | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for (system, model), own in in_order(rows).groupby(["system", "model"], sort=False):
        cells = []
        for name in scores_of:
            here = own[own["dataset"] == name]
            strictest = here["protocol"].map(PROTOCOLS.index).max()
            last = here[here["protocol"].map(PROTOCOLS.index) == strictest]
            cells.append(_cell(here[here["protocol"] == "paper"]))
            honest = len(last) and strictest > PROTOCOLS.index("paper")
            cells.append(f"{_cell(last)} {PROTOCOLS[strictest]}" if honest else "–")
        lines.append(f"| {system} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines + _footnotes(rows))


def _cell(rows):
    if rows.empty:
        return "–"
    row = rows.loc[rows["n_utterances"].idxmax()]
    interval = "" if pd.isna(row["uar_low"]) else f" ({100 * row['uar_low']:.0f}–{100 * row['uar_high']:.0f})"
    return f"{100 * row['uar']:.1f}{interval}{'†' if row['n_speakers'] < metrics.FEWEST_SPEAKERS else ''}"


def write_readme(root=REPOSITORY):
    """Put the table of all real corpora in results/ between the marks in README, and those of each into
    results/README.md. Returns the datasets shown."""
    found = {path.parent.name: path for path in score_files(root)}
    found = {name: path for name, path in found.items() if name != "demo"} or found
    scores_of = {name: _read_scores(path) for name, path in found.items()}
    made = {name: read_json(path.with_name("provenance.json")) for name, path in found.items()}
    extents = {
        name: extent(name, one["notebooks"]["10"]["n_utterances"], scores_of[name])
        for name, one in made.items()
    }
    synthetic = (
        " The demo corpus is synthetic: nothing here is a finding about people." if "demo" in found else ""
    )
    replace_between(MARKS, root / "README.md", (
        f"{readme_table(scores_of)}\n\nUAR (mean recall of the emotions) in % of whole utterances, with 95 % intervals over speakers; one model of "
        "each system. `paper`: the papers' kind of split, which leaks; strictest: the last of [these](#the-splits) that "
        "the model was run under, mostly on more clips, so that small differences say nothing. "
        + " ".join(f"{title_of(name)}: {extents[name]} (profile {one['profile']}, seed {one['seed']})." for name, one in made.items())
        + f"{synthetic} All models, splits and costs: [results/README.md](results/README.md)."
    ))  # fmt: skip
    page = ["# Scores\n\nUAR in % of whole utterances, with 95 % intervals by bootstrap over speakers, under four splits of "
            "which `paper` leaks. Every row, with its leaks, is in each folder's `scores.csv`, costs in `costs.csv`, what "
            f"every model said of every clip in `decisions/`.{synthetic} Written by `make tables`."]  # fmt: skip
    for name, path in found.items():
        one = made[name]
        page.append(
            f"## {title_of(name)}\n\n{extents[name][0].upper()}{extents[name][1:]}; profile {one['profile']}, seed {one['seed']}."
        )
        page.append(dataset_table(scores_of[name], pd.read_csv(path.with_name("costs.csv"))))
    with atomic_path(root / "results" / "README.md") as temporary:
        temporary.write_text("\n\n".join(page) + "\n", "utf-8")
    return list(found)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tools.verify", description=__doc__)
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
        restored = restore_decisions(given.dataset, shipped, given.root)
        print(f"{restored.name}, profile {restored.profile}: now run notebook 10")
        return
    if given.command == "verify":
        differences = verify(workspace, given.recomputed)
        tolerances = ", ".join(f"{system} {near}" for system, near in TOLERANCE.items())
        print(
            f"Tolerances of scores: {tolerances}, trained networks {TOLERANCE_OF_NETWORKS}, or 2/√n where fewer than "
            "400 clips were tested; all else is to be equal."
        )
    else:
        differences = rescore(workspace)
    print(*differences, sep="\n")
    print("differs" if differences else f"results/{given.dataset}: {given.command} finds them right")
    sys.exit(bool(differences))


if __name__ == "__main__":
    try:
        main()
    except (WorkspaceError, FileNotFoundError) as error:
        sys.exit(str(error))
