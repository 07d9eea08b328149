import numpy as np
import pandas as pd
import pytest
from scipy import stats
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
    by_fold = [reference.recall_score(t["emotion"], t["prediction"], average="macro") for _, t in table.groupby("fold")]
    assert scores["uar_fold_mean"] == pytest.approx(np.mean(by_fold))


def test_the_interval_equals_a_literal_jackknife():
    table = predictions(n=60, speakers=6)
    uar = metrics.unweighted_average_recall(table["emotion"], table["prediction"])
    left_out = []
    for speaker in sorted(set(table["speaker"])):
        rows = table[table["speaker"] != speaker]
        left_out.append(reference.recall_score(rows["emotion"], rows["prediction"], average="macro"))
    error = np.sqrt(5 / 6 * np.sum((left_out - np.mean(left_out)) ** 2))
    reach = stats.t.ppf(0.975, 5) * error / (uar * (1 - uar))
    wanted = [1 / (1 + np.exp(-(np.log(uar / (1 - uar)) + sign * reach))) for sign in (-1, 1)]
    np.testing.assert_allclose(metrics.speaker_interval(table), wanted)


def test_speakers_who_differ_widen_the_interval():
    alike = predictions(n=400, speakers=10)
    unlike = alike.assign(prediction=np.where(alike["speaker"] < "05", alike["emotion"], "anger"))
    width = [np.ptp(metrics.speaker_interval(table)) for table in (alike, unlike)]
    assert width[1] > 2 * width[0]


@pytest.mark.parametrize("n", [1, 4])
def test_few_speakers_have_values_of_their_own_and_no_interval(n):
    table = predictions(speakers=n)
    assert np.isnan(metrics.speaker_interval(table)).all()
    assert np.isnan(metrics.score_predictions(table)["uar_low"])
    by_speaker = metrics.speaker_scores(table)
    assert list(by_speaker["speaker"]) == sorted(set(table["speaker"]))
    for row in by_speaker.itertuples():
        own = table[table["speaker"] == row.speaker]
        assert row.uar == pytest.approx(metrics.unweighted_average_recall(own["emotion"], own["prediction"]))
        assert row.n_utterances == len(own)


def test_an_answer_that_never_varies_has_no_width():
    table = predictions(speakers=6).assign(prediction="anger")
    assert metrics.speaker_interval(table) == pytest.approx((1 / 3, 1 / 3))


def made_up_speakers(random, trials, n_speakers, n_classes=4, clips=8, seeds=1):
    """Confusion matrices (trials, seeds, n_speakers, …) of people whom a system understands more or less well."""
    logit = np.linspace(-0.1, 1.6, n_classes) + random.normal(0, 0.6, (trials, 1, n_speakers, 1))
    logit = logit + random.normal(0, 0.4, (trials, 1, n_speakers, n_classes))
    logit = logit + random.normal(0, 0.3 if seeds > 1 else 0, (trials, seeds, 1, 1))
    hits = random.binomial(clips, 1 / (1 + np.exp(-logit)))
    counts = hits[..., None] * np.eye(n_classes, dtype=int)
    counts[..., :, 0] += clips - hits  # every miss is taken for the first class, which is not missed here
    return counts


def percentile_bootstrap(random, counts, n_resamples=300):
    drawn = random.multinomial(len(counts), [1 / len(counts)] * len(counts), size=n_resamples)
    return np.quantile(metrics._mean_recall(np.tensordot(drawn, counts, axes=1)), [0.025, 0.975])


# n_speakers: coverage of the interval in use, and of resampling speakers, where 0.95 is promised
COVERAGE = {3: (0.953, 0.71), 4: (0.952, 0.78), 5: (0.953, 0.82), 10: (0.950, 0.89), 24: (0.956, 0.93)}


@pytest.mark.parametrize("n_speakers", COVERAGE)
def test_intervals_hold_the_truth_as_often_as_they_say(n_speakers):
    random = np.random.default_rng(n_speakers)
    truth = metrics._mean_recall(made_up_speakers(random, 1, 200_000)[0, 0].sum(axis=0))
    counts = made_up_speakers(random, 2000, n_speakers)[:, 0]
    low, high = metrics.interval_of_counts(counts)
    resampled = np.array([percentile_bootstrap(random, people) for people in counts])
    covered = np.mean((low <= truth) & (truth <= high))
    covered_by_resampling = np.mean((resampled[:, 0] <= truth) & (truth <= resampled[:, 1]))
    assert covered == pytest.approx(COVERAGE[n_speakers][0], abs=0.015)
    assert covered_by_resampling == pytest.approx(COVERAGE[n_speakers][1], abs=0.03)


