import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from ser_utils.evaluation import metrics


def predictions(n=240, speakers=8, seed=0, skill=0.5, emotions=("anger", "fear", "sadness")):
    random = np.random.default_rng(seed)
    truth = random.choice(emotions, n)
    guess = np.where(random.random(n) < skill, truth, random.choice(emotions, n))
    table = pd.DataFrame(
        {
            "utterance_id": [f"u{i:04d}" for i in range(n)],
            "start_ms": np.nan,
            "speaker": [f"{i % speakers:02d}" for i in range(n)],
            "emotion": truth,
            "prediction": guess,
            "fold": np.arange(n) % 2,
        }
    )
    for emotion in emotions:
        table[f"p_{emotion}"] = np.where(guess == emotion, 0.8, 0.1)
    return table


def test_uar_by_hand():
    # anger 2 of 3, fear 0 of 1, a class that is only predicted does not count
    assert metrics.unweighted_average_recall(list("aaaf"), list("aafs")) == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn(seed):
    table = predictions(seed=seed)
    truth, guess = table["emotion"], table["prediction"]
    scores = metrics.score_predictions(table)
    assert scores["uar"] == pytest.approx(reference.balanced_accuracy_score(truth, guess))
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(truth, guess))
    assert scores["macro_f1"] == pytest.approx(reference.f1_score(truth, guess, average="macro"))
    assert (metrics.confusion(truth, guess) == reference.confusion_matrix(truth, guess)).all()
    precision, recall, f1, n = reference.precision_recall_fscore_support(truth, guess)
    np.testing.assert_allclose(metrics.per_class(truth, guess).to_numpy(), np.c_[precision, recall, f1, n])
    by_fold = [
        reference.recall_score(t["emotion"], t["prediction"], average="macro")
        for _, t in table.groupby("fold")
    ]
    assert scores["uar_fold_mean"] == pytest.approx(np.mean(by_fold))


def test_bootstrap_equals_a_literal_one():
    table = predictions(n=60, speakers=6)
    by_speaker = [rows for _, rows in table.groupby("speaker")]
    drawn = np.random.default_rng(3).multinomial(6, [1 / 6] * 6, size=200)
    literal = []
    for times in drawn:
        sample = pd.concat([rows for rows, n in zip(by_speaker, times, strict=True) for _ in range(n)])
        literal.append(reference.recall_score(sample["emotion"], sample["prediction"], average="macro"))
    interval = metrics.bootstrap_interval(table, n_resamples=200, seed=3)
    np.testing.assert_allclose(interval, np.quantile(literal, [0.025, 0.975]))


def test_speakers_who_differ_widen_the_interval():
    alike = predictions(n=400, speakers=10)
    unlike = alike.assign(prediction=np.where(alike["speaker"] < "05", alike["emotion"], "anger"))
    width = [np.ptp(metrics.bootstrap_interval(table)) for table in (alike, unlike)]
    assert width[1] > 2 * width[0]


def test_one_speaker_has_no_interval():
    assert np.isnan(metrics.bootstrap_interval(predictions(speakers=1))).all()


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        table = predictions(n=600, speakers=30, seed=seed)
        skill = np.clip(random.normal(0.5, 0.2, 30), 0, 1)[table["speaker"].astype(int)]  # speakers differ
        hit = random.random(len(table)) < skill
        table["prediction"] = np.where(hit, table["emotion"], "nothing")
        low, high = metrics.bootstrap_interval(table, n_resamples=400, seed=seed)
        covered += low <= 0.5 <= high
    assert covered >= 50


def test_votes_by_mean_probability():
    segments = pd.DataFrame(
        {
            "utterance_id": ["u", "u", "u", "v"],
            "start_ms": [0.0, 20.0, 40.0, 0.0],
            "speaker": "01",
            "emotion": ["anger", "anger", "anger", "fear"],
            "prediction": ["fear", "fear", "anger", "fear"],
            "p_anger": [0.4, 0.4, 0.9, 0.2],
            "p_fear": [0.6, 0.6, 0.1, 0.8],
            "fold": 0,
        }
    )
    voted = metrics.vote_utterances(segments)
    assert list(voted["prediction"]) == ["anger", "fear"]  # one sure segment outweighs two unsure ones
    np.testing.assert_allclose(voted["p_anger"], [17 / 30, 0.2])
    by_count = metrics.vote_utterances(segments.drop(columns=["p_anger", "p_fear"]))
    assert list(by_count["prediction"]) == ["fear", "fear"]
    assert metrics.score_predictions(segments)["level"] == "segment"
    assert metrics.score_predictions(voted)["level"] == "utterance"


def test_paired_comparison_by_hand():
    # two speakers; the first system is right everywhere, the second only with speaker 02
    truth = ["anger", "fear", "anger", "fear"]
    first = pd.DataFrame(
        {
            "utterance_id": list("abcd"),
            "start_ms": np.nan,
            "speaker": ["01", "01", "02", "02"],
            "emotion": truth,
        }
    ).assign(prediction=truth, fold=0)
    second = first.assign(prediction=["fear", "anger", "anger", "fear"])
    found = metrics.compare_paired(first, second)
    assert found["difference"] == pytest.approx(0.5)
    assert found["p"] == 1.0  # four exchanges: all give a gap of 0.5 either way
    assert (found["n_speakers"], found["n_utterances"]) == (2, 4)
    assert found["low"] == 0 and found["high"] == 1


def test_no_difference_is_not_significant_and_a_large_one_is():
    chance = [metrics.compare_paired(predictions(seed=s), predictions(seed=s))["p"] for s in range(3)]
    assert chance == [1.0] * 3
    good = predictions(speakers=16)
    assert metrics.compare_paired(good.assign(prediction=good["emotion"]), good)["p"] < 0.001


def test_paired_comparison_refuses_other_data():
    table = predictions()
    with pytest.raises(ValueError, match="common utterance"):
        metrics.compare_paired(table, table.assign(utterance_id="x" + table["utterance_id"]))
    with pytest.raises(ValueError, match="disagree"):
        metrics.compare_paired(table, table.assign(emotion="anger"))


def test_holm_by_hand():
    np.testing.assert_allclose(metrics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(metrics.holm([0.02, np.nan, 0.9]), [0.04, np.nan, 0.9])
    assert metrics.holm([]).shape == (0,)


def test_calibration():
    table = predictions(n=100)
    table[["p_anger", "p_fear", "p_sadness"]] = [0.75, 0.25, 0.0]
    table["prediction"] = "anger"
    right = np.arange(100) < 60  # says 0.75, is right in 0.6
    table["emotion"] = np.where(right, "anger", "fear")
    assert metrics.expected_calibration_error(table) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("truth", "prediction", "words"),
    [([], [], "no predictions"), (["a"], ["a", "b"], "equally long"), (["a", None], ["a", "a"], "known")],
)
def test_what_cannot_be_scored(truth, prediction, words):
    with pytest.raises(ValueError, match=words):
        metrics.unweighted_average_recall(truth, prediction)
