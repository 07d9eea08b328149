"""Prototypes as the explorer shows them: pictures, sounds long enough to be heard, the nearest real segments."""

import base64
import json
import shutil
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import librosa
import matplotlib
import numpy as np
import pandas as pd
import soundfile
from PIL import Image

from ser_utils.corpora.facts import CorpusError, GrammarError
from ser_utils.corpora.loading import CORPORA, find_corpus
from ser_utils.evaluation.splits import SEGMENT_MS
from ser_utils.features.audio import AudioError, load_audio
from ser_utils.features.spectral import LEVEL_STEP_DB, MEL, log_mel_segments, round_levels
from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL
from ser_utils.names import corpora_of
from ser_utils.profiles import PROFILES
from ser_utils.workspace import MissingResult, Workspace, WorkspaceError
from tools.readme.datasets import listing_place, title_of
from tools.shipped import load_sound
from tools.site.provenance import describe_run

SUSTAINED_S = 1.2
HERTZ = (250, 500, 1000, 2000, 4000, 8000, 16000)  # ticks of the explorer's mel axis
FLOOR_DB = -60  # the explorer draws what is below as silence, as the PNG do
MAPS = (("levels", SEQUENTIAL), ("difference", DIVERGING))
DIFFERENCE_DB = 30  # between prototype and recording, drawn in full colour


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

    Rows without a picture, or with one outside the folder, are left out. A picture is a file, or numbers in the speaker's
    pictures.npz, or both; with numbers, a row has `_levels`, in steps below 0 dB, and `_rate_hz`.

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
    n_lines = table["speaker"].value_counts()
    pictures = {speaker: _load_pictures(folder, speaker, n) for speaker, n in n_lines.items()}
    places = table.groupby("speaker").cumcount()
    prototypes = []
    for row, place in zip(json.loads(table.to_json(orient="records")), places, strict=True):
        stem = f"speaker_{row['speaker']}/{row['emotion']}_{row['rank']}"
        picture, stored = (folder / f"{stem}.png").resolve(), pictures.get(row["speaker"])
        if picture.is_relative_to(folder.resolve()) and (stored or picture.is_file()):
            facts = {k: v for k, v in row.items() if v is not None}
            prototypes.append(facts | {"_stem": stem, "_sound": picture.with_suffix(".wav").is_file()})
            if stored:
                levels, rate = stored
                prototypes[-1] |= {"_levels": _encode(levels[place]), "_rate_hz": rate}
    silent = [row["_stem"] for row in prototypes if not row["_sound"]]
    _tell_left_out(folder, "pictures", len(table) - len(prototypes))
    _tell_left_out(folder, "sounds", len(silent), *silent[:3])
    return prototypes


def _tell_left_out(folder, what, n, *names):
    """Say that `n` pictures or sounds of an index are not there, or nothing of none."""
    if n:
        example = f" ({', '.join([*names, '…'])})" if names else ""
        print(f"{folder} lacks {n} of the {what} that index.csv lists{example}. make 03 writes them.", file=sys.stderr)


def _load_pictures(folder, speaker, n):
    """Levels (n, n_mels, n_frames) and rate; None, and said, where there is no file of `n` pictures on the scale in use."""
    path = (folder / f"speaker_{speaker}" / "pictures.npz").resolve()
    if not path.is_relative_to(folder.resolve()):
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            levels, step_db, rate = (stored[name] for name in ("levels", "step_db", "sample_rate_hz"))
        fits = levels.dtype == np.uint8 and levels.ndim == 3 and levels.shape[:2] == (n, MEL.n_mels)
        if fits and step_db == LEVEL_STEP_DB:
            return levels, int(rate)
    except FileNotFoundError:  # pictures are files then
        return None
    except (OSError, ValueError, KeyError, zlib.error, zipfile.BadZipFile):
        pass
    print(
        f"{path} does not hold the {n} pictures of index.csv, so they are left out. make 03 writes it.", file=sys.stderr
    )
    return None


