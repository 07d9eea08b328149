"""What make has to know before it starts, from the standard library alone (it runs before anything is installed).

Writes the make rules of one run to a file, whose path it prints: for every notebook, the code it imports and the notebooks it
reads. Content decides beside time stamps: where a notebook, its code, its settings or the corpus differ from
what the executed notebook was made from, it is run again whatever the clock says.
"""

import ast
import csv
import functools
import hashlib
import json
import os
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ser_utils.names import CORPUS_NAMES, dataset_name, dataset_parts  # noqa: E402 -- found from any folder

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
    for module in _imports(path):
        if module not in seen:
            seen.add(module)
            imported_modules(module, seen)
    return seen


@functools.cache
def _imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ser_utils"):
            dotted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names if alias.name.startswith("ser_utils")]
        else:
            continue
        places = [REPOSITORY / name.replace(".", "/") for name in dotted]
        found |= {path for place in places for path in (place.with_suffix(".py"), place / "__init__.py")}
    return {module for module in found if module.exists()}


@functools.cache
def settings_of(system, profile):
    """One table of a profile, None where it is not there."""
    return _profiles().get(system, {}).get(profile)


@functools.cache
def _profiles():
    import tomllib

    paths = sorted((REPOSITORY / "ser_utils" / "profiles").glob("*.toml"))
    return {name: table for path in paths for name, table in tomllib.loads(path.read_text("utf-8")).items()}


def settings_text(script, profile):
    """The hyperparameters a notebook asks for by name, as text."""
    wanted = re.findall(r"""settings(?:_table)?\(["'](\w+)["']""", script)
    return json.dumps([settings_of(name, profile) for name in wanted], sort_keys=True)


def corpus_listing(dataset):
    """Names, sizes and times of a dataset's files, as text; "" for the demo corpus, which is made."""
    if dataset == "demo":
        return ""
    data = Path(os.environ.get("SER_DATA_DIR") or REPOSITORY / "data").expanduser().resolve()
    folders = {re.sub("[^a-z0-9]", "", entry.name.lower()): entry for entry in sorted(data.glob("*/"))}
    places = []
    for part in dataset_parts(dataset):
        if not CORPUS_NAMES.fullmatch(part):
            places += [Path(part), *named_by_table(Path(part))]
        elif part in folders:
            places.append(folders[part])
        else:  # under another name: all that is there
            places += [folder for name, folder in folders.items() if name != "weights"]
    return "\n".join(map(listing, places))


def listing(place):
    """Names, sizes and times of a file, or of all files of a folder, as text."""
    files = sorted(Path(f, n) for f, _, names in os.walk(place) for n in names) if place.is_dir() else [place]
    lines = []
    for path in files:
        facts = path.stat() if path.exists() else None
        lines.append(f"{path} {facts.st_size} {facts.st_ctime_ns}" if facts else f"{path} absent")
    return "\n".join(lines)


def named_by_table(path):
    """What a csv or tsv is read with, as `own_corpus` does: emotions.csv beside it and the recordings it names."""
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as source:
        head = source.readline()
        source.seek(0)
        comma = ";" if ";" in head and "," not in head else ","
        rows = csv.reader(source, delimiter="\t" if path.suffix.lower() == ".tsv" else comma)
        heading = [name.strip().lower() for name in next(rows, [])]
        place = heading.index("path") if "path" in heading else len(heading)
        named = [row[place].strip() for row in rows if len(row) > place]
    return [path.with_name("emotions.csv"), *(path.parent / name for name in named if name)]


def read_besides(script, profile, folder):
    """What a notebook reads beside its corpus and other notebooks' results, as text, by the functions it calls.

    folder : build/<dataset>/<profile>/seed_<n>
    """
    found = []
    if "searched(" in script:
        bests = sorted((folder / "search").glob("*_best.json"))
        found += [f"{path.name} {path.read_text('utf-8')}" for path in bests]
    if "load_encoder(" in script:
        place = Path(os.environ.get("SER_WEIGHTS_DIR") or REPOSITORY / "data" / "weights").expanduser()
        models = (settings_of("speech_transformer", profile) or {}).get("models", [])
        found += [listing(place.resolve() / model.replace("/", "--")) for model in models]
    if "beside_published(" in script:
        found.append((REPOSITORY / "ser_utils" / "evaluation" / "published.csv").read_text("utf-8"))
    return "\n".join(found)


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
    folder = base / "build" / dataset_name(dataset) / profile / f"seed_{seed}" / "notebooks"
    corpus = hashlib.sha256(corpus_listing(dataset).encode()).hexdigest()
    lines, keys, outputs = [], {}, {}
    scripts = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    for notebook in scripts:
        number = notebook.stem[:2]
        script = notebook.parent / "scripts" / f"{notebook.stem}.py"
        code = sorted(imported_modules(script))
        upstream = [n for n in READS.get(number, ("00",)) if n in keys]
        parts = [notebook.read_bytes(), *(path.read_bytes() for path in code)]
        text = script.read_text("utf-8")
        parts += [settings_text(text, profile).encode(), corpus.encode(), own.encode()]
        parts.append(read_besides(text, profile, folder.parent).encode())
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
    run = sys.argv[1:]  # dataset, profile, seed, root, own
    target = Path("build", f"graph-{hashlib.sha256(repr(run).encode()).hexdigest()[:12]}.mk")
    target.parent.mkdir(exist_ok=True)
    written = target.with_suffix(f".{os.getpid()}")  # another make may be reading the old one
    written.write_text(rules(*run), "utf-8")
    os.replace(written, target)
    print(target)
