import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils.corpora import loading as corpora
from ser_utils.corpora import recordings
from ser_utils.corpora.check import count_labels, describe_harmonisation
from ser_utils.corpora.facts import GrammarError
from ser_utils.corpora.loading import COLUMNS, CORPORA, EMOTIONS, CorpusError, inspect_corpus, load_corpus


@pytest.fixture(autouse=True)
def apart(request, monkeypatch, tmp_path):
    """No environment of the caller, and, but for the real corpora, no cache but this test's own."""
    monkeypatch.delenv("STRICT", raising=False)
    if not request.node.get_closest_marker("real_data"):
        monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")


def record(path, *, seconds=0.3, rate=16_000, seed=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, str(path))) if seed is None else seed
    noise = np.random.default_rng(seed).integers(-9999, 9999, int(seconds * rate), dtype=np.int16)
    soundfile.write(path, noise, rate)
    return path


def record_emodb(data, n=20):
    sentences, speakers = list(CORPORA["emodb"].sentences), list(CORPORA["emodb"].speakers)
    for i in range(n):
        record(
            data / "emodb" / "wav" / f"{speakers[i % 10]}{sentences[i // 2 % 10]}{'WNFT'[i % 4]}{'abc'[i // 20]}.wav"
        )


# facts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=list(CORPORA))
def test_facts_are_complete_and_canonical(corpus):
    assert set(corpus.emotion_of_code.values()) <= {*EMOTIONS, ""} and len(corpus.emotions) >= 4
    assert set(corpus.speakers.values()) <= {"female", "male", ""}
    assert all((corpus.title, corpus.language, corpus.licence, corpus.citation, corpus.home, corpus.layout))


def test_known_counts():
    emodb, ravdess, cremad = CORPORA["emodb"], CORPORA["ravdess"], CORPORA["cremad"]
    assert sorted(emodb.speakers) == "03 08 09 10 11 12 13 14 15 16".split() and len(emodb.sentences) == 10
    assert [s for s, g in emodb.speakers.items() if g == "female"] == "08 09 13 14 16".split()
    assert ravdess.speakers["01"] == "male" and ravdess.speakers["24"] == "female"
    # 48 actors and 43 actresses, says CREMA-D
    assert list(cremad.speakers.values()).count("male") == 48 and len(cremad.speakers) == 91


# grammar: every layout in which public copies come ----------------------------------------------------------

LAYOUTS = [
    ("emodb", "wav/03a01Fa.wav", "03a01Fa", "03", "happiness", "a01", ""),
    ("emodb", "16b10Lb.flac", "16b10Lb", "16", "boredom", "b10", ""),
    ("ravdess", "Actor_07/03-01-05-02-01-02-07.wav", "03-01-05-02-01-02-07", "07", "anger", "01", "strong"),
    ("ravdess", "03-01-01-01-02-01-24.flac", "03-01-01-01-02-01-24", "24", "neutral", "02", "normal"),
    ("ravdess", "audio_speech_actors_01-24/Actor_07/03-01-02-01-01-01-07.wav", None, "07", "calm", "01", "normal"),
    ("aesdd", "a01 (1).wav", "a01 (1)", "1", "anger", "01", ""),
    ("aesdd", "happiness/h19 (5)b.wav", "h19 (5)b", "5", "happiness", "19", ""),
    ("aesdd", "f10 (01).wav", "f10 (01)", "1", "fear", "10", ""),
    ("aesdd", "d20 (3).wav", "d20 (3)", "3", "disgust", "20d3", ""),  # improvised: nobody else says it
    ("tess", "OAF_angry/OAF_back_angry.wav", "OAF_back_angry", "OAF", "anger", "back", ""),
    ("tess", "YAF_pleasant_surprised/YAF_young_ps.wav", "YAF_young_ps", "YAF", "surprise", "young", ""),
    ("tess", "oaf_Fear/oaf_Back_Fear.wav", "OAF_back_fear", "OAF", "fear", "back", ""),
    ("tess", "OAF_neutral/OA_bite_neutral.wav", "OAF_bite_neutral", "OAF", "neutral", "bite", ""),
    ("savee", "ALL/DC_a01.wav", "DC_a01", "DC", "anger", "01", ""),
    ("savee", "AudioData/KL/sa15.wav", "KL_sa15", "KL", "sadness", "sa15", ""),
    ("savee", "JK/su04.wav", "JK_su04", "JK", "surprise", "su04", ""),
    ("cremad", "AudioWAV/1001_IEO_ANG_HI.wav", "1001_IEO_ANG_HI", "1001", "anger", "IEO", "high"),
    ("cremad", "1002_DFA_NEU_XX.wav", "1002_DFA_NEU_XX", "1002", "neutral", "DFA", ""),
    ("cremad", "1040_ITH_SAD_X.wav", "1040_ITH_SAD_XX", "1040", "sadness", "ITH", ""),
    ("emomatch", "07_Alegria_02.WAV", "07_Alegria_02", "07", "happiness", "02", ""),
    ("emomatch", "31_Ira_11.wav", "31_Ira_11", "31", "anger", "11", ""),
    ("emomatch", "07_Alegría_02.wav", "07_Alegria_02", "07", "happiness", "02", ""),
]


