import functools

import numpy as np
import pandas as pd
import pytest

from ser_utils.corpora.loading import load_corpus
from ser_utils.evaluation import splits
from ser_utils.evaluation.splits import audit_leakage, leaks_beyond, make_folds
from ser_utils.profiles import systems
from ser_utils.workspace import REPOSITORY
from tools.folds import save_speaker_groups


def corpus(speakers=6, emotions="abcd", texts=5, takes=1, name="made_up"):
    """A full design: every speaker says every text in every emotion."""
    rows = [
        {
            "utterance_id": f"{s:02d}{t}{e}{take}",
            "corpus": name,
            "speaker": f"{s:02d}",
            "gender": "female" if s % 2 else "male",
            "emotion": e,
            "sentence": str(t),
            "duration_s": 0.5,
            "pcm_sha256": f"sound of {s:02d}{t}{e}{take}",
        }
        for s in range(1, speakers + 1)
        for t in range(texts)
        for e in emotions
        for take in range(takes)
    ]
    return pd.DataFrame(rows)


NOTHING = dict.fromkeys(splits.FITTED, ())  # what code says that fits and chooses nothing


def sides(folds, table, column):
    """The values of a column by fold and role."""
    merged = folds.merge(table, on="utterance_id")
    return merged.groupby(["fold", "role"])[column].agg(set).unstack()


EVERY_WAY = [
    ("utterance", None, None),
    ("utterance", None, "prototype"),
    ("utterance", "5_fold", None),
    ("utterance", "2_fold", "prototype"),
    ("sentence", None, None),
    ("sentence", "3_fold", "prototype"),
    ("speaker", None, None),
    ("speaker", "3_speakers", None),
    ("speaker", "5_speakers", "vae"),
    *[("paper", None, system) for system in systems()],
]


@pytest.mark.parametrize(("protocol", "folds", "system"), EVERY_WAY)
def test_contract_and_determinism(protocol, folds, system):
    table = corpus()
    made = make_folds(table, protocol, folds=folds, system=system)
    assert list(made) == ["utterance_id", "start_ms", "fold", "role"]
    assert set(made["role"]) <= {"train", "validation", "test"}
    assert {"train", "test"} <= set(made["role"])
    assert not made.duplicated(["utterance_id", "start_ms", "fold"]).any()
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(make_folds(shuffled, protocol, folds=folds, system=system), made)
    if protocol == "paper" or folds == "5_speakers" or folds is None and protocol != "speaker":
        assert not make_folds(table, protocol, folds=folds, system=system, seed=1).equals(made)


@pytest.mark.parametrize("folds", ["holdout", "5_fold"])
@pytest.mark.parametrize("system", [None, "prototype"])
def test_utterances_are_split_60_20_20_in_each_class_and_speaker(folds, system):
    made = make_folds(corpus(texts=10), "utterance", folds=folds, system=system)
    share = made.groupby("fold")["role"].value_counts(normalize=True).unstack()
    np.testing.assert_allclose(share[["train", "validation", "test"]], [[0.6, 0.2, 0.2]] * len(share), atol=0.01)
    count = made.merge(corpus(texts=10)).groupby(["fold", "speaker", "emotion", "role"]).size()
    assert (count.loc[:, :, :, "test"] == 2).all()
    if folds == "5_fold":
        tested = made[made["role"] == "test"]
        assert sorted(tested["utterance_id"]) == sorted(corpus(texts=10)["utterance_id"])


