"""What make has to know before it starts, from the standard library alone (it runs before anything is installed).

Prints the make rules of one run to a file: for every notebook, the code it imports and the notebooks it
reads. Content decides beside time stamps: where a notebook, its code, its settings or the corpus differ from
what the executed notebook was made from, it is run again whatever the clock says.
"""

import ast
import csv
import hashlib
import json
import os
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

# Which executed notebooks a notebook reads; the rest of the house is reached through them.
READS = {
    "00": (),
    "01": ("00",),
    "02": ("01",),
    "03": ("02",),
    "04": ("00",),
    "05": ("00",),
    "06": ("00",),
    "07": ("00",),
    "08": ("00",),
    "09": ("02", "05", "07", "08"),
    "10": ("02", "04", "05", "06", "07", "08"),
}


def imported_modules(path, seen=None):
    """Files of ser_utils that a Python file imports, directly or not."""
    seen = set() if seen is None else seen
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ser_utils"):
            dotted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names if alias.name.startswith("ser_utils")]
        else:
            continue
        for name in dotted:
            module = REPOSITORY / (name.replace(".", "/") + ".py")
            if module.exists() and module not in seen:
                seen.add(module)
                imported_modules(module, seen)
    return seen


def settings_text(script, profile):
    """The hyperparameters a notebook asks for by name, as text."""
    import tomllib

    tables = tomllib.loads((REPOSITORY / "ser_utils" / "profiles.toml").read_text("utf-8"))
    wanted = re.findall(r"""settings(?:_table)?\(["'](\w+)["']""", script)
    return json.dumps([tables.get(name, {}).get(profile) for name in wanted], sort_keys=True)


def corpus_listing(dataset):
    """Names, sizes and times of a dataset's files, as text; "" for the demo corpus, which is made."""
    if dataset == "demo":
        return ""
    if Path(dataset).exists():
        places = [Path(dataset), *recordings_of_table(Path(dataset))]
    else:
        data = Path(os.environ.get("SER_DATA_DIR") or REPOSITORY / "data").expanduser()
        folders = {re.sub("[^a-z0-9]", "", entry.name.lower()): entry for entry in data.glob("*/")}
        places = [
            folders.get(part, data) for part in dataset.split("+")
        ]  # under another name: all that is there
    lines = []
    for place in places:
        files = (
            sorted(Path(f, n) for f, _, names in os.walk(place) for n in names) if place.is_dir() else [place]
        )
        for path in files:
            facts = path.stat() if path.exists() else None
            lines.append(f"{path} {facts.st_size} {facts.st_ctime_ns}" if facts else f"{path} absent")
    return "\n".join(lines)


def recordings_of_table(path):
    """Paths named in the column `path` of a csv or tsv, relative ones from the table's folder."""
    if path.suffix.lower() not in (".csv", ".tsv"):
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as source:
        rows = csv.DictReader(source, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        return [path.parent / row["path"] for row in rows if row.get("path")]


def run_name(dataset):
    """The dataset's folder name, as `workspace.dataset_name` makes it."""
    if re.fullmatch(r"[a-z0-9_]+(\+[a-z0-9_]+)*", dataset):
        return dataset
    place = hashlib.sha256(str(Path(dataset).resolve()).encode()).hexdigest()[:6]
    return re.sub(r"[^a-z0-9]+", "_", Path(dataset).stem.lower()).strip("_")[:40] + "-" + place


def made_from(output):
    """The key an executed notebook carries, or ""."""
    try:
        return json.loads(output.read_text("utf-8"))["metadata"].get("made_from", "")
    except (OSError, ValueError, KeyError):
        return ""


def rules(dataset, profile, seed, root, own):
    """The make rules of one run, as text.

    own : text of the notebooks' own parameters (SPEAKERS, DENOISE …), part of what a run is made from
    """
    base = Path(root) if root else Path(".")
    folder = base / "build" / run_name(dataset) / profile / f"seed_{seed}" / "notebooks"
    corpus = hashlib.sha256(corpus_listing(dataset).encode()).hexdigest()
    lines, keys, outputs = [], {}, {}
    scripts = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    for notebook in scripts:
        number = notebook.stem[:2]
        script = notebook.parent / "scripts" / f"{notebook.stem}.py"
        code = sorted(imported_modules(script))
        upstream = [n for n in READS.get(number, ("00",)) if n in keys]
        parts = [notebook.read_bytes(), *(path.read_bytes() for path in code)]
        parts += [settings_text(script.read_text("utf-8"), profile).encode(), corpus.encode(), own.encode()]
        parts += [keys[n].encode() for n in upstream]
        keys[number] = hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]
        outputs[number] = output = folder / f"{notebook.stem}.ipynb"
        needs = [f"notebooks/{notebook.name}", *(str(path.relative_to(REPOSITORY)) for path in code)]
        needs += [str(outputs[n]) for n in upstream]
        changed = made_from(output) != keys[number]
        lines.append(f"{output}: {' '.join(needs)}{' FORCE' if changed else ''} | setup")
        lines.append(f"\t@$(RUN_NOTEBOOK) {number} --key {keys[number]}")
        lines.append(f".PHONY: {number}\n{number}: {output}")
    lines.append(f"EXECUTED := {' '.join(map(str, outputs.values()))}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 -- make may find an older python3 than the package asks for
        sys.exit(
            f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}. Say PYTHON=/path/to/python3.12"
        )
    target, *run = sys.argv[1:]
    if "build" in Path(target).parts:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(rules(*run), "utf-8")
