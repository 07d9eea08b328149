"""Where files live, and how they are written: whole or not at all."""

import contextlib
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.locks import locked
from ser_utils.names import dataset_name, path_of, resolved, result_name
from ser_utils.profiles import PROFILES, systems

REPOSITORY = Path(__file__).resolve().parents[1]
UNFINISHED = ".writing-"  # how folders begin in which something is being written
REPLACED = ".old-"  # and therein a folder that is being replaced
A_DAY = 86_400  # s


class WorkspaceError(Exception):
    """Something on disk is not as wanted; the text says what to do."""


class MissingResult(WorkspaceError):
    """A file that an earlier notebook writes is not there."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its place only if the block succeeds.

    A folder that was there is replaced whole; on an error nothing of the attempt is left.

    Parameters
    ----------
    path : file or folder to be written; its parents are made

    Raises
    ------
    WorkspaceError : where a file is to be written and a folder is there
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix is kept: many writers choose their format by it
    holder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
    temporary = holder / path.name
    try:
        yield temporary
        if temporary.is_file():
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
        if path.is_dir():
            if temporary.is_file():
                raise WorkspaceError(
                    f"{path} must be a file that can be replaced, but is a folder: rename or delete it."
                )
            os.replace(path, holder / f"{REPLACED}{path.name}")
        os.replace(temporary, path)
    finally:
        _put_back(holder)
        shutil.rmtree(holder, ignore_errors=True)


def _put_back(holder):
    """Give a folder that was to be replaced its place again, if nothing came there."""
    for old in holder.glob(f"{REPLACED}*"):
        place = holder.parent / old.name.removeprefix(REPLACED)
        if not place.exists():
            os.replace(old, place)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run left half-written under `folder`: all that is older than a day, which no writing takes.

    A folder that the run was about to replace is put back at once.
    """
    for remains in folder.rglob(f"{UNFINISHED}*"):
        _put_back(remains)
        if time.time() - remains.stat().st_mtime > A_DAY:
            shutil.rmtree(remains, ignore_errors=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically, keys sorted."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def csv_text(table: pd.DataFrame) -> str:
    """A table as it ships in results/: six decimals, the same bytes on every system."""
    return table.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as it ships, atomically; see `csv_text`."""
    with atomic_path(path) as temporary:
        temporary.write_text(csv_text(table), "utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file, whose content is a dict.

    Raises
    ------
    WorkspaceError : if it is damaged
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f'expected {{"name": value, …}}, found {content!r:.40}')
    except ValueError as error:
        raise WorkspaceError(
            f"{path} is damaged ({error}). Restore it (git checkout) if it ships; else delete it, and it is made again."
        ) from error
    return content


def file_digest(path: str | Path) -> str:
    """Compute the sha256 of a file's bytes, as hex."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


SUMS = "SHA256SUMS"


def write_checksums(folder: Path, *patterns: str) -> None:
    """Write the sha256 of the files that match `patterns` into SHA256SUMS; lines of other files stay as they are."""
    known = read_checksums(folder)
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    known = {name: digest for name, digest in known.items() if (folder / name).exists()}
    known |= {name: file_digest(folder / name) for name in names}
    with atomic_path(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{known[name]}  {name}\n" for name in sorted(known)), "utf-8")


def read_checksums(folder: Path) -> dict[str, str]:
    """The checksums in a folder's SHA256SUMS, {name: sha256}; empty where there is no such file.

    Raises
    ------
    WorkspaceError : if it is damaged, or names a file outside the folder
    """
    path = folder / SUMS
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    if damaged := [line for line in lines if not re.fullmatch(r"[0-9a-f]{64}  [^/]\S*", line) or ".." in line]:
        raise WorkspaceError(f"{path} is damaged: {damaged[0]!r:.80} is no checksum and the name of a file beside it.")
    return dict(reversed(line.split("  ", 1)) for line in lines)


def _seal_path(path):
    return path.with_name(f".{path.name}.seal")


def seal(path: str | Path, **facts: Any) -> None:
    """Write the checksum of a finished file, and facts about it, beside it; see `sealed`."""
    path = Path(path)
    write_json(_seal_path(path), {"sha256": file_digest(path), **facts})


def sealed(path: str | Path) -> dict[str, Any] | None:
    """Read the facts a file was sealed with; None where file or seal is missing, damaged, or they disagree."""
    path = Path(path)
    try:
        facts = read_json(_seal_path(path))
        return facts if facts.pop("sha256") == file_digest(path) else None
    except (OSError, WorkspaceError, KeyError, AttributeError, TypeError):
        return None


def content_key(*parts: Any) -> str:
    """Make one hex name for what the parts contain: equal content, equal key, on any machine.

    Parameters
    ----------
    parts : numbers, strings, None, arrays, Series, DataFrames, paths (the file's bytes), modules and functions (their
        module's source), and lists, tuples or dicts of these

    Raises
    ------
    TypeError : for anything whose content is not plain
    """
    digest = hashlib.sha256()
    for value in parts:
        digest.update(_content(value))
    return digest.hexdigest()[:20]


def _content(value):
    name = type(value).__name__.encode()
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return name + repr(value.item() if isinstance(value, np.generic) else value).encode() + b"\0"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    if isinstance(value, pd.DataFrame | pd.Series):
        names = list(value.columns) if isinstance(value, pd.DataFrame) else [value.name]
        return repr(names).encode() + pd.util.hash_pandas_object(value, index=False).to_numpy().tobytes()
    if isinstance(value, Path):
        return file_digest(value).encode()
    if isinstance(value, types.ModuleType):
        return Path(value.__file__).read_bytes()
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__qualname__.encode() + _content(sys.modules[value.__module__])
    if isinstance(value, dict):
        return b"dict" + content_key(*[x for k in sorted(value) for x in (k, value[k])]).encode()
    if isinstance(value, list | tuple | np.ndarray):
        return b"list" + content_key(*value).encode()
    name = type(value).__name__
    raise TypeError(f"No content key for a {name}: give numbers, text, arrays, tables or paths.")


@dataclass(frozen=True)
class Workspace:
    """The one place that knows the paths of a run.

    Parameters
    ----------
    dataset : a corpus, several joined by "+", or a path to the reader's own
    profile : "smoke", "quick" or "paper"
    seed : at least 0
    root : where everything is written; "" is the repository

    Raises
    ------
    ValueError : for another profile, a seed below 0 or beyond 32 bits, an empty dataset, or a root that is no folder
    """

    dataset: str = "demo"
    profile: str = "quick"
    seed: int = 0
    root: str | Path = ""
    started: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False, repr=False)
    saved: set[str] = field(default_factory=set, compare=False, repr=False)  # names of the predictions made
    # name of each figure -> key of its data
    drawn: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if self.profile not in PROFILES:
            known = ", ".join(PROFILES)
            raise ValueError(f"profile must be one of {known}. Received: profile={self.profile!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be an integer of at least 0 and below 2**32. Received: seed={self.seed!r}")
        if not isinstance(self.dataset, str) or not self.dataset.strip() or "\0" in self.dataset:
            raise ValueError(f"dataset must be a name or a path. Received: dataset={self.dataset!r}")
        # absolute, since notebooks run in a folder of their own
        object.__setattr__(self, "dataset", resolved(self.dataset))
        object.__setattr__(self, "root", path_of(self.root).resolve() if self.root else REPOSITORY)
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"root must be a folder, not a file. Received: root={str(self.root)!r}")
        made_by()  # the commit is that of the beginning, whatever is committed meanwhile

    @property
    def name(self) -> str:
        """The dataset's folder name."""
        return dataset_name(self.dataset)

    @property
    def build(self) -> Path:
        """Folder of this dataset, profile and seed; git-ignored."""
        return self.root / "build" / self.name / self.profile / f"seed_{self.seed}"

    @property
    def data_dir(self) -> Path:
        """Where corpora are looked for: SER_DATA_DIR, else data/; the demo corpus is made under build/."""
        if self.dataset == "demo":
            return self.root / "build" / "demo" / "corpus"
        return path_of(os.environ.get("SER_DATA_DIR") or REPOSITORY / "data").resolve()

    def folder(self, *names: str) -> Path:
        """Make a folder under `build`, if need be, such as folder("features")."""
        folder = self.build.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def figures(self) -> Path:
        """Folder of the figures; see `is_shown`."""
        return self._shown("figures")

    @property
    def prototypes(self) -> Path:
        """Folder of the prototypes' pictures and sounds; see `is_shown`."""
        return self._shown("prototypes")

    @property
    def results(self) -> Path:
        """Folder of scores, costs and provenance; see `is_shown`."""
        return self._shown("results")

    @property
    def is_shown(self) -> bool:
        """Whether this run writes what readers browse: quick or paper, seed 0."""
        return self.profile != "smoke" and self.seed == 0

    def _shown(self, kind):
        if not self.is_shown:
            return self.folder(kind)
        folder = self.root / kind / self.name
        self._refuse_to_replace_longer()
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _refuse_to_replace_longer(self):
        record = self.root / "results" / self.name / "provenance.json"
        made = read_json(record) if record.exists() else {}
        entries = (made, *made.get("notebooks", {}).values())
        there = max((entry.get("profile", "smoke") for entry in entries), key=PROFILES.index)
        if PROFILES.index(there) > PROFILES.index(self.profile) and not os.environ.get("FORCE"):
            raise WorkspaceError(
                f"{record.parent} holds results of profile {there}, which {self.profile} would replace. "
                f"Say FORCE=1 to replace them, or write elsewhere with ROOT=folder."
            )

    def command(self, notebook: str) -> str:
        """The command that runs one notebook of this run, such as `make 05 DATASET=demo PROFILE=quick SEED=0`."""
        return f"make {notebook} DATASET={self.dataset} PROFILE={self.profile} SEED={self.seed}"

    def save_table(self, table: pd.DataFrame, name: str) -> Path:
        """Write a table as build/…/<name>.parquet, atomically, with its checksum. Returns the path."""
        path = self.build / f"{name}.parquet"
        with atomic_path(path) as temporary:
            table.to_parquet(temporary, index=False)
        seal(path)
        return path

    def load_table(self, name: str, made_by: str = "00") -> pd.DataFrame:
        """Read a table that notebook `made_by` wrote.

        Raises
        ------
        MissingResult : if it is absent or damaged; says which command makes it
        """
        path = self.build / f"{name}.parquet"
        if sealed(path) is None:
            state = "is damaged" if path.exists() else "is not there"
            raise MissingResult(f"{path} {state}: run notebook {made_by} first ({self.command(made_by)}).")
        return pd.read_parquet(path)

    def has_table(self, name: str) -> bool:
        """Whether a table is there and as it was written."""
        return sealed(self.build / f"{name}.parquet") is not None

    def save_predictions(self, table: pd.DataFrame, *, system: str, model: str, protocol: str, folds: str) -> Path:
        """Write test predictions: utterance_id, start_ms, speaker, emotion, prediction, p_<emotion>…, fold.

        Raises
        ------
        ValueError : if a column is missing
        """
        needed = ["utterance_id", "start_ms", "speaker", "emotion", "prediction", "fold"]
        missing = [column for column in needed if column not in table]
        probabilities = [column for column in table if str(column).startswith("p_")]
        if missing or not probabilities:
            raise ValueError(f"Predictions need {', '.join(needed)} and p_<emotion> columns. Missing: {missing}")
        table = table[[*needed[:-1], *probabilities, "fold"]]
        name = result_name(system, model, protocol, folds)
        self.saved.add(name)
        return self.save_table(table, f"predictions/{name}")

    def save_folds(self, table: pd.DataFrame, *, system: str, protocol: str, folds: str) -> Path:
        """Write a fold table as build/…/folds/<system>-<protocol>-<folds>.parquet."""
        return self.save_table(table, f"folds/{system}-{protocol}-{folds}")

    def save_audit(self, table: pd.DataFrame, *, system: str, model: str, protocol: str, folds: str) -> Path:
        """Write a leakage audit beside the predictions it belongs to."""
        return self.save_table(table, f"audits/{result_name(system, model, protocol, folds)}")

    def save_costs(self, costs: dict[str, float], *, system: str, model: str, protocol: str, folds: str) -> Path:
        """Write what a result cost: parameters, seconds_to_train, ms_per_utterance."""
        path = self.build / "costs" / f"{result_name(system, model, protocol, folds)}.json"
        write_json(path, {key: float(value) for key, value in costs.items()})
        return path

    def record(self, notebook: str, utterances: pd.DataFrame, settings: dict[str, Any]) -> Path:
        """Write where this notebook's results come from into results/provenance.json.

        What the same systems predicted under earlier settings, and was not saved again, is deleted: the comparison would
        take it for the result of these. The file's own profile and seed are those of the notebook that makes the
        baselines, whose scores it stands for; until then the latest.

        Parameters
        ----------
        notebook : number, such as "01"
        utterances : the utterance table used
        settings : hyperparameters

        Returns
        -------
        path of provenance.json
        """
        self._delete_earlier()
        with self.results_lock():
            return self._add_record(notebook, utterances, settings)

    def results_lock(self):
        """Hold the dataset's results while files that several notebooks write are changed: they run side by side."""
        return locked(self.folder().parents[1] / ".provenance.lock")

    def _add_record(self, notebook, utterances, settings):
        path = self.results / "provenance.json"
        made = read_json(path) if path.exists() else {}
        known = {key: made[key] for key in ("profile", "seed") if key in made}
        # an entry of an earlier version has no profile of its own
        entries = {number: known | entry for number, entry in made.get("notebooks", {}).items()}
        entries[notebook] = {
            "profile": self.profile,
            "seed": self.seed,
            **made_by(),
            "models": self._models(),
            "figures": self.drawn,
            "corpus": content_key(sorted(utterances["pcm_sha256"].astype(str))),
            "n_utterances": len(utterances),
            "settings": settings,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self.started).total_seconds(), 1),
        }
        compared_by = systems()["baseline"].notebook
        stands_for = {key: entries.get(compared_by, entries[notebook])[key] for key in ("profile", "seed")}
        record = {"dataset": self.dataset, **stands_for, "notebooks": entries}
        if self.dataset == "demo":
            record["note"] = "The demo corpus is synthetic: nothing here is a finding about people."
        write_json(path, record)
        write_checksums(path.parent, path.name, f"{notebook}_*.csv")
        return path

    def _models(self):
        """How the models of the systems predicted here were made, as far as they say: how many, and for how long."""
        systems, counted = {name.split("-")[0] for name in self.saved}, {}
        for path in sorted(self.build.glob("models/*.keras")):
            if re.split("[-_]classifier-|-", path.name)[0] in systems and (facts := sealed(path)) is not None:
                made = facts.get("made_by") or {"commit": "unknown"}
                group = counted.setdefault(json.dumps(made, sort_keys=True), made | {"models": 0, "seconds": 0.0})
                group["models"] += 1
                group["seconds"] = round(group["seconds"] + facts.get("seconds", 0), 1)
        return list(counted.values())

    def _delete_earlier(self):
        systems = {name.split("-")[0] for name in self.saved}
        for path in self.build.glob("predictions/*.parquet"):
            if path.stem.split("-")[0] in systems and path.stem not in self.saved:
                for place in (f"predictions/{path.name}", f"audits/{path.name}", f"costs/{path.stem}.json"):
                    (self.build / place).unlink(missing_ok=True)


_PACKAGES = "keras librosa noisereduce numpy pandas scikit-learn scipy tensorflow tensorflow-cpu jax".split()


@functools.cache
def made_by() -> dict[str, Any]:
    """What results of this process depend on beside data and settings, as it was when it was first asked.

    Returns a dict of commit, uncommitted_changes, machine, python, backend, packages.
    """
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "ser_utils", "notebooks")),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(package):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)


def _processor() -> str:
    """The processor by name, family and model: another one may add numbers up in another order."""
    with contextlib.suppress(OSError):
        facts = dict(re.findall(r"^(.+?)\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE))
        if known := [facts[name] for name in ("model name", "cpu family", "model") if name in facts]:
            return " ".join(known)
    return platform.processor() or platform.machine()


def _git(*arguments):
    if not shutil.which("git"):
        return ""
    run = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return run.stdout.strip() if run.returncode == 0 else ""
