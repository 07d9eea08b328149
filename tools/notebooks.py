"""Notebooks as programs: scripts and notebooks kept equal, runs by papermill with errors one can read."""

import argparse
import contextlib
import fcntl
import logging
import os
import re
import signal
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from ser_utils.workspace import REPOSITORY, Workspace, atomic_path

NOTEBOOKS = REPOSITORY / "notebooks"
SCRIPTS = NOTEBOOKS / "scripts"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def names():
    """Names of all notebooks, in order: "00_preprocess", …"""
    return sorted(path.stem for path in SCRIPTS.glob("[0-9][0-9]_*.py"))


def full_name(number):
    """ "00" → "00_preprocess"; raises ValueError listing what there is."""
    found = [name for name in names() if name.startswith(str(number))]
    if len(found) != 1:
        raise ValueError(f"notebook must be one of {', '.join(names())}. Received: {number!r}")
    return found[0]


def notebook_of(script):
    """The notebook a percent script stands for: no outputs, cell ids from their places."""
    notebook = jupytext.reads(Path(script).read_text("utf-8"), fmt="py:percent")
    notebook.metadata = nbformat.from_dict(KERNEL)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place:02d}"
        cell["metadata"] = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
    return notebook


def sync(selected):
    """Write notebooks/NN_name.ipynb from notebooks/scripts/NN_name.py where they differ."""
    for name in selected:
        text = nbformat.writes(notebook_of(SCRIPTS / f"{name}.py")) + "\n"
        target = NOTEBOOKS / f"{name}.ipynb"
        if not target.exists() or target.read_text("utf-8") != text:
            with atomic_path(target) as temporary:
                temporary.write_text(text, "utf-8")
            print(f"wrote {target.relative_to(REPOSITORY)}")


def run(name, workspace, *, parameters=(), where_known=(), key=""):
    """Execute one notebook into build/…/notebooks, with a log beside it.

    parameters : pairs of the notebook's own parameters, as text; unknown ones are an error
    where_known : the same for many notebooks at once: left out by those that have no such parameter
    key : what the run was made from, kept in the notebook's metadata
    Returns the path of the executed notebook. Raises SystemExit with a readable message on a failing cell.
    """
    source = NOTEBOOKS / f"{name}.ipynb"
    known = papermill.inspect_notebook(str(source))
    given = {"dataset": workspace.dataset, "profile": workspace.profile, "seed": workspace.seed}
    given["root"] = "" if workspace.root == REPOSITORY else str(workspace.root)
    own = [*parameters, *((k, v) for k, v in where_known if k in known)]
    given |= {k: _typed(v, known[k]["default"]) for k, v in own if k in known}
    if unknown := [k for k, v in parameters if k not in known]:
        raise SystemExit(f"{name}: unknown parameter {', '.join(unknown)}; it has {', '.join(known)}.")

    folder = workspace.folder("notebooks")
    output, log, failed = folder / f"{name}.ipynb", folder / f"{name}.log", folder / f"{name}.failed.ipynb"
    failed.unlink(missing_ok=True)
    start = time.monotonic()
    with (
        _one_at_a_time(workspace),
        open(log, "w", encoding="utf-8") as log_file,
        atomic_path(output) as temporary,
    ):
        try:
            executed = papermill.execute_notebook(
                str(source), str(temporary), given, kernel_name="python3", cwd=str(NOTEBOOKS),
                progress_bar=sys.stderr.isatty(), stdout_file=log_file, stderr_file=log_file,
                request_save_on_cell_execute=False, autosave_cell_every=0, extra_arguments=["--log-level=50"],
            )  # fmt: skip
        except PapermillExecutionError as error:
            temporary.replace(failed)
            where = _heading_above(failed, error.cell_index)
            log_file.write("\n".join(error.traceback))
            raise SystemExit(
                f"{name} failed in cell {error.cell_index}{where}: {error.ename}: {error.evalue}\n"
                f"  executed so far: {failed}\n  log: {log}"
            ) from None
        except DeadKernelError:
            raise SystemExit(
                f"{name}: its kernel died (most often: out of memory). Finished work is kept; "
                f"run the same command to go on.\n  log: {log}"
            ) from None
        executed.metadata["made_from"] = key
        nbformat.write(executed, temporary)
    print(f"{name}: {time.monotonic() - start:.0f} s → {output}", flush=True)
    return output


def _typed(text, default):
    """Command-line text as the type of the parameter's default (given as source text)."""
    if default in ("True", "False"):
        if text not in ("0", "1", "True", "False"):
            raise SystemExit(f"A switch is 0 or 1. Received: {text!r}")
        return text in ("1", "True")
    return (
        int(text)
        if re.fullmatch(r"-?\d+", default)
        else float(text)
        if re.fullmatch(r"-?[\d.e-]+", default)
        else text
    )


def _heading_above(path, cell_index):
    headings = [
        cell.source.lstrip("# ").splitlines()[0]
        for cell in nbformat.read(path, as_version=4).cells[
            : (cell_index or 0) + 1
        ]  # papermill puts a banner first
        if cell.cell_type == "markdown" and cell.source.startswith("#")
    ]
    return f" (“{headings[-1]}”)" if headings else ""


@contextlib.contextmanager
def _one_at_a_time(workspace):
    """Two runs over the same folder take turns: the second then finds the first one's work."""
    with open(workspace.folder() / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another run writes {workspace.build}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _interrupt(*_):
    """Ctrl-C shuts the kernel down: that its cell then finds the kernel dead, and says so, is no news."""
    logging.disable()
    raise KeyboardInterrupt


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    syncing = commands.add_parser("sync", help="write notebooks from their scripts")
    syncing.add_argument("number", nargs="*")
    running = commands.add_parser("run", help="execute one notebook by papermill")
    running.add_argument("number")
    for name, default in (
        ("dataset", "demo"),
        ("profile", "quick"),
        ("seed", "0"),
        ("root", ""),
        ("key", ""),
    ):
        running.add_argument(f"--{name}", default=default)
    for option in ("-p", "--where-known"):
        running.add_argument(option, nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    given = parser.parse_args(arguments)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, _interrupt)
    try:
        if given.command == "sync":
            return sync([full_name(number) for number in given.number] or names())
        if not given.seed.isdigit():
            raise ValueError(f"SEED must be an integer of at least 0. Received: SEED={given.seed}")
        for name in ("SER_DATA_DIR", "SER_WEIGHTS_DIR"):  # the kernel works in another folder
            if os.environ.get(name):
                os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())
        workspace = Workspace(given.dataset, given.profile, int(given.seed), given.root)
        run(
            full_name(given.number),
            workspace,
            parameters=given.p,
            where_known=given.where_known,
            key=given.key,
        )
    except (ValueError, OSError) as error:  # refused values; a place that cannot be written
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted: finished work is kept; run the same command to go on.") from None


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
