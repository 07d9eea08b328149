"""Tables and folders of recordings, read without pandas, as they are written.

The loader of the reader's own recordings and `tools/graph.py`, which has to be quick, read them
through this module, so that both see the same rows and the same files.
"""

import csv
import functools
import gzip
import io
import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

DAMAGED = (zlib.error, zipfile.BadZipFile, ElementTree.ParseError)
MOST_COLUMNS = 16_384  # of a sheet, as Excel has it
# What other tools call a column; these names count only where the first one is not there.
SYNONYMS = {
    "path": "file filename file_name filepath file_path audio_path wav_path wav",
    "speaker": "speaker_id spk_id spk",
    "emotion": "emo emotion_label",
    "gender": "sex",
    "language": "lang",
    "sentence": "transcription transcript text",
    "utterance_id": "utt_id",
}
FILE_IN_LINE = re.compile(r"\.[A-Za-z0-9]{2,5}\"?\s*([,;\t|]|$)")
CLOSED = "this folder cannot be read"
SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


class CorpusError(Exception):
    """A corpus that is absent or cannot be used as it is; the text says what to do."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    place : the file it was read from
    columns : the heading, stripped and in lower case
    rows : row number → cells, as many as columns; the heading is row 1, empty rows are not there
    """

    place: Path
    columns: list[str]
    rows: dict[int, list[str]]

    def column(self, meaning: str) -> dict[int, str] | None:
        """The stripped cells of the column that has a meaning, by row number.

        Parameters
        ----------
        meaning : `path`, `speaker`, `emotion` …; where no column is called so, its SYNONYMS count

        Returns
        -------
        dict, or None where there is no such column

        Raises
        ------
        CorpusError : if two columns of that meaning differ
        """
        names = [meaning] if meaning in self.columns else SYNONYMS.get(meaning, "").split()
        places = [place for place, column in enumerate(self.columns) if column in names]
        cells = {}
        for number, row in self.rows.items():
            texts = list(dict.fromkeys(row[place].strip() for place in places))
            if len(texts) > 1:
                raise CorpusError(
                    f"{self.place}: {len(places)} columns ({', '.join(self.columns[p] for p in places)}) give the "
                    f"{meaning}, and in row {number} they differ: {', '.join(map(repr, texts))}. Keep one of them."
                )
            cells[number] = texts[0] if texts else ""
        return cells if places else None


def read_table(place: Path) -> Table:
    """Read a table; what it is, its content says and not its name.

    Parameters
    ----------
    place : csv, tsv or txt in UTF-8, parted by commas, semicolons, tabs or |, also in gzip; parquet; or xlsx

    Raises
    ------
    CorpusError : if it cannot be read as a table, naming the row; nothing is passed over in silence
    """
    try:
        if place.exists() and not (place.is_file() or place.is_dir()):  # to read it would never end
            raise ValueError("it is no file, but a pipe or a device")
        data = place.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if data[:4] == b"PAR1":
            rows = _rows_of_parquet(place)
        elif data[:4] == b"PK\x03\x04":
            rows = _rows_of_workbook(data)
        elif data[:4] == b"\xd0\xcf\x11\xe0":
            raise ValueError(
                "it is an old workbook (.xls), or one with a password. Save it as .xlsx without one, or as CSV"
            )
        else:
            rows = _rows_of_text(data)
        return _as_table(place, rows)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{place} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    except (*DAMAGED, OSError, EOFError, ValueError, LookupError, RuntimeError) as error:
        raise CorpusError(f"{place} cannot be read as a table: {error}") from error


def _as_table(place: Path, rows: dict[int, list[str]]) -> Table:
    rows = {number: cells for number, cells in rows.items() if any(cell.strip() for cell in cells)}
    if not rows:
        raise ValueError("No columns, it is empty")
    heading = rows.pop(min(rows))
    while not heading[-1].strip():
        heading.pop()
    for number, cells in rows.items():
        if len(cells) < len(heading) or any(cell.strip() for cell in cells[len(heading) :]):
            raise ValueError(f"row {number} has {len(cells)} cells, the heading has {len(heading)}")
    return Table(place, [column.strip().lower() for column in heading], rows)


def _rows_of_text(data: bytes) -> dict[int, list[str]]:
    lines = io.StringIO(data.decode("utf-8-sig"), newline=None).readlines()
    separator = max("\t,;|", key=next(filter(str.strip, lines), "").count)
    csv.field_size_limit(2**31 - 1)  # a long cell is fine
    reader = csv.reader(lines, delimiter=separator, strict=True)
    rows, start = [], 0
    try:
        for cells in reader:
            # a line break in a cell is fine; a line that would be a row of its own shows a quote left open
            inside = lines[start + 1 : reader.line_num]
            if any(
                line.count(separator) >= len((rows or [cells])[0]) - 1 and FILE_IN_LINE.search(line) for line in inside
            ):
                raise csv.Error
            rows.append(cells)
            start = reader.line_num
    except csv.Error as error:
        if separator != "\t":
            raise ValueError(
                f'row {len(rows) + 1} opens a quote (") that is not closed as it should be: its end would be read '
                f'inside string quotes. Close it, or write it twice ("")'
            ) from error
        # files parted by tabs seldom quote: there, a quote is a letter like any other
        rows = [line.rstrip("\n").split(separator) for line in lines]
    return dict(enumerate(rows, 1))


