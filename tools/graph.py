"""The graph of the notebooks: what each is made from, and which have to be run again.

A notebook's metadata declares which notebooks, settings and files it reads; the code it imports is found in its script.
Content decides beside time stamps: where a notebook, its code, its settings or the corpus differ from what the executed
notebook was made from, it is run again whatever the clock says. No large library is imported, so that `make` knows
within a second that there is nothing to do.
"""

import ast
import functools
import hashlib
import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ser_utils.names import CORPUS_NAMES, dataset_parts, path_of
from ser_utils.tables import CorpusError, list_files, read_kaldi, read_table

REPOSITORY = Path(__file__).resolve().parents[1]


def imported_modules(path: Path, seen: set[Path] | None = None) -> set[Path]:
    """Files of ser_utils that a Python file imports, directly or not."""
    seen = set() if seen is None else seen
    for module in _imports(path):
        if module not in seen:
            seen.add(module)
            imported_modules(module, seen)
    return seen


@functools.cache
def _imports(path: Path) -> set[Path]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ser_utils"):
            dotted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names if alias.name.startswith("ser_utils")]
        else:
            continue
        # a module's import runs the packages above it
        packages = {name.rsplit(".", n)[0] for name in dotted for n in range(name.count("."))}
        places = [REPOSITORY / name.replace(".", "/") for name in {*dotted, *packages}]
        modules |= {path for place in places for path in (place.with_suffix(".py"), place / "__init__.py")}
    return {module for module in modules if module.exists()}


def declared_by(notebook: Path) -> dict:
    """What a notebook's own metadata says it is made from.

    Returns
    -------
    dict with `reads`, numbers of executed notebooks (a notebook that says nothing reads 00); `settings`, tables of
    ser_utils/profiles; `files`, names in FILES

    Raises
    ------
    ValueError : for an unknown name in `files`; lists the accepted ones
    """
    declared = json.loads(notebook.read_text("utf-8"))["metadata"].get("graph", {})
    declared = {"reads": ["00"], "settings": [], "files": []} | declared
    if unknown := sorted(set(declared["files"]) - FILES.keys()):
        raise ValueError(f"{notebook.name}: files must be of {', '.join(FILES)}. Received: {', '.join(unknown)}")
    return declared


@functools.cache
def _toml(path: Path) -> dict:
    return tomllib.loads(path.read_text("utf-8"))


def profile_files() -> dict[str, dict]:
    """Content of each file of ser_utils/profiles."""
    return {path.stem: _toml(path) for path in sorted((REPOSITORY / "ser_utils" / "profiles").glob("*.toml"))}


def settings_text(tables: list[str], profile: str) -> str:
    """The hyperparameters under these names, and what the systems beside them declare of themselves, as text."""
    beside = [content for content in profile_files().values() if content.keys() & set(tables)]
    chosen = {name: content[name].get(profile) for content in beside for name in tables if name in content}
    return json.dumps([chosen, [content.get("system") for content in beside]], sort_keys=True)


def corpus_listing(dataset: str) -> str:
    """Names, sizes and times of a dataset's files, as text; "" for the demo corpus, which is made."""
    if dataset == "demo":
        return ""
    data = path_of(os.environ.get("SER_DATA_DIR") or REPOSITORY / "data").resolve()
    folders = {re.sub("[^a-z0-9]", "", entry.name.lower()): entry for entry in sorted(data.glob("*/"))}
    places = []
    for part in dataset_parts(dataset):
        if not CORPUS_NAMES.fullmatch(part):
            places += named_by_table(Path(part))
        elif part in folders:
            places.append(folders[part])
        else:  # under another name: all that is there
            places += [folder for name, folder in folders.items() if name != "weights"]
    return "\n".join(map(listing, places))


def listing(place: Path) -> str:
    """Names, sizes and times of a file, or of all files of a folder and of folders that it links to, as text."""
    files = sorted(place / path for path in list_files(place).files) if place.is_dir() else [place]
    lines = []
    for path in files:
        facts = path.stat() if path.exists() else None
        lines.append(f"{path} {facts.st_size} {facts.st_ctime_ns}" if facts else f"{path} absent")
    return "\n".join(lines)


def files_behind(place: Path) -> list[Path]:
    """All files that a corpus of the reader's own, or any folder of recordings, is read from.

    Parameters
    ----------
    place : a table, or a folder

    Returns
    -------
    the table, emotions.csv beside it and the recordings it names; or the files of the folder, and the recordings
    that its wav.scp names, or the tables beside its db.yaml.
    """
    if not place.is_dir():
        beside = place.with_name("emotions.csv")
        paths = (read_table(place).column("path") or {}) if place.exists() else {}
        return [place, beside, *(place.parent / path for path in paths.values() if path)]
    files = [place / path for path in list_files(place).files]
    named = list(read_kaldi(place, "wav.scp").values())
    if (place / "db.yaml").exists():
        tables = [read_table(path) for path in files if re.fullmatch(r"db\..*\.(csv|parquet)", path.name)]
        inside = set(files)
        named += [
            path for table in tables for path in (table.column("file") or {}).values() if place / path not in inside
        ]
    return [*files, *(place / path for path in named)]


def named_by_table(path: Path) -> list[Path]:
    """What the reader's own corpus is read from, as the loader finds it; one line where its table is damaged."""
    try:
        return files_behind(path)
    except CorpusError as error:
        raise SystemExit(str(error)) from None


def searched_settings(profile: str, folder: Path) -> str:
    """The trials of `make search`; folder : build/<dataset>/<profile>/seed_<n>."""
    root, dataset = folder.parents[3], folder.parents[1].name
    places = [root / "results" / dataset, folder / "results", REPOSITORY / "results" / dataset]
    tables = [path for place in places for path in sorted(place.glob(f"07_search_*_{profile}.csv"))]
    return "\n".join(f"{path.name} {path.read_text('utf-8')}" for path in tables)


