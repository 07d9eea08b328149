"""Artificial data: what may happen to a voice without changing its emotion. For training clips only.

Waveforms are changed as waveforms, spectrograms by masks at their floor. What the spectrogram CNN's source did
instead stands beside it under `published_…`, to be compared with, not to be used.

Every change draws what it does from `rng`, evenly within an interval (low, high).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import librosa
import numpy as np

PROBABILITY = 0.6  # with which each change happens
Interval = tuple[float, float]


def add_noise(signal: np.ndarray, rng: np.random.Generator, *, snr_db: Interval = (10.0, 30.0)) -> np.ndarray:
    """Add white noise.

    Parameters
    ----------
    signal : float32 (n_samples,)
    snr_db : signal-to-noise ratio, dB, of the clip's mean power

    Returns
    -------
    float32 (n_samples,)
    """
    noise = rng.normal(size=len(signal))
    ratio = 10 ** (rng.uniform(*snr_db) / 20)
    return (signal + noise * (_rms(signal) / (_rms(noise) * ratio))).astype(np.float32)


def shift_pitch(
    signal: np.ndarray, sample_rate: int, rng: np.random.Generator, *, semitones: Interval = (-4.0, 4.0)
) -> np.ndarray:
    """Move the pitch, and the formants with it.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate : Hz
    semitones : how far, upwards above 0

    Returns
    -------
    float32 (n_samples,), of the same duration
    """
    steps = rng.uniform(*semitones)
    shifted = librosa.effects.pitch_shift(signal, sr=sample_rate, n_steps=steps, **_frames(signal))
    return shifted.astype(np.float32)


def stretch_time(signal: np.ndarray, rng: np.random.Generator, *, rate: Interval = (0.85, 1.15)) -> np.ndarray:
    """Play faster or slower at the same pitch.

    Parameters
    ----------
    signal : float32 (n_samples,)
    rate : of speaking, faster above 1

    Returns
    -------
    float32 (about n_samples / rate,)
    """
    stretched = librosa.effects.time_stretch(signal, rate=rng.uniform(*rate), **_frames(signal))
    return stretched.astype(np.float32)


def shift_time(
    signal: np.ndarray, sample_rate: int, rng: np.random.Generator, *, seconds: Interval = (-0.2, 0.2)
) -> np.ndarray:
    """Begin later or earlier: what leaves on one side is lost, silence enters on the other.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate : Hz
    seconds : how much later, earlier below 0

    Returns
    -------
    float32 (n_samples,). Nothing wraps around: a sentence does not begin with its end.
    """
    shift = round(rng.uniform(*seconds) * sample_rate)
    moved = np.zeros_like(signal, dtype=np.float32)
    kept = max(0, len(signal) - abs(shift))
    moved[max(0, shift) : max(0, shift) + kept] = signal[max(0, -shift) : max(0, -shift) + kept]
    return moved


def change_gain(signal: np.ndarray, rng: np.random.Generator, *, gain_db: Interval = (-6.0, 6.0)) -> np.ndarray:
    """Make the clip louder or quieter as a whole.

    Parameters
    ----------
    signal : float32 (n_samples,)
    gain_db : dB, louder above 0

    Returns
    -------
    float32 (n_samples,), possibly beyond ±1
    """
    return (signal * 10 ** (rng.uniform(*gain_db) / 20)).astype(np.float32)


def _rms(signal):
    return np.sqrt(np.mean(np.square(signal, dtype=np.float64))) + 1e-12


def _frames(signal):
    # librosa's 2048 samples, or what a shorter clip has
    return {"n_fft": min(2048, 1 << (max(len(signal), 64).bit_length() - 1))}


def mask_bands(
    spectrogram: np.ndarray, rng: np.random.Generator, *, width: tuple[int, int] = (0, 8), floor: float | None = None
) -> np.ndarray:
    """Silence a run of neighbouring bands.

    Parameters
    ----------
    spectrogram : (n_frames, n_bands) in any unit
    width : how many bands, both ends included
    floor : the value of silence; None is the lowest there is

    Returns
    -------
    a copy, same shape

    Source: Park et al. 2019, SpecAugment.
    """
    return _mask(spectrogram, rng, width, floor, axis=1)


def mask_frames(
    spectrogram: np.ndarray, rng: np.random.Generator, *, width: tuple[int, int] = (0, 10), floor: float | None = None
) -> np.ndarray:
    """Silence a run of frames, at most a quarter of the clip.

    Parameters
    ----------
    spectrogram, floor : as in `mask_bands`
    width : how many frames, both ends included
    """
    width = tuple(min(n, len(spectrogram) // 4) for n in width)
    return _mask(spectrogram, rng, width, floor, axis=0)


def _mask(spectrogram, rng, width, floor, axis):
    masked = np.array(spectrogram)
    size = min(int(rng.integers(width[0], width[1] + 1)), masked.shape[axis])
    first = int(rng.integers(0, masked.shape[axis] - size + 1))
    place = [slice(None)] * masked.ndim
    place[axis] = slice(first, first + size)
    masked[tuple(place)] = masked.min() if floor is None else floor
    return masked


WAVEFORM_CHANGES = {
    "noise": lambda signal, rate, rng: add_noise(signal, rng),
    "pitch shift": shift_pitch,
    "time stretch": lambda signal, rate, rng: stretch_time(signal, rng),
    "time shift": shift_time,
    "gain": lambda signal, rate, rng: change_gain(signal, rng),
}
SPECTROGRAM_CHANGES = {
    "frequency mask": lambda spectrogram, rng: mask_bands(spectrogram, rng, width=(10, 30)),
    "time mask": lambda spectrogram, rng: mask_frames(spectrogram, rng, width=(10, 50)),
}


def artificial_clip(
    signal: np.ndarray,
    sample_rate: int,
    spectrogram_of: Callable[[np.ndarray, int], np.ndarray],
    changes: Iterable[str],
    *,
    seed: int | Sequence[int],
    probability: float = PROBABILITY,
) -> np.ndarray:
    """Make one artificial copy of a clip: each of `changes` happens with `probability`, those of the waveform first.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate : Hz
    spectrogram_of : function (signal, sample_rate) -> (n_frames, n_bands)
    changes : names of WAVEFORM_CHANGES and SPECTROGRAM_CHANGES
    seed : the same seed gives the same copy

    Returns
    -------
    (n_frames, n_bands)

    Raises
    ------
    ValueError : for an unknown change
    """
    _refuse_unknown(changes, {**WAVEFORM_CHANGES, **SPECTROGRAM_CHANGES})
    rng = np.random.default_rng(seed)
    for change in _drawn(WAVEFORM_CHANGES, changes, rng, probability):
        signal = change(signal, sample_rate, rng)
    spectrogram = spectrogram_of(signal, sample_rate)
    for change in _drawn(SPECTROGRAM_CHANGES, changes, rng, probability):
        spectrogram = change(spectrogram, rng)
    return spectrogram


def _refuse_unknown(changes, known):
    if unknown := set(changes) - set(known):
        raise ValueError(f"changes must be among {', '.join(known)}. Received: {', '.join(sorted(unknown))}")


def _drawn(known: Mapping[str, Callable], names, rng, probability) -> Iterator[Callable]:
    """Those of the named changes that happen, drawn one by one, for each change draws from `rng` in between."""
    return (change for name, change in known.items() if name in names and rng.random() < probability)


def published_noise(log_mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of 0.01 as standard deviation to decibels: nothing that could be heard or seen.

    Parameters
    ----------
    log_mel : (n_frames, n_bands) in dB
    """
    return log_mel + rng.normal(0, 0.01, size=log_mel.shape)


