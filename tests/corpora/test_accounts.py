"""Every file and every row is accounted for, and no person stands on two sides of a speaker fold."""

import gzip
import os
import re
import shutil

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ser_utils.corpora import recordings
from ser_utils.corpora.loading import CorpusError, inspect_corpus, load_corpus
from ser_utils.evaluation.splits import make_folds
from tests.corpora.synthetic import EMOTIONS, people_rows, record, sound, workbook, write_table
from tools.check_data import check_corpus, describe, main


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path_factory):
    monkeypatch.delenv("STRICT", raising=False)
    monkeypatch.setattr(recordings, "REPOSITORY", tmp_path_factory.mktemp("repository"))


def sums(report):
    """what → (found, used, left out), as the account says them."""
    pattern = r"^(\d+) (files found|rows): (\d+) used, (\d+) left out(?:, because: (.*))?$"
    told = {}
    for found, what, used, left_out, because in re.findall(pattern, report.account, re.MULTILINE):
        assert sum(map(int, re.findall(r"\((\d+)\)(?:;|$)", because))) == int(left_out), report.account
        told[what] = int(found), int(used), int(left_out)
    return told


def test_a_corpus_of_nothing_but_a_csv_of_paths_loads(tmp_path):
    path = write_table(tmp_path / "t.csv", people_rows(takes=3))
    report = inspect_corpus(path, tmp_path)
    assert sums(report) == {"files found": (48, 48, 0), "rows": (48, 48, 0)}
    assert report.announcement == "" and check_corpus(path, tmp_path)[0].verdict == "usable, complete"
    folds = make_folds(report.table, "speaker", folds="leave_one_speaker_out")
    assert folds["fold"].nunique() == 4


@pytest.mark.parametrize("form", ["t.csv.gz", "t.xlsx", "t.parquet", "t.tsv"])
def test_the_same_rows_are_the_same_corpus_in_every_form(tmp_path, form):
    rows, columns = people_rows(), ["path", "speaker", "emotion"]
    wanted = load_corpus(write_table(tmp_path / "t.csv", rows), tmp_path)
    text = (tmp_path / "t.csv").read_text()
    content = {"t.csv.gz": gzip.compress(text.encode()), "t.xlsx": workbook([[columns, *rows]])}
    (tmp_path / form).write_bytes(content.get(form, text.replace(",", "\t").encode()))
    if form == "t.parquet":
        pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / form)
    pd.testing.assert_frame_equal(load_corpus(str(tmp_path / form), tmp_path), wanted)


def test_files_that_are_not_read_are_listed_with_what_to_do(tmp_path):
    for seed, (path, speaker, emotion) in enumerate(people_rows()):
        record(tmp_path / "own" / speaker / emotion / path[4:], seed)
    for suffix in ("m4a", "AAC", "webm", "mp4"):
        (tmp_path / "own" / "anna" / "anger" / f"x.{suffix}").write_bytes(b"x")
    for name in ("notes.txt", "anna/readme", "anna/anger/x.json"):
        (tmp_path / "own" / name).touch()
    report = inspect_corpus(str(tmp_path / "own"), tmp_path)
    assert sums(report) == {"files found": (20, 16, 4)} and report.announcement == "16 of 20 files"
    assert ".aac is not read (1)" in report.account
    assert "besides, files that are no recordings: .json (1), .txt (1), no suffix (1)" in report.account
    assert "convert it, e.g. ffmpeg -i x.AAC x.wav" in report.problems["reason"][0]


@pytest.mark.parametrize("suffix", [".wave", ".sph", ".flac", ".aiff"])
def test_what_libsndfile_reads_is_read_under_any_of_its_suffixes(tmp_path, suffix):
    for emotion in EMOTIONS:
        record(tmp_path / "own" / "anna" / emotion / f"x{suffix}")
    assert len(load_corpus(str(tmp_path / "own"), tmp_path)) == 4


