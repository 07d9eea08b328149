from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils.corpora import recordings
from ser_utils.corpora.loading import COLUMNS, CorpusError, inspect_corpus, load_corpus
from ser_utils.workspace import Workspace


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    monkeypatch.delenv("STRICT", raising=False)
    monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")


def record(path, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(map(ord, str(path)))).integers(-999, 999, 4000, dtype=np.int16)
    soundfile.write(path, noise, rate)


ROWS = [("clips/a.wav", "anna", "angry"), ("clips/b.wav", "anna", "Sad"), ("clips/c.wav", "ben", "happiness")]


def write_table(folder, rows=ROWS, suffix=".csv", columns=("path", "speaker", "emotion"), sounds=True):
    path = folder / f"mine{suffix}"
    table = pd.DataFrame(rows, columns=list(columns))
    if sounds:
        for name in filter(None, table["path"]):
            record(folder / name)
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_is_a_corpus_like_any_other(tmp_path, suffix):
    table = load_corpus(write_table(tmp_path, suffix=suffix), tmp_path / "nowhere")
    assert list(table.columns) == COLUMNS and table["emotion"].tolist() == ["anger", "sadness", "happiness"]
    assert table["emotion_native"].tolist() == ["angry", "sad", "happiness"]
    assert table["speaker"].tolist() == ["anna", "anna", "ben"] and set(table["corpus"]) == {"mine"}
    assert table["utterance_id"].is_unique and not table.isna().any().any()
    assert all(Path(path).exists() for path in table["path"])


def test_whatever_more_a_table_knows_is_kept(tmp_path):
    columns = ("path", "speaker", "emotion", "gender", "language", "sentence", "intensity", "utterance_id", "age")
    rows = [("a.wav", "1", "fear", "F", "fr", "s1", "strong", "first", "31")]
    row = load_corpus(write_table(tmp_path, rows, columns=columns), tmp_path).iloc[0]
    assert row[list(columns[3:8])].tolist() == ["female", "fr", "s1", "strong", "first"]


def test_placeholders_are_no_texts_and_no_ids(tmp_path):
    columns = ("path", "speaker", "emotion", "language", "sentence", "intensity", "utterance_id")
    rows = [("a.wav", "1", "fear", "nan", "None", "n/a", "nan"), ("b.wav", "1", "fear", "fr", "hello", "strong", "x")]
    table = load_corpus(write_table(tmp_path, rows, columns=columns), tmp_path)
    kept = table[["language", "sentence", "intensity", "utterance_id"]].to_numpy().tolist()
    assert kept == [["", "", "", "a"], ["fr", "hello", "strong", "x"]]


def test_paths_are_whole_wherever_the_table_was_named_from(tmp_path, monkeypatch):
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert all(Path(path).is_absolute() for path in load_corpus("mine.csv", "data")["path"])


def test_a_table_called_like_a_corpus_is_not_taken_for_it(tmp_path):
    Path(write_table(tmp_path)).rename(tmp_path / "emodb.csv")
    assert set(load_corpus(str(tmp_path / "emodb.csv"), tmp_path)["corpus"]) == {"emodb_own"}


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path):
    record(tmp_path / "é.wav")
    (tmp_path / "t.csv").write_text("path;speaker;emotion\né.wav;1;joy\n", "utf-8-sig")
    assert load_corpus(str(tmp_path / "t.csv"), tmp_path)["emotion"].tolist() == ["happiness"]


def test_other_encodings_are_refused_in_words(tmp_path):
    (tmp_path / "t.csv").write_text("path,speaker,emotion\né.wav,1,joy\n", "latin-1")
    with pytest.raises(CorpusError, match="is not UTF-8 .*save it as UTF-8"):
        load_corpus(str(tmp_path / "t.csv"), tmp_path)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a.wav", "", "sad"), ("b.wav", "1", "sad")], r"no speaker: row 2 \('a.wav'\)"),
        ([("a.wav", "1", "sad"), ("b.wav", "1", "")], r"no emotion: row 3 \('b.wav'\)"),
        ([("a.wav", "1", "sad"), ("./a.wav", "1", "sad")], r"named twice: row 2 \('a.wav'\), row 3"),
        ([("", "1", "sad")], "no path: row 2"),
        ([("a.wav", "../etc", "sad")], "a speaker that cannot be part of a file name: row 2"),
        ([("a.wav", "<script>", "sad")], "a speaker that cannot be part of a file name: row 2"),
        ([("a\0.wav", "1", "sad")], r"a path with line breaks or the like: row 2 \('a\\x00.wav'\)"),
    ],
)
def test_incomplete_rows_are_refused_by_number(tmp_path, rows, words):
    with pytest.raises(CorpusError, match=words):
        load_corpus(write_table(tmp_path, rows, sounds=False), tmp_path)


