"""Who is who: the same person is never two, and two are never one, without a word."""

import pandas as pd
import pytest

from ser_utils.corpora import recordings
from ser_utils.corpora.loading import CorpusError, inspect_corpus, load_corpus
from ser_utils.corpora.people import is_missing, speaker_key
from tests.corpora.synthetic import people_rows, record, write_table

COLUMNS = ("path", "speaker", "emotion", "gender")


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    monkeypatch.delenv("STRICT", raising=False)
    monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")


@pytest.mark.parametrize(
    ("first", "second"),
    [("3", "03"), ("3", "3.0"), ("Spk03", "spk03"), ("spk_3", "spk03"), ("speaker 3", "3"), ("OAF", "oaf")]
    + [("Jose\u0301", "Jos\u00e9"), ("\uff13", "3"), ("Anna  B", "anna b"), ("actor-01", "Actor 1"), ("007", "7.0")],
)
def test_two_spellings_of_one_person_are_refused_with_both(tmp_path, first, second):
    assert speaker_key(first) == speaker_key(second)
    rows = [["a.wav", first, "sad"], ["b.wav", second, "angry"], ["c.wav", "other", "sad"]]
    if not first.isascii() or not first.replace("  ", "").isprintable():
        rows[0][1], rows[1][1] = first, second
    with pytest.raises(CorpusError, match=r"column speaker: .*row 2.* and .*row 3.* look like one person"):
        load_corpus(write_table(tmp_path / "t.csv", rows), tmp_path)


@pytest.mark.parametrize(
    ("first", "second"), [("1", "11"), ("1_1", "11"), ("10", "1"), ("anna", "anne"), ("s1a", "s1b"), ("1", "-a1")]
)
def test_different_people_stay_different(first, second):
    assert speaker_key(first) != speaker_key(second)


def test_spellings_that_look_alike_are_shown_by_their_letters(tmp_path):
    rows = [["a.wav", "Jose\u0301", "sad"], ["b.wav", "Jos\u00e9", "angry"]]
    with pytest.raises(CorpusError, match=r"'Jose\\u0301' .* and 'Jos\\xe9'"):
        load_corpus(write_table(tmp_path / "t.csv", rows), tmp_path)


def test_spellings_are_compared_in_folders_too(tmp_path):
    for speaker, emotion in (("03", "sad"), ("3", "sad"), ("04", "angry")):
        record(tmp_path / "own" / speaker / emotion / "a.wav")
    with pytest.raises(CorpusError, match=r"'03' \(1: '03/sad/a.wav'\) and '3' \(1: '3/sad/a.wav'\)"):
        load_corpus(str(tmp_path / "own"), tmp_path)


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "NULL", "N/A", "na", "?", "-", " ", "<NA>", "NaT"])
def test_placeholders_are_missing_and_no_people_and_no_emotion(tmp_path, text):
    assert is_missing(text)
    rows = [["a.wav", "anna", "sad"], ["b.wav", text, "sad"]]
    with pytest.raises(CorpusError, match=r"no speaker: row 3 \('b.wav'\)"):
        load_corpus(write_table(tmp_path / "t.csv", rows), tmp_path)
    rows = [["a.wav", "anna", "sad"], ["b.wav", "anna", text]]
    with pytest.raises(CorpusError, match=r"no emotion: row 3 \('b.wav'\)"):
        load_corpus(write_table(tmp_path / "t.csv", rows), tmp_path)


def test_a_placeholder_is_an_emotion_where_the_reader_says_so(tmp_path):
    path = write_table(tmp_path / "t.csv", [["a.wav", "anna", "None"], ["b.wav", "anna", "sad"]])
    (tmp_path / "emotions.csv").write_text("word,emotion\nnone,neutral\n")
    assert load_corpus(path, tmp_path)["emotion"].tolist() == ["neutral", "sadness"]


@pytest.mark.parametrize("genders", [("male", "female"), ("m", "F"), ("", "man", "w")])
def test_two_genders_of_one_id_are_refused_wherever_they_stand(tmp_path, genders):
    rows = [[f"{i}.wav", "anna", "sad", gender] for i, gender in enumerate(genders)]
    with pytest.raises(CorpusError, match=r"column gender: speaker 'anna' is \w+ in row \d .* and \w+ in row \d"):
        load_corpus(write_table(tmp_path / "t.csv", rows, COLUMNS), tmp_path)


@pytest.mark.parametrize("gaps", [(0,), (1,), (0, 2), (1, 2)])
def test_a_gender_that_only_some_rows_give_counts_for_all_of_them(tmp_path, gaps):
    rows = [[f"{i}.wav", "anna", "sad", "nan" if i in gaps else "w"] for i in range(3)] + [["x.wav", "ben", "sad", ""]]
    table = load_corpus(write_table(tmp_path / "t.csv", rows, COLUMNS), tmp_path)
    assert table.groupby("speaker")["gender"].unique().map(list).to_dict() == {"anna": ["female"], "ben": [""]}


@pytest.mark.parametrize("name", ["train", "Test", "dev", "validation"])
def test_a_split_is_no_person(tmp_path, name):
    rows = [["a.wav", name, "sad"], ["b.wav", "anna", "sad"]]
    with pytest.raises(CorpusError, match=f"'{name}' .* is the name of a split, not of a person"):
        load_corpus(write_table(tmp_path / "t.csv", rows), tmp_path)


