import os
import re
import subprocess
import sys

import jupytext
import nbformat
import papermill
import pytest

from ser_utils import make_graph, notebooks
from ser_utils.workspace import Workspace
from tests.conftest import REPOSITORY

NAMES = notebooks.names()


@pytest.mark.parametrize("name", NAMES)
def test_script_and_notebook_are_equal(name):
    wanted = nbformat.writes(notebooks.notebook_of(notebooks.SCRIPTS / f"{name}.py")) + "\n"
    assert (notebooks.NOTEBOOKS / f"{name}.ipynb").read_text() == wanted, "run `make notebooks`"


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_keep_the_house_rules(name):
    book = nbformat.read(notebooks.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)
    assert book.cells[0].cell_type == "markdown" and "Question" in book.cells[0].source
    assert max(len(cell.source.splitlines()) for cell in code[1:]) <= 30  # after the imports
    known = papermill.inspect_notebook(str(notebooks.NOTEBOOKS / f"{name}.ipynb"))
    given = {key: known[key]["default"] for key in ("dataset", "profile", "seed", "root")}
    assert given == {"dataset": '"demo"', "profile": '"quick"', "seed": "0", "root": '""'}


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """All notebooks over the demo corpus in profile smoke, by make, in a folder of their own."""
    root = tmp_path_factory.mktemp("smoke")
    return root, _make("reproduce", ROOT=root, PROFILE="smoke")


def _make(*goals, **variables):
    arguments = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        ["make", *goals, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


@pytest.mark.notebook
@pytest.mark.timeout(2700)
def test_every_notebook_runs_from_nothing(smoke):
    root, run = smoke
    assert run.returncode == 0, run.stdout + run.stderr
    assert "unknown parameter" not in (run.stdout + run.stderr).lower()
    executed = sorted(path.stem for path in (root / "build/demo/smoke/seed_0/notebooks").glob("*.ipynb"))
    assert executed == NAMES


@pytest.mark.notebook
def test_a_second_run_has_nothing_to_do_and_a_touched_notebook_runs_alone(smoke):
    root, _ = smoke
    again = _make("reproduce", ROOT=root, PROFILE="smoke")
    assert again.returncode == 0 and "up to date" in again.stdout and "→" not in again.stdout
    last = notebooks.NOTEBOOKS / f"{NAMES[-1]}.ipynb"
    last.touch()
    touched = _make("reproduce", ROOT=root, PROFILE="smoke")
    assert re.findall(r"^(\d\d_\w+): ", touched.stdout, re.M) == [NAMES[-1]]


@pytest.mark.notebook
def test_a_script_runs_like_its_notebook(smoke, tmp_path):
    script = (notebooks.SCRIPTS / "00_preprocess.py").read_text()
    script = script.replace('profile = "quick"', 'profile = "smoke"').replace(
        'root = ""', f'root = "{tmp_path}"'
    )
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MPLBACKEND": "agg"}
    run = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "build/demo/smoke/seed_0/utterances.parquet").exists()


def test_a_failing_cell_is_named_with_its_heading(tmp_path, monkeypatch):
    book = jupytext.reads(
        '# %% [markdown]\n# # 99 · A question\n\n# %% tags=["parameters"]\ndataset = "demo"\nprofile = "quick"\nseed = 0\n'
        'root = ""\n\n# %% [markdown]\n# ## The part that breaks\n\n# %%\nraise ValueError("no such thing")\n',
        fmt="py:percent",
    )
    book.metadata = nbformat.from_dict(notebooks.KERNEL)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(book, tmp_path / "notebooks" / "99_broken.ipynb")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    with pytest.raises(
        SystemExit, match=r"(?s)99_broken failed in cell 4 \(“The part that breaks”\): ValueError: no such"
    ):
        notebooks.run("99_broken", Workspace(root=tmp_path, profile="smoke"))
    assert (tmp_path / "build/demo/smoke/seed_0/notebooks/99_broken.failed.ipynb").exists()
    assert not (tmp_path / "build/demo/smoke/seed_0/notebooks/99_broken.ipynb").exists()


def test_an_unknown_parameter_lists_those_there_are(tmp_path):
    with pytest.raises(
        SystemExit, match="00_preprocess: unknown parameter speed; it has dataset, profile, seed, root"
    ):
        notebooks.run("00_preprocess", Workspace(root=tmp_path, profile="smoke"), parameters=[("speed", "1")])


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PROFILE": "fast"}, "profile must be one of smoke, quick, paper"),
        ({"SEED": "one"}, "SEED must be an integer"),
        ({"DATASET": "emobd", "PROFILE": "smoke"}, "No corpus is called 'emobd'. Accepted: demo, "),
    ],
)
def test_make_says_what_is_accepted(variables, words, tmp_path):
    run = _make("00", ROOT=tmp_path, **variables)
    assert run.returncode != 0 and words in run.stdout + run.stderr


def test_make_alone_explains():
    text = _make().stdout
    for word in ("setup", "reproduce", "check-data", "verify", "DATASET", "PROFILE", "SER_DATA_DIR"):
        assert word in text


def test_the_graph_notices_what_a_notebook_imports_and_is_set(monkeypatch, tmp_path):
    script = notebooks.SCRIPTS / "01_autoencoder.py"
    names = {path.stem for path in make_graph.imported_modules(script)}
    assert {"autoencoder", "training", "workspace", "splits"} <= names and "vae" not in names
    assert '"epochs"' in make_graph.settings_text(script.read_text(), "quick")


def test_the_graph_and_the_workspace_agree_on_names(tmp_path):
    for dataset in ("demo", "ravdess+emodb", str(tmp_path / "My Table.csv")):
        assert make_graph.run_name(dataset) == Workspace(dataset).name