@pytest.mark.parametrize(("name", "path", "utterance", "speaker", "emotion", "sentence", "intensity"), LAYOUTS)
def test_names_are_read_in_every_public_layout(name, path, utterance, speaker, emotion, sentence, intensity):
    facts = CORPORA[name].utterance(path)
    wanted = {"speaker": speaker, "emotion": emotion, "sentence": sentence, "intensity": intensity}
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["utterance_id"] == (utterance or Path(path).stem)
    assert facts["gender"] == CORPORA[name].speakers[speaker] and facts["emotion_native"]


@pytest.mark.parametrize(
    ("name", "path", "words", "foreign"),
    [
        ("emodb", "03a01Xa.wav", r"unknown emotion code 'X'; EmoDB has W \(anger\), L \(boredom\)", False),
        ("emodb", "04a01Fa.wav", "unknown speaker '04'; EmoDB has 03, 08", False),
        ("emodb", "holiday.wav", "outside the grammar, which is like 03a01Fa.wav", False),
        ("ravdess", "Actor_01/03-01-09-01-01-01-01.wav", "unknown emotion code '09'", False),
        ("ravdess", "Actor_01/03-02-01-01-01-01-01.wav", "song", True),
        ("ravdess", "Actor_01/01-01-01-01-01-01-01.mp4", "full audio-video", True),
        ("ravdess", "Actor_01/02-01-01-01-01-01-01.mp4", "video only", True),
        ("savee", "a01.wav", "unknown speaker", False),
        ("tess", "OAF_back_bored.wav", "unknown emotion code 'bored'", False),
        ("iemocap", "Session1/dialog/wav/Ses01F_impro01.wav", "whole dialogue", True),
    ],
)
def test_names_outside_the_grammar_are_refused_in_words(name, path, words, foreign):
    with pytest.raises(GrammarError, match=words) as caught:
        CORPORA[name].utterance(path)
    assert caught.value.foreign is foreign


# loading ----------------------------------------------------------------------------------------------------


def test_a_partial_corpus_is_loaded_and_announced(tmp_path, monkeypatch):
    record_emodb(tmp_path)
    table = load_corpus("emodb", tmp_path)
    assert list(table.columns) == list(COLUMNS) and len(table) == 20
    assert table.attrs["announcement"] == "20 of 535 files, 4 of 7 emotions"
    assert table["utterance_id"].is_monotonic_increasing and table["utterance_id"].is_unique
    assert not table.isna().any().any() and set(table["language"]) == {"de"}
    assert all(Path(path).is_file() for path in table["path"])
    monkeypatch.setenv("STRICT", "1")
    with pytest.raises(CorpusError, match=r"EmoDB .* is partial \(20 of 535 files, 4 of 7 emotions\), which STRICT"):
        load_corpus("emodb", tmp_path)


def test_strict_is_heard_from_the_environment(tmp_path, monkeypatch):
    record_emodb(tmp_path)
    monkeypatch.setenv("STRICT", "1")
    with pytest.raises(CorpusError, match="STRICT=1 refuses"):
        load_corpus("emodb", tmp_path)


