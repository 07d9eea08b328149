import gzip
import io
import os
import zipfile

import pandas as pd
import pytest

from ser_utils.tables import CorpusError, list_files, read_kaldi, read_table
from tests.corpora.synthetic import workbook
from tools import graph
from tools.graph import files_behind

HEAD = "path,speaker,emotion,sentence\n"


def written(folder, text, name="t.csv"):
    (folder / name).write_text(text, "utf-8")
    return folder / name


def cells(table):
    return list(table.rows.values())


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_table_is_read_whatever_parts_its_cells_and_lines(tmp_path, separator, ending):
    lines = ["Path ,SPEAKER,emotion", "a.wav,1,sad", "", "b.wav,2,", ",,"]
    path = tmp_path / "t.txt"
    path.write_bytes(ending.join(lines).replace(",", separator).encode("utf-8-sig"))
    table = read_table(path)
    assert table.columns == ["path", "speaker", "emotion"]
    assert table.rows == {2: ["a.wav", "1", "sad"], 4: ["b.wav", "2", ""]}, "numbered as a spreadsheet does"


def test_gzip_parquet_and_workbooks_are_read_by_their_content(tmp_path):
    rows = [["a.wav", "3", "sad"], ["b.wav", "4", ""]]
    text = "path,speaker,emotion\na.wav,3,sad\nb.wav,4,\n"
    frame = pd.DataFrame({"path": ["a.wav", "b.wav"], "speaker": [3, 4], "emotion": ["sad", None]})
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    frame.to_parquet(tmp_path / "t.parquet")
    book = workbook([[], [["path", "speaker", "emotion"], ["a.wav", 3, "sad"], [], ["b.wav", 4]]])
    (tmp_path / "t.xlsx").write_bytes(book)
    (tmp_path / "named_wrongly.csv").write_bytes(book)
    for name in ("t.csv.gz", "t.parquet", "t.xlsx", "named_wrongly.csv"):
        assert cells(read_table(tmp_path / name)) == rows, name
    assert list(read_table(tmp_path / "t.xlsx").rows) == [2, 4]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a table: No columns, it is empty"),
        (b"\n,,\n", "No columns, it is empty"),
        ("path\né.wav".encode("latin-1"), r"is not UTF-8 \(byte 5\): save it as UTF-8"),
        (b"PAR1", "cannot be read as a table"),
        (gzip.compress(b"path", mtime=0)[:-4], "cannot be read as a table"),
        (workbook([]), "one sheet with rows is wanted, 0 are there"),
        (workbook([[["path"], ["a"]], [["path"], ["b"]]]), "one sheet .* 2 are there. Save the one you mean as CSV"),
        (workbook([[["path"]]])[:-30], "cannot be read as a table"),
        (b"\xd0\xcf\x11\xe0", r"it is an old workbook \(.xls\), .*Save it as .xlsx without one, or as CSV"),
        (b"path,speaker\na.wav,1,2\n", "row 2 has 3 cells, the heading has 2"),
        (b"path,speaker\na.wav,1\n\nb.wav\n", "row 4 has 1 cells, the heading has 2"),
    ],
)
def test_what_is_no_whole_table_is_refused_in_words(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=f"t.csv .*{words}|t.csv {words}"):
        read_table(tmp_path / "t.csv")


OPEN_QUOTES = [
    ['"well then', "fine"],  # never closed
    ['"well then', '"and so on', "fine"],  # the next quote is no end
    ['"well then', 'and so on"', "fine"],  # the next quote could be one
    ["fine", '"a" b', "fine"],  # closed too early
]


@pytest.mark.parametrize("sentences", OPEN_QUOTES)
def test_a_quote_left_open_is_a_letter_between_tabs_and_refused_between_commas(tmp_path, sentences):
    lines = [f"{i}.wav\t{i % 3}\tsad\t{text}" for i, text in enumerate(sentences)]
    table = read_table(written(tmp_path, "path\tspeaker\temotion\tsentence\n" + "\n".join(lines) + "\n"))
    assert [row[3] for row in cells(table)] == sentences
    number = next(i for i, text in enumerate(sentences, 2) if '"' in text)
    with pytest.raises(CorpusError, match=rf"row {number} opens a quote .*inside string"):
        read_table(written(tmp_path, HEAD + "\n".join(lines).replace("\t", ",")))


