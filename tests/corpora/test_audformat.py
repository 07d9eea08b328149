"""Databases of audformat and folders of Kaldi, as other tools write them."""

import pandas as pd
import pytest

from ser_utils.corpora import recordings
from ser_utils.corpora.audformat import read_audformat
from ser_utils.corpora.loading import CorpusError, inspect_corpus, load_corpus
from tests.corpora.synthetic import EMOTIONS, people_rows, record, write_table


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    monkeypatch.delenv("STRICT", raising=False)
    monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")


def wrong(emotion):
    return EMOTIONS[(EMOTIONS.index(emotion) + 1) % 4]


def write_database(folder, columns, *, table="emotion", schemes="", form="csv"):
    """A database whose raters are columns of functions (row number, emotion) -> label; returns its path.

    columns : name → (what the header says of it, function)
    """
    rows = people_rows()
    for seed, (path, _, _) in enumerate(rows):
        record(folder / path, seed)
    labels = {name: [label(i, row[2]) for i, row in enumerate(rows)] for name, (_, label) in columns.items()}
    frame = pd.DataFrame({"file": [row[0] for row in rows]} | labels).set_index("file")
    frame.to_csv(folder / f"db.{table}.csv") if form == "csv" else frame.to_parquet(folder / f"db.{table}.parquet")
    pd.DataFrame(rows, columns=["file", "speaker", "_"])[["file", "speaker"]].to_csv(
        folder / "db.files.csv", index=False
    )
    heads = "\n".join(f"      {name}: {{{head}}}" for name, (head, _) in columns.items())
    (folder / "db.yaml").write_text(f"""
name: votes
source: internet
usage: unrestricted
raters: {{r1: {{type: human}}, r2: {{type: human}}, gold: {{type: vote}}, truth: {{type: ground truth}}, m: {{type: machine}}}}
schemes: {{emotion: {{dtype: str}}, speaker: {{dtype: str}}{schemes}}}
tables:
  {table}:
    type: filewise
    columns:
{heads}
  files: {{type: filewise, columns: {{speaker: {{scheme_id: speaker}}}}}}
""")
    return str(folder)


def erring(every):
    return lambda i, emotion: wrong(emotion) if i % every == 0 else emotion


def right(i, emotion):
    return emotion


@pytest.mark.parametrize(
    "columns",
    [
        {
            "rater1": ("scheme_id: emotion, rater_id: r1", erring(3)),
            "agreed": ("scheme_id: emotion, rater_id: gold", right),
        },
        {"a": ("scheme_id: emotion, rater_id: truth", right), "b": ("scheme_id: emotion, rater_id: m", erring(2))},
        {"rater1": ("scheme_id: emotion, rater_id: r1", erring(3)), "emotion.gold": ("scheme_id: emotion", right)},
    ],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_gold_standard_or_a_vote_goes_before_single_raters(tmp_path, columns, form):
    table = load_corpus(write_database(tmp_path / "db", columns, form=form), tmp_path)
    assert [path.split("_")[-2] for path in table["path"]] == table["emotion"].tolist()


@pytest.mark.parametrize("every", [2, 5, 16])
def test_raters_that_differ_without_a_vote_are_refused_with_a_file_and_both_labels(tmp_path, every):
    columns = {
        "one": ("scheme_id: emotion, rater_id: r1", right),
        "two": ("scheme_id: emotion, rater_id: r2", erring(every)),
    }
    words = r"emotion.one and emotion.two both give the emotion, and of wav/anna_anger_0.wav they say 'anger' and 'happiness'"
    with pytest.raises(CorpusError, match=words):
        load_corpus(write_database(tmp_path / "db", columns), tmp_path)


@pytest.mark.parametrize("every", [2, 4, 8])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files_without_a_label_are_left_out_and_announced(tmp_path, every, form):
    columns = {"emotion": ("scheme_id: emotion", lambda i, emotion: None if i % every else emotion)}
    report = inspect_corpus(write_database(tmp_path / "db", columns, form=form), tmp_path)
    n = 16 // every
    assert len(report.table) == n and report.announcement.startswith(f"{n} of 16 files")
    assert report.account.splitlines() == [
        f"16 files found: {n} used, {16 - n} left out, because: no emotion ({16 - n})",
        f"16 rows: {n} used, {16 - n} left out, because: no emotion ({16 - n})",
    ]


def test_a_table_of_a_database_points_to_the_whole(tmp_path):
    folder = write_database(tmp_path / "db", {"emotion": ("scheme_id: emotion", right)})
    with pytest.raises(CorpusError, match=r"Missing: speaker; received file, emotion. .*DATASET=.*/db"):
        load_corpus(f"{folder}/db.emotion.csv", tmp_path)


def test_our_reader_agrees_with_audformat(tmp_path):
    audformat = pytest.importorskip("audformat")
    columns = {
        "rater1": ("scheme_id: emotion, rater_id: r1", erring(3)),
        "emotion": ("scheme_id: emotion, rater_id: gold", right),
    }
    folder = write_database(tmp_path / "db", columns)
    database = audformat.Database.load(folder)
    wanted = database["emotion"]["emotion"].get()
    found = load_corpus(folder, tmp_path)
    found.index = [path.removeprefix(f"{folder}/") for path in found["path"]]
    assert found["emotion"].to_dict() == {str(file): label for file, label in wanted.items()}
    assert found["speaker"].to_dict() == database["files"]["speaker"].get().to_dict()


# Tables as other tools write them: nkululeko, audformat's whole and segmented index, Hugging Face's metadata.csv
@pytest.mark.parametrize(
    ("columns", "more"),
    [
        (["file", "speaker", "emotion", "gender"], ["female"]),
        (["file", "speaker", "emotion", "start", "end"], ["0 days 00:00:00", ""]),
        (["file", "speaker", "emotion", "start", "end"], ["0", "NaT"]),
        (["file_name", "speaker_id", "emotion", "transcription"], ["hello"]),
        (["path", "speaker", "emotion", ""], [""]),
    ],
)
def test_tables_of_other_tools_load_as_they_are(tmp_path, columns, more):
    table = load_corpus(write_table(tmp_path / "t.csv", [[*row, *more] for row in people_rows()], columns), tmp_path)
    assert len(table) == 16 and table["speaker"].nunique() == 4


@pytest.mark.parametrize(("start", "end"), [("0.5", "1.5"), ("0 days", "0 days 00:00:01"), ("0 days 00:00:01", "")])
def test_parts_of_files_are_refused_by_row(tmp_path, start, end):
    rows = [[*row, start, end] for row in people_rows("anna")]
    path = write_table(tmp_path / "t.csv", rows, ["file", "speaker", "emotion", "start", "end"])
    with pytest.raises(CorpusError, match="row 2 labels a part of a file"):
        load_corpus(path, tmp_path)


def write_kaldi(folder, **files):
    rows = people_rows()
    for seed, (path, _, _) in enumerate(rows):
        record(folder / path, seed)
    ids = [f"{speaker}-{emotion}" for _, speaker, emotion in rows]
    content = {
        "wav.scp": [f"{key} {row[0]}" for key, row in zip(ids, rows, strict=True)],
        "utt2spk": [f"{key} {row[1]}" for key, row in zip(ids, rows, strict=True)],
        "utt2emo": [f"{key}\t{row[2]}" for key, row in zip(ids, rows, strict=True)],
        "spk2gender": ["anna f", "bert m", "carl m", "dora f"],
        "text": [f"{key} hello there" for key in ids],
    } | files
    for name, lines in content.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return str(folder)


def test_a_kaldi_folder_is_read(tmp_path):
    table = load_corpus(write_kaldi(tmp_path / "train"), tmp_path)
    row = table.set_index("utterance_id").loc["anna-anger"]
    assert len(table) == 16 and row[["speaker", "gender", "emotion", "sentence"]].tolist() == [
        "anna",
        "female",
        "anger",
        "hello there",
    ]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"utt2emo": ["anna-anger anger"]}, "no emotion: 'anna-happiness'"),
        ({"utt2emo": ["x anger"]}, "no path: 'x'"),
        ({"utt2spk": []}, "needs wav.scp, utt2spk and utt2emo"),
        ({"wav.scp": ["a sox a.mp3 -t wav - |"]}, "is a command, which is not run"),
        ({"segments": ["a b 0 1"]}, "segments' cuts recordings into parts"),
        ({"utt2spk": ["anna-anger anna", "anna-anger bert"]}, "utt2spk names 'anna-anger' twice"),
    ],
)
def test_a_kaldi_folder_that_says_too_little_is_refused(tmp_path, files, words):
    with pytest.raises(CorpusError, match=words.replace("segments'", "segments")):
        load_corpus(write_kaldi(tmp_path / "train", **files), tmp_path)