def encoder_weights(profile: str, folder: Path) -> str:
    """Which files of published weights there are of the profile's speech encoders, or of those that WEIGHTS names."""
    if os.environ.get("WEIGHTS"):
        return listing(path_of(os.environ["WEIGHTS"]).resolve())
    place = path_of(os.environ.get("SER_WEIGHTS_DIR") or REPOSITORY / "data" / "weights").resolve()
    models = profile_files()["speech_transformer"]["speech_transformer"].get(profile, {}).get("models", [])
    return "\n".join(listing(place / model.replace("/", "--")) for model in models)


def published_scores(profile: str, folder: Path) -> str:
    """The scores that the papers report."""
    return (REPOSITORY / "ser_utils" / "evaluation" / "published.csv").read_text("utf-8")


def all_systems(profile: str, folder: Path) -> str:
    """What every system declares of itself."""
    return json.dumps({name: content.get("system") for name, content in profile_files().items()}, sort_keys=True)


def other_seeds(profile: str, folder: Path) -> str:
    """What was predicted with other seeds, by the checksums beside the files."""
    seals = sorted(folder.parent.glob("seed_*/predictions/.*.seal"))
    return "\n".join(f"{path.name} {path.read_text('utf-8')}" for path in seals if folder not in path.parents)


# What a notebook may read beside its corpus, its settings and other notebooks, by the name in its metadata
FILES = {
    "search": searched_settings,
    "weights": encoder_weights,
    "published": published_scores,
    "systems": all_systems,
    "seeds": other_seeds,
}


@dataclass(frozen=True)
class Step:
    """One notebook in one run.

    Parameters
    ----------
    number, name : such as "04", "04_spectrogram_cnn"
    reads : numbers of the notebooks whose results it reads
    output : the executed notebook
    sources : the notebook and the code that it imports
    key : one name for the content of all it is made from
    """

    number: str
    name: str
    reads: tuple[str, ...]
    output: Path
    sources: tuple[Path, ...]
    key: str


def made_from(output: Path) -> str:
    """The key an executed notebook carries, or ""."""
    try:
        return json.loads(output.read_text("utf-8"))["metadata"].get("made_from", "")
    except (OSError, ValueError, KeyError):
        return ""


def steps_of(dataset: str, profile: str, folder: Path, own: str = "") -> dict[str, Step]:
    """All notebooks of one run by their numbers, each after those it reads.

    Parameters
    ----------
    dataset, profile : of the run
    folder : where it is written, build/<dataset>/<profile>/seed_<n>
    own : text of the notebooks' own parameters (SPEAKERS, DENOISE …), part of what a run is made from
    """
    corpus = hashlib.sha256(corpus_listing(dataset).encode()).hexdigest()
    notebooks = {path.name[:2]: path for path in sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    declarations, steps = {number: declared_by(path) for number, path in notebooks.items()}, {}
    for number in in_order({number: declared["reads"] for number, declared in declarations.items()}):
        notebook, declared = notebooks[number], declarations[number]
        script = notebook.parent / "scripts" / f"{notebook.stem}.py"
        sources = (notebook, *sorted(imported_modules(script)))
        reads = tuple(read for read in declared["reads"] if read in steps)
        content = [path.read_bytes() for path in sources]
        texts = [settings_text(declared["settings"], profile), corpus, own]
        texts += [FILES[name](profile, folder) for name in declared["files"]]
        texts += [steps[read].key for read in reads]
        key = hashlib.sha256(b"\0".join([*content, *(text.encode() for text in texts)])).hexdigest()[:20]
        output = folder / "notebooks" / notebook.name
        steps[number] = Step(number, notebook.stem, reads, output, sources, key)
    return steps


def in_order(reads: dict[str, list[str]]) -> list[str]:
    """Put numbers of notebooks behind those they read; else they keep their order. So 11 may read a 12."""
    ordered, waiting = [], sorted(reads)
    while waiting:
        ready = next((number for number in waiting if not set(reads[number]) & set(waiting) - {number}), waiting[0])
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def outdated(steps: dict[str, Step], changed: tuple[Path, ...] = ()) -> list[str]:
    """Numbers of the notebooks that have to be run again.

    Those are the ones never executed, executed from other content, older than one of their sources, or that read such
    a notebook.

    changed : sources to be taken for newer than everything
    """
    stale = []
    for step in steps.values():
        inputs = [*step.sources, *(steps[number].output for number in step.reads)]
        if (
            not step.output.exists()
            or made_from(step.output) != step.key
            or set(changed) & set(step.sources)
            or set(step.reads) & set(stale)
            or max(path.stat().st_mtime_ns for path in inputs) > step.output.stat().st_mtime_ns
        ):
            stale.append(step.number)
    return stale


def readers(steps: dict[str, Step], number: str) -> set[str]:
    """Numbers of all notebooks that read this one, directly or not."""
    reached = {number}
    for step in steps.values():
        if reached & set(step.reads):
            reached.add(step.number)
    return reached - {number}


def read_by(steps: dict[str, Step], number: str) -> set[str]:
    """Numbers of all notebooks that this one reads, directly or not."""
    return {upstream for upstream in steps if number in readers(steps, upstream)}


def chain_length(steps: dict[str, Step], number: str) -> int:
    """How many notebooks have to follow one another from this one to the end of the graph."""
    following = [step.number for step in steps.values() if number in step.reads]
    return 1 + max((chain_length(steps, follower) for follower in following), default=0)
