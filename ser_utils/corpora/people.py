"""Who is who in the reader's own recordings: one person, one id, one gender."""

import re
import unicodedata

import pandas as pd

from ser_utils.tables import CorpusError

UNKNOWN = "unknown"  # the speaker, where nothing says who speaks
PLACEHOLDERS = frozenset("nan none null na n/a n.a. nat ? ?? - -- <na> #n/a".split())
SPLITS = frozenset("train training test testing val valid validation dev development devel eval evaluation".split())
GENDER_OF_WORD = {
    word: gender
    for gender, words in {"female": "f w woman women girl", "male": "m man men boy"}.items()
    for word in words.split()
}


def is_missing(text: str) -> bool:
    """Whether a cell says nothing: empty, or a placeholder that programs write for a missing value."""
    return text.strip().casefold() in PLACEHOLDERS | {""}


def speaker_key(speaker: str) -> str:
    """Reduce an id to what tells people apart, for comparison: neither case, nor leading zeros, nor spelling.

    >>> {speaker_key(speaker) for speaker in ("3", "03", "3.0", "Spk03", "spk_3", "Speaker 3")}
    {'3'}
    """
    text = unicodedata.normalize("NFKC", speaker).casefold()
    text = re.sub(r"(?<=\d)\.0+$", "", text)
    parts = [str(int(run)) if run.isdecimal() else run for run in re.findall(r"\d+|[^\d\s_.+@-]+", text)]
    if len(parts) > 1 and parts[0] in ("spk", "speaker", "sp", "actor", "subject"):
        parts = parts[1:]
    return " ".join(parts) or text


def settle_people(place: object, rows: pd.DataFrame) -> pd.DataFrame:
    """Make sure that every id is one person, and fill in genders that only some rows of a speaker give.

    Parameters
    ----------
    place : what to call the corpus in an error
    rows : columns `speaker`, `gender` and `named` (how a row is called in an error)

    Returns
    -------
    The rows with one gender a speaker

    Raises
    ------
    CorpusError : if a person is spelt in two ways or has two genders, or a speaker is called like a split
    """
    known = rows[rows["speaker"] != UNKNOWN]
    faults = [*_two_spellings(known), *_two_genders(known), *_splits(known)]
    if faults:
        raise CorpusError(f"{place} does not tell clearly who speaks.\n  " + "\n  ".join(faults))
    gender_of = dict(known.loc[known["gender"] != "", ["speaker", "gender"]].to_numpy())
    return rows.assign(gender=[gender_of.get(*pair) for pair in rows[["speaker", "gender"]].to_numpy()])


def _two_spellings(rows):
    firsts = rows.drop_duplicates("speaker").set_index("speaker")["named"]
    counts = rows["speaker"].value_counts()
    for _, spellings in firsts.groupby(firsts.index.map(speaker_key), sort=False):
        if len(spellings) > 1:
            # what looks the same may be written with other letters: then the letters' names tell
            looks = {unicodedata.normalize("NFKC", speaker) for speaker in spellings.index}
            show = repr if len(looks) == len(spellings) else ascii
            ways = [f"{show(speaker)} ({counts[speaker]}: {row})" for speaker, row in spellings.items()]
            yield f"column speaker: {' and '.join(ways)} look like one person. Write each person's id in one way."


def _two_genders(rows):
    for speaker, group in rows[rows["gender"] != ""].groupby("speaker", sort=False):
        firsts = group.drop_duplicates("gender")
        if len(firsts) > 1:
            ways = [f"{gender} in {row}" for gender, row in zip(firsts["gender"], firsts["named"], strict=True)]
            yield f"column gender: speaker {speaker!r} is {' and '.join(ways)}. Two people need two ids."


def _splits(rows):
    for speaker, row in rows.drop_duplicates("speaker")[["speaker", "named"]].to_numpy():
        if speaker.casefold() in SPLITS:
            yield f"column speaker: {speaker!r} ({row}) is the name of a split, not of a person."