def test_a_table_that_is_a_pickle_alone_is_not_passed_over(tmp_path):
    (tmp_path / "db.yaml").write_text(
        "name: x\nschemes: {emotion: {}, speaker: {}}\ntables:\n"
        "  a: {columns: {emotion: {scheme_id: emotion}, speaker: {scheme_id: speaker}}}\n"
        "  b: {columns: {emotion: {scheme_id: emotion}, speaker: {scheme_id: speaker}}}\n"
    )
    (tmp_path / "db.a.csv").write_text("file,emotion,speaker\n1.wav,anger,s1\n2.wav,sadness,s1\n")
    (tmp_path / "db.b.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CorpusError, match="names table 'b', but neither db.b.parquet nor db.b.csv is there.*pickle"):
        read_audformat(tmp_path)


def test_a_table_of_speakers_that_is_a_pickle_alone_is_not_passed_over(tmp_path):
    folder = write_database(tmp_path / "db", {"emotion": ("scheme_id: emotion", right)})
    header = (tmp_path / "db" / "db.yaml").read_text()
    (tmp_path / "db" / "db.yaml").write_text(header.replace("speaker: {dtype: str}", "speaker: {labels: people}"))
    (tmp_path / "db" / "db.people.pkl").touch()
    with pytest.raises(CorpusError, match="names table 'people', but neither db.people.parquet nor db.people.csv"):
        load_corpus(folder, tmp_path)


def test_a_column_of_several_raters_is_refused(tmp_path):
    folder = write_database(tmp_path / "db", {"emotion": ("scheme_id: emotion, rater_id: [r1]", right)})
    with pytest.raises(CorpusError, match=r"db.yaml: column 'emotion' needs one rater_id. Received: \['r1'\]"):
        load_corpus(folder, tmp_path)


def test_a_file_that_one_table_names_twice_is_refused(tmp_path):
    (tmp_path / "db.yaml").write_text(
        "name: x\nschemes: {emotion: {}, speaker: {}}\ntables:\n"
        "  a: {columns: {emotion: {scheme_id: emotion}, speaker: {scheme_id: speaker}}}\n"
    )
    (tmp_path / "db.a.csv").write_text("file,emotion,speaker\n1.wav,anger,s1\n1.wav,sadness,s1\n")
    with pytest.raises(CorpusError, match="table 'a' names '1.wav' twice"):
        read_audformat(tmp_path)
