import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

from ser_utils.names import dataset_name
from ser_utils.workspace import Workspace
from tests.conftest import GOLDEN_DIR, REPOSITORY
from tests.systems.speech_transformer.hub import Hub, say_preprocessing, split_into_parts
from tools import graph as make_graph
from tools import notebooks

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
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1  # the site lists a page for each title
    known = papermill.inspect_notebook(str(notebooks.NOTEBOOKS / f"{name}.ipynb"))
    given = {key: known[key]["default"] for key in ("dataset", "profile", "seed", "root")}
    assert given == {"dataset": '"demo"', "profile": '"quick"', "seed": "0", "root": '""'}


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """All notebooks over the demo corpus in profile smoke, by make, in a folder of their own."""
    root = tmp_path_factory.mktemp("smoke")
    return root, _make("reproduce", ROOT=root, PROFILE="smoke")


def _make(*goals, environment=(), **variables):
    arguments = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        ["make", "--no-print-directory", *goals, *arguments],
        cwd=REPOSITORY,
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        check=False,
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
@pytest.mark.parametrize("name", NAMES)
def test_executed_notebooks_show_no_warnings_and_no_bars(smoke, name):
    root, _ = smoke
    book = nbformat.read(root / f"build/demo/smoke/seed_0/notebooks/{name}.ipynb", as_version=4)
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [output for output in outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
    said = "".join(output.get("text", "") for output in outputs)
    assert "%|" not in said and "WARNING" not in said


@pytest.mark.notebook
def test_what_make_says_is_a_line_each_without_warnings_or_colours(smoke):
    _, run = smoke
    said = run.stdout + run.stderr
    assert sorted(re.findall(r"^(\d\d_\w+): \d+ s → ", said, re.M)) == NAMES
    assert "\x1b" not in said
    for words in ("absl", "oneDNN", "retracing", "XNNPACK", "Warning", "Traceback"):
        assert words not in said, words


@pytest.mark.notebook
def test_a_second_run_has_nothing_to_do_and_a_touched_notebook_runs_alone(smoke):
    root, _ = smoke
    again = _make("reproduce", ROOT=root, PROFILE="smoke")
    assert again.returncode == 0 and "up to date" in again.stdout and "→" not in again.stdout
    last = notebooks.NOTEBOOKS / f"{NAMES[-1]}.ipynb"
    last.touch()
    touched = _make("reproduce", ROOT=root, PROFILE="smoke")
    assert re.findall(r"^(\d\d_\w+): ", touched.stdout, re.M) == [NAMES[-1]]


@pytest.fixture(scope="session")
def listened(smoke, tmp_path_factory):
    """08 and 09 once more, through an encoder that `make weights` brought from a hub on this machine."""
    place = tmp_path_factory.mktemp("listened")
    root = shutil.copytree(smoke[0], place / "root")
    hub = Hub(place / "served")
    served = hub.serve("someone/tiny-wavlm", GOLDEN_DIR / "wavlm_group")
    split_into_parts(served)
    say_preprocessing(served)
    weights = {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1", "SER_WEIGHTS_DIR": str(place / "weights")}
    fetched = _make("weights", MODEL="someone/tiny-wavlm", environment=weights)
    hub.close()  # from here on there is no internet
    # in one process: two would each import TensorFlow and trace the heads
    run = _make("09", ROOT=root, PROFILE="smoke", JOBS=1, WEIGHTS=place / "weights", environment=weights)
    return root, fetched, run


@pytest.mark.notebook
@pytest.mark.timeout(900)
def test_weights_from_a_hub_are_heard_by_every_head_and_explained(listened):
    root, fetched, run = listened
    assert fetched.returncode == 0 and "wavlm, 3 layers, 32 wide" in fetched.stdout, fetched.stderr
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.findall(r"^(\d\d_\w+): ", run.stdout, re.M) == ["08_speech_transformer", "09_explanations"]
    listening, explaining = (_text_of(root, name) for name in ("08_speech_transformer", "09_explanations"))
    for head in ("pooled", "layer_weighting", "cnn", "rnn", "fine_tuned"):
        assert f"fixture_tiny_wavlm_{head}" in listening, head
    assert "someone/tiny-wavlm at c0ffee00. Encoder of a test: carries no meaning." in listening
    assert "fixture_tiny_wavlm head" in explaining


@pytest.mark.notebook
def test_what_an_encoder_of_a_test_says_is_marked_and_no_result(listened):
    root, _, _ = listened
    build = root / "build/demo/smoke/seed_0"
    for kind in ("predictions", "audits", "costs", "folds"):
        assert not [path.name for path in (build / kind).iterdir() if "fixture" in path.name], kind
    assert not [path for path in root.rglob("*.csv") if path.name.startswith("08_") or "fixture" in path.read_text()]
    assert "<caption>Encoder of a test: carries no meaning.</caption>" in _text_of(root, "08_speech_transformer")


def _text_of(root, name):
    return (root / f"build/demo/smoke/seed_0/notebooks/{name}.ipynb").read_text("utf-8")


@pytest.mark.notebook
def test_a_script_runs_like_its_notebook(smoke, tmp_path):
    script = (notebooks.SCRIPTS / "00_preprocess.py").read_text()
    script = script.replace('profile = "quick"', 'profile = "smoke"').replace('root = ""', f'root = "{tmp_path}"')
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MPLBACKEND": "agg"}
    run = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
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
    with pytest.raises(SystemExit, match="00_preprocess: unknown parameter speed; it has dataset, profile, seed, root"):
        notebooks.run("00_preprocess", Workspace(root=tmp_path, profile="smoke"), parameters=[("speed", "1")])


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PROFILE": "fast"}, "profile must be one of smoke, quick, paper"),
        ({"SEED": "one"}, "SEED must be an integer"),
        ({"JOBS": "0"}, "JOBS must be an integer of at least 1. Received: JOBS=0"),
        ({"DATASET": "emobd", "PROFILE": "smoke"}, "No corpus is called 'emobd'. Accepted: demo, "),
        ({"LABELS": "some"}, "LABELS must be all or shared. Received: LABELS=some"),
        ({"ENGINE": "dask"}, "ENGINE must be local or ray. Received: ENGINE=dask"),
    ],
)
def test_make_says_what_is_accepted(variables, words, tmp_path):
    run = _make("00", ROOT=tmp_path, **variables)
    assert run.returncode != 0 and words in run.stdout + run.stderr


