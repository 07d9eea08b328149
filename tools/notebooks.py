"""Notebooks as programs: scripts and notebooks kept equal, runs by papermill with errors one can read."""

import argparse
import contextlib
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from ser_utils.locks import locked
from ser_utils.names import path_of
from ser_utils.progress import FOLDER
from ser_utils.training.parallel import ONE_THREAD, leave_with
from ser_utils.workspace import REPOSITORY, Workspace, atomic_path
from tools.screen import INTERRUPTED, near

NOTEBOOKS = REPOSITORY / "notebooks"
SCRIPTS = NOTEBOOKS / "scripts"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def names() -> list[str]:
    """Names of all notebooks, in order: "00_preprocess", …"""
    return sorted(path.stem for path in SCRIPTS.glob("[0-9][0-9]_*.py"))


def full_name(number: str) -> str:
    """Complete a number: "00" is "00_preprocess".

    Raises
    ------
    ValueError : where no notebook, or several, begin so; lists those there are
    """
    matching = [name for name in names() if name.startswith(str(number))]
    if len(matching) != 1:
        raise ValueError(f"notebook must be one of {', '.join(names())}. Received: {number!r}")
    return matching[0]


def notebook_of(script: str | Path) -> nbformat.NotebookNode:
    """The notebook a percent script stands for: its place in the graph, no outputs, cell ids from their places."""
    notebook = jupytext.reads(Path(script).read_text("utf-8"), fmt="py:percent")
    graph = {"graph": notebook.metadata["graph"]} if "graph" in notebook.metadata else {}
    notebook.metadata = nbformat.from_dict(KERNEL | graph)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place:02d}"
        cell["metadata"] = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
    return notebook


def sync(selected: list[str]) -> None:
    """Write notebooks/NN_name.ipynb from notebooks/scripts/NN_name.py where they differ."""
    for name in selected:
        text = nbformat.writes(notebook_of(SCRIPTS / f"{name}.py")) + "\n"
        target = NOTEBOOKS / f"{name}.ipynb"
        if not target.exists() or target.read_text("utf-8") != text:
            with atomic_path(target) as temporary:
                temporary.write_text(text, "utf-8")
            print(f"wrote {target.relative_to(REPOSITORY)}")


def run(
    name: str,
    workspace: Workspace,
    *,
    parameters: Sequence[tuple[str, str]] = (),
    where_known: Sequence[tuple[str, str]] = (),
    key: str = "",
) -> Path:
    """Execute one notebook into build/…/notebooks, with a log beside it.

    Parameters
    ----------
    name : such as "00_preprocess"
    workspace : of the run
    parameters : the notebook's own parameters, as text
    where_known : parameters of several notebooks, which those without such a parameter leave out
    key : what the run is made from, kept in the notebook's metadata

    Returns
    -------
    The path of the executed notebook.

    Raises
    ------
    SystemExit : for an unknown parameter, or where a cell fails; names the cell and the log
    """
    source, folder = NOTEBOOKS / f"{name}.ipynb", workspace.folder("notebooks")
    given = _given(name, source, workspace, parameters, where_known)
    output, log = folder / f"{name}.ipynb", folder / f"{name}.log"
    (folder / f"{name}.failed.ipynb").unlink(missing_ok=True)
    start, cpu_before = time.monotonic(), _cpu_of_children()
    with open(log, "w", encoding="utf-8") as log_file, atomic_path(output) as temporary:
        try:
            executed = _execute(source, temporary, given, log_file)
        except PapermillExecutionError as error:
            log_file.write("\n".join(error.traceback))
            raise SystemExit(_failure(name, error, temporary, log)) from None
        except DeadKernelError:
            raise SystemExit(
                f"{name}: its kernel died (most often: out of memory). Finished work is kept; "
                f"run the same command to go on.\n  log: {log}"
            ) from None
        seconds = time.monotonic() - start
        cost = {"seconds": seconds, "cpu_seconds": _cpu_of_children() - cpu_before}
        executed.metadata |= {"made_from": key, "cost": cost}
        nbformat.write(_without_warnings(executed), temporary)
    print(f"{name}: {seconds:.0f} s → {near(output)}{_drawn(name[:2], workspace)}", flush=True)
    return output


def _given(name, source, workspace, parameters, where_known):
    """All parameters of a notebook, typed as it has them."""
    known = papermill.inspect_notebook(str(source))
    if unknown := [k for k, _ in parameters if k not in known]:
        raise SystemExit(f"{name}: unknown parameter {', '.join(unknown)}; it has {', '.join(known)}.")
    given = {"dataset": workspace.dataset, "profile": workspace.profile, "seed": workspace.seed}
    given["root"] = "" if workspace.root == REPOSITORY else str(workspace.root)
    own = {k: v for k, v in (*parameters, *where_known) if k in known}
    return given | {k: _typed(v, known[k]["default"]) for k, v in own.items()}


def _failure(name, error, executed, log):
    """What to say of a cell that failed; the notebook as far as it was executed is kept."""
    failed = log.with_name(f"{name}.failed.ipynb")
    executed.replace(failed)
    where = _heading_above(failed, error.cell_index)
    return (
        f"{name} failed in cell {error.cell_index}{where}: {error.ename}: {error.evalue}\n"
        f"  executed so far: {failed}\n  log: {log}"
    )