def test_a_long_cell_is_read_as_it_is(tmp_path):
    table = read_table(written(tmp_path, HEAD + f"a.wav,1,sad,{200_000 * 'x'}\n"))
    assert table.column("sentence") == {2: 200_000 * "x"}


def test_a_table_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(CorpusError, match="t.csv cannot be read as a table: it is no file, but a pipe or a device"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("number", "again", "words"),
    [('r="3"', 'r="2"', "two rows have the number 2"), ('r="B2"', 'r="A2"', "two cells of row 2 are called 'A2'")],
)
def test_a_sheet_that_names_two_rows_or_cells_alike_loses_none(tmp_path, number, again, words):
    book = zipfile.ZipFile(io.BytesIO(workbook([[["path", "speaker"], ["a.wav", "1"], ["b.wav", "2"]]])))
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as altered:
        for name in book.namelist():
            altered.writestr(name, book.read(name).decode().replace(number, again))
    with pytest.raises(CorpusError, match=words):
        read_table(tmp_path / "t.xlsx")


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_quotes_and_line_breaks_that_are_well_formed_are_read(tmp_path, separator):
    quoted = ["plain", '"a, b; c\td"', '"two\nlines, of, it, all"', '"say ""hi"""']
    lines = [separator.join([f"{i}.wav", "1", "sad", text]) for i, text in enumerate(quoted)]
    table = read_table(written(tmp_path, HEAD.replace(",", separator) + "\n".join(lines)))
    assert [row[3] for row in cells(table)] == ["plain", "a, b; c\td", "two\nlines, of, it, all", 'say "hi"']


def test_columns_are_known_under_other_tools_names_unless_they_disagree(tmp_path):
    table = read_table(written(tmp_path, "file,speaker_id,emotion,label\na.wav,1,sad,3\n"))
    assert table.column("path") == {2: "a.wav"} and table.column("speaker") == {2: "1"}
    assert table.column("emotion") == {2: "sad"} and table.column("gender") is None
    table = read_table(written(tmp_path, "path,file,emotion,Emotion \na.wav,/x/a.wav,sad,sad\nb.wav,,sad,angry\n"))
    assert table.column("path") == {2: "a.wav", 3: "b.wav"}, "the first name goes before its synonyms"
    with pytest.raises(CorpusError, match=r"2 columns \(emotion, emotion\) give the emotion, .*row 3.* 'sad', 'angry'"):
        table.column("emotion")


