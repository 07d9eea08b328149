"""What ships in results/: tables and decisions with their checksums, made again and compared."""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
from pyarrow import parquet

from ser_utils.corpora.loading import refuse_unknown
from ser_utils.evaluation.results import (
    NAME,
    SCORES,
    derived_tables,
    gather_costs,
    gather_scores,
    load_predictions,
    result_names,
    seeds_of,
)
from ser_utils.evaluation.splits import declare_choices
from ser_utils.figures import style
from ser_utils.names import result_name
from ser_utils.profiles import systems
from ser_utils.systems import spectrogram_published
from ser_utils.systems.baselines import has_opensmile
from ser_utils.systems.prototype import published
from ser_utils.systems.sigwavnet import accelerator
from ser_utils.tables import CorpusError
from ser_utils.workspace import (
    REPOSITORY,
    Workspace,
    WorkspaceError,
    atomic_path,
    csv_text,
    file_digest,
    made_by,
    read_checksums,
    read_json,
    seal,
    write_checksums,
    write_csv,
    write_json,
)
from tools import readme
from tools.readme.datasets import read_scores, recorded_setting

# What scores are made of, as it lies in build/ and, in results/<dataset>/decisions, ships
DECISIONS = ("predictions", "audits", "costs")
# How far scores may lie apart on another machine where nothing is trained at random
LEAST = 0.005  # also of a network whose seeds agree
TOLERANCE = {"opensmile": LEAST, "baseline": LEAST}
SAME_FOLDS = ("leave_one_speaker_out", "emobox")  # whatever the seed is
NEED_OPENSMILE = {"opensmile", "ensemble"}  # the ensemble has other members without it
SPREAD = 2 * 2**0.5  # two runs differ by √2 of the spread over seeds; twice that is seldom passed
DECIDED = "decisions/SHA256SUMS"  # so that decisions cannot be gone without a word
ROUNDING = 2e-6  # tables have six decimals


def save_results(workspace: Workspace, **tables: pd.DataFrame) -> None:
    """Write tables as results/<dataset>/<name>.csv with six decimals, and their checksums; one without rows has no file."""
    tables |= _published_sizes(workspace.results, tables.get("scores"))
    for name, table in tables.items():
        path = workspace.results / f"{name}.csv"
        if table.empty:
            path.unlink(missing_ok=True)
            continue
        write_csv(path, table)
    with workspace.results_lock():
        tables_made = ("scores.csv", "costs.csv", "11_*.csv", "04_published*.csv", "07_published_*.csv")
        write_checksums(workspace.results, *tables_made, "provenance.json", "model/*", DECIDED)


def _published_sizes(folder, scores) -> dict[str, pd.DataFrame]:
    """The waveform networks that an accelerator trained, beside the scores of this run, where they ship."""
    return {} if scores is None else accelerator.published_tables(folder / "accelerator", scores)


def keep_decisions(workspace: Workspace, utterances: pd.DataFrame) -> None:
    """Put what every model said of every test clip beside the scores, which can be made again from it alone.

    results/<dataset>/decisions gets predictions, audits and costs as build/ has them, predictions of other seeds, who
    says each utterance, and the checksums of all of it.
    """
    with atomic_path(workspace.results / "decisions") as temporary:
        temporary.mkdir(parents=True)
        for space in [workspace, *(other for other in seeds_of(workspace) if other.seed != workspace.seed)]:
            is_main = space.seed == workspace.seed
            for kind in DECISIONS if is_main else DECISIONS[:1]:
                folder = temporary / ("" if is_main else f"seed_{space.seed}") / kind
                folder.mkdir(parents=True)
                for name in result_names(space):
                    for path in space.build.glob(f"{kind}/{result_name(*name)}.*"):
                        _copy_small(path, folder / path.name)
        several = "corpus" in utterances and utterances["corpus"].nunique() > 1
        about = ["utterance_id", *(["corpus"] if several else []), "speaker", "gender", "emotion"]
        who = utterances[about].reset_index(drop=True)
        who.attrs = {}  # a loader's notes are not a fact about who speaks
        who.to_parquet(temporary / "utterances.parquet", index=False)
        write_checksums(temporary, "*.parquet", "*/*.*", "seed_*/*/*")
    with workspace.results_lock():
        write_checksums(workspace.results, DECIDED)