def _execute(source, target, parameters, log):
    """Run a notebook's cells in a kernel of one thread whose warnings and progress are not shown but told."""
    progress = Path(os.environ.get(FOLDER) or target.parent)
    n_cells = len(nbformat.read(source, as_version=4).cells)

    def tell(cell, cell_index):
        (progress / "cell").write_text(json.dumps([cell_index, n_cells]), "utf-8")

    environment = ONE_THREAD | {FOLDER: str(progress), "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Left to itself, a kernel shows what C++ writes to stderr in the cell that is running
    options = ["--log-level=50", "--IPKernelApp.capture_fd_output=False"]
    with _environment(environment), _native_output_to(log):
        return papermill.execute_notebook(
            str(source),
            str(target),
            parameters,
            kernel_name="python3",
            cwd=str(NOTEBOOKS),
            progress_bar=False,
            stdout_file=log,
            stderr_file=log,
            request_save_on_cell_execute=False,
            autosave_cell_every=0,
            extra_arguments=options,
            on_cell_start=tell,
        )


@contextlib.contextmanager
def _environment(values):
    """Have these environment variables while the block runs."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _native_output_to(log):
    """Send what this process and those it starts write to their standard output and error into a file."""
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    sys.stdout.flush()
    try:
        for stream in kept:
            os.dup2(log.fileno(), stream)
        yield
    finally:
        for stream, original in kept.items():
            os.dup2(original, stream)
            os.close(original)


def _cpu_of_children():
    """Seconds of CPU time of the processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _without_warnings(notebook):
    """An executed notebook without what libraries wrote to stderr, or TensorFlow to stdout; the log has it."""
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in cell.outputs:
            if output.get("name") == "stdout":
                output.text = re.sub(r"^WARNING:tensorflow:.*\n", "", output.text, flags=re.MULTILINE)
        cell.outputs = [
            output for output in cell.outputs if output.get("name") != "stderr" and output.get("text") != ""
        ]
    return notebook


def _drawn(number, workspace):
    """Where the figures and sounds of a notebook are, as lines of text."""
    lines = ""
    for kind, folder in (("figures", workspace.figures), ("sounds", workspace.build / "sounds")):
        if count := len(list(folder.glob(f"{number}_*"))):
            lines += f"\n  {count} {kind}: {near(folder)}/{number}_*"
    return lines


def _typed(text, default):
    """Command-line text as the type of the parameter's default (given as source text)."""
    if default in ("True", "False"):
        if text not in ("0", "1", "True", "False"):
            raise SystemExit(f"A switch is 0 or 1. Received: {text!r}")
        return text in ("1", "True")
    if re.fullmatch(r"-?\d+", default):
        return int(text)
    return float(text) if re.fullmatch(r"-?[\d.e-]+", default) else text


def _heading_above(path, cell_index):
    """The last heading before a cell, in brackets."""
    cells = nbformat.read(path, as_version=4).cells[: (cell_index or 0) + 1]  # papermill puts a banner first
    titles = [cell.source for cell in cells if cell.cell_type == "markdown" and cell.source.startswith("#")]
    return f" (“{titles[-1].lstrip('# ').splitlines()[0]}”)" if titles else ""


def one_at_a_time(workspace: Workspace) -> contextlib.AbstractContextManager:
    """Let two runs over the same folder take turns: the second then finds the first one's work."""

    def waiting():
        print(f"waiting: another run writes {workspace.build}", file=sys.stderr, flush=True)

    return locked(workspace.folder() / ".lock", waiting)


def _interrupt(*_):
    """Ctrl-C shuts the kernel down: that its cell then finds the kernel dead, and says so, is no news."""
    logging.disable()
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    syncing = commands.add_parser("sync", help="write notebooks from their scripts")
    syncing.add_argument("number", nargs="*")
    running = commands.add_parser("run", help="execute one notebook by papermill")
    running.add_argument("number")
    which = {"dataset": "demo", "profile": "quick", "seed": "0", "root": "", "key": ""}
    for name, default in which.items():
        running.add_argument(f"--{name}", default=default)
    for option in ("-p", "--where-known"):
        running.add_argument(option, nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    running.add_argument("--within", type=int, help="id of the process that runs several and holds their folder")
    given = parser.parse_args(arguments)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if given.command == "sync":
            return sync([full_name(number) for number in given.number] or names())
        _run_as_asked(given)
    except (ValueError, OSError) as error:  # refused values; a place that cannot be written
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _run_as_asked(given):
    if not given.seed.isdecimal():
        raise ValueError(f"SEED must be an integer of at least 0. Received: SEED={given.seed}")
    for name in ("SER_DATA_DIR", "SER_WEIGHTS_DIR", "WEIGHTS"):  # the kernel works in another folder
        if os.environ.get(name):
            os.environ[name] = str(path_of(os.environ[name]).resolve())
    workspace = Workspace(given.dataset, given.profile, int(given.seed), given.root)
    if given.within:
        leave_with(given.within)
    with contextlib.nullcontext() if given.within else one_at_a_time(workspace):
        run(full_name(given.number), workspace, parameters=given.p, where_known=given.where_known, key=given.key)


if __name__ == "__main__":
    main()
