import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.metrics import expected_calibration_error, score_predictions
from ser_utils.evaluation.results import load_decisions, measure_adaptation, stands_for_its_system
from ser_utils.evaluation.splits import FITTED, audit_leakage, leaks_beyond, make_folds
from ser_utils.profiles import PROFILES, settings, systems
from ser_utils.systems import ensemble
from ser_utils.workspace import Workspace

EMOTIONS = ("anger", "calm", "fear")
CLEAN = dict.fromkeys(FITTED, ())


@pytest.fixture(scope="module")
def table():
    rows = [(f"{s}{e}{t}", f"{s}", e) for s in range(6) for e in EMOTIONS for t in range(20)]
    made = pd.DataFrame(rows, columns=["utterance_id", "speaker", "emotion"])
    return made.assign(corpus="made_up", gender="", sentence="", pcm_sha256=made["utterance_id"])


@pytest.fixture(scope="module")
def folds(table):
    return make_folds(table, "speaker", system="ensemble")


def guess(table, folds, seed, skill=1.5):
    """Predictions of a member that hears the truth through noise of its own."""
    tested = folds[folds["role"] == "test"].merge(table, on="utterance_id")
    random = np.random.default_rng(seed)
    heard = skill * np.eye(3)[tested["emotion"].map(EMOTIONS.index)] + random.standard_normal((len(tested), 3))
    p = np.exp(heard) / np.exp(heard).sum(axis=1, keepdims=True)
    made = tested[["utterance_id", "start_ms", "speaker", "emotion", "fold"]]
    made = made.assign(
        **{f"p_{e}": p[:, i] for i, e in enumerate(EMOTIONS)}, prediction=np.array(EMOTIONS)[p.argmax(1)]
    )
    return made.sample(frac=1, random_state=seed)  # members need not keep one order


def test_without_other_speakers_all_members_count_equally(table, folds):
    members = {f"vae-{i}": guess(table, folds, i) for i in range(4)}
    pooled, weights, _ = ensemble.pool(members, folds, lambda folds, fold: [])
    assert (weights == 0.25).all(axis=None)
    for row in pooled.sample(20, random_state=0).itertuples():
        rows = [member[member["utterance_id"] == row.utterance_id].iloc[0] for member in members.values()]
        products = {e: np.prod([member[f"p_{e}"] for member in rows]) ** 0.25 for e in EMOTIONS}
        assert row.p_fear == pytest.approx(products["fear"] / sum(products.values()))
        assert row.prediction == max(products, key=products.get)


def test_it_is_better_than_its_members_and_as_sure_as_it_is_right(table, folds):
    members = {f"vae-{i}": guess(table, folds, i) for i in range(6)}
    pooled, _, told = ensemble.pool(members, folds)
    assert score_predictions(pooled)["uar"] > max(score_predictions(m)["uar"] for m in members.values()) + 0.05
    equal, _, _ = ensemble.pool(members, folds, lambda folds, fold: [])  # not raised to any power: not sure enough
    assert expected_calibration_error(pooled) < expected_calibration_error(equal) - 0.05
    assert leaks_beyond(audit_leakage(folds, table, fit=CLEAN | {"selection": told}), "speaker") == ""


def test_members_that_say_nothing_weigh_little_and_equals_weigh_the_same(table, folds):
    equals = {f"vae-{i}": guess(table, folds, i) for i in range(4)}
    noise = {f"sigwavnet-{i}": guess(table, folds, 10 + i, skill=0) for i in range(8)}
    _, weights, _ = ensemble.pool(equals | noise, folds)
    assert weights[list(noise)].max(axis=None) < 0.5 * weights[list(equals)].min(axis=None)
    _, weights, _ = ensemble.pool(equals, folds)
    assert (weights.std(axis=1) < 0.4 * weights.mean(axis=1)).all()


def test_of_shrinkages_within_one_standard_error_the_largest_is_taken(monkeypatch):
    losses = {  # of four speakers; beside the first: .05 ± .16, .1 ± .3 and 8.1 ± .1
        1.0: [10, 10, 10, 10],
        10.0: [10.1, 9.95, 10.05, 9.95],
        100.0: [10.2, 9.9, 10.1, 9.9],
        1000.0: [12, 12, 12, 12.1],
    }
    monkeypatch.setattr(ensemble, "_losses_of_speakers", lambda logs, truth, speakers, shrinkage: losses[shrinkage])
    monkeypatch.setattr(ensemble, "fit_weights", lambda logs, truth, shrinkage: shrinkage)
    assert ensemble._choose_weights(None, None, np.arange(4)) == 100
    losses[100.0] = [11, 11, 11, 11.1]
    assert ensemble._choose_weights(None, None, np.arange(4)) == 10
    assert ensemble._choose_weights(None, None, np.zeros(4)) == 1000  # one speaker says nothing of others