def _copy_small(path, copy):
    """Copy a file of decisions; of a table the values are the same, in a third fewer bytes."""
    if path.suffix != ".parquet":
        shutil.copyfile(path, copy)
        return
    table = parquet.read_table(path)
    numbers = [field.name for field in table.schema if pyarrow.types.is_floating(field.type)]
    encodings = dict.fromkeys(numbers, "BYTE_STREAM_SPLIT")  # the first bytes of all numbers, then the second ones, …
    others = [name for name in table.column_names if name not in numbers]
    parquet.write_table(table, copy, compression="zstd", use_dictionary=others, column_encoding=encodings)


def restore_decisions(dataset: str, folder: Path, root: str | Path = "") -> Workspace:
    """Take decisions that ship for those of a workspace, as if they had been made there.

    Choices that people made by looking at scores are declared in the audits, also in those made before they were known of.

    Parameters
    ----------
    folder : results/<dataset>
    root : of the workspace, which takes profile and seed from the provenance in `folder`

    Raises
    ------
    WorkspaceError : if a file there is missing or was altered
    """
    made, shipped = read_json(folder / "provenance.json"), folder / "decisions"
    if wrong := altered_files(shipped):
        raise WorkspaceError(f"{shipped}: {'; '.join(wrong)}")
    workspace = Workspace(dataset, made["profile"], made["seed"], root)
    _restore(shipped, workspace)
    _declare_choices(workspace, pd.read_parquet(shipped / "utterances.parquet"))
    for other in shipped.glob("seed_*"):
        _restore(other, Workspace(dataset, made["profile"], int(other.name[5:]), root))
    return workspace


def _restore(folder, workspace):
    for kind in DECISIONS:
        for path in sorted(folder.glob(f"{kind}/*")):
            with atomic_path(workspace.build / kind / path.name) as temporary:
                shutil.copyfile(path, temporary)
            seal(workspace.build / kind / path.name)


def _declare_choices(workspace, utterances):
    if "corpus" not in utterances:
        utterances = utterances.assign(corpus=workspace.dataset)
    for name in result_names(workspace):
        audit_name = f"audits/{result_name(*name)}"
        if not workspace.has_table(audit_name):
            continue
        audit, predictions = workspace.load_table(audit_name), load_predictions(workspace, *name)
        declared = declare_choices(audit, predictions, utterances, system=name.system, model=name.model)
        if not declared.equals(audit):
            workspace.save_audit(declared, **name._asdict())


def altered_files(folder: Path) -> list[str]:
    """List the files that are not as they were written, one sentence each; every file needs a checksum."""
    known = read_checksums(folder)
    if not known:
        return ["SHA256SUMS is not there: run notebook 11"]
    wrong = []
    for name, digest in known.items():
        if not (folder / name).exists():
            wrong.append(f"{name} is missing")
        elif file_digest(folder / name) != digest:
            wrong.append(f"{name} was altered since its notebook wrote it")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    apart = {name for name in there if name.startswith("decisions/")}  # they have checksums of their own
    return wrong + [f"{name} has no checksum" for name in sorted(there - apart - {"SHA256SUMS"} - set(known))]


def compare_scores(
    committed: pd.DataFrame,
    fresh: pd.DataFrame,
    *,
    tolerance: float | None = None,
    spread: Mapping[tuple, float] | None = None,
) -> list[str]:
    """List where two score tables differ, one sentence each.

    Parameters
    ----------
    tolerance : of every score; None takes each score's own, see `tolerance_of`. Names, counts and leaks have to be
        equal in either case.
    spread : standard deviation of the UAR over seeds in the same folds, by (system, model, protocol, folds), where it was
        measured
    """
    keys = [*NAME, "level"]
    both = committed.merge(fresh, on=keys, how="outer", suffixes=("", "_fresh"), indicator=True)
    different = []
    for row in both.to_dict("records"):
        name = "-".join(row[key] for key in NAME) + f" ({row['level']})"
        if row["_merge"] != "both":
            where = "not recomputed" if row["_merge"] == "left_only" else "not in results/"
            different.append(f"{name}: {where}")
            continue
        near = tolerance_of(row, spread or {}) if tolerance is None else tolerance
        different += [f"{name}: {text}" for text in _differing(row, near)]
    return different


