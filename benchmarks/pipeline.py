"""What make costs when there is nothing to do, and what a changed notebook takes with it."""

import os
import re
import subprocess
import time

from benchmarks.measuring import nothing, row, tell
from ser_utils.workspace import REPOSITORY

ROOT = os.environ.get("BENCH_ROOT") or str(REPOSITORY / "build" / "bench")  # demo, profile smoke


def make(*arguments):
    start = time.perf_counter()
    run = subprocess.run(
        ["make", "reproduce", "PROFILE=smoke", f"ROOT={ROOT}", *arguments], cwd=REPOSITORY, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    return time.perf_counter() - start, run.stdout


def measure(quick):
    if quick:
        yield nothing("make reproduce", "left out: it wants every notebook run once")
        return
    make()
    done = [seconds for seconds, said in (make() for _ in range(5)) if "→" not in said]
    if not done:
        yield nothing("make reproduce", "left out: sources were changed meanwhile")
        return
    notebooks = len(list((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb")))
    at = f"demo, profile smoke, {notebooks} notebooks"
    yield row("make reproduce with nothing to do", at, min(done), "s", at_most=3)
    _, said = make("-n", "-W", "notebooks/02_prototype_classifier.ipynb")
    again = sorted(set(re.findall(r" (\d\d) --key", said)))
    yield row(
        f"notebooks run again when 02 changes: {', '.join(again)}", at, len(again), "notebooks", at_most=3
    )


if __name__ == "__main__":
    tell(measure, __doc__)
