import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation import across
from ser_utils.evaluation import figures as comparison
from ser_utils.evaluation.across import Crossing
from ser_utils.evaluation.metrics import compare_paired, score_predictions
from ser_utils.evaluation.results import Name, score_corpora
from ser_utils.evaluation.splits import FITTED, audit_leakage, leaks_beyond
from ser_utils.systems import crossing
from tools.readme import crossings

EMOTIONS = {
    "here": ("anger", "fear", "sadness"),
    "there": ("anger", "fear", "sadness", "calm"),
    "far": ("anger", "fear", "sadness"),
}


@pytest.fixture(scope="module")
def table():
    rows = [
        (f"{corpus}{speaker}{emotion}{take}", corpus, f"{corpus}_{speaker}", emotion)
        for corpus, emotions in EMOTIONS.items()
        for speaker in range(6)
        for emotion in emotions
        for take in range(3)
    ]
    made = pd.DataFrame(rows, columns=["utterance_id", "corpus", "speaker", "emotion"])
    return across.keep_shared(made.assign(gender="", sentence="", pcm_sha256=made["utterance_id"]))


@pytest.fixture(scope="module")
def features(table):
    """A cue of the emotion, the same everywhere, under another level and gain in each corpus."""
    random = np.random.default_rng(0)
    cue = table["emotion"].map({"anger": 0.0, "fear": 1.0, "sadness": 2.0}).to_numpy()[:, None]
    values = np.hstack([cue, -cue]) + 0.3 * random.standard_normal((len(table), 2))
    level, gain = (
        table["corpus"].map(dict(zip(EMOTIONS, v, strict=True))).to_numpy() for v in ([0, 30, -20], [1, 3, 0.5])
    )
    return values * gain[:, None] + level[:, None]


@pytest.fixture(scope="module")
def crossed(features, table):
    return crossing.cross_features(features, table, "cue", folds="3_speakers")


@pytest.fixture(scope="module")
def lost(crossed, features, table):
    return across.measure_losses(crossed, crossing.wear_other_recordings(features, table, "cue", folds="3_speakers"))


def test_every_corpus_is_tested_by_models_of_each_of_the_others_and_of_all(crossed):
    assert across.training_sets(["b", "a", "b"]) == [("b",), ("a",), ("b", "a")]
    names = tuple(EMOTIONS)
    sets = across.training_sets(names)
    assert sets == [(n,) for n in names] + [names[1:], (names[0], names[2]), names[:2], names]
    alone = {Crossing((source,), target) for source in names for target in names}
    others = {Crossing(tuple(n for n in names if n != target), target) for target in names}
    together = {Crossing(names, target) for target in names}
    for normalised in across.NORMALISED:
        assert {key[2] for key in crossed if key[1] == normalised} == alone | others | together


def test_only_shared_emotions_are_left_so_that_chance_is_the_same(table):
    assert set(table["emotion"]) == {"anger", "fear", "sadness"}
    assert table.index.tolist() == list(range(len(table)))


@pytest.mark.parametrize("trained_on", across.training_sets(EMOTIONS), ids="+".join)
def test_no_speaker_is_trained_on_and_tested(table, trained_on):
    folds = across.cross_folds(table, trained_on, folds="3_speakers")
    nothing = dict.fromkeys(FITTED, ())
    assert leaks_beyond(audit_leakage(folds, table, fit=nothing), "speaker") == ""
    merged = folds.merge(table, on="utterance_id")
    heard = merged[merged["role"] != "test"]
    assert set(heard["corpus"]) == set(trained_on)
    assert (folds.groupby("fold")["role"].nunique() == 3).all()  # a network can choose its epoch in every fold
    tested = merged[merged["role"] == "test"]
    assert not tested["utterance_id"].duplicated().any()
    wanted = set(EMOTIONS) if len(trained_on) != 2 else set(EMOTIONS) - set(trained_on)
    assert set(tested["corpus"]) == wanted
    assert len(tested) == table["corpus"].isin(wanted).sum()


