"""What make costs when there is nothing to do, and what a changed notebook takes with it."""

import json
import os
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import BUSY, row, seconds_unit, tell
from ser_utils.workspace import REPOSITORY, Workspace
from tools import graph as make_graph
from tools.notebooks import NOTEBOOKS, names


def executed(name):
    """A notebook as it was executed here, whose pictures make it megabytes long; else its source."""
    found = REPOSITORY.glob(f"build/*/*/seed_0/notebooks/{name}.ipynb")
    return max(found, key=lambda path: path.stat().st_size, default=NOTEBOOKS / f"{name}.ipynb")


def finish(root):
    """Leave a root as a finished run of the present sources leaves it, as far as make looks. Returns its bytes."""
    rules = make_graph.rules("demo", "smoke", "0", str(root), "///")
    keys = dict(re.findall(r"RUN_NOTEBOOK\) (\d\d) --key (\w+)", rules))
    folder, total = Workspace(root=root, profile="smoke").folder("notebooks"), 0
    for name in names():
        book = json.loads(executed(name).read_text("utf-8"))
        book["metadata"]["made_from"] = keys[name[:2]]
        total += (folder / f"{name}.ipynb").write_text(json.dumps(book), "utf-8")
    return total


def make(root, *arguments):
    """Seconds and output of make reproduce on a root."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    run = subprocess.run(
        ["make", "reproduce", "PROFILE=smoke", f"ROOT={root}", *arguments], cwd=REPOSITORY, text=True,
        capture_output=True, check=False, env={k: v for k, v in os.environ.items() if k not in ("STRICT", "LABELS")},
    )  # fmt: skip
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime if BUSY else wall, run.stdout


def measure(quick):
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        megabytes = finish(root) / 1e6
        done = [
            seconds for seconds, said in (make(root) for _ in range(1 if quick else 5)) if "→" not in said
        ]
        if not done:
            raise SystemExit("a finished root was not taken for one: were sources changed meanwhile?")
        at = f"demo, profile smoke, {len(names())} notebooks of {megabytes:.0f} MB"
        yield row("make reproduce with nothing to do", at, min(done), seconds_unit(), at_most=3)
        _, said = make(root, "-n", "-W", "notebooks/02_prototype_classifier.ipynb")
        again = sorted(set(re.findall(r" (\d\d) --key", said)))
        reading = {"02"}
        for number, upstream in make_graph.READS.items():
            reading |= {number} if reading & set(upstream) else set()
        what = f"notebooks run again when 02 is changed ({', '.join(again)})"
        yield row(what, at, len(again), "", at_most=len(reading))


if __name__ == "__main__":
    tell(measure, __doc__)