def test_the_slope_of_the_weights_loss_is_right():
    """Fitted weights are a minimum: no small step away from them lowers the literal loss."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 60)
    logs = np.log(random.dirichlet(np.ones(3), (4, 60)) + 0.3 * np.eye(3)[truth])

    def literal(weights):
        p = np.exp(sum(w * log for w, log in zip(weights, logs, strict=True)))
        p /= p.sum(axis=1, keepdims=True)
        share = np.bincount(truth) / len(truth)
        price = 3.0 * ((np.log(weights) - np.log(weights).mean()) ** 2).sum()
        return sum(-np.log(p[i, k]) / (3 * share[k]) for i, k in enumerate(truth)) + price

    fitted = ensemble.fit_weights(logs, truth, 3.0)
    for step in 0.01 * random.standard_normal((20, 4)):
        assert literal(fitted * np.exp(step)) > literal(fitted) - 1e-4


def test_members_of_other_clips_or_folds_are_refused(table, folds):
    first, second = guess(table, folds, 0), guess(table, folds, 1)
    for other in (second.iloc[1:], second.assign(fold=(second["fold"] + 1) % 6), second.drop(columns="p_fear")):
        with pytest.raises(
            ValueError, match="spectrogram_cnn-b decided about other clips, folds or emotions than vae-a"
        ):
            ensemble.pool({"vae-a": first, "spectrogram_cnn-b": other}, folds)


def test_a_choice_on_test_is_caught(table, folds):
    members = {f"vae-{i}": guess(table, folds, i) for i in range(3)}

    def on_test(folds, fold):
        return list(folds.loc[(folds["fold"] == fold) & (folds["role"] == "test"), "utterance_id"])

    def on_one_test_clip(folds, fold):
        return [*ensemble.speakers_of_other_folds(folds, fold), on_test(folds, fold)[0]]

    for planted in (on_test, on_one_test_clip):
        _, _, told = ensemble.pool(members, folds, planted)
        audit = audit_leakage(folds, table, fit=CLEAN | {"selection": told})
        assert leaks_beyond(audit, "speaker") == "selection on test"


@pytest.fixture
def workspace(tmp_path, table, folds):
    made = Workspace("demo", "smoke", 0, tmp_path)
    audits = {
        "a": CLEAN,
        "b": {key: () for key in FITTED if key != "encoder"},
        "a_adapted": CLEAN | {"adaptation": "test"},
    }
    for seed, (model, told) in enumerate(audits.items()):
        name = {"system": "opensmile", "model": model, "protocol": "speaker", "folds": folds.attrs["folds"]}
        made.save_predictions(guess(table, folds, seed), **name)
        made.save_audit(audit_leakage(folds, table, fit=told), **name)
        made.save_costs({"parameters": 10, "seconds_to_train": 1, "ms_per_utterance": 2}, **name)
    return made


def leaks_of(workspace, model):
    return leaks_beyond(workspace.load_table(f"audits/ensemble-{model}-speaker-leave_one_speaker_out"), "speaker")


def test_what_leaks_into_a_member_leaks_into_the_ensemble(workspace, table):
    asked = ("speaker", "leave_one_speaker_out")
    for model, wanted in [
        ("new_speaker", ["opensmile-a", "opensmile-b"]),
        ("adapted", ["opensmile-a_adapted", "opensmile-b"]),
    ]:
        members, missing = ensemble.evaluate_ensemble(workspace, table, model, [*wanted, "vae-both"], *asked)
        assert list(members) == wanted and missing == ["vae-both"]
    assert leaks_of(workspace, "new_speaker") == "unknown: encoder fitted on test"
    assert leaks_of(workspace, "adapted") == "adapted; unknown: encoder fitted on test"
    decided = load_decisions(workspace)
    gain = measure_adaptation(decided)
    assert gain[["system", "model", "knows_nothing"]].values.tolist() == [["ensemble", "adapted", "new_speaker"]]
    assert gain["difference"].item() == pytest.approx(gain["uar"].item() - gain["uar_without"].item())


def test_members_that_were_picked_by_test_scores_are_told_where_those_clips_are_tested(workspace, table):
    wanted, asked = ["opensmile-a", "opensmile-b"], ("speaker", "leave_one_speaker_out")
    ensemble.evaluate_ensemble(workspace, table.assign(corpus="emodb"), "new_speaker", wanted, *asked)
    assert leaks_of(workspace, "new_speaker") == "selection on test; unknown: encoder fitted on test"


def test_one_member_is_no_ensemble(workspace, table):
    members, missing = ensemble.evaluate_ensemble(
        workspace, table, "new_speaker", ["opensmile-a", "vae-both"], "speaker", "leave_one_speaker_out"
    )
    assert list(members) == ["opensmile-a"] and missing == ["vae-both"]
    assert not any((workspace.build / "predictions").glob("ensemble-*"))


def test_it_is_right_the_more_often_the_more_members_agree(table, folds):
    members = {f"vae-{i}": guess(table, folds, i, skill=0.8) for i in range(4)}
    pooled, _, _ = ensemble.pool(members, folds)
    agreeing = ensemble.agreement(members, pooled)
    assert agreeing["n_utterances"].sum() == len(pooled)
    few, all_of_them = agreeing[agreeing["members_agreeing"] < 4], agreeing["share_right"].iloc[-1]
    assert all_of_them > np.average(few["share_right"], weights=few["n_utterances"]) + 0.2


@pytest.mark.parametrize("profile", PROFILES)
def test_the_model_that_knows_nothing_has_no_member_that_knows_a_speaker(profile):
    members = settings("ensemble", profile)
    adapted = {f"{name}-{model}" for name, system in systems().items() for model in system.adapted}
    assert not adapted & set(members["new_speaker"]) and adapted & set(members["adapted"])
    # those of its members that can adapt, so that the difference is what a speaker's clips are worth
    adapting = [name for name in members["new_speaker"] if f"{name}_adapted" in adapted]
    assert [name.removesuffix("_adapted") for name in members["adapted"]] == adapting
    assert stands_for_its_system("ensemble", "new_speaker") and not stands_for_its_system("ensemble", "adapted")
