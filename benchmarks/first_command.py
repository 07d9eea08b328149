"""What a newcomer waits for, in a fresh clone with an empty home: setup, first figure, every notebook, tests."""

import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import MemoryWatch, row, tell
from ser_utils.workspace import REPOSITORY

AT = "demo, profile quick, a fresh clone"


class Clone:
    """A fresh clone of what is committed here, and a home with nothing in it."""

    def __init__(self, folder):
        self.path = folder / "clone"
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, self.path], check=True)
        (folder / "home").mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SER_", "VIRTUAL_ENV"))}
        self.environment = kept | {"HOME": str(folder / "home")}

    def make(self, *arguments, watch=None):
        """Run make. Returns seconds, seconds of CPU time and the peak of anonymous memory in GB."""
        start, before = time.perf_counter(), _cpu_of_children()
        with subprocess.Popen(
            ["make", *arguments], cwd=self.path, env=self.environment, stdout=subprocess.PIPE, text=True
        ) as running:
            memory = MemoryWatch(running.pid)
            memory.start()
            for line in running.stdout:
                if watch:
                    watch(line, time.perf_counter() - start)
        if running.returncode:
            raise SystemExit(f"make {' '.join(arguments)} failed")
        return time.perf_counter() - start, _cpu_of_children() - before, memory.stop() / 1e9

    def size(self):
        """Disk space of .venv in GiB, as `du -h` tells it."""
        used = subprocess.run(["du", "-sk", self.path / ".venv"], check=True, capture_output=True, text=True)
        return int(used.stdout.split()[0]) / 1024**2

    def costs(self):
        """Executed notebooks' names and their seconds of CPU time."""
        for path in sorted(self.path.glob("build/demo/quick/seed_0/notebooks/*.ipynb")):
            yield path.stem, json.loads(path.read_text("utf-8"))["metadata"]["cost"]["cpu_seconds"]


def _cpu_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(quick):
    with tempfile.TemporaryDirectory() as folder:
        clone = Clone(Path(folder))
        seconds, *_ = clone.make("setup")
        yield row("make setup", "a fresh clone, packages from the index", seconds, "s")
        yield row("size of .venv", "what notebooks need", clone.size(), "GiB", at_most=2.6)
        if quick:
            return
        yield row("make demo, after setup", AT, clone.make("demo")[0], "s", at_most=180)
        yield from notebooks(clone)
        yield different_scores(clone)
        yield from tests(clone)


def notebooks(clone):
    """The first command after setup, and what each notebook costs."""
    first = []
    seconds, cpu, memory = clone.make("reproduce", watch=lambda line, now: "figures:" in line and first.append(now))
    yield row("first figures and sounds, after setup", AT, first[0], "s", at_most=120)
    yield row("make reproduce, after setup", AT, seconds, "s", at_most=720)
    yield row("make reproduce, CPU time", AT, cpu / 60, "min", at_most=22)
    yield row("make reproduce, peak anonymous memory", AT, memory, "GB", at_most=8)
    for name, cpu in clone.costs():
        yield row(f"CPU time of {name}", AT, cpu, "s")


def different_scores(clone):
    """How many lines of the scores differ between one process and two."""
    scores = []
    for jobs in ("1", "2"):
        clone.make("reproduce", "PROFILE=smoke", f"ROOT=build/jobs_{jobs}", f"JOBS={jobs}")
        path = clone.path / f"build/jobs_{jobs}/build/demo/smoke/seed_0/results/scores.csv"
        scores.append(set(path.read_text("utf-8").splitlines()))
    what = "lines of scores.csv that differ between JOBS=1 and JOBS=2"
    return row(what, "demo, profile smoke", len(scores[0] ^ scores[1]), "", at_most=0)


def tests(clone):
    """The tests, and all that the continuous check runs."""
    seconds = {goal: clone.make(*goal.split())[0] for goal in ("setup-dev", "lint", "test", "test SLOW=1")}
    about = f"a fresh clone, {'with' if os.environ.get('SER_DATA_DIR') else 'no'} real recordings"
    yield row("make test, after setup", about, seconds["test"], "s", at_most=480)
    together = sum(seconds.values()) - seconds["test"]
    yield row("lint, tests and slow tests", about, together, "s", at_most=840)


if __name__ == "__main__":
    tell(measure, __doc__)