def _rows_of_workbook(data: bytes) -> dict[int, list[str]]:
    """The rows of the only sheet with content of an Excel workbook (ECMA-376)."""
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        names = sorted(name for name in book.namelist() if re.fullmatch(r"xl/worksheets/\w+\.xml", name))
        strings = []
        if "xl/sharedStrings.xml" in book.namelist():
            items = ElementTree.fromstring(book.read("xl/sharedStrings.xml")).iter(f"{SHEET}si")
            strings = [_text_of(item) for item in items]
        sheets = [_rows_of_sheet(ElementTree.fromstring(book.read(name)), strings) for name in names]
    sheets = [rows for rows in sheets if rows]
    if len(sheets) != 1:
        raise ValueError(f"one sheet with rows is wanted, {len(sheets)} are there. Save the one you mean as CSV")
    return sheets[0]


def _rows_of_sheet(sheet, strings: list[str]) -> dict[int, list[str]]:
    rows, number = {}, 0
    for row in sheet.iter(f"{SHEET}row"):
        cells, number = {}, int(row.get("r") or number + 1)
        if number in rows:
            raise ValueError(f"two rows have the number {number}. Save it anew, or as CSV")
        for cell in row.iter(f"{SHEET}c"):  # empty cells may be left out, and so may the names of the others
            place = _column_number(cell.get("r")) if cell.get("r") else max(cells, default=0) + 1
            kind, value = cell.get("t"), cell.findtext(f"{SHEET}v") or ""
            inline = cell.find(f"{SHEET}is") if kind == "inlineStr" else None
            if place > MOST_COLUMNS:
                raise ValueError(f"a cell is called {cell.get('r')!r}, and a sheet has {MOST_COLUMNS:,} columns")
            if place in cells:
                raise ValueError(f"two cells of row {number} are called {cell.get('r')!r}. Save it anew, or as CSV")
            cells[place] = strings[int(value)] if kind == "s" else value if inline is None else _text_of(inline)
        rows[number] = [cells.get(place, "") for place in range(1, max(cells, default=0) + 1)]
    width = max(map(len, rows.values()), default=0)
    return {number: row + [""] * (width - len(row)) for number, row in rows.items() if any(row)}


def _column_number(name: str) -> int:
    """1 for A7, 27 for AA7."""
    return functools.reduce(lambda sum, letter: sum * 26 + ord(letter) - 64, name.rstrip("0123456789"), 0)


def _text_of(element) -> str:
    """A text and its runs, without the readings that Japanese text may carry."""
    return "".join(text.text or "" for path in (f"{SHEET}t", f"{SHEET}r/{SHEET}t") for text in element.findall(path))


def _rows_of_parquet(place: Path) -> dict[int, list[str]]:
    import pyarrow.parquet

    content = pyarrow.parquet.ParquetFile(place).read()
    columns = [map(_text_of_value, column.to_pylist()) for column in content.columns]
    return dict(enumerate([content.column_names, *map(list, zip(*columns, strict=True))], 1))


def _text_of_value(value) -> str:
    return "" if value is None or value != value else str(value)  # NaN is not itself


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes
    ----------
    files : paths relative to the folder, sorted
    faults : path → what could not be listed, and why
    """

    files: list[str]
    faults: dict[str, str]


def list_files(folder: Path) -> Listing:
    """List all files under a folder that are not hidden, those in linked folders too; loops of links do no harm."""
    files, faults, walked, links = [], {}, {}, [os.fspath(folder)]
    while links:
        start = links.pop(0)
        if (real := os.path.realpath(start)) in walked:
            faults[os.path.relpath(start, folder)] = f"a link to a folder that is read already, as {walked[real]}"
            continue
        for place, folders, names in os.walk(start, onerror=lambda error: faults.update(_fault(error, folder))):
            if (real := os.path.realpath(place)) in walked:
                folders.clear()
                continue
            walked[real] = os.path.relpath(place, folder)
            # macOS leaves shadows of every file, "._name.wav", in the archives it packs
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            links += [path for name in folders if os.path.islink(path := os.path.join(place, name))]
            paths = [os.path.join(place, name) for name in names if not name.startswith(".")]
            for path in paths:
                leads_nowhere = not os.path.splitext(path)[1] and not os.path.exists(path)
                if leads_nowhere:
                    faults[os.path.relpath(path, folder)] = "a link that leads nowhere"
                else:
                    files.append(os.path.relpath(path, folder))
    return Listing(sorted(files), faults)


def _fault(error: OSError, folder: Path) -> dict[str, str]:
    return {os.path.relpath(error.filename, folder): f"{CLOSED}: {error.strerror}"}


def read_kaldi(folder: Path, name: str) -> dict[str, str]:
    """Read a file of a Kaldi data folder, lines of a key and its value; {} where it is not there."""
    if not (folder / name).exists():
        return {}
    try:
        lines = (folder / name).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise CorpusError(f"{folder / name} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    pairs = [line.strip().partition(" ") for line in map(str.expandtabs, lines) if line.strip()]
    values = {key: value.strip() for key, _, value in pairs}
    if len(values) < len(pairs):
        twice = next(key for key in values if sum(key == other for other, _, _ in pairs) > 1)
        raise CorpusError(f"{folder / name} names {twice!r} twice.")
    return values