def _differing(row, near) -> list[str]:
    texts = []
    for column in (c for c in SCORES if c not in (*NAME, "level")):
        was, now = row[column], row[f"{column}_fresh"]
        if pd.isna(was) and pd.isna(now):
            continue
        # an interval's ends move with the score and with the speakers' spread
        limit = near * (2 if column in ("uar_low", "uar_high") else 1)
        numbers = isinstance(was, float) and not pd.isna([was, now]).any()
        if not (abs(was - now) <= limit if numbers else was == now):
            tolerated = f", tolerance {limit:.2g}" if isinstance(was, float) else ""
            texts.append(f"{column} was {was}, is {now}{tolerated}")
    return texts


def tolerance_of(row: Mapping[str, Any], spread: Mapping[tuple, float]) -> float:
    """How far a score may lie off on another machine or with other versions.

    What is not trained at random gets LEAST, a network 2√2 of its measured spread over seeds, but LEAST as well. It is never more
    than leaves the new UAR inside the committed interval; where few speakers have none, inside the clips' own
    (binomial) one. The interval alone is taken where no spread was measured.
    """
    uar, low, high = row["uar"], row["uar_low"], row["uar_high"]
    by_clips = 1.96 * (uar * (1 - uar) / max(row["n_utterances"], 1)) ** 0.5
    reach = by_clips if pd.isna([low, high]).any() else min(uar - low, high - uar)
    seeds = max(LEAST, SPREAD * spread.get(tuple(row[key] for key in NAME), float("inf")))
    return min(TOLERANCE.get(row["system"], seeds), reach)


def closeness(committed: pd.DataFrame, fresh: pd.DataFrame) -> str:
    """Tell how near two score tables are, as a sentence."""
    keys = [*NAME, "level"]
    both = committed.merge(fresh, on=keys, suffixes=("", "_fresh"))
    equal = [all(row[c].equals(row[f"{c}_fresh"]) for c in SCORES if c not in keys) for _, row in both.groupby(keys)]
    text = f"Equal to the last digit: {sum(equal)} of {len(equal)} rows of scores"
    if all(equal):
        return f"{text}."
    off = (both["uar"] - both["uar_fresh"]).abs()
    furthest = both.loc[off.idxmax()]
    name = f"{'-'.join(furthest[key] for key in NAME)} ({furthest['level']})"
    return f"{text}; the UAR furthest off: {name}, {furthest['uar']:.3f} and {furthest['uar_fresh']:.3f}."


def other_setup(made: Mapping, again: Mapping) -> str:
    """Name what differs between the machines and versions of two provenances; "" where nothing does.

    Only notebooks whose systems have scores count, and only those that both runs have.
    """
    numbers = {system.notebook for system in systems().values()} & set(made["notebooks"]) & set(again["notebooks"])
    for number in sorted(numbers):
        first, second = (record["notebooks"][number] for record in (made, again))
        for fact in ("machine", "python", "backend", "packages"):
            if first.get(fact) != second.get(fact):
                return f"{fact} of notebook {number}: {first.get(fact)} there, {second.get(fact)} here"
    return ""


