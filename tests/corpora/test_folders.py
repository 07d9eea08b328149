"""Trees of folders: one reading for all of it, or a refusal that shows two paths."""

import pytest

from ser_utils.corpora import recordings
from ser_utils.corpora.loading import CorpusError, inspect_corpus, load_corpus
from tests.corpora.synthetic import EMOTIONS, record

SPEAKERS = ("anna", "bert", "carl")


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    monkeypatch.delenv("STRICT", raising=False)
    monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")


def grow(place, *layouts, speakers=SPEAKERS):
    """A tree whose takes are laid out in turn as `layouts` say; returns its path."""
    seed = 0
    for speaker in speakers:
        for emotion in EMOTIONS:
            for take, layout in enumerate(layouts):
                folder = layout.format(s=speaker, e=emotion.capitalize(), t=("train", "test", "Dev")[take % 3])
                record(place / folder / f"{seed}.wav", seed)
                seed += 1
    return str(place)


@pytest.mark.parametrize(
    "layouts",
    [
        ["{s}/{e}"],
        ["{e}/{s}"],
        ["The Corpus/{s}/{e}"],
        ["a/b/c/{s}/{e}"],
        ["{s}/{e}/wav"],
        ["{s}/wav/{e}"],
        ["data/{s}/{e}/16k"],
    ],
)
def test_folders_around_speakers_and_emotions_do_not_become_people(tmp_path, layouts):
    table = load_corpus(grow(tmp_path / "own", *layouts), tmp_path)
    assert set(table["speaker"]) == set(SPEAKERS) and set(table["emotion"]) == set(EMOTIONS)
    assert len(table) == 12 and table.attrs["announcement"] == ""


@pytest.mark.parametrize("layout", ["{t}/{s}/{e}", "{s}/{e}/{t}", "{s}/{t}/{e}", "own/{t}/{e}/{s}"])
def test_folders_of_splits_are_flagged_and_never_speakers(tmp_path, layout):
    report = inspect_corpus(grow(tmp_path / "own", layout, layout, layout), tmp_path)
    assert set(report.table["speaker"]) == set(SPEAKERS) and len(report.table) == 36
    assert report.announcement == "folders Dev, test, train are taken together, and not for speakers"


def test_splits_alone_tell_no_speaker(tmp_path):
    table = load_corpus(grow(tmp_path / "own", "{t}/{e}", "{t}/{e}"), tmp_path)
    assert set(table["speaker"]) == {"unknown"}
    assert table.attrs["announcement"].startswith("speakers unknown, taken as one; folders test, train")


def test_speakers_that_only_some_folders_name_are_announced(tmp_path):
    table = load_corpus(grow(tmp_path / "own", "{s}/{e}", "{e}"), tmp_path)
    assert table["speaker"].value_counts().to_dict() == {"unknown": 12, "anna": 4, "bert": 4, "carl": 4}
    assert table.attrs["announcement"] == "speakers of 12 of 24 files unknown, taken as one"


@pytest.mark.parametrize("speakers", [("Joy", "Mary"), ("Calm", "Joy", "Tom"), ("mad", "x")])
@pytest.mark.parametrize("layout", ["{e}/{s}", "{s}/{e}"])
def test_a_speaker_called_like_an_emotion_stays_a_speaker(tmp_path, speakers, layout):
    table = load_corpus(grow(tmp_path / "own", layout, speakers=speakers), tmp_path)
    assert set(table["speaker"]) == set(speakers) and set(table["emotion"]) == set(EMOTIONS)


AMBIGUOUS = [
    (["{s}/{e}", "{e}/{s}"], SPEAKERS, "more than one level of folders may name the emotion"),
    (["{s}/{e}"], ("Joy", "Calm"), "more than one level of folders may name the emotion"),
    (["{s}/{t}1/{e}", "{s}/{t}2/{e}"], SPEAKERS, "more than one level of folders may name the speaker"),
    (["{s}/{e}", "{s}/session1/{e}"], SPEAKERS, "more than one level of folders may name the speaker"),
    (["{s}/{e}", "x/{e}/{s}/y"], SPEAKERS, "more than one level of folders may name the speaker"),
    (["{s}/{e}", ""], SPEAKERS, r"'\d+.wav' is in no folder of an emotion"),
]


@pytest.mark.parametrize(("layouts", "speakers", "words"), AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_with_two_paths(tmp_path, layouts, speakers, words):
    with pytest.raises(CorpusError, match=words) as caught:
        load_corpus(grow(tmp_path / "own", *layouts, speakers=speakers), tmp_path)
    shown = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert len(set(shown)) == 2 and all((tmp_path / "own" / path).exists() for path in shown)
    assert "Lay out all recordings as emotion/, speaker/emotion/ or emotion/speaker/" in str(caught.value)


def test_one_speaker_below_a_folder_is_named(tmp_path):
    table = load_corpus(grow(tmp_path / "own", "{s}/{e}", speakers=["anna"]), tmp_path)
    assert set(table["speaker"]) == {"anna"}


def test_words_of_the_readers_own_are_emotions_of_folders(tmp_path):
    path = grow(tmp_path / "own", "{s}/{e}")
    for speaker in SPEAKERS:
        (tmp_path / "own" / speaker / "Anger").rename(tmp_path / "own" / speaker / "wütend")
    with pytest.raises(CorpusError, match=r"unknown emotion words 'wütend' \(3\)"):
        load_corpus(path, tmp_path)
    (tmp_path / "own" / "emotions.csv").write_text("word,emotion\nwütend,anger\n")
    assert load_corpus(path, tmp_path)["emotion"].value_counts()["anger"] == 3


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["wav/03a01Wa.wav", "wav/08a02Na.wav", "wav/09b01Fb.wav", "wav/10b02Tc.wav"], "emodb"),
        ([f"Actor_{a:02d}/03-01-0{a}-01-01-01-{a:02d}.wav" for a in range(1, 6)], "ravdess"),
        ([f"{e}/{e[0]}0{i} (1).wav" for i in range(1, 4) for e in ("anger", "fear")], "aesdd"),
        ([f"OAF_Fear/OAF_{word}_fear.wav" for word in ("back", "bar", "base", "bath")], "tess"),
    ],
)
def test_a_known_corpus_given_by_its_path_suggests_its_name(tmp_path, paths, name):
    for path in paths:
        record(tmp_path / "somewhere" / path)
    with pytest.raises(CorpusError, match=f"files named as those of .*DATASET={name}, with SER_DATA_DIR"):
        load_corpus(str(tmp_path / "somewhere"), tmp_path)