def of_counts(counts):
    """The predictions that a (n_speakers, n_classes, n_classes) stack of confusion matrices counts."""
    speaker, truth, guess = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    table = pd.DataFrame({"speaker": speaker, "emotion": truth, "prediction": guess}).astype(str)
    return table.assign(utterance_id=[f"u{i}" for i in range(len(table))], start_ms=np.nan, fold=0)


def test_intervals_over_seeds_hold_speakers_and_seeds():
    random, covered, narrow = np.random.default_rng(0), 0, 0
    people = made_up_speakers(random, 200, 10, seeds=5)
    truth = metrics._mean_recall(made_up_speakers(random, 400, 500, seeds=2).sum(axis=2)).mean()
    for runs in people:
        found = metrics.score_seeds([of_counts(counts) for counts in runs])
        covered += found["uar_low"] <= truth <= found["uar_high"]
        low, high = metrics.speaker_interval(of_counts(runs[0]))
        narrow += low <= truth <= high
    assert covered >= 184 and narrow < 178  # of 200: .95 and .86; one seed's interval does not know the others
    assert found["n_seeds"] == 5 and found["uar_sd"] > 0
    uar = [metrics.score_predictions(of_counts(counts))["uar"] for counts in runs]
    assert found["uar_mean"] == pytest.approx(np.mean(uar)) and found["uar_sd"] == pytest.approx(np.std(uar, ddof=1))


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
        {"utterance_id": list("abcd"), "start_ms": np.nan, "speaker": ["01", "01", "02", "02"], "emotion": truth}
    ).assign(prediction=truth, fold=0)
    second = first.assign(prediction=["fear", "anger", "anger", "fear"])
    found = metrics.compare_paired(first, second)
    assert found["difference"] == pytest.approx(0.5)
    assert found["p"] == 1.0  # four exchanges: all give a gap of 0.5 either way
    assert (found["n_speakers"], found["n_utterances"]) == (2, 4)
    assert np.isnan([found["low"], found["high"]]).all()  # two speakers are too few for an interval


def test_the_interval_of_a_difference_by_hand():
    # six speakers with two clips of each emotion: the first system is right everywhere, the second misses anger
    # once with speakers 1 to 3: differences of 1/4, 1/4, 1/4, 0, 0, 0, whose mean has this t interval
    rows = pd.DataFrame(
        [(s, e, k) for s in "123456" for e in ("anger", "fear") for k in "ab"], columns=["speaker", "emotion", "take"]
    )
    rows = rows.assign(utterance_id=rows["speaker"] + rows["emotion"] + rows["take"], start_ms=np.nan, fold=0)
    missed = (rows["speaker"] < "4") & (rows["emotion"] == "anger") & (rows["take"] == "a")
    first, second = (
        rows.assign(prediction=rows["emotion"]),
        rows.assign(prediction=rows["emotion"].mask(missed, "fear")),
    )
    found, differences = metrics.compare_paired(first, second), [0.25] * 3 + [0] * 3
    reach = stats.t.ppf(0.975, 5) * stats.sem(differences)
    assert found["difference"] == pytest.approx(0.125)
    assert (found["low"], found["high"]) == pytest.approx((0.125 - reach, 0.125 + reach))


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
    clips = table.assign(speaker=table["utterance_id"])
    with pytest.raises(ValueError, match="speakers are the units"):
        metrics.compare_paired(clips, clips)


def test_uar_leaves_out_a_class_that_is_only_predicted_where_audmetric_counts_it():
    truth, guess = list("aaff"), list("aafs")
    assert metrics.unweighted_average_recall(truth, guess) == pytest.approx(
        reference.balanced_accuracy_score(truth, guess)
    )
    as_audmetric = reference.recall_score(truth, guess, average="macro", zero_division=0)
    assert metrics.unweighted_average_recall(truth, guess) == pytest.approx(as_audmetric * 3 / 2)


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