def verify(workspace: Workspace, recomputed: str | Path | None = None) -> list[str]:
    """Recompute a dataset's results with the profile and seed they were made with, and list what differs.

    The same machine and versions have to give equal scores. Elsewhere each score has a tolerance, see `tolerance_of`.
    Which of the two was asked for is printed, and how near the scores are.

    Parameters
    ----------
    workspace : whose root holds the results
    recomputed : root of a finished second run, None makes one under build/verify

    Returns
    -------
    list of sentences, empty when everything holds
    """
    folder = workspace.root / "results" / workspace.name
    if not (folder / "scores.csv").exists():
        return [f"{folder} has no scores.csv: nothing to verify"]
    made, wrong = read_json(folder / "provenance.json"), altered_files(folder)
    if recomputed is None:
        recomputed = workspace.root / "build" / "verify"
        for target in ("00", systems()["baseline"].notebook):  # the comparison and what it reads: all that has a score
            if _make(target, workspace, made, recomputed):
                return [*wrong, "the second run failed, see above"]
            if other := _other_recordings(made, Path(recomputed) / "results" / workspace.name):
                return [*wrong, other]
    again = Path(recomputed) / "results" / workspace.name
    tables = [read_scores(place / "scores.csv") for place in (folder, again)]
    if others := _without_notebook(tables, made):
        tables[1] = tables[1][~tables[1]["system"].isin(others)]
        print(f"Not compared, since results/ has no scores of them: {', '.join(sorted(others))}.")
    if not has_opensmile() and set(tables[0]["system"]) & NEED_OPENSMILE:
        tables = [table[~table["system"].isin(NEED_OPENSMILE)] for table in tables]
        print(f"Not compared, since openSMILE is not installed: {', '.join(sorted(NEED_OPENSMILE))}.")
    print(closeness(*tables))
    if other := other_setup(made, read_json(again / "provenance.json")):
        print(f"Asked for: each score within its tolerance, since the setup is another one ({other}).")
        return wrong + compare_scores(*tables, spread=_spread(folder))
    print("Asked for: equal scores, since machine and versions are the same.")
    return wrong + compare_scores(*tables, tolerance=0)


def _without_notebook(tables, made) -> set[str]:
    """Systems of a second run whose notebooks had no part in the results that ship."""
    only_again = set(tables[1]["system"]) - set(tables[0]["system"])
    return {name for name in only_again if systems()[name].notebook not in made["notebooks"]}


def _spread(folder) -> dict[tuple, float]:
    """Standard deviation of the UAR over seeds by result: that of the same folds, more where fewer clips are tested."""
    path = folder / "11_seeds.csv"
    if not path.exists():
        return {}
    scores = read_scores(folder / "scores.csv").query("level == 'utterance'")
    table = pd.read_csv(path, dtype=dict.fromkeys(NAME, str)).merge(scores[[*NAME, "n_utterances"]], on=NAME)
    # where a seed draws the split, too, its spread says nothing of another machine
    same = table[table["folds"].isin(SAME_FOLDS)][["system", "model", "uar_sd", "n_utterances"]]
    both = table.merge(same, on=["system", "model"], suffixes=("", "_same"))
    spread = both["uar_sd_same"] * (both["n_utterances_same"] / both["n_utterances"]) ** 0.5
    return dict(zip(both[NAME].itertuples(index=False, name=None), spread, strict=True))


def _make(target, workspace, made, root) -> int:
    given = {"DATASET": workspace.dataset, "PROFILE": made["profile"], "SEED": made["seed"], "ROOT": root}
    command = ["make", "-C", str(REPOSITORY), target, *(f"{key}={value}" for key, value in given.items())]
    return subprocess.run(command, check=False).returncode


def _other_recordings(made, folder) -> str:
    """What to say where a second run has heard other recordings than the first; "" where they are the same."""
    first, second = (record["notebooks"]["00"] for record in (made, read_json(folder / "provenance.json")))
    if first["corpus"] == second["corpus"]:
        return ""
    return (
        f"the recordings are not those of the results: {second['n_utterances']} here, {first['n_utterances']} there, "
        "compared sample by sample. Nothing was trained."
    )


def rescore(workspace: Workspace) -> list[str]:
    """Make everything again that follows from the decisions that ship, and list what differs: no training, no corpus.

    Scores, costs and derived tables are made again, README's tables from them. Other tables need the recordings: they,
    and provenance.json, are held against their checksums.
    """
    folder = workspace.root / "results" / workspace.name
    wrong = altered_files(folder)
    try:
        return wrong + _recomputed(workspace, folder)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, WorkspaceError) as error:
        if not wrong:
            raise
        return [*wrong, f"nothing was made again, because a file cannot be read ({error!r:.200})"]


