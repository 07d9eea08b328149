"""What is cited, described and archived agrees with itself, and with its own validators where these are installed."""

import json
import re
import zipfile

import pytest
import yaml

from ser_utils.corpora import CORPORA
from ser_utils.profiles import systems
from tests.conftest import REPOSITORY
from tools import archive

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


def test_the_folds_are_read_by_croissants_own_library():
    croissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed: pip install mlcroissant")
    dataset = croissant.Dataset(archive.CROISSANT)
    rows = list(dataset.records("ravdess-emobox"))
    assert len(rows) == 6 and rows[0]["ravdess-emobox/test"] == b"01 11 20 21"


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


def test_workflows_run_what_make_has_and_grant_nothing_they_do_not_need():
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "test.yml").read_text())
    called = [
        name
        for job in workflow["jobs"].values()
        for step in job["steps"]
        for name in re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.M)
    ]
    assert set(called) == {"lint", "test", "reproduce", "rescore", "site"} <= set(targets)
    assert workflow["permissions"] == {"contents": "read"} and "pull_request" in workflow[True]


def test_containers_do_not_run_as_root_and_install_from_the_lock():
    docker = (REPOSITORY / "Dockerfile").read_text("utf-8")
    assert docker.index("USER reader") < docker.index("RUN make setup")
    container = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert container["remoteUser"] == "vscode" and container["postCreateCommand"] == "make setup-dev"
    binder = (REPOSITORY / ".binder" / "requirements.txt").read_text("utf-8")
    assert "-r ../requirements.lock" in binder and "--require-hashes" in binder
    assert (REPOSITORY / ".binder" / "postBuild").stat().st_mode & 0o111