def test_recordings_in_linked_folders_are_used(tmp_path):
    for seed, (path, speaker, emotion) in enumerate(people_rows()):
        home = "elsewhere" if speaker == "dora" or emotion == "sadness" else "own"
        record(tmp_path / home / speaker / emotion / path[4:], seed)
    (tmp_path / "own" / "dora").symlink_to("../elsewhere/dora")
    for speaker in ("anna", "bert", "carl"):
        (tmp_path / "own" / speaker / "sadness").symlink_to(f"../../elsewhere/{speaker}/sadness")
        (tmp_path / "own" / speaker / "up").symlink_to("..")
    report = inspect_corpus(str(tmp_path / "own"), tmp_path)
    assert len(report.table) == 16 and sums(report) == {"files found": (16, 16, 0)}
    assert len(report.problems) == 3 and "read already" in report.problems["reason"][0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_announced(tmp_path):
    for seed, (path, speaker, emotion) in enumerate(people_rows()):
        record(tmp_path / "own" / speaker / emotion / path[4:], seed)
    (tmp_path / "own" / "dora" / "anger").chmod(0)
    assert "1 folders cannot be read" in inspect_corpus(str(tmp_path / "own"), tmp_path).announcement


def test_a_file_that_no_row_names_is_told_and_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("STRICT", "1")
    path = write_table(tmp_path / "t.csv", people_rows())
    record(tmp_path / "wav" / "more.wav")
    (tmp_path / "wav" / "more.m4a").touch()
    report = inspect_corpus(path, tmp_path)
    assert sums(report) == {"files found": (18, 16, 2), "rows": (16, 16, 0)}
    assert set(report.problems["reason"]) == {"no row of the table names it"}


@pytest.mark.parametrize("n_absent", [1, 2])
def test_rows_whose_files_are_absent_count_against_complete(tmp_path, n_absent, capsys, monkeypatch):
    path = write_table(tmp_path / "t.csv", people_rows(takes=2))
    for name in list((tmp_path / "wav").iterdir())[:n_absent]:
        name.unlink()
    report = inspect_corpus(path, tmp_path)
    n = 32 - n_absent
    assert report.announcement == f"{n} of 32 files"
    assert sums(report) == {"files found": (n, n, 0), "rows": (32, n, n_absent)}
    assert f"No such file or directory ({n_absent})" in report.account
    assert main([path]) == 0
    said = capsys.readouterr().out
    assert f"usable, partial: {n} of 32 files" in said and f"missing    {n_absent:>6}" in said
    monkeypatch.setenv("STRICT", "1")
    assert main([path]) == 1
    with pytest.raises(CorpusError, match=f"partial .{n} of 32 files., which STRICT=1 refuses"):
        load_corpus(path, tmp_path)


def test_what_the_reader_leaves_out_does_not_make_a_corpus_partial(tmp_path, monkeypatch):
    monkeypatch.setenv("STRICT", "1")
    rows = [*people_rows(), ["x.wav", "anna", "laughter"]]
    path = write_table(tmp_path / "t.csv", rows)
    (tmp_path / "emotions.csv").write_text("word,emotion\nlaughter,\n")
    report = inspect_corpus(path, tmp_path)
    assert report.announcement == "" and sums(report)["rows"] == (17, 16, 1)


def test_emotions_that_not_all_corpora_have_are_accounted_for(tmp_path):
    first = write_table(tmp_path / "first.csv", people_rows("anna bert"))
    second = write_table(
        tmp_path / "in" / "second.csv", [["c.wav", "carl", "anger"], ["d.wav", "carl", "sadness"]], sounds=False
    )
    for name in "cd":
        record(tmp_path / "in" / f"{name}.wav")
    report = inspect_corpus(f"{first}+{second}", tmp_path)
    assert sums(report) == {"files found": (10, 6, 4), "rows": (10, 6, 4)}
    assert "happiness: not all corpora have it" in set(report.problems["reason"])


@pytest.mark.parametrize(
    "text", ["word,emotion\nwistful,sadness\nwistful,fear\n", "word,emotion\nWistful,sadness\n wistful ,sadness\n"]
)
def test_a_word_that_is_mapped_twice_is_refused(tmp_path, text):
    path = write_table(tmp_path / "t.csv", [["a.wav", "1", "wistful"]])
    (tmp_path / "emotions.csv").write_text(text)
    with pytest.raises(CorpusError, match="emotions.csv: rows 2 and 3 both say what 'wistful' means"):
        load_corpus(path, tmp_path)


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("wav\\a.wav", "wav/a.wav"),
        ("C:\\Users\\me\\wav\\a.wav", "wav/a.wav"),
        ("wav/a%20b.wav", "wav/a b.wav"),
        ("file:///home/me/wav/a.wav", "wav/a.wav"),
        ("/home/me/corpus/wav/a.wav", "wav/a.wav"),
        ("WAV/../wav/A.WAV", "wav/a.wav"),
        ("wav/a", "wav/a.wav"),
        ("wav/a.mp3", "wav/a.flac"),
    ],
)
def test_a_path_that_is_not_there_suggests_the_one_that_is(tmp_path, written, there):
    record(tmp_path / there)
    path = write_table(tmp_path / "t.csv", [[written, "anna", "sad"]], sounds=False)
    with pytest.raises(CorpusError, match=re.escape(f"No such file; but there is {there!r}: write the path like this")):
        load_corpus(path, tmp_path)


