import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils.features.store import build_store, load_store


def squares(signal, rate):
    """Ten samples a row, squared: something whose truth is known."""
    n_rows = len(signal) // 10
    return (signal[: n_rows * 10].reshape(n_rows, 10) ** 2).astype(np.float32)


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        path = tmp_path / f"clip {number}.wav"
        soundfile.write(path, rng.uniform(-0.5, 0.5, 100 + 10 * number), 16000, subtype="FLOAT")
        rows.append({"utterance_id": f"u{number}", "path": str(path), "pcm_sha256": str(number)})
    return pd.DataFrame(rows)


def test_rows_are_those_of_each_utterance(recordings, tmp_path):
    store = build_store(tmp_path / "store", recordings, squares, key="squares", jobs=2)
    assert store.array.shape == (sum(10 + n for n in range(40)), 10)
    for number in (0, 17, 39):
        signal, rate = soundfile.read(recordings["path"][number], dtype="float32")
        np.testing.assert_array_equal(store.of(f"u{number}"), squares(signal, rate))
    assert (store.rows().groupby("utterance_id", sort=False).size().to_numpy() == store.table["n_rows"]).all()
    with pytest.raises(KeyError, match="nobody is not among the 40 utterances"):
        store.of("nobody")


def test_one_process_and_two_give_the_same(recordings, tmp_path):
    one = build_store(tmp_path / "one", recordings, squares, key="squares", jobs=1)
    two = build_store(tmp_path / "two", recordings, squares, key="squares", jobs=2)
    np.testing.assert_array_equal(one.array, two.array)


def test_work_is_done_once_and_again_when_something_changed(recordings, tmp_path):
    calls = []

    def counted(signal, rate):
        calls.append(1)
        return squares(signal, rate)

    def build(table=recordings, key="a"):
        build_store(tmp_path / "store", table, counted, key=key, jobs=1)
        return len(calls)

    assert build() == 40
    assert build() == 40
    assert build(key="b") == 80
    assert build(recordings.assign(pcm_sha256="other"), key="b") == 120


def test_what_another_seed_made_is_taken_over_and_stays_its_own(recordings, tmp_path):
    calls = []

    def counted(signal, rate):
        calls.append(1)
        return squares(signal, rate)

    def build(seed, table=recordings, key="a"):
        return build_store(tmp_path / f"seed_{seed}" / "features" / "squares", table, counted, key=key, jobs=1)

    first = build(0)
    second = build(1)
    assert len(calls) == 40 and second.folder != first.folder
    np.testing.assert_array_equal(first.array, second.array)
    build(1, key="of this seed alone")
    build(1, recordings.assign(pcm_sha256="other"))
    assert len(calls) == 120
    again = build(0)
    assert len(calls) == 120
    np.testing.assert_array_equal(again.array, first.array)
    build(2, recordings.assign(path=recordings["path"].str.replace("clip", "moved")))
    assert len(calls) == 120 and "clip" in load_store(first.folder).table["path"][0]


def test_corrected_labels_reach_a_store_and_its_key(recordings, tmp_path):
    folder = tmp_path / "store"

    def build(**columns):
        store = build_store(folder, recordings.assign(**columns), squares, key="a", jobs=1)
        for name, value in columns.items():
            assert set(store.table[name]) == set(load_store(folder).table[name]) == {value}
        np.testing.assert_array_equal(store.of("u3"), first.of("u3"))
        return (folder / "made_from.json").read_text()

    labels = {"emotion": "anger", "speaker": "anna", "sentence": "one"}
    first = build_store(folder, recordings.assign(**labels), squares, key="a", jobs=1)
    original = (folder / "made_from.json").read_text()
    # what no model learns from keeps the key
    assert build(**labels) == build(**labels | {"sentence": "two"}) == original and "labels" not in original
    keys = {original, build(**labels | {"emotion": "fear"}), build(**labels | {"speaker": "ben"})}
    assert len(keys) == 3 and build(**labels | {"speaker": "ben"}) in keys
    (folder / "utterances.parquet").write_bytes(b"")  # made again, it must not fall back to the key of the first labels
    assert build(**labels | {"speaker": "ben"}) in keys - {original}


def test_a_damaged_store_is_made_again(recordings, tmp_path):
    folder = tmp_path / "store"
    whole = np.array(build_store(folder, recordings, squares, key="a", jobs=1).array)
    content = bytearray((folder / "rows.npy").read_bytes())
    content[-3:] = b"abc"
    (folder / "rows.npy").write_bytes(content)
    (folder / "utterances.parquet").write_bytes(b"not a table")
    assert load_store(folder) is None
    np.testing.assert_array_equal(build_store(folder, recordings, squares, key="a", jobs=1).array, whole)


def test_a_corpus_of_two_rates_is_named_as_the_reason(recordings, tmp_path):
    def by_length(signal, rate):
        return np.zeros((1, 3 if len(signal) > 200 else 2), np.float32)

    with pytest.raises(ValueError, match="is the corpus of one rate"):
        build_store(tmp_path / "store", recordings, by_length, key="a", jobs=1)
    assert not (tmp_path / "store").exists()
