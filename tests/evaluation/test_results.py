import json
import shutil

import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation import metrics, results
from ser_utils.evaluation.splits import audit_leakage, make_folds
from ser_utils.profiles import systems
from ser_utils.workspace import REPOSITORY, Workspace, WorkspaceError, write_json
from tools import verify as shipped

EMOTIONS = ("anger", "fear", "neutral")


@pytest.fixture(scope="module")
def utterances():
    rows = [
        (f"{s:02d}{e}{t}", "demo", f"{s:02d}", "female" if s % 2 else "male", e, str(t))
        for s in range(1, 7)
        for e in EMOTIONS
        for t in range(5)
    ]
    columns = ["utterance_id", "corpus", "speaker", "gender", "emotion", "sentence"]
    return pd.DataFrame(rows, columns=columns).assign(duration_s=0.3, pcm_sha256=lambda t: t["utterance_id"])


def guess(rows, skill, seed):
    random = np.random.default_rng(seed)
    p = random.dirichlet([1, 1, 1], len(rows))
    truth = rows["emotion"].map(EMOTIONS.index).to_numpy()
    p[np.arange(len(p)), truth] += (random.random(len(p)) < skill) * 2
    table = rows[["utterance_id", "start_ms", "fold", "speaker", "emotion"]].reset_index(drop=True)
    table[[f"p_{emotion}" for emotion in EMOTIONS]] = p / p.sum(axis=1, keepdims=True)
    return table.assign(prediction=np.array(EMOTIONS)[p.argmax(axis=1)])


@pytest.fixture
def workspace(tmp_path, utterances):
    made = Workspace("demo", "quick", 0, tmp_path)
    for system, model, protocol, skill in [
        ("prototype", "per_speaker", "paper", 0.9),
        ("prototype", "per_speaker", "utterance", 0.6),
        ("vae", "latent", "speaker", 0.4),
        ("vae", "both", "speaker", 0.9),
    ]:
        split = make_folds(utterances, protocol, system=system)
        tested = split[split["role"] == "test"].merge(utterances, on="utterance_id")
        name = {"system": system, "model": model, "protocol": protocol, "folds": split.attrs["folds"]}
        made.save_predictions(guess(tested, skill, seed=len(model)), **name)
        made.save_audit(audit_leakage(split, utterances), **name)
        made.save_costs({"parameters": 10, "seconds_to_train": 2.5, "ms_per_utterance": 3}, **name)
    runs = {number: {"n_utterances": len(utterances), "corpus": "c0ffee"} for number in ("00", "10")}
    write_json(made.results / "provenance.json", {"profile": "quick", "seed": 0, "notebooks": runs})
    return made


def test_scores_are_gathered_in_the_fixed_columns(workspace):
    scores = results.gather_scores(workspace)
    fixed = (
        "dataset system model protocol folds level n_speakers n_utterances uar uar_low uar_high uar_fold_mean "
        "accuracy macro_f1 profile seed leaks"
    )
    assert " ".join(scores) == fixed
    assert list(scores["system"]) == ["prototype"] * 3 + ["vae"] * 2
    assert list(scores["level"]) == ["segment", "utterance", "utterance", "utterance", "utterance"]
    assert list(scores["protocol"]) == ["paper", "paper", "utterance", "speaker", "speaker"]
    assert (scores["uar_low"] <= scores["uar"]).all() and (scores["uar"] <= scores["uar_high"]).all()
    leaks = dict(zip(scores["protocol"], scores["leaks"], strict=True))
    assert leaks["utterance"] == leaks["speaker"] == ""
    assert leaks["paper"].startswith("overlapping segments; utterances")
    assert "feature_network (05)" in results.missing_systems(scores)


def test_scores_are_the_same_to_the_byte(workspace):
    written = []
    for _ in range(2):
        shipped.save_results(workspace, scores=results.gather_scores(workspace))
        written.append((workspace.results / "scores.csv").read_bytes())
    assert written[0] == written[1]


def test_what_was_not_audited_says_so(workspace):
    (workspace.build / "audits" / "vae-both-speaker-leave_one_speaker_out.parquet").unlink()
    scores = results.gather_scores(workspace).set_index("model")
    assert scores.loc["both", "leaks"] == "not audited"