def test_spellings_of_a_path_that_look_alike_are_shown_by_their_letters(tmp_path):
    record(tmp_path / "Jos\u00e9.wav")
    path = write_table(tmp_path / "t.csv", [["Jose\u0301.wav", "anna", "sad"]], sounds=False)
    shown = r"but there is 'Jos\xe9.wav', not 'Jose\u0301.wav': write"
    with pytest.raises(CorpusError, match=re.escape(shown)):
        load_corpus(path, tmp_path)


def test_check_data_says_what_to_do_about_files_that_are_missing(tmp_path):
    record(tmp_path / "wav" / "a.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    files = ["C:\\wav\\a.wav", "https://x.org/b.wav", "loop.wav"]
    path = write_table(tmp_path / "t.csv", [[name, "anna", "sad"] for name in files], sounds=False)
    assert check_corpus(path, tmp_path)[0].missing == [
        "C:\\wav\\a.wav: No such file; but there is 'wav/a.wav': write the path like this",
        "https:/x.org/b.wav: an address, which is not read: download the file, and write its path",
        "loop.wav",
    ]


def test_check_data_shows_who_speaks_how_often_with_which_emotions(tmp_path):
    rows = [[*row, "w" if row[1] == "anna" else ""] for row in people_rows("anna bert", takes=2)]
    path = write_table(tmp_path / "t.csv", rows, ("path", "speaker", "emotion", "gender"))
    text = describe(check_corpus(path, tmp_path)[0])
    assert "16 files found: 16 used, 0 left out" in text and "speakers        2" in text
    assert "anna (female): 8 utterances (anger 2, happiness 2, neutral 2, sadness 2)" in text
    assert "bert (gender not given): 8 utterances" in text


# Ways to write the id of person 1, 2, 3 …, of which some are the same to a reader
SPELLINGS = ["{}", "{:02d}", "{}.0", "spk{}", "Spk{:02d}", "speaker {}", "\uff13{}"]
DAMAGES = st.sampled_from(
    ["none", "absent", "empty", "unread", "unnamed", "no label", "no speaker", "gender", "twice", "quote", "left out"]
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(SPELLINGS[:2]), st.sampled_from(EMOTIONS)),
        min_size=12,
        max_size=24,
    ),
    damages=st.lists(DAMAGES, min_size=1, max_size=3),
    separator=st.sampled_from(",\t;"),
)
def test_damaged_tables_are_accounted_for_or_refused(tmp_path, rows, damages, separator):
    folder = tmp_path / "table"
    shutil.rmtree(folder, ignore_errors=True)
    columns = ["path", "speaker", "emotion", "gender", "sentence"]
    cells = [
        [f"wav/{i}.wav", spelling.format(person), emotion, "", "hello"]
        for i, (person, spelling, emotion) in enumerate(rows)
    ]
    (folder / "wav").mkdir(parents=True)
    for seed in range(len(cells)):
        (folder / "wav" / f"{seed}.wav").write_bytes(sound(seed))
    for place, damage in enumerate(damages):
        row, file = cells[place], folder / "wav" / f"{place}.wav"
        if damage == "absent":
            file.unlink()
        elif damage == "empty":
            file.write_bytes(b"")
        elif damage == "unread":
            row[0] = f"wav/{place}.m4a"
            file.rename(folder / row[0])
        elif damage == "unnamed":
            (folder / "wav" / f"more{place}.wav").write_bytes(sound(99))
        elif damage == "left out":
            row[2] = "laughter"
        elif damage == "twice":
            cells.append(list(row))
        else:
            column = {"no label": 2, "no speaker": 1, "gender": 3, "quote": 4}.get(damage)
            if column:
                row[column] = {"gender": "f", "quote": '"hello', "no label": "None"}.get(damage, "nan")
    (folder / "emotions.csv").write_text("word,emotion\nlaughter,\n")
    (folder / "t.csv").write_text("".join(separator.join(row) + "\n" for row in [columns, *cells]))
    n_files = len(list((folder / "wav").iterdir()))
    try:
        report = inspect_corpus(str(folder / "t.csv"), tmp_path)
    except CorpusError as error:
        assert re.search(r"row \d+|wav/\d+", str(error)), "a refusal names what is wrong"
        return
    assert not {"no label", "no speaker", "twice"} & set(damages)
    told = sums(report)
    assert told["files found"][0] == n_files and told["rows"][0] == len(cells)
    assert all(found == used + left_out for found, used, left_out in told.values())
    assert told["rows"][1] == told["files found"][1] == len(report.table)
    person_of = {f"wav/{i}.wav": person for i, (person, _, _) in enumerate(rows)}
    assert_nobody_is_on_two_sides(report.table, lambda path: person_of[path.removeprefix(f"{folder}/")])