def _encode(array):
    """Bytes as text: a page that is opened from a folder can read nothing but scripts."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def find_recordings(root: Path, dataset: str) -> dict[str, str]:
    """Recordings of which segments may be shown: {utterance_id: path}, as the notebooks used them.

    Empty where the licence of the corpus does not let anybody pass them on, or where they are not at hand.
    """
    free = (name == "demo" or (name in CORPORA and CORPORA[name].may_be_shared) for name in corpora_of(dataset))
    if all(free):
        for profile in reversed(PROFILES):
            try:
                table = Workspace(dataset, profile, 0, root).load_table("utterances")
            except MissingResult:
                continue
            return dict(zip(table["utterance_id"], table["path"], strict=True))
    return {}


def describe_utterance(dataset: str, utterance_id: str) -> dict[str, str]:
    """Tell what an utterance's name says: speaker, emotion, sentence (its text, or its code where that is not known).

    Returns
    -------
    dict of speaker, emotion, sentence and language; empty where the name says nothing, as in a corpus of one's own
    """
    parts = corpora_of(dataset)
    for name in parts:
        mark = f"{name}_" if len(parts) > 1 else ""  # joined corpora name their utterances so
        if not utterance_id.startswith(mark):
            continue
        try:
            corpus = find_corpus(name)
            facts = corpus.utterance(f"{utterance_id.removeprefix(mark)}.wav")
        except (CorpusError, GrammarError):
            continue
        text = corpus.sentences.get(facts["sentence"], "")
        spoken = {"sentence": text or facts["sentence"], "language": facts["language"] if text else ""}
        return {"speaker": facts["speaker"], "emotion": facts["emotion"]} | spoken
    return {}


def write_nearest(path: str, start_ms: float, stem: Path, rate: int | None = None) -> tuple[np.ndarray, int] | None:
    """Cut the segment of a recording that begins at `start_ms`: sound and sustained sound beside `stem`.

    rate : Hz of the prototype's picture; None keeps the recording's own

    Returns
    -------
    its picture, as `round_levels` gives it, and its rate; None where there is no such segment: a recording may be
    gone, or shorter by now
    """
    try:
        signal, rate = load_audio(path, rate)
    except AudioError:
        return None
    first, n = round(start_ms * rate / 1000), round(SEGMENT_MS * rate / 1000)
    segment = signal[first : first + n]
    if len(segment) < n or first < 0:
        return None
    segment = segment * min(0.5 / max(float(np.abs(segment).max()), 1e-9), 100)  # as loud as prototypes are
    soundfile.write(f"{stem}.nearest.wav", segment, rate, subtype="PCM_16")
    soundfile.write(f"{stem}.nearest.sustained.wav", sustain(segment, rate), rate, subtype="PCM_16")
    return round_levels(log_mel_segments(segment[None], rate)[0]), rate


def write_prototypes(root: Path, target: Path) -> dict[str, list[dict[str, Any]]]:
    """Copy prototypes, add sustained sounds and the real segments they are nearest to, write what the explorer reads.

    root : where prototypes/ is; target : where prototypes/ is written

    Returns
    -------
    {dataset: rows as `load_prototypes` gives them}
    """
    shown, corpora = {}, {}
    for folder in sorted(root.glob("prototypes/[!.]*/")):
        if not (folder / "index.csv").exists():
            print(f"{folder} has no index.csv, so its prototypes are left out. make 03 writes it.", file=sys.stderr)
    for index in sorted(root.glob("prototypes/*/index.csv"), key=lambda path: listing_place(path.parent.name)):
        folder, name = index.parent, index.parent.name
        shown[name], recordings = load_prototypes(folder), find_recordings(root, name)
        for row in shown[name]:
            copy = target / "prototypes" / name / row["_stem"]
            _write_prototype(row, folder / row["_stem"], copy)
            _add_nearest(row, name, recordings, copy)
        note = describe_run(root / "results" / name)
        if any(row["_nearest"] for row in shown[name]):
            note += " " + " ".join(_credit(part) for part in corpora_of(name))
        rates = [row["_rate_hz"] for row in shown[name] if "_rate_hz" in row]
        axes = describe_axes(rates[0]) if rates else None
        corpora[name] = {"title": title_of(name), "n": len(shown[name]), "note": note, "axes": axes}
        # a script and not JSON: browsers read no JSON beside a page that is opened from a folder
        text = f"receivePrototypes({json.dumps(name)}, {json.dumps(shown[name], separators=(',', ':'))});\n"
        (target / "prototypes" / name).mkdir(parents=True, exist_ok=True)
        (target / "prototypes" / name / "index.js").write_text(text, "utf-8")
    maps = {name: _encode(matplotlib.colormaps[colours](np.arange(256), bytes=True)) for name, colours in MAPS}
    scale = {"step_db": LEVEL_STEP_DB, "floor_db": FLOOR_DB, "difference_db": DIFFERENCE_DB, "bands": MEL.n_mels}
    facts = {"corpora": corpora, "colours": EMOTION_COLOUR, "maps": maps, "scale": scale}
    (target / "prototypes").mkdir(parents=True, exist_ok=True)
    (target / "prototypes" / "corpora.js").write_text(f"const SITE = {json.dumps(facts)};\n", "utf-8")
    return shown


def typical_sounds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the first voice that has them, the most typical prototype of each emotion that has a pitch, a sound and a picture
    as numbers; rows : as `load_prototypes` gives them.
    """
    heard = [row for row in rows if row["_sound"] and "_levels" in row and row.get("f0_hz")]
    voice = [row for row in heard if row["speaker"] == heard[0]["speaker"]]
    first = {row["emotion"]: row for row in sorted(voice, key=lambda row: row["rank"], reverse=True)}
    return sorted(first.values(), key=lambda row: row["emotion"])


