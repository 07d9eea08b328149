"""The reader's own recordings as a corpus: a table, a folder per emotion, or an audformat database."""

import contextlib
import hashlib
import os
import re
from pathlib import Path

import pandas as pd

from ser_utils.corpora.facts import CORPORA, EMOTIONS, Corpus, CorpusError
from ser_utils.corpora.recordings import list_audio

# Words for the canonical emotions, as people write them.
WORDS = {
    "anger": "angry mad annoyed",
    "boredom": "bored boring",
    "calm": "calmness",
    "disgust": "disgusted",
    "fear": "fearful afraid scared anxiety anxious",
    "happiness": "happy joy joyful",
    "neutral": "none neutrality",
    "sadness": "sad",
    "surprise": "surprised",
}
EMOTION_OF_WORD = {word: noun for noun, words in WORDS.items() for word in (noun, *words.split())}
FACTS = ("utterance_id", "speaker", "gender", "language", "emotion", "intensity", "sentence")
UNKNOWN = "unknown"  # the speaker, where a folder does not say
NAME = re.compile(r"\w[\w .+@-]{0,63}")  # becomes part of a file name


def is_own(name):
    """Whether `name` is a path rather than the name of a corpus."""
    if not name.strip() or name in CORPORA or name == "demo":
        return False
    return "/" in name or Path(name).suffix.lower() in (".csv", ".tsv", ".parquet") or Path(name).is_dir()


def read_own(name):
    """A Corpus made from the reader's own recordings.

    name : path of a table (csv, tsv, parquet) with columns `path, speaker, emotion` and any of `gender, language,
        intensity, sentence, utterance_id`, paths being relative to the table; of a folder whose recordings lie
        under emotion/, speaker/emotion/ or emotion/speaker/; or of an audformat database (a folder with db.yaml)
    Returns the Corpus, the folder its paths start from, and the paths.
    Raises CorpusError for rows that are incomplete or twice there, or emotion words that are not known;
    a file emotions.csv beside the recordings, `word,emotion`, says what such words mean ("" leaves them out).
    """
    place = Path(name).expanduser().absolute()
    if not place.exists():
        raise CorpusError(
            f"{name} is not there. A dataset is a corpus's name, or the path of a table or folder."
        )
    if place.is_file():
        folder, rows = place.parent, _read_table(place)
    elif (place / "db.yaml").exists():
        folder, rows = place, _read_audformat(place)
    else:
        folder, rows = place, None
    words = EMOTION_OF_WORD | _read_words(folder)
    if rows is None:
        rows = _read_folders(place, words)
    rows = rows.reset_index(drop=True)
    _refuse_incomplete(place, rows)
    rows["code"] = rows["emotion"].str.strip().str.lower()
    _refuse_unknown_words(place, rows, words)
    return _as_corpus(place, rows, words), folder, rows["path"].tolist()


def _as_corpus(place, rows, words):
    genders = rows.groupby("speaker")["gender"].first()
    keys = ["utterance_id", "speaker", "code", "sentence", "intensity", "language"]
    known = dict(zip(rows["path"], rows[keys].to_dict("records"), strict=True))
    called = re.sub(r"[^a-z0-9]+", "_", place.stem.lower()).strip("_") or "own"
    return Corpus(
        name=called + "_own" if called in CORPORA else called,
        title=place.name,
        language="",
        n_files=0,
        speakers=genders.to_dict(),
        emotion_of_code={code: words[code] for code in rows["code"].unique()},
        parse=lambda path: known[str(path)],
        layout=str(place),
        licence="the reader's own",
        citation="",
        home="",
    )


