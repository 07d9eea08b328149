import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.splits import make_folds
from ser_utils.systems.known_clips import adaptation_curve, clips_needed, draw_clips

EMOTIONS = ("anger", "calm", "fear", "neutral")


@pytest.fixture(scope="module")
def voices():
    """Eight speakers, ten clips of each of four emotions; voices differ far more than emotions do."""
    rows = [(f"{s}{e}{t}", f"{s}", e) for s in range(8) for e in EMOTIONS for t in range(10)]
    table = pd.DataFrame(rows, columns=["utterance_id", "speaker", "emotion"]).assign(corpus="made_up", gender="")
    random = np.random.default_rng(0)
    cue = 2 * np.eye(4)[table["emotion"].map(EMOTIONS.index)]
    of_speaker = 4 * random.standard_normal((8, 4))[table["speaker"].astype(int)]
    return table, cue + of_speaker + 0.7 * random.standard_normal((len(table), 4))


@pytest.fixture(scope="module")
def curve(voices):
    table, features = voices
    folds = make_folds(table, "speaker")
    return adaptation_curve({"made": features}, table, folds, counts=[0, 1, 5, 10, 30], draws=3)


def test_uar_rises_with_the_clips_that_are_known(curve):
    drawn = curve[curve["known"] == "random"].set_index("n_known")["uar"]
    assert list(drawn.index) == [0, 1, 5, 10, 30]
    assert drawn[0] < drawn[5] < drawn[30] and drawn[30] > 0.8
    everything = curve[curve["known"] == "all"]
    assert everything[["n_known", "n_draws"]].values.tolist() == [[40, 1]]
    assert everything["uar"].item() == pytest.approx(drawn[30], abs=0.05)
    assert ((curve["uar_low"] < curve["uar"]) & (curve["uar"] < curve["uar_high"])).all()


def test_what_no_speaker_has_is_left_out(curve):
    there = curve.groupby("known")["n_known"].apply(list)
    assert there["neutral"] == [1, 5, 10]  # with calm twenty, of which 30 cannot be drawn
    assert there["lopsided"] == [1, 5, 10]  # four fifths of 30 are more than the ten of an emotion
    assert there["neutral_told"] == there["neutral"]
    at_ten = curve[curve["n_known"] == 10].set_index("known")["uar"]
    assert at_ten["lopsided"] < at_ten["random"] and at_ten["neutral"] < at_ten["neutral_told"]


def test_clips_are_drawn_as_asked():
    emotions, rng = np.repeat(["anger", "calm", "neutral", "fear"], 8), np.random.default_rng(0)
    for choice, n_known in [("random", 20), ("neutral", 16), ("lopsided", 10)]:
        places = draw_clips(emotions, choice, n_known, rng)
        assert len(set(places)) == n_known
        if choice == "neutral":
            assert set(emotions[places]) == {"calm", "neutral"}
        if choice == "lopsided":
            assert np.unique(emotions[places], return_counts=True)[1].max() == 8
    assert draw_clips(emotions, "neutral", 17, rng) is None and draw_clips(emotions, "lopsided", 11, rng) is None
    assert len(draw_clips(emotions, "random", 0, rng)) == 0
    with pytest.raises(ValueError, match="one of random, neutral, neutral_told, lopsided. Received: choice='loud'"):
        draw_clips(emotions, "loud", 1, rng)


def test_labels_of_the_known_clips_are_not_used(voices):
    table, features = voices
    folds = make_folds(table, "speaker")
    asked = {"counts": [5], "draws": 2}
    said = adaptation_curve({"made": features}, table, folds, **asked)
    again = adaptation_curve({"made": features}, table.assign(gender="female"), folds, **asked)
    pd.testing.assert_frame_equal(said, again)


def test_the_clips_needed_are_those_from_which_it_stays_better():
    curve = pd.DataFrame({"known": "random", "n_known": [0, 1, 2, 5, 10], "uar": [0.5, 0.51, 0.49, 0.55, 0.6]})
    assert clips_needed(curve) == 5
    assert clips_needed(curve.assign(uar=[0.5, 0.4, 0.4, 0.4, 0.4])) is None
