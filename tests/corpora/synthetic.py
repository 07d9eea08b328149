"""Small recordings and tables for tests of the reader's own corpora."""

import io
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

EMOTIONS = ("anger", "happiness", "neutral", "sadness")


@cache
def sound(seed: int, suffix: str = ".wav") -> bytes:
    """A quarter of a second of noise, other noise for another seed, as the bytes of a file."""
    buffer = io.BytesIO()
    samples = np.random.default_rng(seed).integers(-9999, 9999, 4000, dtype=np.int16)
    soundfile.write(buffer, samples, 16_000, format={".sph": "NIST", ".wave": "WAV"}.get(suffix, suffix[1:]))
    return buffer.getvalue()


def record(path: Path, seed: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sound(sum(map(ord, str(path))) if seed is None else seed, path.suffix))
    return path


def write_table(path: Path, rows, columns=("path", "speaker", "emotion"), separator=",", sounds=True) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(row) + "\n" for row in [columns, *rows]), "utf-8")
    for seed, row in enumerate(rows):
        if sounds and row[0]:
            record(path.parent / row[0], seed)
    return str(path)


def people_rows(speakers="anna bert carl dora", takes=1):
    """Rows `path, speaker, emotion` in which every speaker says every emotion."""
    names = [(s, e, t) for s in speakers.split() for e in EMOTIONS for t in range(takes)]
    return [[f"wav/{speaker}_{emotion}_{take}.wav", speaker, emotion] for speaker, emotion, take in names]


def workbook(sheets) -> bytes:
    """An Excel workbook; of each sheet, rows of text (shared strings) and numbers (as such)."""
    buffer, strings = io.BytesIO(), []
    head = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(buffer, "w") as book:
        for number, rows in enumerate(sheets, 1):
            lines = []
            for r, row in enumerate(rows, 1):
                cells = ""
                for c, value in enumerate(row):
                    if value is None:
                        continue
                    kind = ' t="s"' if isinstance(value, str) else ""
                    if isinstance(value, str):
                        strings.append(value)
                        value = len(strings) - 1
                    cells += f'<c r="{chr(65 + c)}{r}"{kind}><v>{value}</v></c>'
                lines.append(f'<row r="{r}">{cells}</row>')
            text = f"<worksheet {head}><sheetData>{''.join(lines)}</sheetData></worksheet>"
            book.writestr(f"xl/worksheets/sheet{number}.xml", text)
        items = "".join(f"<si><r><t>{text[:1]}</t></r><r><t>{text[1:]}</t></r></si>" for text in strings)
        book.writestr("xl/sharedStrings.xml", f"<sst {head}>{items}</sst>")
    return buffer.getvalue()
