"""One vector for a whole utterance: what pitch, level, timbre and rhythm do over time. No openSMILE is needed."""

import librosa
import numpy as np
from scipy.fft import dct

from ser_utils.features.spectral import mfcc, pitch_track

RATE_HZ = 16_000
GRID = {"n_fft": 512, "hop_length": 160}  # samples: 32 ms every 10 ms
PITCH_HZ = {"fmin": 60, "fmax": 600}
BANDS_HZ = (0, 500, 1000, 2000, 4000, 8000)
WITHIN_DB = 40  # frames so near to the loudest one sound, the others are silence
PERCENTILES = (10, 50, 90)
MODULATION_HZ = (0.5, 1, 2, 4, 8, 16, 32)
N_BANDS = 8  # of the modulation spectrum
N_SHAPE = 5  # cosines of a contour's shape


def utterance_statistics(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Describe a clip by one vector.

    Parameters
    ----------
    signal : float (n_samples,), within [-1, 1]
    sample_rate : Hz; it has to be RATE_HZ

    Returns
    -------
    float32 (1, n_features), in the order of `describe_utterance`

    Raises
    ------
    ValueError : for another rate
    """
    return np.array([*describe_utterance(signal, sample_rate).values()], np.float32)[None]


def describe_utterance(signal: np.ndarray, sample_rate: int) -> dict[str, float]:
    """Name each number of `utterance_statistics`, which takes the same signal.

    Contours (level, pitch, harmonicity, MFCC, shares of bands, centroid, spread, roll-off, flatness, flux) are summed up
    over the frames that sound; level and pitch also by their shape, mel bands by the speed at which they change.
    """
    if sample_rate != RATE_HZ:
        raise ValueError(f"utterance statistics need {RATE_HZ} Hz. Received: sample_rate={sample_rate}")
    signal = np.asarray(signal, np.float32)
    spectrum = np.abs(librosa.stft(signal, **GRID)) ** 2  # (n_bins, n_frames)
    level = 10 * np.log10(np.maximum(spectrum.sum(axis=0), 1e-10))
    sounds = level > level.max() - WITHIN_DB
    first, last = np.flatnonzero(sounds)[[0, -1]]
    span = slice(first, last + 1)
    pitch = _semitones(signal)
    contours = {"level_db": level, "pitch_st": pitch, "harmonicity": _harmonicity(signal, pitch)}
    contours |= _timbre(signal, spectrum)
    values = {}
    for name, contour in contours.items():
        values |= _summary(name, contour, sounds)
    values |= _shape("level_db", level[span]) | _shape("pitch_st", _bridged(pitch)[span])
    return values | _modulation(spectrum[:, span]) | _timing(sounds[span], np.isfinite(pitch[span]), level[span])


def _semitones(signal):
    """Pitch in semitones above 55 Hz, NaN where there is no voice."""
    hertz = pitch_track(signal, RATE_HZ, **PITCH_HZ, frame_length=1024, hop_length=GRID["hop_length"])
    return 12 * np.log2(hertz / 55)


def _harmonicity(signal, pitch):
    """Correlation of a voiced frame with itself one period later, 0 to 1; NaN where there is no voice."""
    half = 512
    padded = np.pad(signal, (half, 3 * half))
    harmonicity = np.full(len(pitch), np.nan)
    for i in np.flatnonzero(np.isfinite(pitch)):
        period = round(RATE_HZ / (55 * 2 ** (pitch[i] / 12)))
        start = i * GRID["hop_length"]
        frame, later = padded[start : start + 2 * half], padded[start + period : start + period + 2 * half]
        harmonicity[i] = frame @ later / max(np.sqrt((frame @ frame) * (later @ later)), 1e-10)
    return harmonicity


def _timbre(signal, spectrum):
    """Contours of the spectrum's shape, {name: (n_frames,)}."""
    coefficients = mfcc(signal, RATE_HZ, n_mfcc=17, energy=False, n_mels=40, **GRID)[1:]
    frequency = librosa.fft_frequencies(sr=RATE_HZ, n_fft=GRID["n_fft"])
    power = np.maximum(spectrum, 1e-10)
    total = power.sum(axis=0)
    centroid = frequency @ power / total
    spread = np.sqrt(((frequency[:, None] - centroid) ** 2 * power / total).sum(axis=0))
    share = np.cumsum(power, axis=0) / total
    contours = {f"mfcc_{i}": row for i, row in enumerate(coefficients, 1)}
    contours |= {"centroid_hz": centroid, "spread_hz": spread}
    contours |= {f"rolloff_{percent}_hz": frequency[(share < percent / 100).sum(axis=0)] for percent in (25, 85, 95)}
    for low, high in zip(BANDS_HZ[:-1], BANDS_HZ[1:], strict=True):
        inside = (frequency >= low) & (frequency < high)
        contours[f"share_{low}_hz_db"] = 10 * np.log10(power[inside].sum(axis=0) / total)
    contours["flatness_db"] = 10 * np.log10(np.exp(np.log(power).mean(axis=0)) / power.mean(axis=0))
    colour = np.sqrt(power / total)
    contours["flux"] = np.linalg.norm(np.diff(colour, axis=1, prepend=colour[:, :1]), axis=0)
    return contours


def _summary(name, contour, sounds):
    """Mean, spread and percentiles of a contour where it sounds, and how much it moves in 20 ms."""
    known = contour[sounds & np.isfinite(contour)]
    change = (contour[2:] - contour[:-2])[sounds[2:] & sounds[:-2]]
    change = change[np.isfinite(change)]
    known, change = (values if len(values) else np.zeros(1) for values in (known, change))
    places = dict(zip(PERCENTILES, np.percentile(known, PERCENTILES), strict=True))
    return {
        f"{name} mean": known.mean(),
        f"{name} spread": known.std(),
        **{f"{name} percentile {place}": value for place, value in places.items()},
        f"{name} movement": change.std(),
        f"{name} rise": np.mean(np.maximum(change, 0)),
    }


def _bridged(contour):
    """A contour with straight lines over its gaps; zeros where there is nothing at all."""
    known = np.flatnonzero(np.isfinite(contour))
    return np.interp(np.arange(len(contour)), known, contour[known]) if len(known) else np.zeros(len(contour))


def _shape(name, contour):
    """The first cosines of a contour over the clip's own length: falling, arched, …"""
    cosines = dct(contour, norm="ortho")[1 : N_SHAPE + 1] / np.sqrt(len(contour))
    cosines = np.pad(cosines, (0, N_SHAPE - len(cosines)))
    return {f"{name} cosine {i}": value for i, value in enumerate(cosines, 1)}


def _modulation(spectrum):
    """How fast mel bands change: dB of their logarithm's movement in octaves of modulation frequency."""
    mel = librosa.filters.mel(sr=RATE_HZ, n_fft=GRID["n_fft"], n_mels=N_BANDS) @ spectrum
    bands = 10 * np.log10(np.maximum(mel, 1e-8))
    bands = np.vstack([bands, bands.mean(axis=0)])
    bands = (bands - bands.mean(axis=1, keepdims=True)) * np.hanning(bands.shape[1])
    n_fft = max(512, 1 << (bands.shape[1] - 1).bit_length())
    power = np.abs(np.fft.rfft(bands, n_fft)) ** 2 / bands.shape[1]
    frequency = np.fft.rfftfreq(n_fft, GRID["hop_length"] / RATE_HZ)
    values = {}
    for low, high in zip(MODULATION_HZ[:-1], MODULATION_HZ[1:], strict=True):
        moving = 10 * np.log10(power[:, (frequency >= low) & (frequency < high)].mean(axis=1) + 1e-6)
        names = [*(f"band {i}" for i in range(1, N_BANDS + 1)), "level"]
        values |= {f"modulation {low}-{high} Hz {name}": value for name, value in zip(names, moving, strict=True)}
    return values


def _timing(sounds, voiced, level):
    """Length of the clip and of its pauses, share and runs of voice, peaks of level a second."""
    seconds = len(sounds) * GRID["hop_length"] / RATE_HZ
    edges = np.diff(np.concatenate([[0], voiced.astype(int), [0]]))
    runs = (np.flatnonzero(edges < 0) - np.flatnonzero(edges > 0)) * GRID["hop_length"] / RATE_HZ
    runs = runs if len(runs) else np.zeros(1)
    smooth = np.convolve(level, np.hanning(9) / np.hanning(9).sum(), mode="same")
    peaks = np.sum((smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:]) & sounds[1:-1])
    return {
        "seconds": seconds,
        "share sounding": sounds.mean(),
        "share voiced": voiced.mean(),
        "voiced runs a second": len(runs) / seconds,
        "voiced run mean s": runs.mean(),
        "voiced run spread s": runs.std(),
        "level peaks a second": peaks / seconds,
    }