def _recomputed(workspace, folder) -> list[str]:
    """What differs between the files of results/ and those that follow from the decisions that ship."""
    wrong = readme.outdated_pages(workspace.root)
    if not (folder / "decisions").exists():
        made_by = f"`make reproduce DATASET={workspace.dataset}` makes it"
        print(f"{folder / 'decisions'} does not ship: only checksums and README were checked. {made_by}.")
        return wrong
    with tempfile.TemporaryDirectory() as root:
        tables = _made_again(restore_decisions(workspace.dataset, folder, root), folder)
    scores = tables.pop("scores")
    wrong += compare_scores(read_scores(folder / "scores.csv"), scores, tolerance=ROUNDING)
    for name, fresh in tables.items():
        wrong += _compare_table(folder / f"{name}.csv", fresh)
    apart = sorted({path.stem for path in folder.glob("*.csv")} - set(tables) - {"scores"})
    print("Made again:", *sorted(["scores", *tables]))
    print("By checksum alone, since they need the recordings: provenance", *apart)
    if older := outdated_figures(workspace):
        again = f"`python -m tools.verify figures --dataset {workspace.dataset}` lists them"
        print(f"Pictures of another run or of older code: {len(older)}; {again}.")
    return wrong


def _made_again(restored, folder) -> dict[str, pd.DataFrame]:
    """Scores, and all tables that follow from the decisions in a folder of results/, by the name they are saved under."""
    utterances = pd.read_parquet(folder / "decisions" / "utterances.parquet")
    scores = gather_scores(restored)
    tables = derived_tables(restored, utterances, scores, epochs_of(read_json(folder / "provenance.json")))
    tables |= {"scores": scores, "costs": gather_costs(restored).drop(columns="machine")}
    tables |= _published_sizes(folder, scores)
    if (folder / published.FOLDER).exists():
        tables[published.TABLE] = published.summarise_published(folder / published.FOLDER)
    tables |= spectrogram_published.published_tables(folder / "accelerator")
    return tables


def update(workspace: Workspace) -> list[str]:
    """Write scores, tables and audits again from the decisions that ship, as the code as it is makes them.

    For when the code counts or declares something else than when notebook 11 ran: no training, no corpus. Notebook 11's
    entry in the provenance gets `tables`, the code that wrote them. Costs stay as they were measured.

    Returns
    -------
    names of the files that are others than before

    Raises
    ------
    WorkspaceError : if a file that ships was altered
    """
    folder = workspace.root / "results" / workspace.name
    if wrong := altered_files(folder):
        raise WorkspaceError(f"{folder}: {'; '.join(wrong)}")
    before = _digests(folder)
    with tempfile.TemporaryDirectory() as root:
        restored = restore_decisions(workspace.dataset, folder, root)
        tables = _made_again(restored, folder)
        del tables["costs"]
        if not any(_compare_table(folder / f"{name}.csv", table) for name, table in tables.items()):
            return []
        shutil.copytree(folder, restored.results, dirs_exist_ok=True)
        made = read_json(folder / "provenance.json")
        made["notebooks"][systems()["baseline"].notebook]["tables"] = made_by()
        write_json(restored.results / "provenance.json", made)
        save_results(restored, **tables)
        keep_decisions(restored, pd.read_parquet(folder / "decisions" / "utterances.parquet"))
        with atomic_path(folder) as temporary:
            shutil.copytree(restored.results, temporary)
    after = _digests(folder)
    return sorted(name for name in before | after if before.get(name) != after.get(name))