# the three forms ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _named(path, form="a table"):
    """Turn what reading a damaged file raises into a CorpusError that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read as {form}: {error}") from error


def _read_table(place):
    with _named(place):
        if place.suffix.lower() == ".parquet":
            table = pd.read_parquet(place)
        else:
            with place.open(encoding="utf-8-sig") as lines:
                head = lines.readline()
            comma = ";" if ";" in head and "," not in head else ","
            comma = "\t" if place.suffix.lower() == ".tsv" else comma
            table = pd.read_csv(place, sep=comma, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    table.columns = [str(column).strip().lower() for column in table.columns]
    missing = [column for column in ("path", "speaker", "emotion") if column not in table]
    if missing:
        raise CorpusError(
            f"{place} needs columns path, speaker, emotion. Missing: {', '.join(missing)}; "
            f"received {', '.join(table.columns)}."
        )
    return _text(table)


def _text(table):
    """`path` and FACTS as stripped text, "" where unknown, ids made where there are none."""
    rows = pd.DataFrame(index=table.index)
    for column in ("path", *FACTS):
        column_of = table[column] if column in table else pd.Series("", index=table.index)
        rows[column] = column_of.astype(object).where(column_of.notna(), "").astype(str).str.strip()
    gender = rows["gender"].str.lower()
    rows["gender"] = gender.replace(
        {"f": "female", "w": "female", "woman": "female", "m": "male", "man": "male"}
    )
    rows["path"] = rows["path"].map(lambda path: Path(path).as_posix() if path else "")
    rows["utterance_id"] = rows["utterance_id"].where(rows["utterance_id"] != "", rows["path"].map(_name_of))
    return rows


def _name_of(path):
    """An utterance's name after its path; where that does not do as a file name, told apart by a hash."""
    stem = path.removesuffix(Path(path).suffix)
    if NAME.fullmatch(stem):
        return stem
    plain = re.sub(r"[^\w.-]+", "_", stem)[-48:].strip("._-")
    return f"{plain}-{hashlib.sha256(path.encode(errors='replace')).hexdigest()[:8]}".lstrip("-")


def _read_folders(place, words):
    rows = []
    for path in list_audio(place):
        parts = Path(path).parts[:-1]
        emotions = [part for part in parts if part.strip().lower() in words]
        others = [part for part in parts if part not in emotions]
        # one level that is no known word is an emotion word to be explained
        emotion = emotions[-1] if emotions else parts[-1] if parts else ""
        speaker = others[0] if emotions and others else UNKNOWN
        rows.append({"path": path, "speaker": speaker, "emotion": emotion})
    if not rows:
        raise CorpusError(f"{place} holds no recordings. Wanted: {place}/<emotion>/*.wav.")
    return _text(pd.DataFrame(rows))


def _read_audformat(place):
    """Tables of whole files, joined by file; columns by the name of their scheme."""
    header = _read_header(place)
    joined = pd.DataFrame()
    for name, about in _mapping(place, "tables", header.get("tables")).items():
        table = _read_audformat_table(place, name)
        if table is None or "file" not in table:
            continue
        if "start" in table:
            raise CorpusError(f"{place}: table {name!r} labels parts of files; only whole files are read.")
        if "columns" not in (about := _mapping(place, f"table {name!r}", about)):
            raise CorpusError(f"{place / 'db.yaml'}: table {name!r} has no columns.")
        columns = _mapping(place, f"columns of table {name!r}", about["columns"])
        schemes = {
            key: str(_mapping(place, f"column {key!r}", column).get("scheme_id") or key)
            for key, column in columns.items()
        }
        table = table.set_index("file").rename(columns=schemes)
        joined = joined.combine_first(table.loc[~table.index.duplicated(), ~table.columns.duplicated()])
    missing = [column for column in ("emotion", "speaker") if column not in joined]
    if missing:
        raise CorpusError(f"{place}: no table of db.yaml has a column of scheme {' or '.join(missing)}.")
    joined = joined.rename_axis("path").reset_index().rename(columns={"transcription": "sentence"})
    people = _speaker_facts(place, header)
    for fact in ("gender", "language"):
        if fact not in joined:
            joined[fact] = [people.get(str(speaker), {}).get(fact, "") for speaker in joined["speaker"]]
    return _text(joined[joined["emotion"].notna() & (joined["emotion"] != "")])


def _read_header(place):
    import yaml

    path = place / "db.yaml"
    with _named(path, "YAML"):
        try:
            header = yaml.safe_load(path.read_text("utf-8"))
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(error) from error
    if not header:
        raise CorpusError(f"{path} is empty.")
    return _mapping(place, "the whole of it", header)


