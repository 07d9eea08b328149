"""The reader's own recordings as a corpus: a table, a tree of folders, an audformat database or a Kaldi folder."""

import hashlib
import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pandas as pd

from ser_utils.corpora.audformat import read_audformat
from ser_utils.corpora.facts import CORPORA, EMOTIONS, Corpus, CorpusError, GrammarError
from ser_utils.corpora.folders import is_split, read_folders
from ser_utils.corpora.people import GENDER_OF_WORD, UNKNOWN, is_missing, settle_people
from ser_utils.corpora.recordings import printable
from ser_utils.corpora.sources import LeftOut, Source, find_named, find_recordings
from ser_utils.names import path_of
from ser_utils.tables import read_kaldi, read_table

# Words for the canonical emotions, as people write them.
WORDS = {
    "anger": "angry mad annoyed",
    "boredom": "bored boring",
    "calm": "calmness",
    "disgust": "disgusted",
    "fear": "fearful afraid scared anxiety anxious",
    "happiness": "happy joy joyful",
    "neutral": "neutrality",
    "sadness": "sad",
    "surprise": "surprised",
}
EMOTION_OF_WORD = {word: noun for noun, words in WORDS.items() for word in (noun, *words.split())}
FACTS = ("speaker", "emotion", "gender", "language", "sentence", "intensity", "utterance_id")
NAME = re.compile(r"\w[\w .+@-]{0,63}")  # becomes part of a file name
WHOLE_FILE = re.compile(r"(0 days?,? ?)?[0:.]*")  # how tables say that a part starts with its file


def is_own(name: str) -> bool:
    """Whether `name` is a path rather than the name of a corpus."""
    if not name.strip() or name in CORPORA or name == "demo":
        return False
    return bool(re.search(r"[/\\]", name) or Path(name).suffix or os.path.exists(name))


def find_place(name: str) -> Path:
    """The absolute path of a table or folder that a reader named; raises CorpusError where nothing is there."""
    place = path_of(name).absolute()
    if not place.exists():
        raise CorpusError(f"{name} is not there. A dataset is a corpus's name, or the path of a table or folder.")
    return place


def read_own(name: str) -> Source:
    """Read who says what with which emotion in the reader's own recordings.

    Parameters
    ----------
    name : path of a table (see `tables.read_table`) with columns `path, speaker, emotion` and any of
        `gender, language, intensity, sentence, utterance_id`, paths being relative to the table; of a folder whose recordings lie under
        emotion/, speaker/emotion/ or emotion/speaker/; of an audformat database (a folder with db.yaml); or of a
        Kaldi folder (wav.scp, utt2spk, utt2emo; spk2gender, text)

    Raises
    ------
    CorpusError : for rows that are incomplete or there twice, people or folders that can be read in two ways, or
        emotion words that are not known. A file emotions.csv beside the recordings, `word,emotion`, says what such
        words mean ("" leaves them out).
    """
    place = find_place(name)
    folder = place if place.is_dir() else place.parent
    own_words = _read_words(folder)
    words = EMOTION_OF_WORD | own_words
    rows, listing, n_rows, notes = _read_rows(place, words)
    is_gap = rows["emotion"].map(is_missing).astype(bool) & ~rows["emotion"].str.lower().isin(own_words)
    if (place / "db.yaml").exists() and not is_gap.all():
        reason = "no emotion: the database does not label it"
        listing.left_out.extend(LeftOut(path, reason, False) for path in rows["path"][is_gap])
        rows, is_gap = rows[~is_gap], is_gap[~is_gap]
    _refuse_incomplete(place, rows, is_gap)
    rows = settle_people(place, rows.assign(code=rows["emotion"].str.lower()))
    _refuse_unknown_words(place, rows, words)
    n_wanted = (n_rows or len(listing.files)) - sum(words[code] == "" for code in rows["code"])
    corpus = _as_corpus(place, rows, words, n_wanted)
    return Source(corpus, folder, replace(listing, recordings=rows["path"].tolist()), n_rows, notes)


def _read_rows(place, words):
    """Rows, files, how many rows a table has, and notes on how they were understood."""
    if (place / "db.yaml").exists():
        rows = _with_names(read_audformat(place))
    elif (place / "wav.scp").exists():
        rows = _rows_of_kaldi(place)
    elif place.is_dir():
        listing = find_recordings(place)
        rows, notes = _rows_of_folders(place, listing.recordings, words)
        return rows, listing, 0, notes
    else:
        rows = _rows_of_table(place)
    return rows, find_named(place if place.is_dir() else place.parent, rows["path"]), len(rows), ()