def published_pitch_shift(log_mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift the pitch of the power in each band over time by up to four semitones, each band taken for a waveform.

    Parameters
    ----------
    log_mel : (n_frames, n_bands) in dB below the clip's maximum

    Returns
    -------
    float32 of the same shape, in dB, at most 80 below its maximum.

    What is moved is how fast each band's power fluctuates, not the pitch; power below zero becomes silence.
    """
    power = librosa.db_to_power(np.ascontiguousarray(log_mel.T, dtype=np.float32))
    with warnings.catch_warnings():  # hardly a clip has the 2,048 frames of librosa's window
        warnings.filterwarnings("ignore", "n_fft=", UserWarning)
        shifted = librosa.effects.pitch_shift(power, sr=44_100, n_steps=rng.uniform(-4, 4))
    return librosa.power_to_db(shifted).T


def published_frequency_mask(log_mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put up to 10–30 neighbouring bands at 0 dB, the level of the loudest point: a scream instead of a silence.

    Parameters
    ----------
    log_mel : (n_frames, n_bands) in dB below the clip's maximum
    """
    return mask_bands(log_mel, rng, width=(0, int(rng.integers(10, 31))), floor=0.0)


def published_time_mask(log_mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put up to 10–50 frames at 0 dB, the level of the loudest point.

    Parameters
    ----------
    log_mel : (n_frames, n_bands) in dB below the clip's maximum
    """
    return _mask(log_mel, rng, (0, int(rng.integers(10, 51))), 0.0, axis=0)


PUBLISHED_CHANGES = {
    "noise": published_noise,
    "pitch shift": published_pitch_shift,
    "frequency mask": published_frequency_mask,
    "time mask": published_time_mask,
}


def published_clip(
    log_mel: np.ndarray, *, seed: int | Sequence[int], changes: Iterable[str] = tuple(PUBLISHED_CHANGES)
) -> np.ndarray:
    """Make one artificial copy as the source made it, for comparison only; see the faults above.

    Parameters
    ----------
    log_mel : (n_frames, n_mels) in dB below the clip's maximum
    seed : the same seed gives the same copy
    changes : names of PUBLISHED_CHANGES

    Returns
    -------
    float32 of the same shape
    """
    _refuse_unknown(changes, PUBLISHED_CHANGES)
    rng = np.random.default_rng(seed)
    for change in _drawn(PUBLISHED_CHANGES, changes, rng, PROBABILITY):
        log_mel = change(log_mel, rng)
    return log_mel.astype(np.float32)
