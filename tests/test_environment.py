"""The environment's files agree with each other, and the house's rules hold."""

import ast
import importlib.metadata
import re
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def locked():
    """Requirement lines of the lock that apply to this interpreter, name -> version."""
    lines = re.findall(r"^([\w.-]+==.*?) ?\\$", (REPOSITORY / "requirements.lock").read_text(), re.M)
    requirements = [Requirement(line) for line in lines]
    here = [one for one in requirements if one.marker is None or one.marker.evaluate(default_environment())]
    return {one.name.lower().replace("_", "-"): str(one.specifier)[2:] for one in here}


def test_the_lock_covers_every_dependency_with_hashes():
    versions = locked()
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]:
        one = Requirement(text)
        if one.marker is None or one.marker.evaluate():
            assert versions[one.name.lower()] in one.specifier, text
    text = (REPOSITORY / "requirements.lock").read_text()
    assert text.count("--hash=sha256:") >= len(re.findall(r"^[\w.-]+==", text, re.M))


def test_this_environment_is_the_lock():
    for name, version in locked().items():
        assert importlib.metadata.version(name) == version, name


def test_conda_leads_to_the_same_versions():
    text = (REPOSITORY / "environment.yml").read_text()
    assert "-r requirements.lock" in text and "--require-hashes" in text
    python = re.search(r"python=3\.(\d+)", text)[1]
    assert 11 <= int(python) <= 13
    dependencies = text.split("dependencies:")[1]
    own = set(re.findall(r"^  - ([\w-]+)", dependencies, re.M))
    assert own == {"python", "make", "pip"}, "conda would pick versions of its own"


FLOORS = [
    {"workspace", "profiles"},
    {"corpora", "corpus_facts", "corpus_check", "demo_corpus", "own_corpus", "recordings", "audio", "download"},
    {"features", "frames", "feature_store", "splits", "segments", "metrics", "parallel", "augmentation"},
    {"training", "baselines", "pretrained", "clips", "embeddings", "prototype_training", "waveform_training", *(p.stem for p in (REPOSITORY / "ser_utils/models").glob("*.py"))},
    {"explain", "faithfulness", "prototype_analysis", "prototype_checks", "search", "results", "shipped", "predict"},
    {"figures", "site", "notebooks", "make_graph", *(p.stem for p in (REPOSITORY / "ser_utils/figures").glob("*.py"))},
]  # fmt: skip


@pytest.mark.parametrize("path", sorted((REPOSITORY / "ser_utils").rglob("*.py")), ids=lambda path: path.stem)
def test_rooms_import_only_from_rooms_below(path):
    def floor(room):
        return next((n for n, rooms in enumerate(FLOORS) if room in rooms), None)

    folder = path.parent.name
    own = len(FLOORS) - 1 if folder == "figures" else 3 if folder == "models" else floor(path.stem)
    if path.stem == "__init__":
        return
    assert own is not None, f"{path.stem} stands on no floor of tests/test_environment.py"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ser_utils"):
            parts = node.module.split(".")[1:]
            rooms = (
                [parts[0]]
                if parts and parts[0] not in ("models", "figures")
                else (parts[:1] or [a.name for a in node.names])
            )
            for room in rooms:
                level = {"models": 3, "figures": len(FLOORS) - 1}.get(room, floor(room))
                assert level is not None and level <= own, (
                    f"{path.stem} (floor {own}) imports {room} (floor {level})"
                )


def test_models_use_no_backend_directly():
    for path in (REPOSITORY / "ser_utils" / "models").glob("*.py"):
        assert not re.search(r"^\s*(import|from) (tensorflow|jax|torch)|\btf\.", path.read_text(), re.M), (
            path.name
        )
