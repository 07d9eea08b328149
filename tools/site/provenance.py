"""How what is shown was made: of a dataset, and of each figure."""

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from ser_utils.figures.style import drawing_code, origin_of
from ser_utils.profiles import systems
from ser_utils.workspace import REPOSITORY
from tools.notebooks import SCRIPTS, notebook_of
from tools.readme.datasets import caveat_of, extent, read_scores
from tools.shipped import load_provenance

NOT_DRAWING = ("ser_utils.figures.style",)  # fonts, saving


def describe_run(folder: Path) -> str:
    """How the results of a dataset were made, and what else a reader has to know; folder : results/<dataset>."""
    if not (folder / "provenance.json").exists():
        return "No provenance."
    made = load_provenance(folder / "provenance.json")
    runs = made["notebooks"]
    parts = [f"Profile {made['profile']}, seed {made['seed']}"]
    if runs:
        last = runs.get(systems()["baseline"].notebook) or max(runs.values(), key=lambda run: run["finished"])
        n, scored = last["n_utterances"], (folder / "scores.csv").exists()
        parts.append(extent(folder.name, n, read_scores(folder / "scores.csv")) if scored else f"{n} recordings")
        parts.append(f"commit {last['commit'][:10]}, finished {last['finished'][:10]}")
    return f"{', '.join(parts)}. {made.get('note', '')} {caveat_of(folder, made)}".strip()


@dataclass(frozen=True)
class Drawing:
    """Where a figure is drawn.

    Parameters
    ----------
    notebook : name of the notebook, such as "05_feature_network"
    cell : place of the cell in it
    functions : dotted names of the package's functions that draw in that cell
    """

    notebook: str
    cell: int
    functions: tuple[str, ...]


def find_drawing(figure: str) -> Drawing | None:
    """Find the notebook cell that saves a figure, and what draws there; None where no notebook does (any more).

    figure : name, such as "05_scores"
    """
    for script in sorted(SCRIPTS.glob(f"{figure[:2]}_*.py")):
        for cell, (names, functions) in _saved_in(script).items():
            if any(re.fullmatch(name, figure) for name in names):
                return Drawing(script.stem, cell, functions)
    return None


def anchor_of(dataset: str, notebook: str, cell: int) -> str:
    """The label of a notebook's cell on the site."""
    return re.sub(r"[^a-z0-9]+", "-", f"cell-{dataset}-{notebook}-{cell}".lower())


def cells_that_draw(notebook: str) -> set[int]:
    """Places of the cells of a notebook that save figures."""
    script = SCRIPTS / f"{notebook}.py"
    return set(_saved_in(script)) if script.exists() else set()


def figures_of(notebook: str) -> dict[int, list[str]]:
    """{place of a cell: names of the figures it saves}, of the cells in which all names are written out."""
    script = SCRIPTS / f"{notebook}.py"
    saved = _saved_in(script) if script.exists() else {}
    return {place: names for place, (names, _) in saved.items() if all(re.fullmatch(r"\w+", name) for name in names)}


@functools.cache
def _saved_in(script):
    """{place of a cell: (patterns of the figures it saves, functions that draw in it)}."""
    cells = [cell.source if cell.cell_type == "code" else "" for cell in notebook_of(script).cells]
    trees = [_parsed(source) for source in cells]
    modules = _modules_by_name(trees)
    found = {}
    for place, tree in enumerate(trees):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = [
            _pattern(call.args[2]) for call in calls if _name(call.func)[-1] == "save_figure" and len(call.args) > 2
        ]
        if names:
            found[place] = names, tuple(dict.fromkeys(filter(None, (_drawing(call.func, modules) for call in calls))))
    return found


def _parsed(source):
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    return ast.parse("\n".join(lines))


def _modules_by_name(trees):
    """{name in the notebook: dotted module}, of what is imported from the package."""
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in imports
        if (node.module or "").startswith("ser_utils")
        for alias in node.names
    }


def _name(node):
    """A dotted expression as a list of names."""
    if isinstance(node, ast.Attribute):
        return [*_name(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def _drawing(function, modules):
    """The dotted name of a called function, if it stands in a module of figures; "" otherwise."""
    first, *rest = _name(function)
    dotted = ".".join([modules.get(first, ""), *rest])
    return dotted if "figures" in dotted and not dotted.startswith(NOT_DRAWING) else ""


def _pattern(node):
    """The name of a figure as a pattern: what is filled in may be any word."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(re.escape(part.value) if isinstance(part, ast.Constant) else r"\w+" for part in node.values)
    return r"(?!)"


def state_of(path: Path, root: Path = REPOSITORY) -> str:
    """Say which run a figure shows: commit, recordings, profile, and whether today's code would draw it."""
    record = root / "results" / path.parent.name / "provenance.json"
    run = load_provenance(record)["notebooks"].get(path.stem[:2]) if record.exists() else None
    if not run:
        return "No provenance."
    code, _ = origin_of(path)
    drawn = "" if code == _code_of(path.stem[:2]) else ", drawn by an earlier version of the code"
    corpus = f"corpus {run['corpus'][:10]} " if "corpus" in run else ""
    profile = f", profile {run['profile']}" if "profile" in run else ""
    return f"Commit {run['commit'][:10]}, {corpus}({run['n_utterances']} recordings){profile}{drawn}."


@functools.cache
def _code_of(number):
    """Key of the code that draws the figures of a notebook today."""
    return drawing_code(number)
