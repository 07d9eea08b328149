"""Run notebooks in the order of their graph, independent ones side by side, as far as they are not up to date."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

from joblib import cpu_count  # knows how many cores a container has

from ser_utils.locks import locked
from ser_utils.progress import FOLDER
from ser_utils.workspace import REPOSITORY, Workspace, remove_unfinished
from tools.graph import Step, chain_length, outdated, read_by, readers, steps_of
from tools.screen import INTERRUPTED, Screen, Task, near

MEMORY_OF_A_NOTEBOOK = 2.5e9  # bytes that a kernel and its workers need at most, on the corpora whose results ship
PAUSE_S = 0.2
KINDS = ("figures", "prototypes", "results")  # what a run makes to be looked at


class Running:
    """A notebook that a process of its own executes.

    Parameters
    ----------
    step : the notebook
    command : the command line that executes it
    cores : how many worker processes it may use
    """

    def __init__(self, step: Step, command: list[str], cores: int):
        progress = step.output.parent / ".progress" / step.name
        shutil.rmtree(progress, ignore_errors=True)
        progress.mkdir(parents=True)
        self.step, self.task = step, Task(step.name, time.monotonic(), progress)
        self.said = tempfile.TemporaryFile()  # not a pipe, which a kernel that is left over would keep open
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | {"SER_JOBS": str(cores), FOLDER: str(progress)},
            stdin=subprocess.DEVNULL,
            stdout=self.said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on once
        )

    def words(self) -> str:
        """What it has printed."""
        self.said.seek(0)
        return self.said.read().decode("utf-8", "replace").strip()

    def wait(self) -> None:
        """Wait until it is gone, half a minute at most."""
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """Leave nothing of its progress."""
        self.said.close()
        shutil.rmtree(self.task.progress, ignore_errors=True)


def run_side_by_side(
    steps: dict[str, Step],
    numbers: list[str],
    command: Callable[[Step], list[str]],
    screen: Screen,
    *,
    cores: int,
    slots: int,
) -> None:
    """Run notebooks, each after those it reads.

    Parameters
    ----------
    steps : all notebooks by their numbers
    numbers : those to run
    command : gives the command line that executes a notebook
    screen : where it is shown
    cores : shared among the notebooks that can run at the same time
    slots : how many notebooks may run at the same time

    Raises
    ------
    SystemExit : with the words of the first notebook that failed; the others are interrupted
    """
    # those that the longest chain waits for come first
    waiting = sorted(numbers, key=lambda number: (-chain_length(steps, number), number))
    running: dict[str, Running] = {}
    try:
        while waiting or running:
            for number in _ready(steps, waiting, running)[: slots - len(running)]:
                waiting.remove(number)
                share = core_share(steps, number, [*waiting, *running], cores=cores, slots=slots)
                running[number] = Running(steps[number], command(steps[number]), share)
            screen.draw([notebook.task for notebook in running.values()], len(waiting))
            time.sleep(PAUSE_S)
            for number in [n for n, notebook in running.items() if notebook.process.poll() is not None]:
                _finish(running.pop(number), screen)
    finally:
        for notebook in running.values():
            notebook.process.terminate()
        for notebook in running.values():
            notebook.wait()
            notebook.close()
        screen.clear()


def _ready(steps, waiting, running):
    return [number for number in waiting if not read_by(steps, number) & {*waiting, *running}]


def core_share(steps: dict[str, Step], number: str, unfinished: list[str], *, cores: int, slots: int) -> int:
    """Cores for a notebook that starts: all where nothing can run beside it, else an equal share, at least 1.

    Parameters
    ----------
    unfinished : numbers of the other notebooks that are still to be run or running
    cores, slots : see `run_side_by_side`
    """
    beside = set(unfinished) - readers(steps, number) - read_by(steps, number)
    return max(1, cores // min(slots, 1 + len(beside)))


def _finish(notebook, screen):
    words, status = notebook.words(), notebook.process.returncode
    notebook.close()
    if status:
        raise SystemExit(words or f"{notebook.step.name} ended with status {status} and said nothing.")
    screen.say(words)


def cores_for(jobs: str) -> int:
    """How many processes may run at the same time: $SER_JOBS, which is JOBS, else one a core.

    Raises
    ------
    ValueError : for text that is no such number
    """
    if jobs and (not jobs.isdecimal() or int(jobs) < 1):
        raise ValueError(f"JOBS must be an integer of at least 1. Received: JOBS={jobs}")
    return int(jobs or cpu_count())


def slots_for(cores: int, engine: str) -> int:
    """How many notebooks may run at the same time: one a core, as far as memory goes; one where Ray spreads tasks."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told here
        memory = cores * MEMORY_OF_A_NOTEBOOK
    return 1 if engine == "ray" else max(1, min(cores, int(memory / MEMORY_OF_A_NOTEBOOK)))