def test_what_a_recording_takes_normalising_gives_back(crossed, lost):
    scores = across.score_crossings(crossed).set_index(["normalised", "trained_on", "tested_on"])["uar"]
    assert scores["none", "here", "here"] > 0.85 and scores["none", "here", "there"] < 0.6
    assert scores["corpus", "here", "there"] > 0.85 and scores["corpus", "there+far", "here"] > 0.85
    lost = lost.set_index(["trained_on", "tested_on"])
    assert len(lost) == 6 and (lost["recording"] > 0.25).all() and (lost["rest"].abs() < 0.15).all()
    np.testing.assert_allclose(lost["recording"] + lost["rest"], lost["within"] - lost["across"], atol=1e-12)
    assert (lost["worn"] < 0.6).all()  # here the recording is all that changes


def test_adding_is_the_paired_test_of_all_corpora_against_one(crossed):
    adding = across.measure_adding(crossed)
    assert len(adding) == 2 * len(EMOTIONS) and (adding["p_holm"] >= adding["p"]).all()
    row = adding[(adding["normalised"] == "none") & (adding["tested_on"] == "far")].iloc[0]
    pair = [crossed["cue", "none", Crossing(names, "far")] for names in (tuple(EMOTIONS), ("far",))]
    assert row["difference"] == pytest.approx(compare_paired(*pair)["difference"])
    assert row["difference"] == pytest.approx(np.subtract(*[score_predictions(rows)["uar"] for rows in pair]))


def test_the_corpus_is_told_from_features_until_they_are_on_one_scale(features, table):
    folds = across.cross_folds(table, tuple(EMOTIONS), folds="3_speakers")
    told = crossing.tell_corpora(features, table, folds).set_index("normalised")
    assert told.loc["none", "uar"] > 0.95 and told.loc["corpus", "uar"] < 0.6
    assert told["chance"].eq(1 / 3).all()


def test_groups_are_standardised_and_dressed_by_the_literal_way(features, table):
    corpora, own = table["corpus"].to_numpy(), {name: features[table["corpus"] == name] for name in EMOTIONS}
    ready = crossing.standardise_groups(features, corpora)
    worn = crossing.wear_statistics(features, corpora, "far")
    for name, clips in own.items():
        expected = (clips - clips.mean(axis=0)) / clips.std(axis=0)
        np.testing.assert_allclose(ready[corpora == name], expected, rtol=1e-6)
        dressed = expected * own["far"].std(axis=0) + own["far"].mean(axis=0)
        np.testing.assert_allclose(worn[corpora == name], dressed, rtol=1e-6)


def test_the_figures_draw_every_crossing(crossed, lost):
    scores = across.score_crossings(crossed)
    figure = comparison.crossings(scores)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert len(texts) == len(scores) and all("–" in text for text in texts)
    axes = comparison.losses(lost, chance=1 / 3).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "here → there"


def test_readme_shows_every_crossing_without_normalisation_and_with(crossed, tmp_path):
    scores = across.score_crossings(crossed)
    for name, table in {"here+there+far": scores, "one": pd.DataFrame({"trained on": ["female"]})}.items():
        (tmp_path / "results" / name).mkdir(parents=True)
        table.to_csv(tmp_path / "results" / name / "11_across.csv", index=False)
    said, table = crossings(tmp_path)
    assert said.startswith("From corpus to corpus (here + there + far, the emotions that all of them have)")
    lines = table.splitlines()
    assert lines[0] == "| model | trained on | here | there | far |" and len(lines) == 2 + 7
    pair = scores.set_index(["trained_on", "tested_on", "normalised"])["uar"].sort_index().loc["here", "there"]
    (row,) = [line for line in lines if line.startswith("| cue | here |")]
    assert row.split(" | ")[3] == f"{100 * pair['none']:.0f} → {100 * pair['corpus']:.0f}"
    assert row.count("**") == 2  # only what training heard other speakers of


def test_a_pooled_score_is_told_corpus_by_corpus(crossed, table):
    decided = {
        Name("baseline", "cue", "speaker", "3_speakers"): crossed["cue", "none", Crossing(tuple(EMOTIONS), "far")]
    }
    scores = score_corpora(decided, table)
    assert scores["corpus"].tolist() == ["far"] and scores["n_speakers"].tolist() == [6]
    assert score_corpora(decided, table.drop(columns="corpus")).empty
    assert score_corpora(decided, table.assign(corpus="one")).empty