def test_wav_and_flac_of_one_recording_agree(tmp_path):
    record(tmp_path / "one" / "emodb" / "03a01Fa.wav", seed=1)
    record(tmp_path / "two" / "EmoDB" / "03a01Fa.flac", seed=1)
    one, two = load_corpus("emodb", tmp_path / "one").iloc[0], load_corpus("emodb", tmp_path / "two").iloc[0]
    assert one["pcm_sha256"] == two["pcm_sha256"] and one["sha256"] != two["sha256"]


def test_an_absent_corpus_says_what_was_expected_where_and_how_to_get_it(tmp_path):
    with pytest.raises(CorpusError, match=r"expected 1440 recordings as .*Actor_01.*make data DATASET=ravdess"):
        load_corpus("ravdess", tmp_path)
    (tmp_path / "ravdess").mkdir()
    with pytest.raises(CorpusError, match="there are 0 audio files in"):
        load_corpus("ravdess", tmp_path)


@pytest.mark.parametrize(
    "folder", ["Tess", "TESS Toronto emotional speech set data", "toronto-emotional-speech-set-tess"]
)
def test_folders_are_found_under_the_names_of_their_kaggle_copies(tmp_path, folder):
    record(tmp_path / folder / "TESS Toronto emotional speech set data" / "OAF_angry" / "OAF_back_angry.wav")
    assert load_corpus("tess", tmp_path)["utterance_id"].tolist() == ["OAF_back_angry"]


def test_an_unknown_corpus_lists_the_accepted_ones(tmp_path):
    with pytest.raises(CorpusError, match="No corpus is called 'emo'. Accepted: demo, emodb, ravdess, aesdd, tess"):
        load_corpus("emo", tmp_path)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("emodb+all", "LABELS=all keeps emotions that only some of several corpora have, and needs several: make"),
        ("demo+emodb", "The demo corpus .* cannot be joined. Received: demo.emodb. Leave demo out"),
        ("emodb+/none/t.csv", "/none/t.csv is not there. A dataset is a corpus's name, or the path"),
        ("+emodb", "each of them once. Received: '.emodb'"),
        ("emodb+emodb", "each of them once. Received: 'emodb.emodb'"),
    ],
)
def test_a_dataset_that_cannot_be_is_refused_before_anything_is_read(dataset, words):
    with pytest.raises(CorpusError, match=words):
        corpora.refuse_unknown(dataset)


def test_a_join_with_demo_does_not_ask_for_its_download(tmp_path):
    with pytest.raises(CorpusError, match="The demo corpus .* cannot be joined"):
        load_corpus("emodb+demo", tmp_path)


def test_unusable_files_are_reported_left_out_and_counted(tmp_path):
    record_emodb(tmp_path, 40)
    folder = tmp_path / "emodb" / "wav"
    (folder / "08a01Wb.wav").write_bytes(b"")
    soundfile.write(folder / "08a02Wb.wav", np.zeros(16_000), 16_000)
    record(folder / "08a04Wb.wav", seconds=0.05)
    record(folder / "notes.wav")
    report = inspect_corpus("emodb", tmp_path)
    assert len(report.table) == 40 and report.table.attrs["left_out"] == 4
    reasons = dict(zip(report.problems["path"], report.problems["reason"], strict=True))
    assert reasons.pop("wav/08a01Wb.wav") == "empty file (0 bytes)"
    assert reasons.pop("wav/08a02Wb.wav") == "silent: all 16000 samples are zero"
    assert reasons.pop("wav/08a04Wb.wav") == "50 ms long; one segment is 100 ms"
    assert "outside the grammar" in reasons.pop("wav/notes.wav") and not reasons


def test_more_than_a_tenth_unusable_stops_the_run(tmp_path):
    record_emodb(tmp_path, 18)
    for name in ("08a01Wb", "08a02Wb"):
        (tmp_path / "emodb" / "wav" / f"{name}.wav").write_bytes(b"RIFF")
    assert len(load_corpus("emodb", tmp_path)) == 18  # two of twenty are just a tenth
    (tmp_path / "emodb" / "wav" / "08a04Wb.wav").write_bytes(b"RIFF")
    with pytest.raises(CorpusError, match=r"3 of 21 files are unusable, more than a tenth.\n  wav/08a01Wb.wav: not"):
        load_corpus("emodb", tmp_path)


