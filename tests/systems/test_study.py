"""Bookkeeping over protocols, models and folds: what notebooks rely on when they train a system."""

import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.splits import leaks_beyond
from ser_utils.systems import study
from ser_utils.tables import CorpusError
from ser_utils.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace("demo", "smoke", 0, tmp_path)


@pytest.fixture
def utterances():
    """Four speakers say two texts in two emotions, three times each."""
    rows = [
        (f"{speaker}{text}{emotion}{take}", str(speaker), text, emotion)
        for speaker in range(4)
        for text in ("a", "b")
        for emotion in ("anger", "calm")
        for take in range(3)
    ]
    table = pd.DataFrame(rows, columns=["utterance_id", "speaker", "sentence", "emotion"])
    return table.assign(corpus="made_up", gender="", pcm_sha256=table["utterance_id"])


def result_of(folds, **changes):
    """What `run_folds` gives for a model that is always right."""
    test = folds[folds["role"] == "test"]
    predictions = test[["utterance_id", "start_ms", "fold"]].assign(
        speaker=test["utterance_id"].str[0],
        emotion=np.where(test["utterance_id"].str.contains("anger"), "anger", "calm"),
    )
    predictions = predictions.assign(prediction=predictions["emotion"], p_anger=0.5, p_calm=0.5)
    told = {"scaler": ["train"], "encoder": [], "augmentation": [], "selection": ["validation"]}
    costs = {"parameters": 1, "seconds_to_train": 1.0, "ms_per_utterance": 1.0}
    history = pd.DataFrame({"loss": [2.0, 1.0], "val_uar": [0.5, 0.4]})
    return {"predictions": predictions, "learned_from": told, "histories": [history], "kept": [1], **costs} | changes


def test_folds_are_saved_and_told_and_what_a_corpus_does_not_allow_is_said(workspace, utterances, capsys):
    one_text = utterances.assign(sentence="a")
    settings = {"protocols": ["paper", "sentence", "speaker"], "speaker_folds": 2}
    folds = study.make_system_folds(workspace, one_text, "vae", settings)
    assert "vae: sentence is left out: Protocol 'sentence' needs at least two texts" in capsys.readouterr().out
    assert list(folds) == ["paper", "speaker"] and study.strictest(folds) == "speaker"
    assert workspace.has_table("folds/vae-speaker-2_of_leave_one_speaker_out")
    told = study.describe_folds(folds, one_text)
    assert told.loc["speaker", "models"] == 2 and told.loc["speaker", "leaks beyond its promise"] == ""
    assert "speakers" in told.loc["paper", "leaks beyond its promise"]


def test_too_few_recordings_are_refused_before_anything_is_trained(workspace, utterances):
    few = utterances[utterances["speaker"].isin(["0", "1"])].groupby(["speaker", "emotion"]).head(1)
    settings = {"protocols": ["paper", "utterance", "speaker"]}
    with pytest.raises(CorpusError) as error:
        study.make_system_folds(workspace, few, "vae", settings)
    text = "4 recordings of 2 emotions and 2 speakers are too few to train vae and to test it on others. "
    assert str(error.value).startswith(text + "Protocol 'utterance'")
    assert "there are too few recordings of each emotion" in str(error.value)
    assert not list(workspace.build.glob("folds/*"))


def test_what_is_saved_carries_the_audit_of_what_the_training_recorded(workspace, utterances):
    folds = study.make_system_folds(workspace, utterances, "vae", {"protocols": ["speaker"]})["speaker"]
    learned_from = {"scaler": ["train"], "encoder": [], "augmentation": [], "selection": ["test"]}
    result = result_of(folds, learned_from=learned_from)
    saved = study.save_audited(workspace, utterances, folds, result, model="both")
    scores = study.score_results({("both", "speaker"): saved})
    assert scores["leaks"].tolist() == ["selection on test"] and scores["uar"].tolist() == [1.0]
    name = "vae-both-speaker-leave_one_speaker_out"
    assert workspace.has_table(f"predictions/{name}") and workspace.has_table(f"audits/{name}")


def test_a_setting_that_was_chosen_on_these_clips_is_in_the_audit_of_every_model_that_has_it(workspace, utterances):
    for corpus, leaks in (("made_up", ""), ("ravdess", "selection on test")):
        table = utterances.assign(corpus=corpus)
        folds = study.make_system_folds(workspace, table, "vae", {"protocols": ["speaker"], "speaker_folds": 2})[
            "speaker"
        ]
        study.save_audited(workspace, table, folds, result_of(folds), model="both")
        audit = workspace.load_table(f"audits/vae-both-speaker-{folds.attrs['folds']}")
        assert leaks_beyond(audit, "speaker") == leaks


def test_what_is_not_to_be_compared_leaves_no_file(workspace, utterances):
    folds = study.make_system_folds(workspace, utterances, "vae", {"protocols": ["speaker"]})["speaker"]
    result = study.save_audited(workspace, utterances, folds, result_of(folds), model="both", save=False)
    assert len(result["audit"]) and not workspace.saved
    assert not (workspace.build / "predictions").exists() and not (workspace.build / "costs").exists()


def test_under_the_main_protocol_all_models_are_trained_elsewhere_the_named_ones(workspace, utterances, monkeypatch):
    settings = {"protocols": ["utterance", "speaker"]}
    folds = study.make_system_folds(workspace, utterances, "vae", settings)
    monkeypatch.setattr(study, "tasks_of", lambda model, split, protocol: (model, split))
    monkeypatch.setattr(study, "run_folds", lambda plan: {key: result_of(split) for key, (_, split) in plan.items()})
    results = study.train_models(
        workspace, utterances, folds, {"one": "task", "two": "task"}, main="speaker", elsewhere=["two"]
    )
    assert list(results) == [("one", "speaker"), ("two", "utterance"), ("two", "speaker")]
    histories, kept = study.first_histories(results, "speaker")
    assert list(histories) == ["one", "two"] and kept == {"one": 1, "two": 1}