def test_one_speaker_alone_is_split_as_among_others():
    table = corpus()
    alone = table[table["speaker"] == "02"]
    for protocol in ("utterance", "paper"):
        every = make_folds(table, protocol, system="prototype")
        same = every[every["utterance_id"].isin(alone["utterance_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(make_folds(alone, protocol, system="prototype"), same, check_like=True)


def test_all_systems_test_the_same_utterances_where_no_class_is_rare():
    pd.testing.assert_frame_equal(
        make_folds(corpus(), "utterance", system="prototype"), make_folds(corpus(), "utterance", system="vae")
    )


def test_many_speakers_with_two_clips_each_are_pooled():
    share = make_folds(corpus(speakers=30, texts=2), "utterance")["role"].value_counts(normalize=True)
    np.testing.assert_allclose(share[["train", "validation", "test"]], [0.6, 0.2, 0.2], atol=0.02)


def test_texts_stay_on_one_side():
    table = corpus()
    for folds in ("holdout", "5_fold"):
        by_role = sides(make_folds(table, "sentence", folds=folds), table, "sentence")
        for _, row in by_role.iterrows():
            assert not row["test"] & row["train"]
            assert not row["validation"] & (row["test"] | row["train"])


def test_two_texts_leave_validation_to_utterances():
    table = corpus(texts=2)
    made = make_folds(table, "sentence")
    by_role = sides(made, table, "sentence").loc[0]
    assert by_role["validation"] == by_role["train"] and not by_role["test"] & by_role["train"]
    assert any("validation is grouped by utterance" in note for note in made.attrs["notes"])


def test_texts_are_kept_apart_within_each_of_several_corpora():
    table = pd.concat([corpus(texts=5, name="many"), corpus(texts=2, name="two")], ignore_index=True)
    for column in ("utterance_id", "pcm_sha256"):
        table[column] = table["corpus"] + table[column]
    for folds, n_folds in (("holdout", 1), ("2_fold", 2)):
        made = make_folds(table, "sentence", folds=folds)
        assert made["fold"].nunique() == n_folds
        for name, rows in table.groupby("corpus"):
            by_role = sides(made[made["utterance_id"].isin(rows["utterance_id"])], rows, "sentence")
            assert len(by_role) == n_folds and by_role.notna().all(axis=None), name
            assert not any(row["test"] & row["train"] for _, row in by_role.iterrows()), name
            if (name, folds) == ("many", "holdout"):
                assert not any(row["validation"] & (row["test"] | row["train"]) for _, row in by_role.iterrows())
        assert sum("two texts are too few" in note for note in made.attrs["notes"]) == 1
    fewer = make_folds(table, "sentence", folds="5_fold").attrs
    assert fewer["folds"] == "2_fold" and "5_fold was asked for, but a corpus has only 2 texts" in fewer["notes"]
    with pytest.raises(ValueError, match="at least two texts of each corpus, found one of two"):
        make_folds(table[(table["corpus"] == "many") | (table["sentence"] == "0")], "sentence")


@pytest.mark.parametrize("folds", [None, "3_speakers", "6_speakers"])
def test_speakers_stay_on_one_side_and_each_is_tested_once(folds):
    table = corpus()
    by_role = sides(make_folds(table, "speaker", folds=folds), table, "speaker")
    for _, row in by_role.iterrows():
        assert not row["test"] & row["train"]
        assert not row["validation"] & (row["test"] | row["train"])
    assert sorted(s for test in by_role["test"] for s in test) == sorted(table["speaker"].unique())


def test_groups_of_speakers_are_balanced_by_gender():
    table = corpus(speakers=12)
    groups = sides(make_folds(table, "speaker", folds="3_speakers"), table, "speaker")["test"]
    for group in groups:
        assert sum(int(speaker) % 2 for speaker in group) == 2


def test_same_name_in_two_corpora_is_two_speakers():
    two = pd.concat(
        [corpus(speakers=2), corpus(speakers=2, name="other").assign(utterance_id=lambda t: "o" + t["utterance_id"])]
    )
    assert make_folds(two, "speaker")["fold"].nunique() == 4


def test_emobox_folds_of_ravdess():
    table = corpus(speakers=24, texts=2, name="ravdess")
    made = make_folds(table, "speaker")
    assert made.attrs["folds"] == "emobox"
    tested = sides(made, table, "speaker")["test"]
    assert [" ".join(sorted(group)) for group in tested] == list(splits.EMOBOX_RAVDESS)
    few = make_folds(table[table["speaker"] <= "07"], "speaker", folds="emobox")
    assert "6 of EmoBox's" not in str(few.attrs["notes"]) and few["fold"].nunique() == 6 - 1
    with pytest.raises(ValueError, match="RAVDESS"):
        make_folds(corpus(), "speaker", folds="emobox")


def test_three_speakers_validate_by_utterance():
    made = make_folds(corpus(speakers=3), "speaker")
    assert any("validation is grouped by utterance" in note for note in made.attrs["notes"])
    assert leaks_beyond(audit_leakage(made, corpus(speakers=3), fit=NOTHING), "speaker") == ""


@pytest.mark.parametrize(
    ("protocol", "folds", "table"),
    [
        ("utterance", None, corpus(speakers=1, texts=2)),
        ("utterance", "2_fold", corpus(speakers=1, texts=2)),
        ("sentence", None, corpus(speakers=1, texts=2)),
        ("speaker", None, corpus(speakers=2, texts=1)),
    ],
)
def test_test_never_chooses_the_epoch_in_silence(protocol, folds, table):
    with pytest.raises(ValueError, match="without validation, on which vae chooses.* Add some"):
        make_folds(table, protocol, folds=folds, system="vae")
    assert "fit" not in make_folds(table, protocol, folds=folds, system="baseline").attrs
    untold = make_folds(table, protocol, folds=folds)
    others = {key: () for key in splits.FITTED if key != "selection"}
    assert leaks_beyond(audit_leakage(untold, table, fit=others), protocol) == "selection on test"


@pytest.mark.parametrize("protocol", ["utterance", "sentence", "speaker"])
@pytest.mark.parametrize("system", [None, "prototype"])
def test_rare_classes_and_gaps_do_not_stop_it(protocol, system):
    table = corpus(emotions="abcdef")
    of = table["emotion"], table["speaker"], table["sentence"]
    rare = (of[0] == "e") & ~((of[1] == "02") & (of[2] < "2"))  # e: two clips, of one speaker
    gap = (of[0] == "f") & (of[1] < "04")  # f: half the speakers lack it
    once = (of[0] == "d") & (of[2] > "0")  # d: once per speaker
    lonely = (of[1] == "06") & (of[2] > "0")  # speaker 06: one text only
    table = table[~(rare | gap | once | lonely)]
    if system == "prototype" and protocol == "speaker":
        return
    made = make_folds(table, protocol, system=system)
    assert leaks_beyond(audit_leakage(made, table, fit=NOTHING), protocol) == ""
    if protocol == "utterance" and system is None:
        merged = made.merge(table, on="utterance_id")
        roles = merged.groupby("emotion")["role"].agg(set)
        assert all({"train", "test"} <= of_class for of_class in roles)
    if protocol == "speaker":
        assert "2 of 6 folds have no e in train" in made.attrs["notes"]
    if protocol == "sentence" and system == "prototype":
        assert any(note.startswith("left out") and "06" in note for note in made.attrs["notes"])


def test_a_class_of_two_trains_and_tests():
    table = corpus(speakers=1, texts=6)
    table = table[(table["emotion"] != "d") | (table["sentence"] < "2")]
    roles = make_folds(table, "utterance", system="prototype").merge(table).query("emotion == 'd'")["role"]
    assert sorted(roles) == ["test", "train"]


@pytest.mark.parametrize("protocol", ["utterance", "sentence", "speaker"])
def test_identical_audio_stays_on_one_side(protocol):
    table = corpus(texts=6)
    twins = np.arange(0, len(table) - 30, 7)
    table.loc[twins + 30, "pcm_sha256"] = table.loc[twins, "pcm_sha256"].to_numpy()
    made = make_folds(table, protocol, folds="5_fold" if protocol != "speaker" else None)
    by_role = sides(made, table, "pcm_sha256")
    for _, row in by_role.iterrows():
        assert not row["test"] & (row["train"] | row["validation"])
        assert not row["validation"] & row["train"]


def test_unknown_words_are_refused_with_the_known_ones():
    table = corpus()
    for arguments, words in [
        (("speakers",), "paper, utterance, sentence, speaker"),
        (("paper",), "sigwavnet"),
        (("utterance", "loso"), "holdout"),
        (("utterance", "1_fold"), "k from 2"),
        (("speaker", "holdout"), "leave_one_speaker_out"),
    ]:
        with pytest.raises(ValueError, match=words):
            make_folds(table, arguments[0], folds=(*arguments, None)[1])
    with pytest.raises(ValueError, match="two texts.*found 1"):
        make_folds(corpus(texts=1), "sentence")
    with pytest.raises(ValueError, match="20 of 120 utterances have no text"):
        make_folds(table.assign(sentence=table["sentence"].where(table.index >= 20, None)), "sentence")
    with pytest.raises(ValueError, match="two speakers, found 1"):
        make_folds(corpus(speakers=1), "speaker")
    with pytest.raises(ValueError, match="Received twice: '010a0'"):
        make_folds(pd.concat([table, table]), "utterance")
    with pytest.raises(ValueError, match="Missing: emotion"):
        make_folds(table.drop(columns="emotion"), "utterance")
    with pytest.raises(ValueError, match="empty"):
        make_folds(table[:0], "utterance")


# the audit


def found(audit):
    return {kind for kind, count in audit.groupby("kind")["count"].sum().items() if count}


@pytest.mark.parametrize(("protocol", "folds", "system"), EVERY_WAY)
def test_every_protocol_but_paper_keeps_its_word(protocol, folds, system):
    table = corpus()
    made = make_folds(table, protocol, folds=folds, system=system)
    told = {"scaler": "train", "encoder": "train", "augmentation": "train", "selection": "validation"}
    told.update(made.attrs.get("fit", {}))
    audit = audit_leakage(made, table, fit=told)
    assert list(audit) == ["fold", "kind", "count", "allowed", "checked"]
    assert len(audit) == made["fold"].nunique() * len(splits.LEAKS) and audit["checked"].all()
    leaks = leaks_beyond(audit, protocol)
    if protocol != "paper":
        assert leaks == "" and found(audit) <= set(splits.ALLOWED[protocol])
        assert found(audit) == set(splits.ALLOWED[protocol])  # shares what it may, and says so
    elif system == "prototype":
        assert leaks == "overlapping segments; utterances; speakers; sentences; selection on test"
    elif system == "spectrogram_cnn":
        assert leaks == "speakers; sentences; selection on test"
    else:
        assert leaks == "speakers; sentences"


def test_each_planted_leak_is_found():
    table = corpus()
    clean = make_folds(table, "speaker", folds="3_speakers")
    text_clean = make_folds(table, "sentence")
    test_id = clean.query("fold == 0 and role == 'test'")["utterance_id"].iloc[0]
    train_id = clean.query("fold == 0 and role == 'train'")["utterance_id"].iloc[0]

    moved = clean.copy()
    moved.loc[(clean["fold"] == 0) & (clean["utterance_id"] == test_id), "role"] = "train"
    assert leaks_beyond(audit_leakage(moved, table, fit=NOTHING), "speaker") == "speakers"

    twice = pd.concat([clean, clean[(clean["fold"] == 0) & (clean["utterance_id"] == test_id)].assign(role="train")])
    assert "utterances" in leaks_beyond(audit_leakage(twice, table, fit=NOTHING), "utterance")

    moved = text_clean.copy()
    moved.loc[moved.index[moved["role"] == "test"][0], "role"] = "validation"
    assert leaks_beyond(audit_leakage(moved, table, fit=NOTHING), "sentence") == "sentences"

    same = table.set_index("utterance_id")
    same.loc[test_id, "pcm_sha256"] = same.loc[train_id, "pcm_sha256"]
    audit = audit_leakage(clean, same.reset_index(), fit=NOTHING)
    assert leaks_beyond(audit, "speaker") == "identical audio"
    assert audit.query("kind == 'identical audio' and fold == 0")["count"].item() == 1

    for key, kind in splits.FITTED.items():
        for given, count in [([test_id], 1), ("all", 40), (table["utterance_id"], 40), ({0: [test_id], 1: []}, 1)]:
            audit = audit_leakage(clean, table, fit=NOTHING | {key: given})
            assert leaks_beyond(audit, "speaker") == kind
            assert audit.query("kind == @kind and fold == 0")["count"].item() == count
        for given in ("train", ["train", "validation"], {0: [train_id]}, clean[clean["role"] != "test"], None, ()):
            assert leaks_beyond(audit_leakage(clean, table, fit=NOTHING | {key: given}), "speaker") == ""


def test_a_speakers_unlabelled_clips_are_another_condition_and_named():
    table = corpus()
    made = make_folds(table, "speaker", folds="3_speakers")
    test_id = made.query("fold == 0 and role == 'test'")["utterance_id"].iloc[0]
    for given, count in [("test", 40), ([test_id], 1), ({0: [test_id]}, 1)]:
        audit = audit_leakage(made, table, fit=NOTHING | {"adaptation": given})
        assert leaks_beyond(audit, "speaker") == "adapted"
        assert audit.query("kind == 'adapted' and fold == 0")["count"].item() == count
    assert leaks_beyond(audit_leakage(made, table, fit=NOTHING | {"adaptation": "train"}), "speaker") == ""
    with_choice = audit_leakage(made, table, fit=NOTHING | {"adaptation": "test", "selection": "test"})
    assert leaks_beyond(with_choice, "speaker") == "selection on test; adapted"


def test_what_was_not_told_is_unknown_and_never_blank():
    table = corpus()
    made = make_folds(table, "speaker")
    assert leaks_beyond(audit_leakage(made, table), "speaker") == (
        "unknown: scaler statistics on test, encoder fitted on test, augmentation before split, selection on test"
    )
    told = {"scaler": "train", "encoder": (), "augmentation": None}
    assert leaks_beyond(audit_leakage(made, table, fit=told), "speaker") == "unknown: selection on test"
    leaking = told | {"scaler": "all"}
    assert leaks_beyond(audit_leakage(made, table, fit=leaking), "speaker") == (
        "scaler statistics on test; unknown: selection on test"
    )
    assert leaks_beyond(audit_leakage(made, table, fit=NOTHING), "speaker") == ""


def test_what_people_chose_by_looking_at_test_scores_is_declared_where_those_clips_are_tested():
    mine, looked_at = corpus(), corpus(name="emodb").assign(utterance_id=lambda t: "e" + t["utterance_id"])
    table = pd.concat([mine, looked_at], ignore_index=True)
    split = make_folds(table, "speaker", folds="3_speakers")
    tested = split[split["role"] == "test"]
    clean = audit_leakage(split, table, fit=NOTHING)
    declare = functools.partial(splits.declare_choices, tested=tested, table=table)
    declared = declare(clean, system="feature_network", model="all_four")
    whose = {"system": "feature_network", "model": "all_four"}
    pd.testing.assert_frame_equal(audit_leakage(split, table, fit=NOTHING, **whose), declared)
    assert leaks_beyond(declared, "speaker") == "selection on test"
    count = declared[declared["kind"] == "selection on test"].set_index("fold")["count"]
    by_hand = tested[tested["utterance_id"].str.startswith("e")].groupby("fold").size()
    assert count.to_dict() == by_hand.to_dict()
    others = declared["kind"] != "selection on test"
    pd.testing.assert_frame_equal(declared[others], clean[others])
    pd.testing.assert_frame_equal(declare(declared, system="feature_network", model="all_four"), declared)
    for system, model, leaks in (
        ("vae", "both", ""),
        ("baseline", "voice", ""),
        ("baseline", "voice_lda", "selection on test"),
        ("opensmile", "compare_adapted", "selection on test"),
        ("ensemble", "new_speaker", "selection on test"),
    ):
        assert leaks_beyond(declare(clean, system=system, model=model), "speaker") == leaks, model


def test_choices_md_and_the_systems_declare_the_same_choices():
    """Each row of choices.md that names test clips names systems whose toml declares the corpus, and the other way round."""
    text = (REPOSITORY / "notebooks" / "choices.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.count("|") == 6]
    told = {
        (system, corpus)
        for _, _, _, clips, affected in rows
        if "**test**" in clips or "test speakers in other folds" in clips
        for system in systems()
        if f"`{system}" in affected
        for corpus in ("emodb", "ravdess", "aesdd")
        if corpus in (clips + affected).lower()
    }
    declared = {(name, corpus) for name, system in systems().items() for corpus in system.chosen_on_test}
    assert told == declared


def test_overlap_in_time_is_counted_exactly():
    table = corpus(speakers=1, texts=1, emotions="ab").assign(duration_s=1.0)
    start = [0, 20, 90, 100, 110, 300, 400, 499]
    role = ["train", "test", "test", "test", "test", "train", "test", "test"]
    folds = pd.DataFrame({"utterance_id": table["utterance_id"][0], "start_ms": start, "fold": 0, "role": role})
    # 20 and 90 share time with the segment at 0 (100 only touches it), none with the one at 300; 400 touches
    overlapping = audit_leakage(folds, table).query("kind == 'overlapping segments'")["count"].item()
    assert overlapping == 2


def test_segments_are_cut_as_the_feature_room_cuts_them():
    table = pd.DataFrame({"utterance_id": ["a", "b", "c"], "duration_s": [0.1, 0.5, 0.09]})
    rows = splits.segment_rows(table)
    assert list(rows.groupby("utterance_id").size()) == [1, 21]
    assert rows.query("utterance_id == 'b'")["start_ms"].tolist() == list(range(0, 401, 20))


def test_segment_pairs_and_tables_tell_the_scaler_exactly():
    table = corpus(speakers=1)
    made = make_folds(table, "paper", system="prototype")
    train = made[made["role"] == "train"]
    for given, count in [(train, 0), (made, (made["role"] == "test").sum())]:
        audit = audit_leakage(made, table, fit={"scaler": given}).set_index("kind")
        assert audit.loc["scaler statistics on test", "count"] == count


def test_audit_survives_the_disk_and_refuses_other_data(tmp_path):
    table = corpus()
    made = make_folds(table, "paper", system="prototype")
    made.to_parquet(tmp_path / "folds.parquet")
    again = pd.read_parquet(tmp_path / "folds.parquet")
    pd.testing.assert_frame_equal(audit_leakage(again, table), audit_leakage(made, table))
    with pytest.raises(ValueError, match="Folds of other data: 20 unknown"):
        audit_leakage(made, table[table["speaker"] != "01"])
    with pytest.raises(ValueError, match="Accepted: scaler, encoder"):
        audit_leakage(made, table, fit={"normaliser": "train"})


def test_committed_fold_files_are_what_is_used(tmp_path):
    save_speaker_groups(tmp_path)
    committed = REPOSITORY / "data" / "folds"
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in committed.glob("*.csv")}
    emobox = pd.read_csv(committed / "ravdess-emobox.csv", dtype=str)
    assert list(emobox["test"]) == list(splits.EMOBOX_RAVDESS)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["emodb", "ravdess", "aesdd"])
def test_real_corpora_keep_their_word(name, data_dir):
    table = load_corpus(name, data_dir)
    for protocol in ("utterance", "sentence", "speaker"):
        made = make_folds(table, protocol)
        assert leaks_beyond(audit_leakage(made, table, fit=NOTHING), protocol) == ""
        assert set(made["utterance_id"]) == set(table["utterance_id"])


def test_a_corpus_that_an_encoder_heard_before_is_told():
    table = corpus(name="ravdess")
    folds = make_folds(table, "speaker", folds="3_speakers")
    tested = folds[folds["role"] == "test"].groupby("fold").size()

    def told(**fit):
        audit = audit_leakage(folds, table, fit=NOTHING | fit)
        return audit[audit["kind"] == splits.HEARD], leaks_beyond(audit, "speaker")

    assert told()[1] == "" == told(pretraining=["LibriSpeech"])[1]
    rows, leaks = told(pretraining=["LibriSpeech", "ravdess"])
    assert rows.set_index("fold")["count"].to_dict() == tested.to_dict()
    assert leaks == "corpus heard in pre-training"
    assert told(pretraining={0: ["ravdess"], 1: [], 2: []})[0]["count"].tolist() == [tested[0], 0, 0]
    rows, leaks = told(pretraining=None)
    assert not rows["checked"].any() and leaks == "unknown: corpus heard in pre-training"