def test_songs_and_videos_are_left_out_without_speaking_against_the_corpus(tmp_path):
    for actor in ("01", "02"):
        for channel in ("01", "02"):
            record(tmp_path / "RAVDESS" / f"Actor_{actor}" / f"03-{channel}-05-01-01-01-{actor}.wav")
    report = inspect_corpus("ravdess", tmp_path)
    assert len(report.table) == 2 and len(report.problems) == 2 and not report.problems["unusable"].any()


def test_a_corpus_packed_twice_is_used_once(tmp_path):
    for folder in ("Actor_01", "audio_speech_actors_01-24/Actor_01"):
        record(tmp_path / "ravdess" / folder / "03-01-05-01-01-01-01.wav", seed=1)
    report = inspect_corpus("ravdess", tmp_path)
    assert len(report.table) == 1 and "audio_speech" not in report.table["path"][0]
    assert report.problems["reason"].tolist() == ["copy of Actor_01/03-01-05-01-01-01-01.wav"]


def test_two_recordings_of_one_name_are_a_problem(tmp_path):
    record_emodb(tmp_path)
    first = sorted((tmp_path / "emodb" / "wav").iterdir())[0]
    record(tmp_path / "emodb" / "wav" / "again" / first.name, seed=99)
    report = inspect_corpus("emodb", tmp_path)
    assert report.problems["unusable"].tolist() == [True]
    assert report.problems["reason"][0] == f"another recording under the name of wav/{first.name}"


def test_clips_published_without_speech_are_never_used(tmp_path):
    for name in ("1076_MTI_SAD_XX", "1076_MTI_NEU_XX"):
        record(tmp_path / "CREMA-D" / "AudioWAV" / f"{name}.wav")
    report = inspect_corpus("cremad", tmp_path)
    assert report.table["utterance_id"].tolist() == ["1076_MTI_NEU_XX"]
    assert report.problems["reason"].tolist() == ["published without speech in it"]


def test_shadows_and_hidden_folders_are_passed_over(tmp_path):
    record_emodb(tmp_path)
    for name in ("._03a01Fa.wav", ".cache/03a01Fa.wav", "__MACOSX/wav/03a01Fa.wav", "readme.txt"):
        path = tmp_path / "emodb" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"nothing")
    assert inspect_corpus("emodb", tmp_path).problems.empty


@pytest.mark.parametrize("name", [b"\xff\xfe.wav", b"03a01\nFa.wav", b"<script>alert(1)<.wav", b"x" * 200 + b".wav"])
def test_hostile_names_do_no_harm(tmp_path, name):
    record_emodb(tmp_path)
    folder = tmp_path / "emodb" / "wav"
    os.rename(record(folder / "03a01Fz.wav"), os.path.join(os.fsencode(folder), name))
    report = inspect_corpus("emodb", tmp_path)
    assert len(report.table) == 20 and len(report.problems) == 1
    report.problems.to_parquet(tmp_path / "problems.parquet")
    assert report.problems["path"][0].isprintable()


def test_iemocap_takes_its_labels_from_the_evaluation_files(tmp_path):
    codes = "ang hap exc neu sad fru xxx sur".split()
    for session, wearer in ((1, "F"), (5, "M")):
        scene = f"Ses0{session}{wearer}_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for turn, code in enumerate(codes):
            name = f"{scene}_{'FM'[turn % 2]}{turn:03d}"
            record(tmp_path / "iemocap" / f"Session{session}" / "sentences" / "wav" / scene / f"{name}.wav")
            lines += [f"[{turn}.29 - {turn}.99]\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]"]
            lines += ["C-E2:\tNeutral;\t()"]
        evaluation = tmp_path / "iemocap" / f"Session{session}" / "dialog" / "EmoEvaluation"
        evaluation.mkdir(parents=True)
        (evaluation / f"{scene}.txt").write_text("\n".join(lines))
        record(tmp_path / "iemocap" / f"Session{session}" / "dialog" / "wav" / f"{scene}.wav")
    report = inspect_corpus("iemocap", tmp_path)
    assert report.table["emotion"].value_counts().to_dict() == {"happiness": 4, "anger": 2, "neutral": 2, "sadness": 2}
    assert set(report.table["speaker"]) == {"Ses01F", "Ses01M", "Ses05F", "Ses05M"}
    row = report.table.set_index("utterance_id").loc["Ses05M_impro01_F000"]
    assert (row["speaker"], row["gender"], row["sentence"]) == ("Ses05F", "female", "impro01")
    assert report.problems["reason"].value_counts().to_dict() == {
        "a whole dialogue; only single sentences are used": 2,
        "labelled fru, which is left out by convention": 2,
        "labelled xxx, which is left out by convention": 2,
        "labelled sur, which is left out by convention": 2,
    }
    assert report.announcement == "10 of 5531 files, 4 of 10 speakers"


