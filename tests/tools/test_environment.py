"""The environment's files agree with each other, and the house's rules hold."""

import ast
import importlib.metadata
import re
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

import ser_utils
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


LOCKS = {
    "requirements.lock": [],
    "requirements-site.lock": ["site"],
    "requirements-dev.lock": ["site", "test"],
    "requirements-extras.lock": ["opensmile", "ray", "hub"],
}


def locked(name="requirements.lock"):
    """Requirement lines of a lock that apply to this interpreter, name -> version."""
    lines = re.findall(r"^([\w.-]+==.*?) ?\\$", (REPOSITORY / name).read_text(), re.M)
    requirements = [Requirement(line) for line in lines]
    here = [one for one in requirements if one.marker is None or one.marker.evaluate(default_environment())]
    return {one.name.lower().replace("_", "-"): str(one.specifier)[2:] for one in here}


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_covers_every_dependency_with_hashes(name):
    versions = locked(name)
    optional = [text for extra in LOCKS[name] for text in PROJECT["optional-dependencies"][extra]]
    for text in [*PROJECT["dependencies"], *optional]:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            assert versions[requirement.name.lower().replace("_", "-")] in requirement.specifier, text
    text = (REPOSITORY / name).read_text()
    assert text.count("--hash=sha256:") >= len(re.findall(r"^[\w.-]+==", text, re.M))


@pytest.mark.parametrize("name", list(LOCKS)[1:])
def test_a_longer_lock_holds_all_of_the_readers_at_the_same_versions(name):
    assert locked().items() <= locked(name).items()


def test_readers_get_nothing_that_only_tests_need():
    for tool in ("jax", "jaxlib", "playwright", "hypothesis", "ruff", "pytest", "sphinx"):
        assert tool not in locked()


def test_this_environment_is_the_lock():
    for name, version in locked("requirements-dev.lock").items():
        assert importlib.metadata.version(name) == version, name


def test_conda_leads_to_the_same_versions():
    text = (REPOSITORY / "environment.yml").read_text()
    assert "-r requirements.lock" in text and "--require-hashes" in text
    python = re.search(r"python=3\.(\d+)", text)[1]
    assert 11 <= int(python) <= 13
    dependencies = text.split("dependencies:")[1]
    own = set(re.findall(r"^  - ([\w-]+)", dependencies, re.M))
    assert own == {"python", "make", "pip"}, "conda would pick versions of its own"


# The drawing in the package's docstring, lowest floor first; above the package stands what uses it.
DRAWING = [line.split() for line in ser_utils.__doc__.split("\n\n")[1].splitlines()]
FLOORS = [*reversed(DRAWING), ["tools"], ["notebooks", "benchmarks", "tests"]]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SOURCES = [path for top in ("ser_utils", "tools") for path in sorted((REPOSITORY / top).rglob("*.py"))]


def room_of(dotted):
    """The room of a dotted name: `ser_utils.features.audio` is in `features`, `tools.site` in `tools`."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "ser_utils" and len(parts) > 1 else parts[0]


def imported_names(path):
    """Dotted names of this project that a file imports, `from package import module` as the module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            packages = node.module == "ser_utils"
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if packages else [node.module]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def upward_imports(path, dotted):
    """What a file (called `dotted`) imports from a floor above its own, or from another room of its own floor."""
    own = room_of(dotted)
    ours = [
        name for name in imported_names(path) if name.split(".")[0] in ("ser_utils", "tools", "benchmarks", "tests")
    ]
    rooms = {room_of(name) for name in ours} - {own}
    return sorted(room for room in rooms if FLOOR_OF[room] >= FLOOR_OF[own])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_rooms_import_only_from_rooms_below(path):
    dotted = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    if dotted != "ser_utils":
        assert upward_imports(path, dotted) == []


def test_an_import_upwards_is_refused(tmp_path):
    path = tmp_path / "audio.py"
    path.write_text("from ser_utils.workspace import Workspace\nfrom ser_utils import evaluation\nimport tools.site\n")
    assert upward_imports(path, "ser_utils.features.audio") == ["evaluation", "tools"]


def test_the_drawing_shows_every_room_and_no_other():
    package = REPOSITORY / "ser_utils"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    files = {path.stem for path in package.glob("*.py")} - {"__init__"}
    drawn = [room for rooms in DRAWING for room in rooms]
    assert sorted(drawn) == sorted(folders | files)


def test_models_use_no_backend_directly():
    for path in (REPOSITORY / "ser_utils" / "systems").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) (tensorflow|jax|torch)|\btf\.", path.read_text(), re.M), path.name
