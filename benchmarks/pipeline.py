"""What make costs when there is nothing to do, and what a changed notebook takes with it."""

import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import BUSY, row, seconds_unit, tell
from ser_utils.workspace import REPOSITORY, Workspace
from tools import graph
from tools.notebooks import NOTEBOOKS, names
from tools.reproduce import parameters_text

NO_PARAMETERS = parameters_text([], {})


def executed(name):
    """A notebook as it was executed here, whose pictures make it megabytes long; else its source."""
    found = REPOSITORY.glob(f"build/*/*/seed_0/notebooks/{name}.ipynb")
    return max(found, key=lambda path: path.stat().st_size, default=NOTEBOOKS / f"{name}.ipynb")


def finish(root):
    """Leave a root as a finished run of the present sources leaves it, as far as make looks. Returns its bytes."""
    steps, total = steps_in(root), 0
    for step in steps.values():
        book = json.loads(executed(step.name).read_text("utf-8"))
        book["metadata"]["made_from"] = step.key
        total += step.output.write_text(json.dumps(book), "utf-8")
    return total


def steps_in(root):
    """The notebooks of `make reproduce PROFILE=smoke ROOT=root`, whose folder is made."""
    folder = Workspace(root=root, profile="smoke").folder("notebooks").parent
    return graph.steps_of("demo", "smoke", folder, NO_PARAMETERS)


def make(root, *arguments):
    """Seconds and output of make reproduce on a root."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    run = subprocess.run(
        ["make", "reproduce", "PROFILE=smoke", f"ROOT={root}", *arguments],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "STRICT"},
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime if BUSY else wall, run.stdout


def measure(quick):
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        megabytes = finish(root) / 1e6
        done = [seconds for seconds, said in (make(root) for _ in range(1 if quick else 5)) if "→" not in said]
        if not done:
            raise SystemExit("a finished root was not taken for one: were sources changed meanwhile?")
        at = f"demo, profile smoke, {len(names())} notebooks of {megabytes:.0f} MB"
        yield row("make reproduce with nothing to do", at, min(done), seconds_unit(), at_most=3)
        steps = steps_in(root)
        again = graph.outdated(steps, changed=(NOTEBOOKS / "02_prototype_classifier.ipynb",))
        what = f"notebooks run again when 02 is changed ({', '.join(again)})"
        yield row(what, at, len(again), "", at_most=1 + len(graph.readers(steps, "02")))


if __name__ == "__main__":
    tell(measure, __doc__)
