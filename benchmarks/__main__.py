"""Everything that is measured: kept in benchmarks/measured.csv with the machine it ran on, and shown in two README.

python -m benchmarks [part …] [--quick] [--into FOLDER]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from benchmarks.measuring import COLUMNS
from ser_utils.workspace import REPOSITORY, atomic_path
from tools.readme import replace_between

HERE = Path(__file__).parent
PARTS = {
    "preprocessing": "Preprocessing",
    "memory": "Memory",
    "training": "Training",
    "growth": "Growth",
    "pipeline": "Make",
    "first_command": "The first command",
    "latency": "One recording",
    "speech_transformer": "Speech encoder",
    "waveforms": "Waveform networks",
    "ray_cluster": "Ray cluster",
    "accelerator": "Accelerator",
}
MARKS = ("<!-- performance -->", "<!-- /performance -->")


def run_part(name, quick):
    """Run one part in a process of its own, so that none finds what another left in memory. Returns its lines."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
    with subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as running:
        lines = []
        for text in running.stdout:
            if text.startswith("{"):
                lines.append({"part": name} | json.loads(text))
                print(describe(lines[-1]), flush=True)
    return lines, running.returncode


def describe(line):
    """A line of the report in words."""
    if pd.isna(line.get("value")):
        return f"{line['what']}: {line['at']}"
    words = f"{line['what']}: {number(line['value'])} {line['unit']}".rstrip() + f" ({line['at']})"
    if not pd.isna(line.get("other")):
        words += f"; {line['than']}: {number(line['other'])} {line['unit']}".rstrip() + f", {number(line['ratio'])} ×"
    return words + (f"; wanted {wanted(line)}" if wanted(line) else "")


def compared(line):
    """What a line is compared with, and what that needs."""
    if pd.isna(line.get("other")):
        return line["than"]
    return f"{line['than']}: {number(line['other'])} {line['unit']}".rstrip()


def number(value):
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def wanted(line):
    if not pd.isna(line.get("at_least")):
        words = f"≥ {line['at_least']:g} ×"
    elif not pd.isna(line.get("at_most")):
        words = f"≤ {line['at_most']:g} {line['unit']}".rstrip()
    else:
        return ""
    return words if line["reached"] in (True, "True") else f"{words}: **missed**"


def performance_table(measured):
    """What was measured and is compared, wanted or missing, as Markdown; measured : DataFrame of COLUMNS."""
    shown = measured[["ratio", "at_most"]].notna().any(axis=1) | measured["value"].isna()
    lines = ["| | size | here | compared with | × | target |", "|---|---|---:|---|---:|---|"]
    for line in measured[shown].to_dict("records"):
        here = "–" if pd.isna(line["value"]) else f"{number(line['value'])} {line['unit'] or ''}".strip()
        other = ratio = ""
        if not pd.isna(line["ratio"]):
            other, ratio = compared(line), number(line["ratio"])
        cells = [line["what"], line["at"], here, other, ratio, wanted(line)]
        lines.append(f"| {' | '.join(map(str, cells))} |".replace("of processor", "of CPU time"))
    low, high = measured["load"].min(), measured["load"].max()
    busy = measured["unit"].str.contains("of processor").any()
    dates, machines = sorted(set(measured["date"])), sorted(set(measured["machine"]))
    lines += [
        "",
        "*×* is how many times faster this project is than what is in *compared with*. An *exponent* is the slope of log time over "
        "log size: 1 means that twice the work takes twice the time. *Anonymous memory* leaves out pages of mapped files. "
        f"Measured on {'; '.join(machines)}; {', '.join(dates)}. Load average while measuring: {low:g} to {high:g}. Where it is above the "
        "number of cores, other programs were running. Two things that are compared ran one after the other, as a rule in "
        "one process and in several rounds; the fastest round counts. "
        + ("CPU time is the sum over all threads. " if busy else "")
        + "`make bench` writes this table from `benchmarks/measured.csv`.",
    ]
    return "\n".join(lines)


def write_readme(measured, root):
    """Put what has a bar to reach between the marks in README, and all of it between those in benchmarks/README.md."""
    bars = measured[measured[["at_least", "at_most"]].notna().any(axis=1)]
    replace_between(MARKS, root / "README.md", performance_table(bars))
    replace_between(MARKS, root / "benchmarks" / "README.md", performance_table(measured))


def read_measured(path):
    words = dict.fromkeys(["unit", "than"], str)
    return pd.read_csv(path, dtype=words).fillna(dict.fromkeys(words, "")).reindex(columns=COLUMNS)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, measures nothing")
    parser.add_argument("--into", default="", help="folder of measured.csv; README is left alone then")
    given = parser.parse_args(arguments)
    if unknown := [part for part in given.part if part not in PARTS]:
        parser.error(f"part must be of {', '.join(PARTS)}. Received: {', '.join(unknown)}")
    if given.quick and not given.into:
        parser.error("--quick measures nothing worth keeping: say --into FOLDER")
    target = Path(given.into or HERE) / "measured.csv"
    known = read_measured(target).to_dict("records") if target.exists() else []
    failed = []
    for name in given.part or PARTS:
        print(f"--- {name}", flush=True)
        lines, status = run_part(name, given.quick)
        failed += [name] * (status != 0)
        known = [line for line in known if line["part"] != name] + lines
        order = list(PARTS)
        measured = pd.DataFrame(known, columns=COLUMNS).sort_values(
            "part", key=lambda part: part.map(order.index), kind="stable"
        )
        with atomic_path(target) as temporary:
            measured.to_csv(temporary, index=False, float_format="%.6g")
    if not given.into:
        write_readme(read_measured(target), REPOSITORY)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
