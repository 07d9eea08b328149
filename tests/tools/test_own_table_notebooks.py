"""Cells of the notebooks, run as they stand, on tables that know less than the corpora do."""

import re
from types import SimpleNamespace
from unittest.mock import MagicMock

import matplotlib
import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.splits import leaks_beyond
from ser_utils.profiles import settings
from ser_utils.systems import study
from ser_utils.systems.prototype.analysis import compare_scorings
from ser_utils.systems.vae import training as vae
from ser_utils.workspace import Workspace
from tools import notebooks

SYSTEMS = {"05": "feature_network", "06": "vae", "07": "sigwavnet"}


def code_of(number):
    """A notebook's code cells: the imports, the parameters, the others."""
    script = notebooks.SCRIPTS / f"{notebooks.full_name(number)}.py"
    code = [cell for cell in notebooks.notebook_of(script).cells if cell.cell_type == "code"]
    place = next(i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", []))
    texts = [cell.source for cell in code]
    return texts[:place], texts[place], texts[place + 1 :]


def run_cell(number, having, **names):
    """Imports, parameters and the one cell that has a text; returns what it leaves behind."""
    imports, parameters, others = code_of(number)
    (cell,) = [text for text in others if having in text]
    namespace = {}
    with matplotlib.rc_context():  # a notebook's style is not the next test's
        for text in (*imports, parameters):
            exec(text, namespace)
        namespace |= names
        exec(cell, namespace)
    return namespace


def own_table(n_speakers, corpus="mine"):
    """What 00 makes of a table of paths, speakers and emotions."""
    rows = [
        dict(utterance_id=f"{speaker}{emotion}{n}", speaker=f"s{speaker}", emotion=emotion)
        for speaker in range(n_speakers)
        for emotion in ("anger", "neutral", "sadness")
        for n in range(5)
    ]
    table = pd.DataFrame(rows).assign(corpus=corpus, gender="", sentence="", duration_s=0.5)
    return table.assign(pcm_sha256=table["utterance_id"], sample_rate_hz=16_000)


def folds_of(system, table, tmp_path):
    """The folds of one system, as its notebook makes them."""
    return study.make_system_folds(Workspace(str(tmp_path), "quick"), table, system, settings(system, "quick"))


@pytest.mark.parametrize("n_speakers", [1, 4])
@pytest.mark.parametrize("number", SYSTEMS)
def test_folds_are_made_of_what_a_table_knows(number, n_speakers, tmp_path, monkeypatch, capsys):
    assert "study.make_system_folds(" in "\n".join(code_of(number)[-1])
    monkeypatch.setattr(Workspace, "save_folds", lambda *_, **__: None)
    made = folds_of(SYSTEMS[number], own_table(n_speakers), tmp_path)
    wanted = {"paper"} if number == "07" else {"paper", "utterance"}
    assert set(made) == wanted | ({"speaker"} if n_speakers > 1 else set())
    told = capsys.readouterr().out
    assert number == "07" or "sentence is left out: Protocol 'sentence' needs at least two texts" in told
    assert ("speaker is left out" in told) == (n_speakers == 1)


@pytest.mark.parametrize("number", ["01", "02", *SYSTEMS])
def test_no_later_cell_counts_on_a_protocol_that_may_be_missing(number):
    *_, cells = code_of(number)
    code = "\n".join(cells)
    assert not re.search(r'(folds|results|plan|classified|trained|fitted)\[[^]]*"(speaker|sentence)"', code)
    assert not re.search(r'(in |\()chosen(\[system\])?\["protocols"\](\[|:|$)', code, re.M)


def test_the_audit_of_ravdess_tells_that_a_setting_was_chosen_on_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Workspace, "save_folds", lambda *_, **__: None)
    statistics = np.random.default_rng(0).normal(size=(60, 6))
    for corpus, leaks in (("mine", ""), ("ravdess", "selection on test")):
        table = own_table(4, corpus)
        split = folds_of("vae", table, tmp_path)["speaker"]
        fold, workspace = split[split["fold"] == 0], Workspace(str(tmp_path / corpus), "smoke", root=tmp_path)
        fold.attrs = split.attrs
        trained = vae.train_vae(workspace, statistics, table, fold, settings("vae", "smoke"), "a")
        result = study.save_audited(workspace, table, fold, vae.classify([trained], "both"), model="both", save=False)
        assert leaks_beyond(result["audit"], "speaker") == leaks
        shares = result["predictions"].filter(regex="^p_")
        answers = shares.columns.str.removeprefix("p_")[shares.to_numpy().argmax(axis=1)]
        assert (answers == result["predictions"]["prediction"]).all(), "the answer is the highest probability"


def test_one_file_of_a_low_rate_does_not_change_the_rate_of_prototypes():
    table = own_table(2)
    table.loc[0, "sample_rate_hz"] = 8_000
    workspace = SimpleNamespace(load_table=lambda _: table)
    left = run_cell("03", "\nrate = ", Workspace=lambda *_: workspace)
    assert left["rate"] == 16_000


def test_examples_share_the_text_that_most_emotions_were_said_with():
    said = [("a01", "anger"), ("a01", "neutral"), ("a02", "sadness"), ("a02", "anger"), ("a02", "neutral")]
    table = pd.DataFrame(said, columns=["sentence", "emotion"])
    table = table.assign(speaker="03", path=table["sentence"] + table["emotion"])
    stubs = {name: MagicMock() for name in ("speech", "style", "plt", "workspace")}
    names = {"utterances": table, "rate": 16_000, "load_audio": lambda path, rate: path}
    left = run_cell("00", "examples = {", **names, **stubs)
    assert left["examples"] == {one: f"a02{one}" for one in ("sadness", "anger", "neutral")}


def test_scorings_are_set_beside_chance():
    weights = pd.DataFrame({"anger": [3.0, 2, 1, 0], "fear": [0.0, 1, 2, 3]}).to_numpy()
    table = compare_scorings(weights, ["anger", "fear"], ("positive", "softmax"), top=1, threshold=50)
    assert table["by chance"].tolist() == [0.5, 0.5]


def test_only_clips_that_a_wavelet_network_did_not_learn_from_are_called_test():
    predictions = pd.DataFrame({"utterance_id": ["a", "b"], "fold": [0, 1]})  # each fold has a test part of its own
    results = {("sigwavnet", "network", "speaker"): {"predictions": predictions}}
    utterances = pd.DataFrame({"utterance_id": ["b"], "emotion": ["anger"]})
    left = run_cell("07", "tested = ", results=results, utterances=utterances, strictest="speaker")
    assert left["inside"] == {}