def _as_corpus(place, rows, words, n_files):
    keys = ["utterance_id", "speaker", "gender", "code", "sentence", "intensity", "language"]
    known = dict(zip(rows["path"], rows[keys].to_dict("records"), strict=True))
    stem = place.name.removesuffix(".gz").rpartition(".")[0] or place.name
    called = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "own"
    return Corpus(
        name=called + "_own" if called in CORPORA else called,
        title=place.name,
        language="",
        n_files=n_files,
        speakers=dict(zip(rows["speaker"], rows["gender"], strict=True)),
        emotion_of_code={code: words[code] for code in rows["code"].unique()},
        parse=lambda path: dict(known[str(path)]),
        layout=str(place),
        licence="the reader's own",
        is_own=True,
    )


def _rows_of_table(place):
    table = read_table(place)
    columns = {meaning: table.column(meaning) for meaning in ("path", *FACTS, "start", "end")}
    if missing := [meaning for meaning in ("path", "speaker", "emotion") if columns[meaning] is None]:
        hint = (
            f" Its database is read as a whole: DATASET={place.parent}." if (place.parent / "db.yaml").exists() else ""
        )
        raise CorpusError(
            f"{place} needs columns path, speaker, emotion. Missing: {', '.join(missing)}; "
            f"received {', '.join(table.columns)}.{hint}"
        )
    rows = pd.DataFrame({meaning: cells for meaning, cells in columns.items() if cells}, index=list(table.rows))
    for row, start, end in rows.reindex(columns=["start", "end"], fill_value="").itertuples():
        if not WHOLE_FILE.fullmatch(start) or not is_missing(end):
            raise CorpusError(
                f"{place}: row {row} labels a part of a file ({start} to {end}); only whole files are read."
            )
    return _with_names(rows)


def _rows_of_kaldi(place):
    emotions = next((values for name in ("utt2emo", "utt2emotion") if (values := read_kaldi(place, name))), None)
    speakers, paths = read_kaldi(place, "utt2spk"), read_kaldi(place, "wav.scp")
    if emotions is None or not speakers:
        raise CorpusError(f"{place} needs wav.scp, utt2spk and utt2emo, each with an utterance and its fact in a line.")
    if (place / "segments").exists():
        raise CorpusError(f"{place / 'segments'} cuts recordings into parts; only whole files are read.")
    if command := next((path for path in paths.values() if path.endswith("|")), None):
        raise CorpusError(f"{place / 'wav.scp'}: {command!r} is a command, which is not run. Name a recording instead.")
    rows = (
        pd.DataFrame({"path": paths, "speaker": speakers, "emotion": emotions}).rename_axis("utterance_id").fillna("")
    )
    gender_of, text_of = read_kaldi(place, "spk2gender"), read_kaldi(place, "text")
    rows["gender"] = [gender_of.get(speaker, "") for speaker in rows["speaker"]]
    rows["sentence"] = [text_of.get(utterance, "") for utterance in rows.index]
    return _with_names(rows.reset_index(), numbered=False).assign(named=list(map(repr, rows.index)))


def _rows_of_folders(place, paths, words):
    """Rows, and notes; raises CorpusError with the name of a known corpus where that explains more."""
    if not paths:
        raise CorpusError(f"{place} holds no recordings. Wanted: {place}/<emotion>/*.wav.")
    known = _known_corpus(paths)
    hint = known and CorpusError(
        f"{place} holds files named as those of {known.title}, whose names say more than its folders: "
        f"DATASET={known.name}, with SER_DATA_DIR the folder in which they are {known.layout}."
    )
    try:
        rows = _with_names(read_folders(place, paths, words), numbered=False)
    except CorpusError as error:
        raise hint or error from error
    if hint and (set(rows["speaker"]) == {UNKNOWN} or not rows["emotion"].str.lower().isin(words).all()):
        raise hint
    splits = sorted({folder for path in paths for folder in Path(path).parts[:-1] if is_split(folder)})
    notes = (f"folders {', '.join(splits)} are taken together, and not for speakers",) if splits else ()
    return rows, notes


