"""Frames of whole utterances, log-mel or MFCC, and of their artificial copies; no network library is imported here."""

import functools
import inspect
import zlib
from pathlib import Path

import librosa
import numpy as np

from ser_utils.features import spectral as features
from ser_utils.features.audio import reduce_noise
from ser_utils.features.augmentation import artificial_clip, published_clip
from ser_utils.features.store import build_store
from ser_utils.workspace import content_key

KINDS = ("log_mel", "mfcc")
NOISE_S = {"": None, "whole": None, "first_second": 1.0}  # seconds at the start that are taken for noise


def clip_frames(
    signal, sample_rate, *, kind, n_mels, n_fft, hop_length, n_mfcc=40, deltas=False, denoise="", trim_db=0
):
    """Frames of one utterance.

    signal : float32 (n_samples,); sample_rate : Hz
    kind : "log_mel" (n_mels bands in dB below the clip's maximum) or "mfcc" (n_mfcc coefficients and energy)
    denoise : "" leaves the noise, "whole" estimates it from the whole clip, "first_second" takes the clip's
        first second for noise as the spectrogram CNN's source does, voice and all
    trim_db : leading and trailing frames further than this below the loudest are left out; 0 keeps all
    Returns float32 (n_frames, n_features). Raises ValueError for an unknown kind or denoise.
    """
    for name, value, known in (("kind", kind, KINDS), ("denoise", denoise, NOISE_S)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}. Received: {value!r}")
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


def artificial_frames(signal, sample_rate, *, frames, changes, copy, seed, published=False):
    """Frames of an artificial copy of one utterance, for training alone.

    frames : settings of `clip_frames`; changes : names, see `augmentation`; copy : number of the copy
    published : as the spectrogram CNN's source made them, faults included
    Returns float32 (n_frames, n_features). What happens depends on the samples, `copy` and `seed` alone.
    """
    seeds = (seed, copy, zlib.crc32(np.ascontiguousarray(signal)))
    spectrogram_of = functools.partial(clip_frames, **frames)
    if published:
        return published_clip(spectrogram_of(signal, sample_rate), seed=seeds, changes=changes)
    return artificial_clip(signal, sample_rate, spectrogram_of, changes, seed=seeds)


def frame_store(folder, table, frames, *, sample_rate_hz=None, extract=clip_frames, **options):
    """A feature store of the frames of every utterance.

    frames : settings of `clip_frames`; sample_rate_hz : Hz to resample to, None leaves the recordings as they are
    extract : `clip_frames`, or `artificial_frames` with its own `options`
    Returns a FeatureStore.
    """
    given = {"frames": frames, **options} if extract is artificial_frames else frames
    code = [inspect.getsource(one) for one in (extract, clip_frames, features.log_mel, features.mfcc)]
    key = content_key(given, code, content_key(artificial_clip) if options else "")
    return build_store(
        folder, table, functools.partial(extract, **given), key=key, sample_rate_hz=sample_rate_hz or None,
        title=Path(folder).name,
    )  # fmt: skip


def artificial_stores(folder, table, frames, *, copies, **options):
    """Feature stores of `copies` artificial versions of every utterance; options as in `artificial_frames`.

    Returns a tuple of folders, for FoldTask.copies.
    """
    return tuple(
        frame_store(f"{folder}_{copy}", table, frames, extract=artificial_frames, copy=copy, **options).folder
        for copy in range(copies)
    )