def test_comparisons(workspace, utterances):
    other = results.load_predictions(workspace, "vae", "latent", "speaker", "leave_one_speaker_out")
    workspace.save_predictions(
        other, system="baseline", model="mfcc", protocol="speaker", folds="leave_one_speaker_out"
    )
    found = results.decisions(workspace, "speaker")
    assert list(found) == ["vae · both", "baseline · mfcc"]
    pairs = results.compare_all(found)
    assert len(pairs) == 1 and pairs["difference"].item() > 0.2
    square = results.square(pairs, "difference", list(found))
    assert square.iloc[0, 1] == -square.iloc[1, 0] == pairs["difference"].item()
    gender = results.by_gender(found, utterances)
    assert gender[["female", "male"]].notna().all(axis=None)
    wrong = results.errors(found)
    assert len(wrong) == len(utterances)
    assert wrong["vae · both"].mean() == pytest.approx(
        1 - results.gather_scores(workspace).set_index("model").loc["both", "accuracy"]
    )


def test_failing_together_by_hand():
    wrong = pd.DataFrame({"a": [1, 1, 0, 0], "b": [1, 1, 0, 0], "c": [0, 0, 1, 1], "d": [1, 0, 1, 0]}).astype(
        bool
    )
    kappa = results.failing_together(wrong)
    assert kappa.loc["a"].tolist() == [1, 1, -1, 0]


def test_fall_goes_to_the_strictest_known_protocol(workspace):
    fall = results.fall(results.gather_scores(workspace)).set_index("model")
    row = fall.loc["per_speaker"]
    assert row["fall"] == pytest.approx(row["paper"] - row["utterance"])
    assert np.isnan(fall.loc["both", "fall"])  # no published split was run


def test_published_figures_stand_beside_ours(workspace):
    scores = results.gather_scores(workspace)
    table = results.beside_published(scores)
    assert set(table["published"]) == {"none published"}  # nothing was published for the demo corpus
    as_emodb = scores.assign(dataset="emodb", system="sigwavnet", protocol="paper", folds="10_fold")
    other = results.beside_published(as_emodb).set_index("metric")
    assert np.isnan(other.loc["accuracy", "ours"])  # our best model is not theirs
    as_emodb.loc[as_emodb["accuracy"].idxmin(), "model"] = "network"
    table = results.beside_published(as_emodb).set_index("metric")
    assert table.loc["accuracy", "published"] == 0.901
    assert table.loc["accuracy", "ours"] == scores["accuracy"].min()


def test_published_models_are_named_as_ours():
    ours = {
        (row.system, row.model)
        for path in REPOSITORY.glob("results/*/scores.csv")
        for row in pd.read_csv(path).itertuples()
    }
    published = results.load_published()
    named = set(zip(published["system"], published["model"], strict=True)) - ours
    assert {model for _, model in named} == {
        "wav2vec2_pooled",
        "hubert_pooled",
    }  # their weights could not be had


def test_models_that_hear_little_are_not_compared(workspace):
    stands = results.stands_for_its_system
    assert (
        stands("baseline", "mfcc") and stands("vae", "both") and stands("speech_transformer", "hubert_pooled")
    )
    assert not stands("baseline", "duration") and not stands("baseline", "chance")
    assert not stands("speech_transformer", "random_hubert_pooled") and not stands("vae", "latent")
    assert list(results.decisions(workspace, "speaker")) == ["vae · both"]


def test_one_family_is_smaller_than_all_pairs():
    rows = pd.DataFrame({"utterance_id": [f"u{i}" for i in range(8)], "speaker": list("aabbccdd"), "fold": 0,
                         "emotion": ["anger", "fear"] * 4})  # fmt: skip
    right, wrong = rows.assign(prediction=rows["emotion"]), rows.assign(prediction="anger")
    found = {"one": right, "two": right, results.TO_BEAT: wrong}
    beaten, pairs = results.compare_all(found, against=results.TO_BEAT), results.compare_all(found)
    assert (
        list(beaten["first"]) == ["one", "two"]
        and set(beaten["second"]) == {results.TO_BEAT}
        and len(pairs) == 3
    )
    assert (beaten["p"] == metrics.smallest_p(4)).all() and (
        beaten["p_holm"] == 2 * metrics.smallest_p(4)
    ).all()
    assert results.compare_all(found, against="nobody").empty


def test_published_table_is_complete():
    published = results.load_published()
    assert set(published["system"]) <= set(systems())
    assert (published[["how", "source"]] != "").all(axis=None)
    assert published["value"].between(0, 1).all()