def _known_corpus(paths):
    """The corpus after whose grammar nearly all files are named, or None."""
    sample = paths[:: max(1, len(paths) // 100)]
    for corpus in CORPORA.values():
        if len(sample) > 3 and sum(_is_of(corpus, path) for path in sample) > 0.9 * len(sample):
            return corpus
    return None


def _is_of(corpus, path):
    try:
        facts = corpus.parse(PurePosixPath(path))
    except GrammarError:
        return False
    return facts["speaker"] in corpus.speakers and facts.get("code") in {None, *corpus.emotion_of_code}


def _with_names(rows, *, numbered=True):
    """Rows of stripped text with all FACTS, "" where unknown, ids, and `named`: what an error calls each row."""
    rows = rows.reindex(columns=["path", *FACTS], fill_value="").map(str.strip)
    if not numbered or isinstance(rows.index, pd.RangeIndex):
        rows.index = range(2, len(rows) + 2)  # as a spreadsheet counts them: the heading is row 1
    rows["path"] = [PurePosixPath(path).as_posix() if path else "" for path in rows["path"]]
    rows["named"] = [f"row {row} ({path!r})" if numbered else repr(path) for row, path in rows["path"].items()]
    told = ["gender", "language", "sentence", "intensity", "utterance_id"]
    rows[told] = rows[told].map(lambda text: "" if is_missing(text) else text)
    rows["gender"] = [GENDER_OF_WORD.get(word, word) for word in rows["gender"].str.lower()]
    rows["speaker"] = rows["speaker"].mask(rows["speaker"].str.lower() == UNKNOWN, UNKNOWN)
    rows["utterance_id"] = rows["utterance_id"].where(rows["utterance_id"] != "", rows["path"].map(_name_of))
    return rows


def _name_of(path):
    """An utterance's name after its path; where that does not do as a file name, told apart by a hash."""
    stem = path.removesuffix(Path(path).suffix)
    if NAME.fullmatch(stem):
        return stem
    plain = re.sub(r"[^\w.-]+", "_", stem)[-48:].strip("._-")
    return f"{plain}-{hashlib.sha256(path.encode(errors='replace')).hexdigest()[:8]}".lstrip("-")


def _read_words(folder):
    path = folder / "emotions.csv"
    if not path.exists():
        return {}
    table = read_table(path)
    if table.columns[:2] != ["word", "emotion"]:
        raise CorpusError(
            f"{path} says what words for emotions mean, and needs the columns word,emotion. Received: "
            f"{','.join(table.columns)}. If it is the table of your recordings, give it another name."
        )
    emotion_of_word, row_of = {}, {}
    for row, (word, emotion, *_) in table.rows.items():
        word, emotion = word.strip().lower(), emotion.strip()
        if word in emotion_of_word:
            raise CorpusError(f"{path}: rows {row_of[word]} and {row} both say what {word!r} means. Keep one of them.")
        emotion_of_word[word], row_of[word] = emotion, row
    if wrong := sorted(set(emotion_of_word.values()) - {*EMOTIONS, ""}):
        raise CorpusError(f"{path}: unknown emotion {', '.join(wrong)}. Accepted: {', '.join(EMOTIONS)}.")
    return emotion_of_word


def _refuse_incomplete(place, rows, has_no_emotion):
    if rows.empty:
        raise CorpusError(f"{place} names no recordings.")
    safe = rows["utterance_id"].map(_is_name)
    nice = rows["speaker"].map(lambda text: is_missing(text) or _is_name(text))
    named = rows["path"] != ""
    # rows of a table may call one file by two names; what is not printable is refused, and no path to the system
    places = (
        rows["path"]
        .map(printable)
        .map(os.path.normpath if place.is_dir() else lambda path: os.path.realpath(place.parent / path))
    )
    twice = places.duplicated(keep=False) & named
    faults = {
        "no path": ~named,
        "no speaker": rows["speaker"].map(is_missing),
        "no emotion": has_no_emotion,
        "a path with line breaks or the like": rows["path"].map(printable) != rows["path"],
        "a path that is named twice": twice,
        "an utterance_id that is there twice": rows["utterance_id"].duplicated(keep=False) & named & ~twice,
        "a speaker that cannot be part of a file name": ~nice,
        "an utterance_id that cannot be part of a file name": ~safe & named,
    }
    said = []
    for fault, where in faults.items():
        if where.any():
            column = fault.removeprefix("no ")
            texts = sorted({*rows.loc[where, column]} - {""}) if column in ("speaker", "emotion") else []
            meaning = f" ({', '.join(map(repr, texts))} stands for a missing value)" if texts else ""
            said.append(f"{fault}: {_list_rows(rows[where])}{meaning}")
    if said:
        raise CorpusError(f"{place} is not used as it is.\n  " + "\n  ".join(said))


def _is_name(text):
    # accents and vowel signs that are letters of their own are no \w
    composed = unicodedata.normalize("NFC", text)
    return bool(NAME.fullmatch("".join(a for a in composed if not unicodedata.category(a).startswith("M"))))


def _list_rows(rows):
    return ", ".join(rows["named"].head(10)) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")


def _refuse_unknown_words(place, rows, words):
    unknown = rows.loc[~rows["code"].isin(words), "code"].value_counts()
    if len(unknown):
        counts = ", ".join(f"{word!r} ({count})" for word, count in unknown.items())
        folder = place if place.is_dir() else place.parent
        raise CorpusError(
            f"{place}: unknown emotion words {counts}. Accepted: {', '.join(EMOTIONS)}. To say what the others mean, "
            f"write {folder / 'emotions.csv'} with the columns word,emotion (an empty emotion leaves them out)."
        )