# the cache ----------------------------------------------------------------------------------------------------


def count_reads(monkeypatch):
    seen = []
    whole = recordings.read_recording
    monkeypatch.setattr(recordings, "read_recording", lambda path: seen.append(path) or whole(path))
    return seen


def test_what_has_not_changed_is_not_read_again(tmp_path, monkeypatch):
    record_emodb(tmp_path)
    cache = tmp_path / "facts.parquet"
    first = inspect_corpus("emodb", tmp_path, cache=cache).table
    seen = count_reads(monkeypatch)
    pd.testing.assert_frame_equal(inspect_corpus("emodb", tmp_path, cache=cache).table, first)
    assert not seen
    changed = sorted((tmp_path / "emodb" / "wav").iterdir())[3]
    record(changed, seconds=0.4)
    second = inspect_corpus("emodb", tmp_path, cache=cache).table
    assert [Path(path).name for path in seen] == [changed.name]
    assert (second["pcm_sha256"] != first["pcm_sha256"]).sum() == 1


def test_a_fault_of_the_disk_is_not_remembered(tmp_path, monkeypatch):
    record_emodb(tmp_path)
    cache = tmp_path / "facts.parquet"
    failing = [True]

    def fail(name, clip, error):
        real = getattr(recordings, name)

        def read(path):
            if failing and Path(path).name == clip:
                raise error
            return real(path)

        monkeypatch.setattr(recordings, name, read)

    fail("read_samples", "03a01Wa.wav", recordings.AudioError("", "cannot be read: Input/output error"))
    fail("file_digest", "08a01Na.wav", OSError(5, "Input/output error"))
    report = inspect_corpus("emodb", tmp_path, cache=cache)
    assert report.problems["reason"].tolist() == ["cannot be read: Input/output error"] * 2
    failing.clear()
    again = inspect_corpus("emodb", tmp_path, cache=cache)
    assert len(again.table) == 20 and again.problems.empty


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", None])
def test_a_damaged_or_unwritable_cache_is_no_obstacle(tmp_path, content):
    record_emodb(tmp_path)
    cache = tmp_path / "facts.parquet"
    if content is None:
        cache = tmp_path / "emodb" / "wav" / "03a01Wa.wav" / "facts.parquet"  # beneath a file: cannot be made
        record(tmp_path / "emodb" / "wav" / "03a01Wa.wav")
    else:
        cache.write_bytes(content)
    assert len(inspect_corpus("emodb", tmp_path, cache=cache).table) == 20


# several at once ------------------------------------------------------------------------------------------------


def record_two(tmp_path):
    record_emodb(tmp_path)  # anger neutral happiness sadness
    for code, emotion in (("a", "anger"), ("s", "sadness"), ("f", "fear")):
        for speaker in "12":
            record(tmp_path / "aesdd" / emotion / f"{code}01 ({speaker}).wav", rate=44_100)


def test_corpora_are_joined_under_the_emotions_that_all_have(tmp_path):
    record_two(tmp_path)
    table = load_corpus("emodb+aesdd", tmp_path)
    assert set(table["emotion"]) == {"anger", "sadness"} and set(table["corpus"]) == {"emodb", "aesdd"}
    assert {"emodb_03", "aesdd_1"} <= set(table["speaker"]) and table["utterance_id"].is_unique
    said = table.attrs["announcement"]
    assert "emodb: 20 of 535 files" in said and "aesdd: 6 of 605 files" in said
    assert "the 2 emotions that all of them have: anger, sadness" in said and "12 files of fear, happiness" in said
    assert table.attrs["sample_rate_hz"] == 16_000 and "4 of 14 files are resampled to 16000 Hz" in said


