"""What ran at the published settings is told by sentences drawn from its numbers."""

import numpy as np
import pandas as pd
import pytest

from ser_utils.systems.prototype import published


@pytest.fixture
def table():
    rows = [
        ("paper", "speaker_09", 1e-4, 1.2, 500, True, 400, 25.0, 90.0),
        ("paper", "speaker_10", 1e-4, 1.4, 480, False, 200, 27.0, 70.0),
        ("utterance", "speaker_09", 1e-4, 1.6, 300, True, np.nan, np.nan, np.nan),
        ("utterance", "speaker_09", 1e-2, 1.2, 550, True, np.nan, np.nan, np.nan),
    ]
    columns = ["protocol", "model", "λ", "mae_db", "epochs", "by_clock"]
    table = pd.DataFrame(rows, columns=[*columns, "classifier_epochs", "start_score", "prototype_score"])
    scores = {f"{level}_{name}": 0.5 for level in ("segment", "utterance") for name in ("accuracy", "macro_f1")}
    return table.assign(mae=table["mae_db"] / 80, **scores)


@pytest.fixture
def histories():
    coders = pd.DataFrame({"epoch": [100, 300, 500], "val_mae": [0.03, 0.02, 0.01], "stage": "autoencoder"})
    runs = ("utterance-speaker_09", "utterance-speaker_09-hfenn_weight_0.01")
    scores = pd.DataFrame({"epoch": [10, 150, 300], "prototype_score": [30, 80, 90], "stage": "classifier"})
    return pd.concat([*(coders.assign(run=run) for run in runs), scores.assign(run="paper-speaker_09")])


def test_autoencoders_are_told_by_error_epochs_and_what_ended_them(table):
    paper, utterance = published.tell_autoencoders(table)
    assert paper.startswith(
        "paper: 1.30 dB (1.20 to 1.40) over 2 speakers after 480 to 500 epochs; the time limit ended 1 of 2"
    )
    assert "over 1 speaker after 300 to 300 epochs; the time limit ended 1 of 1" in utterance


def test_weights_of_edges_are_compared_after_equally_many_epochs(table, histories):
    (told,) = published.tell_edges(table, histories)
    assert told.startswith("After 300 epochs") and "λ = 0.0001: 1.60 dB, λ = 0.01: 1.60 dB" in told
    assert published.tell_edges(table[:3], histories) == []


def test_classifiers_are_told_beside_the_published_score(table, histories):
    (told,) = published.tell_classifiers(table, histories)
    assert "rises from 26 % to 80 % and passes the published 74 % after 50 % of the training" in told
    assert "Accuracy by segment is 0.50" in told


def test_curves_of_a_stage_come_by_run_with_the_epochs_that_were_kept(histories):
    curves = published.read_curves(histories, "autoencoder")
    assert list(curves) == ["utterance-speaker_09", "utterance-speaker_09-hfenn_weight_0.01"]
    assert all(list(curve["epoch"]) == [100, 300, 500] for curve in curves.values())
    assert "prototype_score" not in curves["utterance-speaker_09"]