def test_one_file_of_two_names_is_refused(tmp_path):
    rows = [("a.wav", "1", "sad"), (str(tmp_path / "a.wav"), "1", "sad")]
    with pytest.raises(CorpusError, match=r"named twice: row 2 \('a.wav'\), row 3"):
        load_corpus(write_table(tmp_path, rows, sounds=False), tmp_path)


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(CorpusError, match="needs columns path, speaker, emotion. Missing: speaker; received"):
        load_corpus(write_table(tmp_path, [("a.wav", "sad")], columns=("path", "emotion")), tmp_path)


def test_unknown_emotion_words_are_listed_with_a_way_to_map_them(tmp_path):
    rows = [*ROWS, ("d.wav", "ben", "wistful"), ("e.wav", "ben", "wistful"), ("f.wav", "ben", "laughter")]
    path = write_table(tmp_path, rows)
    with pytest.raises(CorpusError, match=r"'wistful' \(2\), 'laughter' \(1\)\. Accepted: anger, .*emotions.csv"):
        load_corpus(path, tmp_path)
    (tmp_path / "emotions.csv").write_text("word,emotion\nwistful,sadness\nlaughter,\n")
    report = inspect_corpus(path, tmp_path)
    assert report.table["emotion"].value_counts()["sadness"] == 3
    assert report.problems["reason"].tolist() == ["labelled laughter, which is left out by convention"]
    (tmp_path / "emotions.csv").write_text("word,emotion\nwistful,blue\n")
    with pytest.raises(CorpusError, match="unknown emotion blue. Accepted: anger"):
        load_corpus(path, tmp_path)


def test_files_that_are_not_there_are_reported(tmp_path):
    rows = [(f"{i}.wav", "1", "sad") for i in range(20)]
    path = write_table(tmp_path, rows)
    (tmp_path / "7.wav").unlink()
    report = inspect_corpus(path, tmp_path)
    assert len(report.table) == 19 and report.problems["path"].tolist() == ["7.wav"]
    assert "No such file" in report.problems["reason"][0]


@pytest.mark.parametrize("name", ["<script>.wav", "x" * 180 + ".wav", "a b's (1).wav", "-.wav", "ünï.wav"])
def test_hostile_names_get_harmless_ids(tmp_path, name):
    table = load_corpus(write_table(tmp_path, [(name, "1", "sad"), ("b.wav", "1", "sad")]), tmp_path)
    assert len(table) == 2 and table["utterance_id"].str.fullmatch(r"\w[\w .+@-]{0,63}").all()