def test_make_alone_explains():
    text = _make().stdout
    for word in ("setup", "reproduce", "check-data", "verify", "DATASET", "PROFILE", "SER_DATA_DIR"):
        assert word in text


def test_the_graph_notices_what_a_notebook_imports_and_is_set():
    script = notebooks.SCRIPTS / "01_autoencoder.py"
    names = {path.stem for path in make_graph.imported_modules(script)}
    assert {"autoencoder", "training", "workspace", "splits"} <= names and "vae" not in names
    declared = make_graph.declared_by(notebooks.NOTEBOOKS / "01_autoencoder.ipynb")
    assert '"epochs"' in make_graph.settings_text(declared["settings"], "quick")
    assert '"epoch_chosen_on_test"' in make_graph.settings_text(declared["settings"], "quick")


STEPS = make_graph.steps_of("demo", "smoke", REPOSITORY / "build" / "demo" / "smoke" / "seed_0")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_declares_what_it_reads(name):
    script = (notebooks.SCRIPTS / f"{name}.py").read_text()
    declared = make_graph.declared_by(notebooks.NOTEBOOKS / f"{name}.ipynb")
    asked = re.findall(r"""settings(?:_table)?\(["'](\w+)["']""", script)
    assert set(asked) <= set(declared["settings"])
    for calls, kind in (
        (r"searched_model\(", "search"),
        (r"load_encoder\(|open_networks\(", "weights"),  # the second opens the heads of 08 where there are weights
        (r"derived_tables\(", "published"),
    ):
        assert bool(re.search(calls, script)) == (kind in declared["files"]), calls
    made_by = set(re.findall(r"""made_by=["'](\d\d)["']""", script))
    assert made_by <= make_graph.read_by(STEPS, name[:2])
    assert set(declared["reads"]) <= {other[:2] for other in NAMES if other < name}


