"""Frames of whole utterances, log-mel or MFCC, and of their artificial copies; no network library is imported here."""

import functools
import inspect
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pandas as pd

from ser_utils.features import spectral as features
from ser_utils.features.audio import reduce_noise
from ser_utils.features.augmentation import artificial_clip, published_clip
from ser_utils.features.store import FeatureStore, build_store
from ser_utils.workspace import content_key

KINDS = ("log_mel", "mfcc")
NOISE_S = {"": None, "whole": None, "first_second": 1.0}  # seconds at the start that are taken for noise


def clip_frames(
    signal: np.ndarray,
    sample_rate: int,
    *,
    kind: str,
    n_mels: int,
    n_fft: int,
    hop_length: int,
    n_mfcc: int = 40,
    deltas: bool = False,
    denoise: str = "",
    trim_db: float = 0,
) -> np.ndarray:
    """Compute the frames of one utterance.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate : Hz
    kind : "log_mel" (n_mels bands in dB below the clip's maximum) or "mfcc" (n_mfcc coefficients and energy)
    n_mels, n_fft, hop_length, n_mfcc, deltas : as in `spectral.log_mel` and `spectral.mfcc`
    denoise : "" leaves the noise, "whole" estimates it from the whole clip, "first_second" takes the clip's first second
        for noise as the spectrogram CNN's source does, voice and all
    trim_db : leading and trailing frames further than this below the loudest are left out; 0 keeps all

    Returns
    -------
    float32 (n_frames, n_features)

    Raises
    ------
    ValueError : for an unknown kind or denoise
    """
    for name, value, known in (("kind", kind, KINDS), ("denoise", denoise, NOISE_S)):
        if value not in known:
            accepted = ", ".join(map(repr, known))
            raise ValueError(f"{name} must be one of {accepted}. Received: {name}={value!r}")
    if denoise:
        signal = reduce_noise(signal, sample_rate, noise_s=NOISE_S[denoise])
    if trim_db:
        signal, _ = librosa.effects.trim(signal, top_db=trim_db, frame_length=n_fft, hop_length=hop_length)
    grid = {"n_mels": n_mels, "n_fft": n_fft, "hop_length": hop_length}
    if kind == "log_mel":
        rows = features.log_mel(signal, sample_rate, **grid)
    else:
        rows = features.mfcc(signal, sample_rate, n_mfcc=n_mfcc, energy=True, deltas=deltas, **grid)
    return np.ascontiguousarray(rows.T)


def artificial_frames(
    signal: np.ndarray,
    sample_rate: int,
    *,
    frames: dict[str, Any],
    changes: Sequence[str],
    copy: int,
    seed: int,
    published: bool = False,
) -> np.ndarray:
    """Compute the frames of an artificial copy of one utterance, for training alone.

    What happens depends on the samples, `copy` and `seed` alone.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate : Hz
    frames : settings of `clip_frames`
    changes : names, see `augmentation`
    copy : number of the copy
    seed : of all copies
    published : as the spectrogram CNN's source made them, faults included

    Returns
    -------
    float32 (n_frames, n_features)
    """
    seeds = (seed, copy, zlib.crc32(np.ascontiguousarray(signal)))
    spectrogram_of = functools.partial(clip_frames, **frames)
    if published:
        return published_clip(spectrogram_of(signal, sample_rate), seed=seeds, changes=changes)
    return artificial_clip(signal, sample_rate, spectrogram_of, changes, seed=seeds)


def frame_store(
    folder: str | Path,
    table: pd.DataFrame,
    frames: dict[str, Any],
    *,
    sample_rate_hz: int | None = None,
    extract: Callable = clip_frames,
    **options: Any,
) -> FeatureStore:
    """Keep the frames of every utterance in a feature store.

    Parameters
    ----------
    folder : where the store lives
    table : utterance table
    frames : settings of `clip_frames`
    sample_rate_hz : Hz to resample to; None or 0 leaves the recordings as they are
    extract : `clip_frames`, or `artificial_frames` or another one of its kind, with `options` of its own
    """
    given = frames if extract is clip_frames else {"frames": frames, **options}
    functions = (extract, clip_frames, features.log_mel, features.mfcc)
    code = [inspect.getsource(function) for function in functions]
    key = content_key(given, code, content_key(artificial_clip) if options else "")
    rows_of, rate = functools.partial(extract, **given), sample_rate_hz or None
    return build_store(folder, table, rows_of, key=key, sample_rate_hz=rate, title=Path(folder).name)


def artificial_stores(
    folder: str | Path,
    table: pd.DataFrame,
    frames: dict[str, Any],
    *,
    copies: int,
    extract: Callable = artificial_frames,
    **options: Any,
) -> tuple[Path, ...]:
    """Keep artificial versions of every utterance, in one feature store a copy.

    Parameters
    ----------
    folder : the stores' names begin so
    table : utterance table
    frames : settings of `clip_frames`
    copies : how many
    extract : makes a copy
    options : as in `artificial_frames`, and `sample_rate_hz`

    Returns
    -------
    folders of the stores, for FoldTask.copies
    """
    return tuple(
        frame_store(f"{folder}_{copy}", table, frames, extract=extract, copy=copy, **options).folder
        for copy in range(copies)
    )