def test_corpora_are_joined_under_all_emotions_when_asked(tmp_path):
    record_two(tmp_path)
    table = load_corpus("emodb+aesdd+all", tmp_path)
    assert len(table) == 26 and "the 5 emotions that any of them have" in table.attrs["announcement"]
    with pytest.raises(CorpusError, match="LABELS=all .* needs several"):  # of one corpus there is nothing to share
        load_corpus("emodb+all", tmp_path)


def test_a_corpus_joined_to_itself_is_refused(tmp_path):
    record_emodb(tmp_path)
    with pytest.raises(CorpusError, match="Each corpus may be there once"):
        load_corpus("emodb+emodb", tmp_path)


def test_a_rate_that_differs_within_a_corpus_is_counted(tmp_path):
    record_emodb(tmp_path, 19)
    record(tmp_path / "emodb" / "wav" / "16b10Tz.wav", rate=8000)
    table = load_corpus("emodb", tmp_path)
    assert table.attrs["sample_rate_hz"] == 16_000
    assert "1 of 20 files are resampled to 16000 Hz" in table.attrs["announcement"]


# the real files -------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_real_corpora_are_what_their_documentation_says(data_dir):
    emodb = load_corpus("emodb", data_dir)
    assert emodb["emotion"].value_counts().to_dict() == {"anger": 127, "neutral": 79, "happiness": 71, "sadness": 62}
    assert emodb.attrs["announcement"] == "339 of 535 files, 4 of 7 emotions"
    ravdess = load_corpus("ravdess", data_dir)
    counts = ravdess["emotion"].value_counts()
    assert len(ravdess) == 1440 and counts["neutral"] == 96 and set(counts.drop("neutral")) == {192}
    assert (ravdess.groupby("speaker").size() == 60).all() and ravdess.attrs["announcement"] == ""
    assert ravdess["gender"].value_counts().to_dict() == {"male": 720, "female": 720}
    aesdd = inspect_corpus("aesdd", data_dir)
    assert len(aesdd.table) == 604 and aesdd.announcement == ""
    assert aesdd.problems["path"].tolist() == ["s05 (3).wav"]


@pytest.mark.real_data
def test_three_real_corpora_join(data_dir):
    table = load_corpus("ravdess+emodb+aesdd", data_dir)
    assert set(table["emotion"]) == {"anger", "happiness", "sadness"} and table.attrs["sample_rate_hz"] == 16_000


def test_the_order_of_the_emotions_is_fixed():
    assert EMOTIONS == tuple(sorted(EMOTIONS)) and len(EMOTIONS) == 9
    assert corpora.EMOTIONS is EMOTIONS


def test_the_demo_corpus_loads_as_one_of_nobody(tmp_path):
    from ser_utils.corpora.demo import SPEAKERS

    for i, speaker in enumerate(SPEAKERS):
        record(tmp_path / "demo" / "wav" / f"{speaker}a01{'WN'[i % 2]}a.wav")
    table = load_corpus("demo", tmp_path)
    assert table["speaker"].tolist() == sorted(SPEAKERS) and table.attrs["announcement"] == ""
    assert not set(SPEAKERS) & set(CORPORA["emodb"].speakers) and set(table["corpus"]) == {"demo"}


def test_what_joining_did_to_each_corpus_is_told(tmp_path):
    record_two(tmp_path)
    report = inspect_corpus("emodb+aesdd", tmp_path)
    told = describe_harmonisation(report)
    assert list(told.index) == ["emodb", "aesdd"] and told["brought to"].eq(16).all()
    assert told.loc["emodb", ["language", "files", "used", "left out: emotion"]].tolist() == ["de", 20, 10, 10]
    assert told.loc["aesdd", ["language", "files", "used", "rates"]].tolist() == ["el", 6, 4, "44.1"]
    labels = count_labels(report)
    assert labels.loc["aesdd"].to_dict() == {"anger": 2, "fear": 2, "happiness": 0, "neutral": 0, "sadness": 2}
    alone = describe_harmonisation(inspect_corpus("emodb", tmp_path))
    assert alone.loc["emodb", ["files", "used", "left out: emotion"]].tolist() == [20, 20, 0]