def refuse_unknown_corpora(dataset: str) -> None:
    """Say at once what the first notebook would say after half a minute.

    Raises
    ------
    SystemExit : for a name that no corpus has; lists the accepted ones
    """
    # imported here, since a run that has nothing to do would wait for it
    from ser_utils.corpora.facts import CorpusError
    from ser_utils.corpora.loading import refuse_unknown

    try:
        refuse_unknown(dataset)
    except CorpusError as error:
        raise SystemExit(str(error)) from None


def parameters_text(where_known: list[list[str]], environment: Mapping[str, str]) -> str:
    """What a run is made from beside its files: the notebooks' own parameters and how corpora are taken, as text."""
    return json.dumps([where_known, environment.get("STRICT", "")])


def reproduce(workspace: Workspace, numbers: list[str], where_known: list[list[str]], screen: Screen) -> None:
    """Run the notebooks asked for, and those they read, as far as they are not up to date.

    Parameters
    ----------
    workspace : of the run
    numbers : of the notebooks; none are all
    where_known : pairs of parameters, for the notebooks that have such a parameter
    screen : where it is shown

    Raises
    ------
    ValueError : for a number that no notebook has; lists those there are
    SystemExit : where a notebook fails
    """
    cores = cores_for(os.environ.get("SER_JOBS", ""))
    own = parameters_text(where_known, os.environ)

    def waiting():
        print(f"waiting: another run writes {workspace.build}", file=sys.stderr, flush=True)

    which = {"dataset": workspace.dataset, "profile": workspace.profile, "seed": workspace.seed}
    which |= {"root": workspace.root, "within": os.getpid()}
    options = [word for name, value in which.items() for word in (f"--{name}", str(value))]
    options += [word for pair in where_known for word in ("--where-known", *pair)]

    def command(step):
        return [sys.executable, "-m", "tools.notebooks", "run", step.number, "--key", step.key, *options]

    with locked(workspace.folder() / ".lock", waiting):
        steps = steps_of(workspace.dataset, workspace.profile, workspace.build, own)
        if unknown := sorted(set(numbers) - steps.keys()):
            raise ValueError(f"notebook must be one of {', '.join(steps)}. Received: {', '.join(unknown)}")
        wanted = set(numbers or steps).union(*(read_by(steps, number) for number in numbers))
        to_run = [number for number in outdated(steps) if number in wanted]
        if to_run:
            refuse_unknown_corpora(workspace.dataset)
            for place in (workspace.build, *(workspace.root / kind / workspace.name for kind in KINDS)):
                remove_unfinished(place)
        slots = slots_for(cores, os.environ.get("SER_ENGINE") or "local")
        run_side_by_side(steps, to_run, command, screen, cores=cores, slots=slots)
    screen.say(summary(workspace, numbers))


def summary(workspace: Workspace, numbers: list[str]) -> str:
    """Where what a run made can be seen and heard, as lines of text; numbers : as in `reproduce`."""
    shown = workspace.root if workspace.is_shown else workspace.build
    places = {kind: shown / kind / (workspace.name if workspace.is_shown else "") for kind in KINDS}
    places["notebooks"] = workspace.build / "notebooks"
    lines = [f"  {kind:<10} {near(place)}" for kind, place in places.items() if place.exists()]
    title = f"{workspace.dataset}, profile {workspace.profile}, seed {workspace.seed}"
    done = f"{', '.join(numbers)} and what they read are" if numbers else "everything is"
    return "\n".join([f"{title}: {done} up to date.", *lines])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.reproduce", description=__doc__)
    parser.add_argument("number", nargs="*", help="of the notebooks, with those they read; none: all")
    for name, default in {"dataset": "demo", "profile": "quick", "seed": "0", "root": ""}.items():
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--where-known", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if not given.seed.isdecimal():
            raise ValueError(f"SEED must be an integer of at least 0. Received: SEED={given.seed}")
        workspace = Workspace(given.dataset, given.profile, int(given.seed), given.root)
        reproduce(workspace, given.number, given.where_known, Screen())
    except (ValueError, OSError) as error:  # refused values; a place that cannot be written
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