def test_seeds_join_as_repeated_runs(workspace):
    other = Workspace("demo", "quick", 1, workspace.root)
    name = {"system": "vae", "model": "both", "protocol": "speaker", "folds": "leave_one_speaker_out"}
    other.save_predictions(
        results.load_predictions(workspace, *name.values()).assign(prediction="anger"), **name
    )
    seeds = results.gather_seeds(workspace)
    scores = results.gather_scores(workspace).set_index("model")
    assert seeds["model"].tolist() == ["both"] and seeds["n_seeds"].item() == 2
    assert seeds["uar_mean"].item() == pytest.approx((scores.loc["both", "uar"] + 1 / 3) / 2)


# decisions that ship


def test_scores_are_made_again_from_the_decisions_that_ship(workspace, monkeypatch):
    monkeypatch.setattr(shipped, "has_opensmile", lambda: True)
    shipped.save_results(workspace, scores=results.gather_scores(workspace))
    shipped.keep_decisions(workspace)
    shutil.rmtree(workspace.build)
    assert shipped.rescore(workspace) == []
    elsewhere = shipped.restore_decisions("demo", workspace.results, workspace.root / "elsewhere")
    assert (elsewhere.profile, elsewhere.seed) == ("quick", 0)
    columns = ["model", "uar", "uar_low", "leaks"]
    committed = pd.read_csv(workspace.results / "scores.csv", keep_default_na=False)[columns]
    pd.testing.assert_frame_equal(results.gather_scores(elsewhere)[columns], committed, atol=1e-6)
    alter(workspace.results / "scores.csv", "uar", 1, 0.5)
    assert any("(utterance): uar was 0.5, is" in line for line in shipped.rescore(workspace))


def test_decisions_that_were_altered_are_refused(workspace):
    shipped.save_results(workspace, scores=results.gather_scores(workspace))
    shipped.keep_decisions(workspace)
    file = workspace.results / "decisions" / "predictions" / "vae-both-speaker-leave_one_speaker_out.parquet"
    pd.read_parquet(file).assign(prediction="anger").to_parquet(file)
    with pytest.raises(WorkspaceError, match="vae-both-speaker.*altered since notebook 10 wrote it"):
        shipped.rescore(workspace)
    file.unlink()
    with pytest.raises(WorkspaceError, match="is missing"):
        shipped.rescore(workspace)


@pytest.mark.parametrize(
    "folder", sorted(REPOSITORY.glob("results/*/decisions")), ids=lambda f: f.parent.name
)
def test_every_score_that_ships_follows_from_its_decisions(folder):
    assert shipped.rescore(Workspace(folder.parent.name)) == []


# verify


@pytest.fixture
def verified(workspace):
    scores, costs = results.gather_scores(workspace), results.gather_costs(workspace)
    again = Workspace("demo", "quick", 0, workspace.root / "again")
    for place in (workspace, again):
        shipped.save_results(place, scores=scores, costs=costs)
    return workspace, again


def alter(path, column, row, value):
    table = pd.read_csv(path, keep_default_na=False)
    table.loc[row, column] = value
    table.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")


def test_verify_passes_and_finds_one_altered_number(verified):
    workspace, again = verified
    assert shipped.verify(workspace, again.root) == []
    was = pd.read_csv(workspace.results / "scores.csv").loc[1, "uar"]
    alter(workspace.results / "scores.csv", "uar", 1, was + 0.001)  # far below the tolerance
    assert shipped.verify(workspace, again.root) == ["scores.csv was altered since notebook 10 wrote it"]


def test_verify_lists_what_came_out_differently(verified):
    workspace, again = verified
    scores = again.results / "scores.csv"
    table = pd.read_csv(scores)
    row = int(table.query("model == 'both'").index[0])
    was, chance = table.loc[row, "uar"], 2 / table.loc[row, "n_utterances"] ** 0.5
    alter(scores, "uar", row, was - 0.9 * chance)  # a network trained elsewhere may
    assert shipped.verify(workspace, again.root) == []
    alter(scores, "uar", row, was - 1.1 * chance)
    alter(scores, "leaks", 3, "speakers")
    alter(scores, "n_utterances", 1, 7)
    found = shipped.verify(workspace, again.root)
    assert len(found) == 3
    assert any(
        line.startswith("vae-both-speaker-leave_one_speaker_out (utterance): uar was")
        and f"tolerance {chance:.2g}" in line
        for line in found
    )
    assert any("leaks was , is speakers" in line for line in found)
    pd.read_csv(scores, keep_default_na=False).iloc[1:].to_csv(scores, index=False)
    assert any("not recomputed" in line for line in shipped.verify(workspace, again.root))


