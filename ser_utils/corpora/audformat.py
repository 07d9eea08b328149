"""An audformat database (a folder with db.yaml) read as a corpus: whole files, by the meaning of their columns."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from ser_utils.tables import SYNONYMS, CorpusError, Table, read_table

MEANINGS = ("emotion", "speaker", "gender", "language", "sentence", "intensity")
AGREED = ("vote", "ground truth")  # types of raters whose labels are nobody's alone


@dataclass(frozen=True)
class _Column:
    """A column: what it means, where it stands, its text by file, and whether it is the agreed answer of raters."""

    meaning: str
    title: str
    text_of: dict[str, str]
    is_agreed: bool


def read_audformat(place: Path) -> pd.DataFrame:
    """Read the files of a database and what its tables say of them.

    Parameters
    ----------
    place : the folder of db.yaml; tables are db.<name>.parquet or db.<name>.csv beside it

    Returns
    -------
    DataFrame with `path` and the MEANINGS that the database has, a row for each file, sorted; "" where nothing is said

    Raises
    ------
    CorpusError : for a damaged header or table, labels of parts of files, or columns that disagree. A column of a gold
        standard (by its rater or its table's name) takes the place of single raters'.

    Source: the data format of audEERING's package audformat, https://audeering.github.io/audformat/
    """
    header = _read_header(place)
    columns = []
    for name, about in _mapping(place, "tables", header.get("tables")).items():
        table = _find_table(place, name)
        if "file" in table.columns:
            columns += _columns_of(place, header, name, about, table)
    texts = {meaning: _merge(place, [c for c in columns if c.meaning == meaning]) for meaning in MEANINGS}
    if missing := [meaning for meaning in ("emotion", "speaker") if not texts[meaning]]:
        raise CorpusError(f"{place}: no table of db.yaml has a column of scheme {' or '.join(missing)}.")
    rows = pd.DataFrame({"path": sorted({file for column in columns for file in column.text_of})})
    for meaning in MEANINGS:
        rows[meaning] = [texts[meaning].get(path, "") for path in rows["path"]]
    facts_of = _speaker_facts(place, header)
    for fact in ("gender", "language"):
        facts = [facts_of.get(speaker, {}).get(fact, "") for speaker in rows["speaker"]]
        rows[fact] = rows[fact].where(rows[fact] != "", facts)
    return rows


def _columns_of(place, header, name, about, table):
    if "start" in table.columns:
        raise CorpusError(f"{place}: table {name!r} labels parts of files; only whole files are read.")
    if "columns" not in (about := _mapping(place, f"table {name!r}", about)):
        raise CorpusError(f"{place / 'db.yaml'}: table {name!r} has no columns.")
    raters = _mapping(place, "raters", header.get("raters"))
    declared = _mapping(place, f"columns of table {name!r}", about["columns"])
    facts_of = {str(key).lower(): _mapping(place, f"column {key!r}", facts) for key, facts in declared.items()}
    files = table.column("file")
    if twice := [file for file, n_rows in Counter(files.values()).items() if n_rows > 1]:
        raise CorpusError(f"{place}: table {name!r} names {min(twice)!r} twice. Keep one row of each file.")
    for key in table.columns:
        facts = facts_of.get(key, {})
        scheme = str(facts.get("scheme_id") or key).lower()
        meaning = next((m for m in MEANINGS if scheme == m or scheme in SYNONYMS.get(m, "").split()), None)
        if meaning:
            rater_id = facts.get("rater_id")
            if isinstance(rater_id, list | dict | set):
                raise CorpusError(f"{place / 'db.yaml'}: column {key!r} needs one rater_id. Received: {rater_id!r:.60}")
            rater = _mapping(place, "a rater", raters.get(rater_id))
            is_agreed = "gold" in f"{name} {key} {rater_id}" or rater.get("type") in AGREED
            text_of = {files[row]: text for row, text in table.column(key).items()}
            yield _Column(meaning, f"{name}.{key}", text_of, is_agreed)


def _merge(place, columns):
    """file → text of the columns of one meaning; raises CorpusError where they say different things."""
    columns = [column for column in columns if column.is_agreed] or columns
    merged, told_by = {}, {}
    for column in columns:
        for file, text in column.text_of.items():
            if text and merged.setdefault(file, text) != text:
                raise CorpusError(
                    f"{place}: the columns {told_by[file]} and {column.title} both give the {column.meaning}, and of "
                    f"{file} they say {merged[file]!r} and {text!r}. None of them is a gold standard or a vote: write a "
                    f"table path, speaker, emotion with the one you mean."
                )
            told_by.setdefault(file, column.title)
    return merged


def _read_header(place):
    path = place / "db.yaml"
    try:
        header = yaml.safe_load(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read as YAML: {error}") from error
    if not header:
        raise CorpusError(f"{path} is empty.")
    return _mapping(place, "the whole of it", header)


def _mapping(place, what, value):
    """A part of db.yaml that maps names to facts, {} where there is none; raises CorpusError for anything else."""
    if not isinstance(value, dict | None):
        raise CorpusError(f"{place / 'db.yaml'}: {what} must map names to facts. Received: {value!r:.60}")
    return value or {}


def _find_table(place, name) -> Table:
    paths = [path for suffix in (".parquet", ".csv") if (path := place / f"db.{name}{suffix}").exists()]
    if not paths:  # a pickle, of which such a database may have more, is not opened: it may run code
        raise CorpusError(
            f"{place / 'db.yaml'} names table {name!r}, but neither db.{name}.parquet nor db.{name}.csv is there; a table "
            f"that is stored as a pickle alone is not opened. Save it as one of them, or take it out of db.yaml."
        )
    return read_table(paths[0])


def _speaker_facts(place, header):
    """speaker → what the scheme of speakers says of each, in the header or in a table beside it."""
    schemes = _mapping(place, "schemes", header.get("schemes"))
    labels = _mapping(place, "scheme 'speaker'", schemes.get("speaker")).get("labels") or {}
    if isinstance(labels, str):
        table = _find_table(place, labels)
        return {row[0]: dict(zip(table.columns, row, strict=False)) for row in table.rows.values()}
    if not isinstance(labels, dict):
        return {}
    # audformat does not say what a label leads to: a word, or nothing, tells no fact
    facts_of = {str(speaker): facts for speaker, facts in labels.items() if isinstance(facts, dict)}
    return {speaker: {key: str(value) for key, value in facts.items()} for speaker, facts in facts_of.items()}
