"""Both stages together on a small made-up voice, and the corpora that lack something."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.splits import make_all_folds
from ser_utils.profiles import settings
from ser_utils.systems.prototype import data as prototype_data
from ser_utils.systems.prototype import training
from ser_utils.systems.prototype.autoencoder import build_autoencoder
from ser_utils.systems.prototype.data import PrototypeData, Run, n_prototypes_per_class, open_data, teachers_of
from ser_utils.systems.prototype.runs import autoencoder_runs
from ser_utils.systems.prototype.segments import overlap_share, segment_table, select_segments
from ser_utils.workspace import Workspace

EMOTIONS = ["anger", "neutral", "sadness"]
OF_CODER = settings("prototype", "smoke") | {"filters": [4] * 5, "epochs": 1, "most_train": 40, "most_test": 20}
OF_CLASSIFIER = settings("prototype_classifier", "smoke") | {"per_class": 2, "epochs": 20}


def voice(emotions, texts=4, per_clip=6):
    """An utterance table and a store: each emotion is a bright band at its own height."""
    random = np.random.default_rng(0)
    rows = [
        dict(
            utterance_id=f"{emotion}{n}",
            corpus="made_up",
            speaker="01",
            gender="female",
            sentence=f"t{n % texts}",
            emotion=emotion,
            duration_s=0.2,
            first_row=i * per_clip,
            n_rows=per_clip,
        )
        for i, (emotion, n) in enumerate((emotion, n) for emotion, own in emotions.items() for n in range(own))
    ]
    table = pd.DataFrame(rows).assign(pcm_sha256=[f"sha{i}" for i in range(len(rows))])
    array = random.uniform(-80, -60, (len(table) * per_clip, 16, 7)).astype(np.float32)
    for row in table.itertuples():
        band = 4 * EMOTIONS.index(row.emotion)
        array[row.first_row : row.first_row + per_clip, band : band + 4] += 60
    ids = np.repeat(table["utterance_id"].to_numpy(), per_clip)
    lines = pd.DataFrame({"utterance_id": ids, "row": np.tile(np.arange(per_clip), len(table))})
    return table, SimpleNamespace(array=array, table=table, rows=lambda: lines)


def data_of(tmp_path, table, store, protocols=("utterance",), speakers=("01",)):
    """The corpus as `open_data` opens it, without a notebook 00 before it."""
    segments = segment_table(store)
    folds, impossible = make_all_folds(table, segments, protocols, seed=0)
    people = {f"speaker_{speaker}": [speaker] for speaker in speakers}
    groups = people, {}
    workspace = Workspace("demo", "smoke", 0, tmp_path)
    return PrototypeData(workspace, table, store, segments, folds, impossible, *groups, OF_CODER, OF_CLASSIFIER)


def run(tmp_path, table, store, protocol="utterance"):
    data = data_of(tmp_path, table, store, [protocol])
    return training.train_and_predict(data, Run(protocol, "speaker_01"))


def test_both_stages_learn_a_simple_voice_and_are_not_trained_twice(tmp_path):
    table, store = voice(dict.fromkeys(EMOTIONS, 5))
    one = run(tmp_path, table, store)
    right = (one.predictions["prediction"] == one.predictions["emotion"]).mean()
    assert right > 0.8 and one.classes == EMOTIONS
    np.testing.assert_allclose(one.predictions.filter(like="p_").sum(axis=1), 1, atol=1e-4)
    written = one.fitted.path.stat().st_mtime_ns, one.coder.path.stat().st_mtime_ns
    again = run(tmp_path, table, store)
    assert written == (again.fitted.path.stat().st_mtime_ns, again.coder.path.stat().st_mtime_ns)
    pd.testing.assert_frame_equal(one.predictions, again.predictions)


def test_two_runs_of_one_seed_agree_to_the_last_bit(tmp_path):
    table, store = voice(dict.fromkeys(EMOTIONS, 5))
    first, second = (run(tmp_path / name, table, store) for name in ("first", "second"))
    pd.testing.assert_frame_equal(first.predictions, second.predictions, check_exact=True)
    pd.testing.assert_frame_equal(first.coder.history, second.coder.history, check_exact=True)


def test_trained_models_come_back_from_another_process_as_they_were(tmp_path):
    table, store = voice(dict.fromkeys(EMOTIONS, 5))
    one = run(tmp_path, table, store)
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(again.coder.embed(store.array), one.coder.embed(store.array))
    np.testing.assert_array_equal(again.fitted.model.prototypes, one.fitted.model.prototypes)


def test_no_segments_have_no_embeddings():
    model = build_autoencoder(16, 7, filters=[8, 6, 4, 4, 2])
    coder = training.Coder(model, training.Scale(-80.0, 0.0), pd.DataFrame(), 0.0, "")
    one, none = (coder.embed(np.zeros((n, 16, 7), np.float32)) for n in (1, 0))
    assert none.shape == (0, one.shape[1])


def test_a_model_of_other_data_is_trained_anew(tmp_path):
    table, store = voice(dict.fromkeys(EMOTIONS, 5))
    first = run(tmp_path, table, store).fitted.path.read_bytes()
    store.array = store.array[:, ::-1].copy()
    assert run(tmp_path, table, store).fitted.path.read_bytes() != first


def test_a_rare_or_absent_emotion_is_lived_with(tmp_path):
    table, store = voice({"anger": 5, "neutral": 2, "sadness": 1})
    store.table = table = table.assign(speaker=np.where(table["emotion"] == "sadness", "02", "01"))
    one = run(tmp_path, table, store)
    assert one.classes == ["anger", "neutral"]
    assert (one.predictions["p_sadness"] == 0).all()


def test_a_voice_of_one_emotion_has_no_model(tmp_path):
    table, store = voice({"anger": 6, "sadness": 6})
    store.table = table = table.assign(speaker=np.where(table["emotion"] == "sadness", "02", "01"))
    assert run(tmp_path, table, store) is None


@pytest.mark.parametrize("shown, everybody", [("ab", "abcde"), ("abcd", "abcd"), ("abc", "abc"), ("a", "a")])
def test_nobody_is_encoded_by_an_autoencoder_that_heard_them(shown, everybody):
    teachers, taught_by = teachers_of(list(shown), list(everybody))
    assert set(taught_by) == ({f"speaker_{s}" for s in shown} if len(everybody) > 1 else set())
    for model, name in taught_by.items():
        assert teachers[name] and model[-1] not in teachers[name]
    others = set(everybody) - set(shown)
    assert not others or teachers == {"others": sorted(others)}


def two_voices(tmp_path):
    """Two speakers of the same kind; "02" teaches the autoencoder of "01"."""
    table, store = voice(dict.fromkeys(EMOTIONS, 10))
    table = store.table = table.assign(speaker=["01", "02"] * 15)
    data = data_of(tmp_path, table, store, ["paper", "utterance"])
    people = data.people | {"others": ["02"], "all": ["01", "02"]}
    return replace(data, people=people, taught_by={"speaker_01": "others"})


def test_a_speakers_autoencoder_starts_from_that_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_JOBS", "1")  # two workers would import TensorFlow twice for seconds of work
    data = two_voices(tmp_path)
    run = Run("utterance", "speaker_01")
    assert data.shared_run(run) == Run("shared", "others")
    assert data.shared_run(run.but(shared=0)) is None
    assert data.shared_run(Run("utterance", "all")) is None
    learned, watched = (set(data.segments["speaker"][rows]) for rows in data.coder_rows(data.shared_run(run)))
    assert learned == watched == {"02"}
    unchanged = replace(data, of_coder=OF_CODER | {"learning_rate": 0.0})
    coders = training.fit_coders(unchanged, [run, run.but(shared=0)])
    shared = training.fit_coder(unchanged, Run("shared", "others"))
    same = [np.array_equal(a, b) for a, b in zip(*(c.model.get_weights() for c in (shared, coders[run])), strict=True)]
    assert all(same)


def test_the_audit_knows_what_the_shared_autoencoder_heard(tmp_path):
    data = two_voices(tmp_path)
    for protocol in ("paper", "utterance"):
        kinds = data.audit(protocol, ["speaker_01"]).set_index("kind")
        assert kinds.loc["encoder fitted on test", "count"] == 0 and kinds.loc["encoder fitted on test", "checked"]
    overheard = replace(data, people=data.people | {"others": ["01", "02"]})
    audit = overheard.audit("utterance", ["speaker_01"]).set_index("kind")
    assert audit.loc["encoder fitted on test", "count"] > 0


def test_classifiers_of_other_settings_share_their_autoencoder(tmp_path):
    data = two_voices(tmp_path)
    run = Run("utterance", "speaker_01")
    changed = run.but(crowding_weight=0.5)
    assert changed.label != run.label and data.coder_run(changed) == run
    assert data.coder_run(run.but(shared=0)).changes == (("shared", 0),)


def test_too_few_texts_leave_the_sentence_protocol_out():
    table, store = voice(dict.fromkeys(EMOTIONS, 4), texts=1)
    folds, impossible = make_all_folds(table, segment_table(store), ["utterance", "sentence"])
    assert list(folds) == ["utterance"] and "at least two texts" in impossible["sentence"]


def test_neighbours_are_training_segments_of_the_same_kind(tmp_path):
    table, store = voice(dict.fromkeys(EMOTIONS, 5))
    one = run(tmp_path, table, store)
    assert len(one.neighbours) == 6 and one.neighbours["nearest_similarity"].between(0, 1).all()
    tested = set(one.predictions["utterance_id"])
    assert not set(one.neighbours["nearest_utterance_id"]) & tested


def test_decoded_prototypes_are_db_below_their_own_maximum(tmp_path):
    table, store = voice(dict.fromkeys(EMOTIONS, 5))
    one = run(tmp_path, table, store)
    decoded = one.coder.decode(one.fitted.model.prototypes)
    assert decoded.shape == (6, 16, 7) and decoded.dtype == np.float32
    np.testing.assert_allclose(decoded.max(axis=(1, 2)), 0, atol=1e-5)
    assert decoded.min() >= one.coder.scale.low


def test_prototypes_per_class_follow_the_language():
    assert n_prototypes_per_class(pd.DataFrame({"corpus": ["emodb"]}), 7) == 45
    assert n_prototypes_per_class(pd.DataFrame({"corpus": ["ravdess"] * 2}), 7) == 44
    assert n_prototypes_per_class(pd.DataFrame({"corpus": ["emodb", "ravdess"]}), 7) == 7


@pytest.mark.parametrize("watched", [None, (np.zeros((0, 4), np.float32), np.zeros(0, int))])
def test_without_validation_the_last_epoch_is_kept(tmp_path, watched):
    x = np.random.default_rng(0).random((30, 4), dtype=np.float32)
    chosen = OF_CLASSIFIER | {"n_prototypes": 4, "epochs": 10}
    fitted = training.fit_classifier(tmp_path / "c.keras", (x, np.arange(30) % 2), watched, 2, chosen)
    assert "val_macro_f1" not in fitted.history


def test_every_test_clip_is_decided_by_as_many_segments():
    utterances, store = voice({"anger": 6, "sadness": 6}, per_clip=6)
    segments = segment_table(store)
    folds, _ = make_all_folds(utterances, segments, ["paper", "utterance"])
    for table in folds.values():
        whole = select_segments(segments, table, "test", speakers=["01"])
        for k in (1, 2, 4, 6, 9):
            few = select_segments(segments, table, "test", speakers=["01"], per_clip=k)
            there = whole.groupby("utterance_id").size()
            assert (few.groupby("utterance_id").size() == there.clip(upper=k)).all()
            assert set(few["row"]) <= set(whole["row"])
    starts = select_segments(segments, folds["utterance"], "test", speakers=["01"], per_clip=3)
    assert (starts.groupby("utterance_id")["start_ms"].diff().dropna() > 20).all()  # spread, not the first three


@pytest.mark.parametrize("n_speakers", [1, 4])
def test_folds_are_made_of_what_a_table_knows(n_speakers, tmp_path):
    ids = [f"s{speaker}{emotion}{n}" for speaker in range(n_speakers) for emotion in EMOTIONS for n in range(5)]
    table = pd.DataFrame({"utterance_id": ids, "speaker": [name[:2] for name in ids], "pcm_sha256": ids})
    table = table.assign(emotion=[name[2:-1] for name in ids], corpus="mine", gender="", sentence="")
    workspace = Workspace("demo", "smoke", 0, tmp_path)
    workspace.save_table(table.assign(duration_s=0.5, path="", sample_rate_hz=16_000), "utterances")
    store = SimpleNamespace(
        table=table, rows=lambda: pd.DataFrame({"utterance_id": np.repeat(ids, 3), "row": np.tile(range(3), len(ids))})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prototype_data, "load_store", lambda folder: store)
        data = open_data(workspace, OF_CODER, settings("prototype_classifier", "smoke"))
    assert set(data.folds) == {"paper", "utterance"} | ({"speaker"} if n_speakers > 1 else set())
    assert "Protocol 'sentence' needs at least two texts" in data.impossible["sentence"]
    assert ("speaker" in data.impossible) == (n_speakers == 1)
    assert [run.label for run in autoencoder_runs(data)] == [
        "paper-speaker_s0",
        "utterance-speaker_s0",
        "utterance-all",
    ]


@pytest.mark.parametrize("protocols", [["utterance"], ["paper", "utterance"]])
def test_a_corpus_of_one_recording_a_voice_is_told_what_is_needed(tmp_path, protocols):
    table, store = voice({"anger": 1}, per_clip=20)
    data = data_of(tmp_path, table, store, protocols)
    assert all(len(data.pick(Run("paper", "speaker_01"), role)) for role in ("train", "test") if "paper" in data.folds)
    with pytest.raises(
        ValueError,
        match=r"one speaker must have several of each emotion\. Received: too few of .* such a voice: make 05 07",
    ):
        autoencoder_runs(data)


def test_neighbours_are_counted_among_the_segments_in_use(tmp_path, monkeypatch):
    table, store = voice({"anger": 2}, per_clip=10)
    data = data_of(tmp_path, table.assign(utterance_id="a"), store)
    used = np.array([0, 10]), np.array([1, 4, 6, 17])  # 20 ms, 80 ms, 80 ms and 140 ms from what is learned
    segments = pd.DataFrame({"utterance_id": ["a"] * 20, "start_ms": 20.0 * np.arange(20), "row": range(20)})
    monkeypatch.setattr(PrototypeData, "coder_rows", lambda self, run: used)
    data = replace(data, segments=segments)
    shares = [data.learned_share(None, within_ms=limit) for limit in (30, 100)]
    assert shares == [0.25, 0.75]


def test_overlap_is_of_sound_in_one_recording():
    tested = pd.DataFrame({"utterance_id": ["a", "a", "b"], "start_ms": [0.0, 200.0, 0.0]})
    learned = pd.DataFrame({"utterance_id": ["a", "a", "c"], "start_ms": [80.0, 100.0, 0.0]})
    assert overlap_share(tested, learned, within_ms=100) == pytest.approx(
        1 / 3
    )  # 200 ends where none began; 0 meets 80
    assert overlap_share(tested, learned.iloc[:0], within_ms=100) == 0