def test_verify_stops_where_recordings_are_others(verified):
    workspace, again = verified
    made = json.loads((workspace.results / "provenance.json").read_text())
    assert shipped._other_recordings(made, workspace.results) == ""
    other = {"00": {"n_utterances": 535, "corpus": "beef"}}
    write_json(again.results / "provenance.json", {"notebooks": other})
    found = shipped._other_recordings(made, again.results)
    assert f"535 here, {made['notebooks']['00']['n_utterances']} there" in found


def test_extent_says_what_is_missing_of_a_corpus():
    scores = pd.DataFrame({"model": ["chance", "mfcc"], "uar": [0.25, 0.8], "n_speakers": [10, 10]})
    assert shipped.extent("emodb", 339, scores) == (
        "339 of 535 recordings, 10 speakers, 4 of 7 emotions, chance 25.0"
    )
    assert shipped.extent("mine", 12, scores) == "12 recordings, 10 speakers, 4 emotions, chance 25.0"


def test_closeness_tells_equal_from_near(verified):
    scores = pd.read_csv(verified[0].results / "scores.csv")
    n = len(scores)
    assert shipped.closeness(scores, scores) == f"Equal to the last digit: {n} of {n} rows of scores."
    near = scores.copy()
    near.loc[1, "uar"] -= 0.02
    near.loc[2, "leaks"] = "speakers"
    text = shipped.closeness(scores, near)
    row = scores.loc[1]
    assert text.startswith(f"Equal to the last digit: {n - 2} of {n} rows")
    assert (
        f"{row['system']}-{row['model']}-" in text and f"{row['uar']:.3f} and {row['uar'] - 0.02:.3f}" in text
    )


def test_many_clips_allow_no_more_than_a_tenth(verified):
    scores = pd.read_csv(verified[0].results / "scores.csv").assign(n_utterances=1440)
    other = scores.assign(uar=scores["uar"] - 0.11)
    assert len(shipped.compare_scores(scores, other)) == len(scores)
    assert shipped.compare_scores(scores, scores.assign(uar=scores["uar"] - 0.09)) == []


def test_verify_by_command_line(verified, capsys):
    workspace, again = verified
    command = ["verify", "--dataset", "demo", "--root", str(workspace.root), "--recomputed", str(again.root)]
    with pytest.raises(SystemExit) as ended:
        shipped.main(command)
    assert ended.value.code == 0 and "finds them right" in capsys.readouterr().out
    (workspace.results / "costs.csv").unlink()
    with pytest.raises(SystemExit) as ended:
        shipped.main(command)
    assert ended.value.code == 1 and "costs.csv is missing" in capsys.readouterr().out


def test_a_datasets_table_has_protocols_and_costs(verified):
    workspace, _ = verified
    scores, costs = results.gather_scores(workspace), results.gather_costs(workspace)
    uar = scores.set_index("model").loc["both", "uar"]
    table = shipped.dataset_table(scores, costs)
    assert f"| vae | both | – | – | – | {100 * uar:.1f} (" in table and "| 10 | 2 | 3.0 |" in table


def test_readme_table_is_written_between_its_marks(verified):
    workspace, _ = verified
    readme = workspace.root / "README.md"
    readme.write_text("before\n<!-- scores -->\nold\n<!-- /scores -->\nafter\n")
    shipped.write_readme(workspace.root)
    text = readme.read_text()
    assert text.startswith("before\n<!-- scores -->") and text.endswith("<!-- /scores -->\nafter\n")
    assert "old" not in text and "synthetic" in text
    uar = results.gather_scores(workspace).set_index("model").loc["both", "uar"]
    assert f"| vae | both | – | {100 * uar:.1f} (" in text and ") speaker |" in text
    assert "latent" not in text  # not of the models that stand for their system
    whole = (workspace.root / "results" / "README.md").read_text()
    assert "## Demo corpus (synthetic)" in whole and "| vae | both | – | – | – |" in whole
    once = text
    shipped.write_readme(workspace.root)
    assert readme.read_text() == once
    readme.write_text("no marks")
    with pytest.raises(SystemExit, match="needs the marks"):
        shipped.write_readme(workspace.root)