def test_an_unknown_kind_of_file_is_refused_with_those_there_are(tmp_path):
    book = nbformat.v4.new_notebook(metadata={"graph": {"files": ["weights", "weather"]}})
    nbformat.write(book, tmp_path / "12_mine.ipynb")
    with pytest.raises(ValueError, match="12_mine.ipynb: files must be of search, .*Received: weather"):
        make_graph.declared_by(tmp_path / "12_mine.ipynb")


def test_a_notebook_that_declares_nothing_reads_the_first(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "12_mine.ipynb")
    assert make_graph.declared_by(tmp_path / "12_mine.ipynb")["reads"] == ["00"]


@pytest.fixture
def keys_of(tmp_path, monkeypatch):
    """A copy of what the graph looks at, to change: a function that gives the key of each notebook."""
    copy = tmp_path / "sources"
    for folder in ("ser_utils", "notebooks"):
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(make_graph, "REPOSITORY", copy)
    monkeypatch.setenv("SER_WEIGHTS_DIR", str(tmp_path / "weights"))

    def keys(dataset="demo"):
        steps = make_graph.steps_of(dataset, "smoke", tmp_path / "build" / dataset / "smoke" / "seed_0")
        return {number: step.key for number, step in steps.items()}

    return keys


def test_what_a_notebook_reads_besides_runs_it_again_and_no_other(keys_of, tmp_path):
    before = keys_of()
    for path, again in (
        ("build/demo/smoke/seed_0/results/07_search_sigwavnet_smoke.csv", ["07", "09", "10", "11"]),
        ("results/demo/07_search_sigwavnet_smoke.csv", ["07", "09", "10", "11"]),
        ("results/demo/07_search_sigwavnet_quick.csv", []),
        ("weights/facebook--wav2vec2-base-960h/model.safetensors", ["08", "09", "10", "11"]),
        ("weights/somebody--else/model.safetensors", []),
        ("sources/ser_utils/evaluation/published.csv", ["11"]),
        ("build/demo/smoke/seed_1/predictions/.vae-both-speaker-x.parquet.seal", ["11"]),
        ("build/demo/smoke/seed_0/predictions/.vae-both-speaker-x.parquet.seal", []),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("other")
        after = keys_of()
        assert [number for number in before if before[number] != after[number]] == again, path
        before = after


def test_weights_that_the_reader_has_run_again_what_listens_through_them(keys_of, tmp_path, monkeypatch):
    monkeypatch.delenv("WEIGHTS", raising=False)
    seen = [keys_of()]
    for content in ("one", "another"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "model.safetensors").write_text(content)
        monkeypatch.setenv("WEIGHTS", str(tmp_path / "mine"))
        seen.append(keys_of())
    for before, after in zip(seen, seen[1:], strict=False):
        assert [number for number in before if before[number] != after[number]] == ["08", "09", "10", "11"]


@pytest.mark.parametrize(
    "head", ["path,speaker,emotion", "\ufeffpath,speaker,emotion", "path;speaker;emotion", " Path ,Speaker,Emotion"]
)
def test_the_graph_sees_recordings_as_tables_may_name_them(tmp_path, head):
    comma = ";" if ";" in head else ","
    table, recording, words = tmp_path / "t.csv", tmp_path / "a" / "1.wav", tmp_path / "emotions.csv"
    table.write_text(f"{head}\n{comma.join(['a/1.wav', 's', 'anger'])}\n", "utf-8")
    recording.parent.mkdir()
    seen = [make_graph.corpus_listing(str(table))]
    for path in (recording, words):
        path.write_text("new")
        seen.append(make_graph.corpus_listing(str(table)))
    assert len(set(seen)) == 3


def test_weights_beside_the_corpora_are_no_recordings(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_DATA_DIR", str(tmp_path))
    for path in ("Audio_Speech/1.wav", "weights/facebook--some/model.safetensors"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    assert "1.wav" in make_graph.corpus_listing("ravdess")
    assert "model" not in make_graph.corpus_listing("ravdess")


def test_the_graph_and_the_workspace_agree_on_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b.csv").touch()
    (tmp_path / "link.csv").symlink_to("a+b.csv")
    own = ("~/t.csv", "t.csv", "ravdess+t.csv", "ravdess+~/t.csv", "a+b.csv", "link.csv", "My Table.csv", "x/", "~")
    for dataset in ("demo", "ravdess+emodb", *own):
        space = Workspace(dataset)
        assert dataset_name(dataset) == space.name == Workspace(space.dataset).name
    for dataset in ("~/t.csv", "t.csv"):
        assert Workspace(dataset).dataset == str(tmp_path / "t.csv")
    assert Workspace("ravdess+~/t.csv").dataset == f"ravdess+{tmp_path / 't.csv'}"
    assert Workspace("a+b.csv").dataset == str(tmp_path / "a+b.csv")


def test_the_kernel_looks_where_make_was_told_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SER_DATA_DIR", "corpora")
    monkeypatch.setenv("SER_WEIGHTS_DIR", "weights")
    monkeypatch.setattr(notebooks, "run", lambda *_, **__: None)
    notebooks.main(["run", "00", "--root", str(tmp_path), "--profile", "smoke"])
    assert os.environ["SER_DATA_DIR"] == str(tmp_path / "corpora")
    assert os.environ["SER_WEIGHTS_DIR"] == str(tmp_path / "weights")


# make ---------------------------------------------------------------------------------------------------------


def _words(run, of):
    """The words of the command that make would run."""
    assert run.returncode == 0, run.stderr
    return next(shlex.split(line) for line in run.stdout.splitlines() if of in line)


def test_make_hands_on_names_with_spaces_and_quotes(tmp_path):
    odd = "it's my data/t $b.csv"
    assert odd in _words(_make("-n", "predict", FILE=odd), "tools.answer")
    assert odd in _words(_make("-n", "check-data", DATASET=odd), "tools.check_data")
    run = _words(_make("-n", "00", DATASET=odd, ROOT=tmp_path, SPEAKERS="a 'b'"), "tools.reproduce")
    assert odd in run and "a 'b'" in run
    assert f"{odd}+all" in _words(_make("-n", "00", DATASET=odd, LABELS="all", ROOT=tmp_path), "tools.reproduce")


def test_make_cleans_and_serves_what_root_says(tmp_path):
    assert _words(_make("-n", "clean", ROOT=tmp_path), "rm")[-1] == f"{tmp_path}/build"
    assert f"{tmp_path}/build/site" in _words(_make("-n", "serve", ROOT=tmp_path), "http.server")
    assert _words(_make("-n", "clean"), "rm")[-1] == "build"


def test_make_refuses_spaces_in_root(tmp_path):
    run = _make("-n", "00", ROOT=tmp_path / "a b")
    assert run.returncode and "ROOT must have no spaces" in run.stderr and len(run.stderr.splitlines()) == 1


def test_make_takes_jobs_and_engine_from_the_environment(monkeypatch):
    def told(**variables):
        return _make("--eval=told: ; @echo $$SER_JOBS $$SER_ENGINE", "told", **variables).stdout.split()

    for name in ("SER_JOBS", "SER_ENGINE", "JOBS", "ENGINE"):
        monkeypatch.delenv(name, raising=False)
    assert told() == ["local"]
    monkeypatch.setenv("SER_JOBS", "3")
    monkeypatch.setenv("SER_ENGINE", "ray")
    assert told() == ["3", "ray"] and told(JOBS=1, ENGINE="local") == ["1", "local"]


def _tellers(folder, told, names, made=""):
    """Programs that only tell what they are asked, as lines of the file `told`."""
    for path in names:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(
            f'#!/bin/sh\n{made if path == "bin/uv" else ""}echo {Path(path).name} "$@" >> {told}\n'
        )
        (folder / path).chmod(0o755)


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ([], ["uv venv", "requirements.lock"]),
        ([".venv/bin/python"], ["requirements.lock"]),
        ([".venv/bin/python", "pytest"], ["requirements.lock requirements-dev.lock"]),
        ([".venv/bin/python", "opensmile"], ["requirements.lock requirements-extras.lock"]),
        (["opensmile"], ["uv venv", "requirements.lock requirements-extras.lock"]),
    ],
    ids=["nothing there", "there", "there with tests", "there with extras", "broken, with extras"],
)
def test_setup_renews_what_is_there(tmp_path, monkeypatch, there, wanted):
    """By a uv and a python that only tell what they are asked."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    told = tmp_path / "told"
    installed = [f".venv/lib/python3.12/site-packages/{name}/a" for name in there if "/" not in name]
    locks = [f"requirements{kind}.lock" for kind in ("", "-dev", "-extras")]
    for path in (*locks, *installed):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    made = f"[ $1 = venv ] && rm -rf .venv && mkdir -p .venv/bin && cp {tmp_path}/bin/python .venv/bin/; "
    _tellers(tmp_path, told, ["bin/uv", "bin/python", *(path for path in there if "/" in path)], made)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    run = subprocess.run(
        ["make", "--no-print-directory", "setup", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = [line for line in told.read_text().splitlines() if line.startswith("uv")]
    assert len(lines) == len(wanted) and all(w in line for w, line in zip(wanted, lines, strict=True))
    assert "pip sync" in lines[-1] and lines[-1].endswith(wanted[-1]) and (tmp_path / ".venv/.ready").exists()


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ({"python3": "3, 12"}, "python3"),
        ({"python3": "3, 9", "python3.11": "3, 11"}, "python3.11"),
        ({"python3": "3, 14", "python3.13": "3, 13", "python3.11": "3, 11"}, "python3.13"),
        ({"python3": "3, 14"}, ""),
    ],
)
def test_make_finds_a_python_that_fits(tmp_path, versions, chosen):
    for name, version in versions.items():
        program = tmp_path / name  # runs the question asked of it with another version
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = ({version}, 0); $2"\n')
        program.chmod(0o755)
    for tool in ("sh", "echo"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    run = subprocess.run(
        [shutil.which("make"), "-s", "--eval=told: ; @echo $(PYTHON)", "told"],
        cwd=REPOSITORY,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == chosen, run.stderr


def test_several_numbers_are_one_run(tmp_path):
    run = _make("-n", "02", "05", ROOT=tmp_path)
    lines = [line for line in run.stdout.splitlines() if "tools.reproduce" in line]
    assert len(lines) == 1 and lines[0].endswith(" 02 05")


@pytest.mark.parametrize("name", ["FILE", "FILES", "DATASET", "MODEL", "SEED", "PROFILE", "JOBS", "SPEAKERS", "ROOT"])
@pytest.mark.parametrize("where", ["command line", "environment"])
def test_make_runs_nothing_that_a_name_holds(name, where, tmp_path, monkeypatch):
    """Names of somebody else's files are data: make would run a "$(shell …)" in them when it hands them on."""
    made, told = tmp_path / "made", {"FILE": "a.wav"}
    given = {name: f"x$(shell touch {made})"}
    if where == "environment":
        monkeypatch.setenv(*next(iter(given.items())))
        given = {}
    _make("--eval=told: ; @true", "told", **told | given)
    assert not made.exists()