def test_unknown_speakers_are_announced_and_may_be_several_people(tmp_path, monkeypatch):
    rows = [["a.wav", "Unknown", "sad", "f"], ["b.wav", "unknown", "sad", "m"], ["c.wav", "anna", "sad", ""]]
    path = write_table(tmp_path / "t.csv", rows, COLUMNS)
    table = load_corpus(path, tmp_path)
    assert table.attrs["announcement"] == "speakers of 2 of 3 files unknown, taken as one"
    assert table["gender"].tolist() == ["female", "male", ""]
    monkeypatch.setenv("STRICT", "1")
    with pytest.raises(CorpusError, match="STRICT=1 refuses"):
        load_corpus(path, tmp_path)


@pytest.mark.parametrize(("first", "second"), [("anna", "anna"), ("03", "3"), ("Spk1", "spk01")])
def test_own_tables_that_share_a_person_are_not_joined(tmp_path, first, second):
    train = write_table(tmp_path / "train.csv", [["a.wav", first, "sad"], ["b.wav", "x", "angry"]])
    test = write_table(tmp_path / "test.csv", [["c.wav", second, "sad"], ["d.wav", "y", "angry"]])
    with pytest.raises(
        CorpusError, match=f"train.csv and test.csv both have a speaker '{first}' .*put all rows into one"
    ):
        load_corpus(f"{train}+{test}", tmp_path)


def test_own_tables_of_different_people_are_joined(tmp_path):
    first = write_table(tmp_path / "first.csv", people_rows("anna bert"))
    rows = [[path.replace("wav/", "more/"), speaker, emotion] for path, speaker, emotion in people_rows("carl dora")]
    (tmp_path / "second").mkdir()
    second = tmp_path / "second.csv"
    write_table(second, rows, sounds=False)
    for seed, row in enumerate(rows, 100):
        record(tmp_path / row[0], seed)
    report = inspect_corpus(f"{first}+{second}", tmp_path)
    assert len(report.table) == 16 and report.table["speaker"].nunique() == 4
    assert report.account.splitlines() == ["16 files found: 16 used, 0 left out", "16 rows: 16 used, 0 left out"]


def test_a_recording_in_two_joined_corpora_is_refused(tmp_path):
    record(tmp_path / "emodb" / "03a01Wa.wav", 1)
    record(tmp_path / "emodb" / "08a01Ta.wav", 2)
    record(tmp_path / "copy" / "a.wav", 1)
    record(tmp_path / "copy" / "b.wav", 3)
    rows = [["copy/a.wav", "anna", "angry"], ["copy/b.wav", "anna", "sad"]]
    path = write_table(tmp_path / "t.csv", rows, sounds=False)
    for name in (f"{path}+emodb", f"emodb+{path}"):
        with pytest.raises(CorpusError, match="share a recording, whose speaker would count as two people: .*03a01Wa"):
            load_corpus(name, tmp_path)


@pytest.mark.parametrize(
    ("row", "noisy_row", "what"),
    [
        (["a.wav", "noisy_0", "sad"], ["b.wav", "0", "sad"], "a speaker 'home_noisy_0'"),
        (["noisy_b.wav", "anna", "sad"], ["b.wav", "ben", "sad"], "an utterance 'home_noisy_b'"),
    ],
)
def test_ids_that_a_join_would_make_one_are_refused(tmp_path, row, noisy_row, what):
    paths = [write_table(tmp_path / f"{name}.csv", [row]) for name, row in (("home", row), ("home_noisy", noisy_row))]
    record(tmp_path / row[0], 1)
    with pytest.raises(CorpusError, match=f"home.csv and home_noisy.csv would both have {what}: .*Rename one of the"):
        load_corpus("+".join(paths), tmp_path)


def test_two_tables_of_one_name_are_refused_in_words(tmp_path):
    paths = [write_table(tmp_path / place / "t.csv", [["a.wav", place, "sad"]]) for place in ("one", "two")]
    with pytest.raises(CorpusError, match="Two tables of one name need two names"):
        load_corpus("+".join(paths), tmp_path)


def test_a_recording_under_two_speakers_is_announced(tmp_path):
    rows = [["a.wav", "anna", "sad"], ["b.wav", "ben", "sad"]]
    path = write_table(tmp_path / "t.csv", rows, sounds=False)
    for name in ("a.wav", "b.wav"):
        record(tmp_path / name, 1)
    assert load_corpus(path, tmp_path).attrs["announcement"] == "1 recordings stand under more than one speaker"


def test_numbers_of_a_parquet_table_are_people_like_any_other(tmp_path):
    frame = pd.DataFrame({"path": ["a.wav", "b.wav"], "speaker": [3.0, 4.0], "emotion": ["sad", "angry"]})
    frame.to_parquet(tmp_path / "t.parquet")
    for name in frame["path"]:
        record(tmp_path / name)
    assert load_corpus(str(tmp_path / "t.parquet"), tmp_path)["speaker"].tolist() == ["3.0", "4.0"]
    frame.loc[1, "speaker"] = None
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(CorpusError, match=r"no speaker: row 3 \('b.wav'\)"):
        load_corpus(str(tmp_path / "t.parquet"), tmp_path)