def _digests(folder) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def epochs_of(made: Mapping) -> dict[str | tuple[str, str], int]:
    """Epochs of each system at most, from the settings in a provenance; none where few clips may have made them more.

    A system whose models differ in epochs has them by (system, model).
    """
    epochs = {}
    for name, system in systems().items():
        number, least, batch = (recorded_setting(made, system, k) for k in ("epochs", "least_updates", "batch_size"))
        if least:  # half the clips at least are for training
            steps = number * made["notebooks"][system.notebook]["n_utterances"] // (2 * batch)
            number = None if least > steps else number
        epochs[name] = number
        # the first training of a net stands for it
        trainings = recorded_setting(made, system, "trainings") or []
        epochs |= {(name, model): planned for model, _, planned in reversed(trainings)}
    return {name: number for name, number in epochs.items() if number is not None}


def _compare_table(path, fresh) -> list[str]:
    """Whether a table that ships is the one made again, but for a machine's name."""
    if not path.exists():
        return [f"{path.name} is missing"] if len(fresh) else []
    shipped, fresh = (pd.read_csv(source) for source in (path, io.StringIO(csv_text(fresh))))
    try:
        pd.testing.assert_frame_equal(
            shipped.drop(columns="machine", errors="ignore"), fresh, check_dtype=False, rtol=0, atol=ROUNDING
        )
    except AssertionError as error:
        what = " ".join(str(error).split())
        return [f"{path.name} does not follow from the decisions: {what}"]
    return []


def outdated_figures(workspace: Workspace) -> list[str]:
    """List the pictures of a dataset that the code as it is, or the run that provenance.json names, did not draw."""
    figures = workspace.root / "figures" / workspace.name
    made = read_json(workspace.root / "results" / workspace.name / "provenance.json")["notebooks"]
    outdated, pictures = [], sorted(figures.glob("*.png"))
    code_of = {number: style.drawing_code(number) for number in {path.stem[:2] for path in pictures}}
    for path in pictures:
        code, data = style.origin_of(path)
        drawn = made.get(path.stem[:2], {}).get("figures", {})
        if not code:
            outdated.append(f"{path.name} does not tell what drew it")
        elif code != code_of[path.stem[:2]]:
            outdated.append(f"{path.name} was drawn by other code")
        elif data != drawn.get(path.stem):
            outdated.append(f"{path.name} shows other data than the run in provenance.json")
    return outdated


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.verify", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    about = {
        "verify": "train everything again and compare the scores",
        "rescore": "make scores and tables again from the decisions that ship, and compare",
        "restore": "take the decisions that ship for those of this run: notebook 11 needs no other then",
        "update": "write scores, tables and audits again from the decisions that ship, and README's tables from them",
        "figures": "list pictures that other code, or another run, has drawn",
        "readme": "write README's tables from results/",
    }
    command = {name: commands.add_parser(name, help=text) for name, text in about.items()}
    for name in ("verify", "rescore", "restore", "update", "figures"):
        command[name].add_argument("--dataset", default="demo")
        command[name].add_argument("--root", default="")
    command["verify"].add_argument("--recomputed", help="root of a finished second run; none: it is made now")
    given = parser.parse_args(arguments)
    if given.command == "readme":
        print(f"README tables written: {', '.join(readme.write_readme()) or 'none'}")
        return
    try:
        workspace = Workspace(given.dataset, root=given.root)
    except ValueError as error:
        sys.exit(str(error))
    refuse_unknown(given.dataset)
    if given.command == "restore":
        restored = restore_decisions(given.dataset, REPOSITORY / "results" / workspace.name, given.root)
        print(f"{restored.name}, profile {restored.profile}: now run notebook 11")
        return
    if given.command == "update":
        changed = update(workspace)
        readme.write_readme(workspace.root)
        print("Written again:", *(changed or ["nothing: all is as the decisions say"]), sep="\n")
        return
    check = {"rescore": rescore, "figures": outdated_figures}
    different = verify(workspace, given.recomputed) if given.command == "verify" else check[given.command](workspace)
    print(*different, sep="\n")
    right = f"{given.command} finds them right"
    if given.command == "rescore" and not (workspace.root / "results" / workspace.name / "decisions").exists():
        right = "only their checksums hold, no score was computed again"
    print("differs" if different else f"results/{given.dataset}: {right}")
    sys.exit(bool(different))


if __name__ == "__main__":
    try:
        main()
    except (WorkspaceError, CorpusError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was compared to its end")