def draw_levels(levels: str, path: Path) -> None:
    """Write a picture of levels as `load_prototypes` encodes them, without axes; low frequencies are at the bottom."""
    steps = np.frombuffer(base64.b64decode(levels), np.uint8).reshape(MEL.n_mels, -1)
    shares = 1 - np.minimum(steps * LEVEL_STEP_DB / -FLOOR_DB, 1)
    picture = matplotlib.colormaps[SEQUENTIAL](shares[::-1], bytes=True)[..., :3]
    size = (20 * steps.shape[1], 2 * steps.shape[0])
    Image.fromarray(picture).resize(size, Image.Resampling.NEAREST).save(path, optimize=True)


def describe_axes(rate: int) -> dict[str, Any]:
    """Describe the axes of a picture at `rate` Hz.

    Returns
    -------
    dict of `hertz`, pairs of a frequency and its height among the mel bands within [0, 1], and `frame_ms`
    """
    centres = librosa.mel_frequencies(MEL.n_mels + 2, fmin=0, fmax=rate / 2)[1:-1]
    ticks = [hertz for hertz in HERTZ if hertz <= rate / 2]
    heights = np.interp(ticks, centres, (np.arange(MEL.n_mels) + 0.5) / MEL.n_mels).round(4)
    return {"hertz": list(zip(ticks, heights.tolist(), strict=True)), "frame_ms": 1000 * MEL.hop_length / rate}


def _add_nearest(row, dataset, recordings, copy):
    """Tell in `row` what was said in the nearest real segment; add its picture and sounds where they may be shown."""
    utterance_id, start_ms = row.get("nearest_utterance_id"), row.get("nearest_start_ms")
    row["_spoken"] = describe_utterance(dataset, utterance_id or "")
    row["_nearest"] = ""
    if utterance_id in recordings and start_ms is not None:
        segment = write_nearest(recordings[utterance_id], start_ms, copy, row.get("_rate_hz"))
        if segment:
            row |= {"_nearest": _encode(segment[0]), "_rate_hz": segment[1]}


def _write_prototype(row, source, copy):
    """Copy a prototype's picture, or draw it, and its sound, which is made long enough to be heard."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    if Path(f"{source}.png").is_file():
        shutil.copyfile(f"{source}.png", f"{copy}.png")
    else:
        draw_levels(row["_levels"], Path(f"{copy}.png"))
    if row["_sound"]:
        shutil.copyfile(f"{source}.wav", f"{copy}.wav")
        signal, rate = load_sound(Path(f"{source}.wav"))
        soundfile.write(f"{copy}.sustained.wav", sustain(signal.mean(axis=1), rate), rate, subtype="PCM_16")


def _credit(name):
    if name == "demo":
        return "Nearest segments are of this project's own synthetic corpus (MIT)."
    corpus = CORPORA[name]
    return f"Nearest segments are of recordings of {corpus.title} ({corpus.licence}). {corpus.citation}"
