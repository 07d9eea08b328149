"""What is cited, described and archived agrees with itself, and with its own validators."""

import json
import re
import shutil
import subprocess
import zipfile

import pytest
import yaml

from ser_utils.corpora import CORPORA
from ser_utils.profiles import systems
from ser_utils.workspace import WorkspaceError, write_checksums
from tests.conftest import REPOSITORY
from tools import archive, validate

OWN = {"baseline", "opensmile", "ensemble"}  # systems that are not published ones


@pytest.fixture(scope="module")
def crate():
    return archive.crate(archive.shipped_files())


def test_version_and_licence_are_told_alike():
    about, meta = archive.citation(), json.loads((REPOSITORY / "codemeta.json").read_text("utf-8"))
    assert about["version"] == meta["version"] == archive.version()
    assert f"## {archive.version()}" in (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    assert about["license"] == "MIT" and meta["license"].endswith("/MIT")
    assert about["title"] == meta["name"]


def test_every_system_and_every_corpus_is_cited():
    notes = " ".join(work["notes"] for work in archive.citation()["references"])
    for system in systems().keys() - OWN:
        assert re.search(rf"\b{system}\b", notes), system
    for name, corpus in CORPORA.items():
        work = next((w for w in archive.citation()["references"] if w["notes"] == f"corpus {name}"), None)
        assert work, f"CITATION.cff has no reference with notes: corpus {name}"
        first, year = re.match(r"[\w-]+", corpus.citation)[0], str(work["year"])
        assert year in corpus.citation and work["authors"][0]["family-names"] == first


def test_the_croissant_of_the_folds_is_up_to_date():
    made = json.dumps(archive.croissant(), indent=2, ensure_ascii=False) + "\n"
    hint = "data/folds/croissant.json is not up to date: .venv/bin/python -m tools.archive croissant"
    assert archive.CROISSANT.read_text("utf-8") == made, hint


@pytest.fixture(scope="session")
def validators(tmp_path_factory):
    """The folder of the validators' commands, installed as `make validate` does it."""
    try:
        return validate.install(tmp_path_factory.mktemp("validators"))
    except WorkspaceError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CITATION.cff", "Croissant"])
def test_descriptions_pass_their_own_validators(validators, name):
    told = subprocess.run(validate.checks(validators, "")[name], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.slow
def test_the_folds_are_read_by_croissants_own_library(validators):
    rows = (
        "import mlcroissant, sys; rows = list(mlcroissant.Dataset(sys.argv[1]).records('ravdess-emobox')); "
        "print(len(rows), rows[0]['ravdess-emobox/test'])"
    )
    told = subprocess.run([validators / "python", "-c", rows, archive.CROISSANT], capture_output=True, text=True)
    assert told.stdout.strip() == "6 b'01 11 20 21'", told.stderr


def test_what_is_not_valid_is_named_and_what_cannot_be_checked_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(validate, "install", lambda folder: tmp_path)
    monkeypatch.setattr(archive, "write_archive", lambda folder: tmp_path / "crate.zip")
    monkeypatch.setattr(validate, "is_reachable", lambda address: False)
    for name, command in {"cffconvert": "exit 0", "mlcroissant": "echo no name >&2; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{command}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(SystemExit, match="^not valid: Croissant$"):
        validate.main()
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == ["CITATION.cff: valid", "Croissant: not valid"] and "no name" in told.err
    assert "RO-Crate: not validated, because https://w3id.org/ro/crate/1.1/context cannot be reached" in told.out


def test_the_crate_tells_how_results_were_made(crate):
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    run = entities["#run-emodb"]
    assert "Profile quick" in run["description"] and {"@id": "results/emodb/scores.csv"} in run["result"]
    parts = {part["@id"] for part in entities["./"]["hasPart"]}
    assert {"results/emodb/scores.csv", "prototypes/ravdess/", "data/folds/croissant.json"} <= parts
    assert parts <= entities.keys()
    figure = next(entity for name, entity in entities.items() if re.match(r"figures/ravdess/.*png", name))
    assert figure["description"] and "CC BY-NC-SA" in entities[figure["isBasedOn"]["@id"]]["description"]


def test_the_archive_holds_what_ships_and_is_the_same_file_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "shipped_files", lambda: ["CITATION.cff", "results/README.md"])
    first = archive.write_archive(tmp_path / "first")
    content = zipfile.ZipFile(first)
    assert content.namelist() == ["ro-crate-metadata.json", "CITATION.cff", "results/README.md"]
    assert first.read_bytes() == archive.write_archive(tmp_path / "second").read_bytes()


def _clone(root, monkeypatch, **files):
    """A repository of its own with these files, as the archive sees it."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=root, check=True)
    monkeypatch.setattr(archive, "REPOSITORY", root)


def test_no_archive_is_made_of_files_that_are_missing_or_altered(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "results" / "emodb"
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text("uar\n0.5\n")
    write_checksums(folder, "*.csv")
    _clone(tmp_path, monkeypatch, **{"CITATION.cff": "title: x\n", "figures/emodb/a.png": ""})
    assert len(archive.shipped_files()) == 4
    (folder / "scores.csv").write_text("uar\n0.9\n")
    with pytest.raises(WorkspaceError, match="altered: results/emodb: scores.csv was altered since.*git checkout"):
        archive.shipped_files()
    (tmp_path / "CITATION.cff").unlink()
    shutil.rmtree(tmp_path / "figures")
    with pytest.raises(SystemExit, match="CITATION.cff is missing; figures/emodb/a.png is missing. Restore them"):
        archive.main([])


def test_a_damaged_picture_or_provenance_is_named_by_the_crate(tmp_path):
    picture, record = tmp_path / "figures/emodb/00_counts.png", tmp_path / "results/emodb/provenance.json"
    for path, content in ((picture, "x"), (record, '{"profile": "quick", "seed": 0, "notebooks": {"00": {}}}')):
        path.parent.mkdir(parents=True)
        path.write_text(content)
        with pytest.raises(WorkspaceError, match=f"{path} is damaged"):
            archive.crate([path.relative_to(tmp_path).as_posix()], tmp_path)


def test_workflows_run_what_make_has_and_grant_nothing_they_do_not_need():
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "test.yml").read_text())
    called = [
        name
        for job in workflow["jobs"].values()
        for step in job["steps"]
        for name in re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.M)
    ]
    assert set(called) == {"lint", "test", "reproduce", "rescore", "validate", "site"} <= set(targets)
    assert workflow["permissions"] == {"contents": "read"} and "pull_request" in workflow[True]


def test_the_container_installs_from_the_files_that_it_copies_first(tmp_path):
    docker = (REPOSITORY / "Dockerfile").read_text("utf-8")
    first = re.search(r"COPY --chown=reader:reader (.+) \./\nRUN make setup\n", docker)[1].split()
    for name in first:
        shutil.copy(REPOSITORY / name, tmp_path)
    planned = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True)
    assert planned.returncode == 0 and "requirements.lock" in planned.stdout, planned.stderr
    ignored = (REPOSITORY / ".dockerignore").read_text("utf-8").split()
    assert not {"results", "figures", "prototypes", *first} & set(ignored)
    assert subprocess.run(["bash", "-n", REPOSITORY / ".binder" / "postBuild"]).returncode == 0


def test_containers_do_not_run_as_root_and_install_from_the_lock():
    docker = (REPOSITORY / "Dockerfile").read_text("utf-8")
    assert docker.index("USER reader") < docker.index("RUN make setup")
    container = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert container["remoteUser"] == "vscode" and container["postCreateCommand"] == "make setup-dev"
    binder = (REPOSITORY / ".binder" / "requirements.txt").read_text("utf-8")
    assert "-r ../requirements.lock" in binder and "--require-hashes" in binder
    assert (REPOSITORY / ".binder" / "postBuild").stat().st_mode & 0o111
