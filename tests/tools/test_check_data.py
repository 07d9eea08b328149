import gzip

import numpy as np
import pytest
import soundfile

from ser_utils.corpora import recordings
from ser_utils.corpora.loading import CORPORA, CorpusError, inspect_parts, load_corpus
from ser_utils.evaluation.splits import make_folds
from tools import check_data
from tools.check_data import check_corpus, describe, load_index, main

NAMES = [
    f"{speaker}{sentence}{code}a" for speaker in ("03", "08") for sentence in ("a01", "a02", "b01") for code in "WNFTL"
]


@pytest.fixture(autouse=True)
def apart(request, monkeypatch, tmp_path):
    monkeypatch.delenv("STRICT", raising=False)
    if not request.node.get_closest_marker("real_data"):
        monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")


def record(path, seed, n_samples=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    soundfile.write(path, rng.integers(-9999, 9999, n_samples or 4000 + int(rng.integers(4000)), np.int16), 16_000)


@pytest.fixture
def emodb(tmp_path, monkeypatch):
    """Thirty files of EmoDB, and an index that was published for them."""
    for seed, name in enumerate(NAMES):
        record(tmp_path / "emodb" / "wav" / f"{name}.wav", seed)
    files = inspect_parts("emodb", tmp_path)[0].files
    index = files[["utterance_id", "sha256", "pcm_sha256"]].assign(bytes=files["size"])
    (tmp_path / "index").mkdir()
    index.to_csv(tmp_path / "index" / "emodb.csv.gz", index=False)
    monkeypatch.setattr(check_data, "INDEX", tmp_path / "index")
    load_index.cache_clear()
    yield tmp_path
    load_index.cache_clear()


def the_check(folder):
    (check,) = check_corpus("emodb", folder)
    return check


def test_all_is_well(emodb):
    check = the_check(emodb)
    assert check.usable and len(check.present) == 30 and check.n_missing == 0 and not check.warnings
    assert all(len(found) == 0 for found in (check.altered, check.unreadable, check.unexpected, check.duplicated))


def test_each_fault_has_its_own_list(emodb):
    wav = emodb / "emodb" / "wav"
    (wav / f"{NAMES[0]}.wav").unlink()
    record(wav / f"{NAMES[1]}.wav", 1000)
    (wav / f"{NAMES[2]}.wav").write_bytes(b"")
    record(wav / "what.wav", 1001)
    record(wav / "16b10Wz.wav", 1002)
    check = the_check(emodb)
    assert check.missing == [NAMES[0]]
    assert check.altered.to_numpy().tolist() == [[f"wav/{NAMES[1]}.wav", "other samples than published"]]
    assert check.unreadable.to_numpy().tolist() == [[f"wav/{NAMES[2]}.wav", "empty file (0 bytes)"]]
    assert check.unexpected["path"].tolist() == ["wav/what.wav", "wav/16b10Wz.wav"]
    assert check.unexpected["reason"].tolist()[1] == "not among the published files"
    text = describe(check)
    assert "missing         1" in text and "altered         1" in text and NAMES[0] in text


def test_a_flac_of_the_published_samples_is_not_altered(emodb):
    path = emodb / "emodb" / "wav" / f"{NAMES[0]}.wav"
    samples, rate = soundfile.read(path, dtype="int16")
    path.unlink()
    soundfile.write(path.with_suffix(".flac"), samples, rate)
    assert the_check(emodb).altered.empty and the_check(emodb).n_missing == 0


def test_the_same_recording_under_two_speakers_is_found(emodb):
    wav = emodb / "emodb" / "wav"
    (wav / f"{NAMES[0]}.wav").write_bytes((wav / "08a02Na.wav").read_bytes())
    check = the_check(emodb)
    found = check.duplicated.iloc[0]
    assert found["paths"] == "wav/03a01Wa.wav = wav/08a02Na.wav"
    assert (found["speakers"], found["emotions"], found["of_one_utterance"]) == ("03, 08", "anger, neutral", False)
    assert "under speakers 03, 08; under emotions anger, neutral" in describe(check)


def test_a_corpus_packed_twice_is_a_duplicate_of_one_utterance(emodb):
    again = emodb / "emodb" / "copy" / "wav" / f"{NAMES[0]}.wav"
    again.parent.mkdir(parents=True)
    again.write_bytes((emodb / "emodb" / "wav" / again.name).read_bytes())
    check = the_check(emodb)
    assert check.duplicated["of_one_utterance"].tolist() == [True] and check.usable and check.unreadable.empty


def test_a_corpus_with_too_many_faults_is_not_usable(emodb, capsys):
    for name in NAMES[:4]:
        (emodb / "emodb" / "wav" / f"{name}.wav").write_bytes(b"RIFF")
    check = the_check(emodb)
    assert not check.usable and check.verdict.startswith("not usable: 4 of 30 files")
    assert main(["emodb", "--data-dir", str(emodb)]) == 1
    assert "not usable" in capsys.readouterr().out


def test_a_single_emotion_is_nothing_to_learn(emodb, capsys):
    for path in (emodb / "emodb" / "wav").glob("*[!W]a.wav"):
        path.unlink()
    assert main(["emodb", "--data-dir", str(emodb)]) == 1
    said = capsys.readouterr().out
    assert "not usable: it needs two emotions at least. Received: 6 recordings, all of anger" in said
    with pytest.raises(ValueError, match="Folds need two emotions at least. Received: 6 rows of anger"):
        make_folds(load_corpus("emodb", emodb), "speaker", system="baseline")


def test_a_corpus_named_twice_is_not_called_usable(emodb, capsys):
    assert main(["emodb+emodb", "--data-dir", str(emodb)]) == 1
    assert "Each corpus may be there once, under a name of its own. Received: emodb+emodb" in capsys.readouterr().out


def test_the_exit_status_says_whether_it_is_usable(emodb, monkeypatch, capsys):
    arguments = ["emodb", "--data-dir", str(emodb)]
    assert main(arguments) == 0
    assert "usable, partial: 30 of 535 files, 5 of 7 emotions, 2 of 10 speakers" in capsys.readouterr().out
    monkeypatch.setenv("STRICT", "1")
    assert main(arguments) == 1
    assert main(["tess", "--data-dir", str(emodb)]) == 1
    assert "TESS: expected 2800 recordings" in capsys.readouterr().err
    assert main(["", "--data-dir", str(emodb)]) == 1
    assert "Accepted: demo, emodb" in capsys.readouterr().err


def test_long_lists_are_cut_unless_all_is_asked_for(emodb, capsys):
    for name in NAMES[:12]:
        (emodb / "emodb" / "wav" / f"{name}.wav").unlink()
    main(["emodb", "--data-dir", str(emodb)])
    assert "… and 2 more (--all shows them)" in capsys.readouterr().out
    main(["emodb", "--data-dir", str(emodb), "--all"])
    assert NAMES[11] in capsys.readouterr().out


def test_without_an_index_the_missing_are_counted(tmp_path):
    record(tmp_path / "aesdd" / "a01 (1).wav", 0)
    (check,) = check_corpus("aesdd", tmp_path)
    assert check.n_missing == 604 and check.missing == []


def test_corpora_that_differ_in_loudness_are_told_apart(tmp_path):
    record(tmp_path / "emodb" / "03a01Wa.wav", 0)
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", np.resize([0.001, -0.001], 16_000) * (i + 1), 16_000)
    (tmp_path / "own.csv").write_text("path,speaker,emotion\n0.wav,1,sad\n1.wav,1,sad\n2.wav,1,angry\n")
    between = check_corpus(f"{tmp_path}/own.csv+emodb", tmp_path)[-1]
    assert "Loudness tells the corpora apart" in between.warnings[0]


def test_two_tables_that_name_the_same_people_are_not_called_usable(tmp_path, capsys):
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.random.default_rng(i).normal(0, 0.1, 16_000), 16_000)
    (tmp_path / "train.csv").write_text("path,speaker,emotion\n0.wav,11,sad\n1.wav,11,angry\n")
    (tmp_path / "test.csv").write_text("path,speaker,emotion\n2.wav,011,sad\n3.wav,12,angry\n")
    assert main([f"{tmp_path}/train.csv+{tmp_path}/test.csv", "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "cannot be used together" in said
    assert "train.csv and test.csv both have a speaker '11' ('011')" in said


@pytest.mark.parametrize(
    ("name", "known"), [("emodb", "sha256"), ("tess", "sha256"), ("cremad", "sha256"), ("ravdess", "pcm_sha256")]
)
def test_committed_indexes_name_every_published_file_under_the_grammar(name, known):
    index, corpus = load_index(name), CORPORA[name]
    assert len(index) == corpus.n_files and index["utterance_id"].is_unique
    assert index[known].str.fullmatch("[0-9a-f]{64}").all()
    facts = [corpus.utterance(f"{utterance}.wav") for utterance in index["utterance_id"]]
    assert [fact["utterance_id"] for fact in facts] == index["utterance_id"].tolist()
    assert {fact["speaker"] for fact in facts} == set(corpus.speakers)
    assert {fact["emotion"] for fact in facts} == set(corpus.emotions)


def test_committed_indexes_carry_no_time_of_their_making():
    for path in check_data.INDEX.glob("*.csv.gz"):
        assert path.read_bytes()[4:8] == b"\0" * 4 and gzip.decompress(path.read_bytes())


@pytest.mark.real_data
def test_the_check_tells_the_truth_about_the_real_files(data_dir):
    (emodb,) = check_corpus("emodb", data_dir)
    assert emodb.usable and len(emodb.present) == 339 and emodb.n_missing == 196 and emodb.altered.empty
    (ravdess,) = check_corpus("ravdess", data_dir)
    assert ravdess.verdict == "usable, complete" and ravdess.altered.empty and ravdess.n_missing == 0
    # one clip of actor 07 really is there under both repetitions
    assert ravdess.duplicated["paths"].tolist() == [
        "Actor_07/03-01-03-01-02-01-07.flac = Actor_07/03-01-03-01-02-02-07.flac"
    ]
    assert any("5 with 2 channel(s)" in warning for warning in ravdess.warnings)
    (aesdd,) = check_corpus("aesdd", data_dir)
    assert aesdd.usable and aesdd.unreadable["path"].tolist() == ["s05 (3).wav"]


def test_an_absent_corpus_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match="make data DATASET=savee"):
        check_corpus("savee", tmp_path)