def test_a_path_out_of_the_folder_reads_and_writes_nothing_elsewhere(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.txt").write_text("no sound")
    path = write_table(tmp_path / "in", [("../secret.txt", "1", "sad")], sounds=False)
    with pytest.raises(CorpusError, match="not audio"):
        load_corpus(path, tmp_path)


@pytest.mark.parametrize(
    ("layout", "speakers"),
    [("{emotion}/{i}.wav", {"unknown"}), ("{speaker}/{emotion}/{i}.wav", {"s1", "s2"})]
    + [("{emotion}/{speaker}/{i}.wav", {"s1", "s2"})],
)
def test_a_folder_per_emotion(tmp_path, layout, speakers):
    for i, emotion in enumerate(["Angry", "sad", "joy", "neutral"]):
        record(tmp_path / "own" / layout.format(emotion=emotion, speaker=f"s{i % 2 + 1}", i=i))
    table = load_corpus(str(tmp_path / "own"), tmp_path)
    assert set(table["emotion"]) == {"anger", "sadness", "happiness", "neutral"}
    assert set(table["speaker"]) == speakers
    assert table.attrs["announcement"] == ("" if len(speakers) > 1 else "speakers unknown, taken as one")


def test_a_folder_whose_names_are_no_emotions_lists_them(tmp_path):
    record(tmp_path / "own" / "wistful" / "a.wav")
    with pytest.raises(CorpusError, match=r"unknown emotion words 'wistful' \(1\)"):
        load_corpus(str(tmp_path / "own"), tmp_path)


def write_audformat(folder, labels="labels: {3: {gender: male}, 8: {gender: female}}"):
    for name in ("wav/03a01Fa.wav", "wav/08a01Wa.wav"):
        record(folder / name)
    (folder / "db.yaml").write_text(f"""
name: tiny
languages: [deu]
schemes:
  emotion: {{dtype: str, labels: [anger, happiness]}}
  speaker: {{dtype: int, {labels}}}
tables:
  emotion:
    type: filewise
    columns:
      emotion: {{scheme_id: emotion, rater_id: gold}}
      emotion.confidence: {{scheme_id: confidence}}
  files:
    type: filewise
    columns:
      speaker: {{scheme_id: speaker}}
      transcription: {{scheme_id: transcription}}
""")
    (folder / "db.emotion.csv").write_text(
        "file,emotion,emotion.confidence\nwav/03a01Fa.wav,happiness,0.9\nwav/08a01Wa.wav,anger,1.0\n"
    )
    (folder / "db.files.csv").write_text("file,speaker,transcription\nwav/03a01Fa.wav,3,a01\nwav/08a01Wa.wav,8,a01\n")


def test_an_audformat_database(tmp_path):
    write_audformat(tmp_path / "tiny")
    table = load_corpus(str(tmp_path / "tiny"), tmp_path)
    assert table[["speaker", "gender", "emotion", "sentence"]].to_numpy().tolist() == [
        ["3", "male", "happiness", "a01"],
        ["8", "female", "anger", "a01"],
    ]


def test_an_audformat_database_in_parquet_with_gaps(tmp_path):
    write_audformat(tmp_path / "tiny")
    for name in ("emotion", "files"):
        path = tmp_path / "tiny" / f"db.{name}.csv"
        table = pd.read_csv(path).set_index("file")  # speakers are numbers here
        table.iloc[: 2 if name == "emotion" else 1].to_parquet(path.with_suffix(".parquet"))
        path.unlink()
    with pytest.raises(CorpusError, match=r"no speaker: row 3 \('wav/08a01Wa.wav'\)"):
        load_corpus(str(tmp_path / "tiny"), tmp_path)
    (tmp_path / "tiny" / "db.emotion.parquet").unlink()
    (tmp_path / "tiny" / "db.emotion.csv").write_text("file,emotion\nwav/03a01Fa.wav,happiness\n")
    assert load_corpus(str(tmp_path / "tiny"), tmp_path)["speaker"].tolist() == ["3"]


def test_an_audformat_database_with_its_speakers_in_a_table(tmp_path):
    write_audformat(tmp_path / "tiny", "labels: speakers")
    (tmp_path / "tiny" / "db.speakers.csv").write_text("speaker,gender\n3,male\n8,female\n")
    assert load_corpus(str(tmp_path / "tiny"), tmp_path)["gender"].tolist() == ["male", "female"]


@pytest.mark.parametrize("facts", ["anna", "null", "[1]"])
def test_an_audformat_database_whose_speakers_have_no_facts(tmp_path, facts):
    write_audformat(tmp_path / "tiny", f"labels: {{3: {facts}, 8: {{gender: female}}}}")
    assert load_corpus(str(tmp_path / "tiny"), tmp_path)["gender"].tolist() == ["", "female"]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", r"db.yaml is empty"),
        (b"{", r"db.yaml cannot be read as YAML: "),
        (b"[1, 2]", r"db.yaml: the whole of it must map names to facts. Received: \[1, 2\]"),
        ("name: é".encode("latin-1"), r"db.yaml is not UTF-8 \(byte 6\)"),
        (b"tables: [files]", r"db.yaml: tables must map .* Received: \['files'\]"),
        (b"tables: {files: text}", r"db.yaml: table 'files' must map .* Received: 'text'"),
        (b"tables: {files: {type: filewise}}", r"db.yaml: table 'files' has no columns"),
        (b"tables: {files: {columns: [speaker]}}", r"db.yaml: columns of table 'files' must map"),
        (b"tables: {files: {columns: {speaker: text}}}", r"db.yaml: column 'speaker' must map"),
        (b"tables: {}", "no table of db.yaml has a column of scheme emotion or speaker"),
        (b"tables: {all: {columns: {}}}\nschemes: [a]", "db.yaml: schemes must map"),
        (b"tables: {all: {columns: {}}}\nschemes: {speaker: int}", "db.yaml: scheme 'speaker' must map"),
    ],
)
def test_a_damaged_header_of_a_database_is_refused_in_words(tmp_path, header, words):
    write_audformat(tmp_path / "tiny")
    (tmp_path / "tiny" / "db.all.csv").write_text("file,speaker,emotion\nwav/03a01Fa.wav,3,happiness\n")
    (tmp_path / "tiny" / "db.yaml").write_bytes(header)
    with pytest.raises(CorpusError, match=words):
        load_corpus(str(tmp_path / "tiny"), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("db.files.csv", b"", "No columns"),
        ("db.files.csv", b"\xff\xfe", "is not UTF-8"),
        ("db.files.parquet", b"PAR1", "cannot be read as a table"),
    ],
)
def test_a_damaged_table_of_a_database_is_refused_in_words(tmp_path, name, content, words):
    write_audformat(tmp_path / "tiny")
    (tmp_path / "tiny" / name).write_bytes(content)
    with pytest.raises(CorpusError, match=f"{name} .*{words}|{name} {words}"):
        load_corpus(str(tmp_path / "tiny"), tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "emotions.csv cannot be read as a table: No columns"),
        ("word,emotion\né,\n".encode("latin-1"), r"emotions.csv is not UTF-8"),
        (b'word,emotion\n"wistful,sadness\n', "emotions.csv cannot be read as a table: .*inside string"),
    ],
)
def test_a_damaged_list_of_words_is_refused_in_words(tmp_path, content, words):
    path = write_table(tmp_path)
    (tmp_path / "emotions.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        load_corpus(path, tmp_path)


def test_an_audformat_database_of_parts_of_files_is_refused(tmp_path):
    write_audformat(tmp_path / "tiny")
    path = tmp_path / "tiny" / "db.emotion.csv"
    path.write_text("file,start,end,emotion\nwav/03a01Fa.wav,0,1,anger\n")
    with pytest.raises(CorpusError, match="labels parts of files"):
        load_corpus(str(tmp_path / "tiny"), tmp_path)


def test_own_recordings_join_a_corpus(tmp_path):
    path = write_table(tmp_path, [(f"{e}.wav", "anna", e) for e in ("angry", "sad", "calm")])
    for name in ("03a01Wa", "08a01Ta"):
        record(tmp_path / "emodb" / f"{name}.wav")
    for name in (f"{path}+emodb", f"emodb+{path}"):
        table = load_corpus(name, tmp_path)
        assert set(table["emotion"]) == {"anger", "sadness"} and set(table["corpus"]) == {"mine", "emodb"}


def test_the_home_folder_is_known_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Path(write_table(tmp_path)).rename(tmp_path / "mine+yours.csv")
    assert len(load_corpus("~/mine+yours.csv", tmp_path)) == 3


def test_a_path_that_is_not_there(tmp_path):
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for name in ("mine.csv", "loop.csv"):
        with pytest.raises(CorpusError, match="is not there. A dataset is a corpus's name, or the path"):
            load_corpus(Workspace(str(tmp_path / name)).dataset, tmp_path)


def test_a_table_called_like_the_list_of_words_is_refused(tmp_path):
    Path(write_table(tmp_path)).rename(tmp_path / "emotions.csv")
    with pytest.raises(CorpusError, match="If it is the table of your recordings, give it another name"):
        load_corpus(str(tmp_path / "emotions.csv"), tmp_path)