def _mapping(place, what, value):
    """A part of db.yaml that maps names to facts, {} where there is none; raises CorpusError for anything else."""
    if not isinstance(value, dict | None):
        raise CorpusError(f"{place / 'db.yaml'}: {what} must map names to facts. Received: {value!r:.60}")
    return value or {}


def _read_audformat_table(place, name):
    """A table of text, with missing values as such, or None where there is none."""
    path = place / f"db.{name}.parquet"
    if path.exists():
        with _named(path):
            table = pd.read_parquet(path)
            return (table if "file" in table else table.reset_index()).astype("string")
    path = path.with_name(f"db.{name}.csv")
    if path.exists():
        with _named(path):
            return pd.read_csv(path, dtype="string", keep_default_na=False, na_values=[""])
    return None  # also where only a pickle is there, which is not opened: it may run code


def _speaker_facts(place, header):
    schemes = _mapping(place, "schemes", header.get("schemes"))
    labels = _mapping(place, "scheme 'speaker'", schemes.get("speaker")).get("labels") or {}
    if isinstance(labels, str):  # the name of a table beside it
        table = _read_audformat_table(place, labels)
        if table is None:
            return {}
        return table.fillna("").drop_duplicates(table.columns[0]).set_index(table.columns[0]).to_dict("index")
    if not isinstance(labels, dict):
        return {}
    # audformat does not say what a label leads to: a word, or nothing, tells no fact
    return {str(key): facts for key, facts in labels.items() if isinstance(facts, dict)}


def _read_words(folder):
    path = folder / "emotions.csv"
    if not path.exists():
        return {}
    with _named(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    if list(table.columns[:2]) != ["word", "emotion"]:
        raise CorpusError(f"{path} needs the columns word,emotion. Received: {','.join(table.columns)}")
    wrong = sorted(set(table["emotion"]) - {*EMOTIONS, ""})
    if wrong:
        raise CorpusError(f"{path}: unknown emotion {', '.join(wrong)}. Accepted: {', '.join(EMOTIONS)}.")
    return dict(zip(table["word"].str.strip().str.lower(), table["emotion"], strict=True))


# refusals -------------------------------------------------------------------------------------------------


def _refuse_incomplete(place, rows):
    if rows.empty:
        raise CorpusError(f"{place} names no recordings.")
    safe = rows["utterance_id"].map(lambda text: bool(NAME.fullmatch(text)))
    nice = rows["speaker"].map(lambda text: text == "" or bool(NAME.fullmatch(text)))
    named = rows["path"] != ""
    twice = rows["path"].map(os.path.normpath).duplicated(keep=False) & named
    faults = {
        "no path": ~named,
        "no speaker": rows["speaker"] == "",
        "no emotion": rows["emotion"] == "",
        "a path that is named twice": twice,
        "an utterance_id that is there twice": rows["utterance_id"].duplicated(keep=False) & named & ~twice,
        "a speaker that cannot be part of a file name": ~nice,
        "an utterance_id that cannot be part of a file name": ~safe & named,
    }
    found = [f"{what}: {_name_rows(rows[where])}" for what, where in faults.items() if where.any()]
    if found:
        raise CorpusError(f"{place} is not used as it is.\n  " + "\n  ".join(found))


def _name_rows(rows):
    # as a spreadsheet counts them: the heading is row 1
    named = [f"row {index + 2} ({path!r})" for index, path in rows["path"].head(10).items()]
    return ", ".join(named) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")


def _refuse_unknown_words(place, rows, words):
    unknown = rows.loc[~rows["code"].isin(words), "code"].value_counts()
    if len(unknown):
        counts = ", ".join(f"{word!r} ({count})" for word, count in unknown.items())
        folder = place if place.is_dir() else place.parent
        raise CorpusError(
            f"{place}: unknown emotion words {counts}. Accepted: {', '.join(EMOTIONS)}. To say what the others mean, "
            f"write {folder / 'emotions.csv'} with the columns word,emotion (an empty emotion leaves them out)."
        )