def test_folders_that_are_links_are_listed_once_and_loops_do_no_harm(tmp_path):
    for name in ("in/a/1.wav", "out/b/2.wav", "out/c/3.wav", "in/.git/4.wav", "in/__MACOSX/._5.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in (("in/b", "../out/b"), ("in/out", "../out"), ("in/loop", "."), ("in/again", "a")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "in" / "gone").symlink_to("nowhere")
    listing = list_files(tmp_path / "in")
    assert listing.files == ["a/1.wav", "b/2.wav", "out/c/3.wav"]
    assert listing.faults == {
        "again": "a link to a folder that is read already, as a",
        "gone": "a link that leads nowhere",
        "loop": "a link to a folder that is read already, as .",
    }


def test_a_kaldi_file_is_read_and_a_key_may_be_there_once(tmp_path):
    written(tmp_path, "u1 a/b c.wav\nu2\td.wav\n\n", "wav.scp")
    assert read_kaldi(tmp_path, "wav.scp") == {"u1": "a/b c.wav", "u2": "d.wav"}
    assert read_kaldi(tmp_path, "utt2spk") == {}
    with pytest.raises(CorpusError, match="utt2emo names 'u1' twice"):
        read_kaldi(tmp_path, written(tmp_path, "u1 sad\nu1 angry\n", "utt2emo").name)


def test_the_files_behind_a_corpus_are_found_whatever_names_them(tmp_path):
    (tmp_path / "wav").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "wav" / name).touch()
    frame = pd.DataFrame({"file": ["wav/a.wav", "wav/b.wav"], "speaker": 1, "emotion": "sad"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.xlsx").write_bytes(workbook([[list(frame), *frame.to_numpy().tolist()]]))
    recordings = {tmp_path / "wav" / "a.wav", tmp_path / "wav" / "b.wav"}
    for name in ("t.csv", "t.parquet", "t.xlsx"):
        assert set(files_behind(tmp_path / name)) == recordings | {tmp_path / "emotions.csv", tmp_path / name}
    (tmp_path / "kaldi").mkdir()
    written(tmp_path / "kaldi", f"u1 {tmp_path}/wav/a.wav\n", "wav.scp")
    assert set(files_behind(tmp_path / "kaldi")) == {tmp_path / "kaldi" / "wav.scp", tmp_path / "wav" / "a.wav"}
    assert files_behind(tmp_path / "none.csv") == [tmp_path / "none.csv", tmp_path / "emotions.csv"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.xlsx"])
def test_make_notices_a_changed_recording_whatever_names_it(tmp_path, name):
    frame = pd.DataFrame({"path": ["wav/a.wav"], "speaker": ["1"], "emotion": ["sad"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.xlsx").write_bytes(workbook([[list(frame), *frame.to_numpy().tolist()]]))
    seen = [graph.corpus_listing(str(tmp_path / name))]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wav").symlink_to("elsewhere")
    for content in (b"1", b"22"):
        (tmp_path / "elsewhere" / "a.wav").write_bytes(content)
        seen.append(graph.corpus_listing(str(tmp_path / name)))
        seen.append(graph.corpus_listing(str(tmp_path / "elsewhere")))
    assert len(set(seen)) == 5


def test_make_notices_recordings_behind_links_and_outside_a_database(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "data" / "emodb").mkdir(parents=True)
    (tmp_path / "data" / "emodb" / "wav").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(".")
    monkeypatch.setenv("SER_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "db").mkdir()
    written(tmp_path / "db", "tables: {}\n", "db.yaml")
    written(tmp_path / "db", "file,emotion\n../real/a.wav,sad\n", "db.files.csv")
    for dataset in ("emodb", str(tmp_path / "db")):
        seen = set()
        for content in (b"1", b"22"):
            (tmp_path / "real" / "a.wav").write_bytes(content)
            seen.add(graph.corpus_listing(dataset))
        assert len(seen) == 2 and all(listing.count("a.wav") == 1 for listing in seen)


def test_make_tells_of_a_damaged_table_in_one_line(tmp_path):
    written(tmp_path, HEAD + '1.wav,1,sad,"open\n')
    with pytest.raises(SystemExit, match="t.csv cannot be read as a table: row 2 opens a quote") as caught:
        graph.corpus_listing(str(tmp_path / "t.csv"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["A3", "ZZZZZZZ3"])
def test_a_cell_beyond_every_sheet_is_refused_and_no_memory_is_taken(tmp_path, place):
    written = workbook([[["path", "speaker", "emotion"], ["a.wav", "s1", "anger"]]])
    with zipfile.ZipFile(io.BytesIO(written)) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    row = f'<row r="3"><c r="{place}" t="inlineStr"><is><t>b.wav</t></is></c><c r="B3"><v>1</v></c><c r="C3"><v>2</v></c></row></sheetData>'.encode()
    parts[sheet] = parts[sheet].replace(b"</sheetData>", row)
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    if place == "A3":
        assert read_table(tmp_path / "t.xlsx").column("path")[3] == "b.wav"
    else:
        with pytest.raises(CorpusError, match="'ZZZZZZZ3', and a sheet has 16,384 columns"):
            read_table(tmp_path / "t.xlsx")


def test_a_damaged_gzip_is_refused_in_words(tmp_path):
    packed = bytearray(gzip.compress(b"path,speaker,emotion\n" + b"a.wav,s1,anger\n" * 400))
    packed[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "t.csv.gz").write_bytes(packed)
    with pytest.raises(CorpusError, match="cannot be read as a table"):
        read_table(tmp_path / "t.csv.gz")