def assert_nobody_is_on_two_sides(table, person_of):
    """Under `speaker`, whoever speaks in test speaks nowhere else; unknown speakers are one and announced."""
    people = table["path"].map(person_of)
    assert (people.groupby(table["speaker"]).nunique() == 1).all()
    assert (table["speaker"].groupby(people).nunique() == 1).all()
    if table["speaker"].nunique() < 3 or table["emotion"].nunique() < 2:
        return
    folds = make_folds(table, "speaker", folds="leave_one_speaker_out")
    folds["person"] = folds["utterance_id"].map(dict(zip(table["utterance_id"], people, strict=True)))
    for _, fold in folds.groupby("fold"):
        tested = set(fold.loc[fold["role"] == "test", "person"])
        assert not tested & set(fold.loc[fold["role"] != "test", "person"])


LAYOUTS = ["{s}/{e}", "{e}/{s}", "Corpus/{s}/{e}", "{t}/{s}/{e}", "{s}/{e}/{t}", "{s}/{e}/wav", "{e}", "{t}/{e}", "{s}"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layouts=st.lists(st.sampled_from(LAYOUTS), min_size=1, max_size=2),
    speakers=st.lists(
        st.sampled_from("anna bert Joy 03 3 Spk1 spk01 dev".split()), min_size=2, max_size=4, unique=True
    ),
    damage=st.sampled_from(["none", "empty", "unread", "link", "text"]),
)
def test_damaged_trees_are_accounted_for_or_refused(tmp_path, layouts, speakers, damage):
    folder = tmp_path / "tree"
    shutil.rmtree(folder, ignore_errors=True)
    seed = 0
    for speaker in speakers:
        for emotion in EMOTIONS:
            for layout in layouts:
                place = folder / layout.format(s=speaker, e=emotion, t=("train", "test")[seed % 2])
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{speaker}_{seed}.wav").write_bytes(sound(seed))
                seed += 1
    first = min(folder.rglob("*.wav"))
    if damage == "empty":
        first.write_bytes(b"")
    elif damage == "unread":
        first.rename(first.with_suffix(".m4a"))
    elif damage == "text":
        first.with_suffix(".txt").touch()
    elif damage == "link":
        (folder / "again").symlink_to(first.parent)
    try:
        report = inspect_corpus(str(folder), tmp_path)
    except CorpusError as error:
        assert re.search(r"(?m)\.wav|more than a tenth|emotion words '", str(error))
        return
    n_audio = len([path for path in folder.rglob("*") if path.suffix in (".wav", ".m4a")])
    assert sums(report) == {"files found": (n_audio, len(report.table), n_audio - len(report.table))}
    known = report.table[report.table["speaker"] != "unknown"]
    if len(known) < len(report.table):
        assert "unknown, taken as one" in report.announcement
    assert_nobody_is_on_two_sides(known.reset_index(drop=True), lambda path: path.rsplit("/", 1)[1].split("_")[0])
