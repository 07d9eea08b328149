"""Prototypes as the explorer shows them: pictures, sounds long enough to be heard, the nearest real segments."""

import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import soundfile
from PIL import Image

from ser_utils.corpora.loading import CORPORA
from ser_utils.evaluation.splits import SEGMENT_MS
from ser_utils.features.audio import AudioError, load_audio
from ser_utils.features.spectral import log_mel_segments
from ser_utils.figures.style import EMOTION_COLOUR, SEQUENTIAL
from ser_utils.profiles import PROFILES
from ser_utils.workspace import MissingResult, Workspace, WorkspaceError
from tools.readme import listing_place, title_of
from tools.site.provenance import describe_run

SUSTAINED_S = 1.2


def sustain(signal: np.ndarray, sample_rate: int, *, seconds: float = SUSTAINED_S) -> np.ndarray:
    """Repeat a short sound so that it is heard as a voice: overlap-add at the lag where it is most like itself.

    Parameters
    ----------
    signal : (n_samples,), within [-1, 1]
    sample_rate : Hz
    seconds : length of the result, whose ends are faded

    Returns
    -------
    float32 (seconds · sample_rate,). The pitch of a periodic sound is kept; there is no new content.
    """
    signal, wanted = np.asarray(signal, np.float32), round(seconds * sample_rate)
    n = len(signal)
    if n < 8:
        return np.zeros(wanted, np.float32)

    def likeness(lag):
        a, b = signal[: n - lag], signal[lag:]
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)

    # beyond half a grain no more than two overlap; a tenth is left to fade over
    lag = max(range(n // 2 + n % 2, n - n // 10), key=likeness)
    fade = (np.arange(n - lag) + 0.5) / (n - lag)
    window = np.concatenate([fade, np.ones(2 * lag - n), fade[::-1]]).astype(np.float32)
    repeats = -(-wanted // lag)
    voice = np.zeros(repeats * lag + n, np.float32)
    for place in range(repeats):
        voice[place * lag : place * lag + n] += window * signal
    voice = voice[:wanted]
    ramp = np.minimum(1, np.arange(wanted) / (0.04 * sample_rate)).astype(np.float32)
    return np.clip(voice * ramp * ramp[::-1], -1, 1)


def load_prototypes(folder: Path) -> list[dict[str, Any]]:
    """Read the prototypes of one dataset: the rows of `index.csv`, each with paths that exist.

    Rows whose picture is absent, or outside the folder, are left out.

    folder : prototypes/<dataset>

    Raises
    ------
    WorkspaceError : where index.csv is no table with columns speaker, emotion and rank
    """
    words = dict.fromkeys(["speaker", "emotion", "rank", "nearest_utterance_id"], str)
    try:
        table = pd.read_csv(folder / "index.csv", dtype=words)
    except ValueError as error:
        raise WorkspaceError(f"{folder / 'index.csv'} cannot be read as a table: {error}") from error
    if missing := {"speaker", "emotion", "rank"} - set(table):
        raise WorkspaceError(f"{folder / 'index.csv'} has no column {', '.join(sorted(missing))}")
    prototypes = []
    for row in json.loads(table.to_json(orient="records")):
        stem = f"speaker_{row['speaker']}/{row['emotion']}_{row['rank']}"
        picture = (folder / f"{stem}.png").resolve()
        if picture.is_relative_to(folder.resolve()) and picture.is_file():
            facts = {k: v for k, v in row.items() if v is not None}
            prototypes.append(facts | {"_stem": stem, "_sound": picture.with_suffix(".wav").is_file()})
    return prototypes


def find_recordings(root: Path, dataset: str) -> dict[str, str]:
    """Recordings of which segments may be shown: {utterance_id: path}, as the notebooks used them.

    Empty where the licence of the corpus does not let anybody pass them on, or where they are not at hand.
    """
    free = (name == "demo" or (name in CORPORA and CORPORA[name].may_be_shared) for name in dataset.split("+"))
    if all(free):
        for profile in reversed(PROFILES):
            try:
                table = Workspace(dataset, profile, 0, root).load_table("utterances")
            except MissingResult:
                continue
            return dict(zip(table["utterance_id"], table["path"], strict=True))
    return {}


def write_nearest(path: str, start_ms: float, stem: Path) -> bool:
    """Cut the segment of a recording that begins at `start_ms`: sound, sustained sound and picture beside `stem`.

    Returns whether there is one: a recording may be gone, or shorter by now.
    """
    try:
        signal, rate = load_audio(path)
    except AudioError:
        return False
    first, n = round(start_ms * rate / 1000), round(SEGMENT_MS * rate / 1000)
    segment = signal[first : first + n]
    if len(segment) < n or first < 0:
        return False
    segment = segment * min(0.5 / max(float(np.abs(segment).max()), 1e-9), 100)  # as loud as prototypes are
    soundfile.write(f"{stem}.nearest.wav", segment, rate, subtype="PCM_16")
    soundfile.write(f"{stem}.nearest.sustained.wav", sustain(segment, rate), rate, subtype="PCM_16")
    level = 1 + log_mel_segments(segment[None], rate)[0, ::-1] / 80
    pixels = matplotlib.colormaps[SEQUENTIAL](level, bytes=True)[..., :3]
    Image.fromarray(pixels).resize((200, 150), Image.Resampling.NEAREST).save(f"{stem}.nearest.png")
    return True


def write_prototypes(root: Path, target: Path) -> dict[str, list[dict[str, Any]]]:
    """Copy prototypes, add sustained sounds and the real segments they are nearest to, write what the explorer reads.

    root : where prototypes/ is; target : where prototypes/ is written

    Returns
    -------
    {dataset: rows as `load_prototypes` gives them}
    """
    shown, corpora = {}, {}
    for index in sorted(root.glob("prototypes/*/index.csv"), key=lambda path: listing_place(path.parent.name)):
        folder, name = index.parent, index.parent.name
        shown[name], recordings = load_prototypes(folder), find_recordings(root, name)
        for row in shown[name]:
            copy = target / "prototypes" / name / row["_stem"]
            _write_prototype(row, folder / row["_stem"], copy)
            source, start_ms = recordings.get(row.get("nearest_utterance_id")), row.get("nearest_start_ms")
            row["_nearest"] = bool(source) and start_ms is not None and write_nearest(source, start_ms, copy)
        note = describe_run(root / "results" / name)
        if any(row["_nearest"] for row in shown[name]):
            note += " " + " ".join(_credit(part) for part in name.split("+"))
        corpora[name] = {"title": title_of(name), "n": len(shown[name]), "note": note}
        # a script and not JSON: browsers read no JSON beside a page that is opened from a folder
        text = f"receivePrototypes({json.dumps(name)}, {json.dumps(shown[name], separators=(',', ':'))});\n"
        (target / "prototypes" / name).mkdir(parents=True, exist_ok=True)
        (target / "prototypes" / name / "index.js").write_text(text, "utf-8")
    facts = {"corpora": corpora, "colours": EMOTION_COLOUR}
    (target / "prototypes").mkdir(parents=True, exist_ok=True)
    (target / "prototypes" / "corpora.js").write_text(f"const SITE = {json.dumps(facts)};\n", "utf-8")
    return shown


def _write_prototype(row, source, copy):
    """Copy a prototype's picture and sound, and make the sound long enough to be heard."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(f"{source}.png", f"{copy}.png")
    if row["_sound"]:
        shutil.copyfile(f"{source}.wav", f"{copy}.wav")
        signal, rate = soundfile.read(f"{copy}.wav", dtype="float32", always_2d=True)
        soundfile.write(f"{copy}.sustained.wav", sustain(signal.mean(axis=1), rate), rate, subtype="PCM_16")


def _credit(name):
    if name == "demo":
        return "Nearest segments are of this project's own synthetic corpus (MIT)."
    corpus = CORPORA[name]
    return f"Nearest segments are of recordings of {corpus.title} ({corpus.licence}). {corpus.citation}"
