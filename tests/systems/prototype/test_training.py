"""Both stages together on a small made-up voice, and the corpora that lack something."""

import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.splits import make_all_folds
from ser_utils.profiles import settings
from ser_utils.systems.prototype import training
from ser_utils.systems.prototype.segments import overlap_share, segment_table, select_segments
from ser_utils.workspace import Workspace

EMOTIONS = ["anger", "neutral", "sadness"]
OF_CODER = settings("prototype", "smoke") | {
    "filters": [4] * 5,
    "epochs": 1,
    "most_train": 40,
    "most_test": 20,
}
OF_CLASSIFIER = settings("prototype_classifier", "smoke") | {"per_class": 2, "epochs": 20}


def voice(emotions, texts=4, per_clip=6):
    """An utterance table and a store: each emotion is a bright band at its own height."""
    random = np.random.default_rng(0)
    rows = [
        dict(utterance_id=f"{emotion}{n}", corpus="made_up", speaker="01", gender="female", sentence=f"t{n % texts}",
             emotion=emotion, duration_s=0.2, first_row=i * per_clip, n_rows=per_clip)
        for i, (emotion, n) in enumerate((emotion, n) for emotion, own in emotions.items() for n in range(own))
    ]  # fmt: skip
    table = pd.DataFrame(rows).assign(pcm_sha256=[f"sha{i}" for i in range(len(rows))])
    array = random.uniform(-80, -60, (len(table) * per_clip, 16, 7)).astype(np.float32)
    for row in table.itertuples():
        band = 4 * EMOTIONS.index(row.emotion)
        array[row.first_row : row.first_row + per_clip, band : band + 4] += 60
    ids = np.repeat(table["utterance_id"].to_numpy(), per_clip)
    lines = pd.DataFrame({"utterance_id": ids, "row": np.tile(np.arange(per_clip), len(table))})
    return table, SimpleNamespace(array=array, table=table, rows=lambda: lines)


def run(tmp_path, table, store, protocol="utterance", watch="validation"):
    segments = segment_table(store)
    folds, impossible = make_all_folds(table, segments, [protocol], seed=0)
    pick = partial(select_segments, segments, folds[protocol], speakers=["01"], fold=0)
    workspace = Workspace("demo", "smoke", 0, tmp_path)
    return training.train_and_predict(
        workspace,
        store,
        pick,
        f"{protocol}-speaker_01",
        (OF_CODER, OF_CLASSIFIER),
        watch=watch,
        emotions=EMOTIONS,
    )


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


def test_a_model_of_other_data_is_trained_anew(tmp_path):
    table, store = voice(dict.fromkeys(EMOTIONS, 5))
    first = run(tmp_path, table, store).fitted.path.read_bytes()
    store.array = store.array[:, ::-1].copy()
    assert run(tmp_path, table, store).fitted.path.read_bytes() != first


def test_a_rare_or_absent_emotion_is_lived_with(tmp_path):
    one = run(tmp_path, *voice({"anger": 5, "neutral": 2}))
    assert one.classes == ["anger", "neutral"]
    assert (one.predictions["p_sadness"] == 0).all()


def test_a_voice_of_one_emotion_has_no_model(tmp_path):
    assert run(tmp_path, *voice({"anger": 6})) is None


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
    assert training.n_prototypes_per_class(pd.DataFrame({"corpus": ["emodb"]}), 7) == 45
    assert training.n_prototypes_per_class(pd.DataFrame({"corpus": ["ravdess"] * 2}), 7) == 44
    assert training.n_prototypes_per_class(pd.DataFrame({"corpus": ["emodb", "ravdess"]}), 7) == 7


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
    assert (
        starts.groupby("utterance_id")["start_ms"].diff().dropna() > 20
    ).all()  # spread, not the first three


def test_overlap_is_of_sound_in_one_recording():
    tested = pd.DataFrame({"utterance_id": ["a", "a", "b"], "start_ms": [0.0, 200.0, 0.0]})
    learned = pd.DataFrame({"utterance_id": ["a", "a", "c"], "start_ms": [80.0, 100.0, 0.0]})
    assert overlap_share(tested, learned, within_ms=100) == pytest.approx(
        1 / 3
    )  # 200 ends where none began; 0 meets 80
    assert overlap_share(tested, learned.iloc[:0], within_ms=100) == 0
