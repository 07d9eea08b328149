"""What ships in results/: tables and decisions with their checksums, verified, and README's share of them."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from ser_utils import metrics
from ser_utils.baselines import has_opensmile
from ser_utils.results import NAME, SCORES, gather_scores, in_order, list_predictions
from ser_utils.splits import PROTOCOLS
from ser_utils.workspace import (
    REPOSITORY,
    Workspace,
    WorkspaceError,
    atomic_path,
    file_digest,
    read_json,
    result_name,
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
    tables = _read_scores(folder / "scores.csv"), _read_scores(fresh)
    print(closeness(*tables))
    return found + compare_scores(*tables)


def rescore(workspace):
    """Score the decisions that ship anew and list what differs from the scores that ship: no training, no corpus."""
    folder = workspace.root / "results" / workspace.name
    with tempfile.TemporaryDirectory() as root:
        fresh = gather_scores(restore_decisions(workspace.dataset, folder, root))
    return altered_files(folder) + compare_scores(_read_scores(folder / "scores.csv"), fresh, tolerance=1e-6)


def _read_scores(path):
    return pd.read_csv(path, dtype={key: str for key in NAME}, keep_default_na=False, na_values={"uar_low": [""], "uar_high": [""]})  # fmt: skip


# README ---------------------------------------------------------------------------------------------------


def shown_models(scores):
    """Whole-utterance rows of the models that stand for their system, in the order tables show them."""
    rows = scores[scores["level"] == "utterance"]
    is_shown = [any(fnmatch(one.model, p) for p in IN_README[one.system]) for one in rows.itertuples()]
    return in_order(rows[is_shown])


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
    if any(scores["model"].str.startswith("random_").any() for scores in found.values()):
        text += " `random_…`: a tiny encoder with random weights, where the published ones could not be had; no meaning."
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
    parser = argparse.ArgumentParser(prog="python -m ser_utils.shipped", description=__doc__)
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
