"""Artificial data: what may happen to a voice without changing its emotion. For training clips only.

Waveforms are changed as waveforms, spectrograms by masks at their floor. What the spectrogram CNN's source did
instead stands beside it under `published_…`, to be compared with, not to be used.
"""

import warnings

import librosa
import numpy as np


def add_noise(signal, rng, *, snr_db=(10.0, 30.0)):
    """Add white noise at a signal-to-noise ratio drawn from `snr_db` (dB, of the clip's mean power).

    signal : float32 (n_samples,); rng : numpy Generator. Returns float32 (n_samples,).
    """
    noise = rng.normal(size=len(signal))
    ratio = 10 ** (rng.uniform(*snr_db) / 20)
    return (signal + noise * (_rms(signal) / (_rms(noise) * ratio))).astype(np.float32)


def shift_pitch(signal, sample_rate, rng, *, semitones=(-4.0, 4.0)):
    """Move the pitch, and the formants with it, by a number of semitones drawn from `semitones`.

    Returns float32 (n_samples,), of the same duration.
    """
    steps = rng.uniform(*semitones)
    shifted = librosa.effects.pitch_shift(signal, sr=sample_rate, n_steps=steps, **_frames(signal))
    return shifted.astype(np.float32)


def stretch_time(signal, rng, *, rate=(0.85, 1.15)):
    """Play faster (above 1) or slower at the same pitch. Returns float32 (about n_samples / rate,)."""
    stretched = librosa.effects.time_stretch(signal, rate=rng.uniform(*rate), **_frames(signal))
    return stretched.astype(np.float32)


def shift_time(signal, sample_rate, rng, *, seconds=(-0.2, 0.2)):
    """Begin later (above 0) or earlier: what leaves on one side is lost, silence enters on the other.

    Returns float32 (n_samples,). Nothing wraps around: a sentence does not begin with its end.
    """
    shift = round(rng.uniform(*seconds) * sample_rate)
    moved = np.zeros_like(signal, dtype=np.float32)
    kept = max(0, len(signal) - abs(shift))
    moved[max(0, shift) : max(0, shift) + kept] = signal[max(0, -shift) : max(0, -shift) + kept]
    return moved


def change_gain(signal, rng, *, gain_db=(-6.0, 6.0)):
    """Make the clip louder or quieter as a whole. Returns float32 (n_samples,), possibly beyond ±1."""
    return (signal * 10 ** (rng.uniform(*gain_db) / 20)).astype(np.float32)


def _rms(signal):
    return np.sqrt(np.mean(np.square(signal, dtype=np.float64))) + 1e-12


def _frames(signal):
    # librosa's 2048 samples, or what a shorter clip has
    return {"n_fft": min(2048, 1 << (max(len(signal), 64).bit_length() - 1))}


def mask_bands(spectrogram, rng, *, width=(0, 8), floor=None):
    """Silence a run of neighbouring bands, `width` of them drawn from an interval (both ends included).

    spectrogram : (n_frames, n_bands) in any unit; floor : the value of silence, None is the lowest there is
    Returns a copy. Source: Park et al. 2019, SpecAugment.
    """
    return _mask(spectrogram, rng, width, floor, axis=1)


def mask_frames(spectrogram, rng, *, width=(0, 10), floor=None):
    """Silence a run of frames, at most a quarter of the clip; see `mask_bands`."""
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


def artificial_clip(signal, sample_rate, spectrogram_of, changes, *, seed, probability=0.6):
    """One artificial copy of a clip: each of `changes` happens with `probability`, waveform first.

    signal : float32 (n_samples,); sample_rate : Hz
    spectrogram_of : function (signal, sample_rate) -> (n_frames, n_bands)
    changes : names of WAVEFORM_CHANGES and SPECTROGRAM_CHANGES
    seed : int or sequence of int; the same seed gives the same copy
    Returns (n_frames, n_bands). Raises ValueError for an unknown change.
    """
    _check(changes, {**WAVEFORM_CHANGES, **SPECTROGRAM_CHANGES})
    rng = np.random.default_rng(seed)
    for name, change in WAVEFORM_CHANGES.items():
        if name in changes and rng.random() < probability:
            signal = change(signal, sample_rate, rng)
    spectrogram = spectrogram_of(signal, sample_rate)
    for name, change in SPECTROGRAM_CHANGES.items():
        if name in changes and rng.random() < probability:
            spectrogram = change(spectrogram, rng)
    return spectrogram


def _check(changes, known):
    if unknown := set(changes) - set(known):
        raise ValueError(f"changes must be among {', '.join(known)}. Received: {', '.join(sorted(unknown))}")


def published_noise(log_mel, rng):
    """Gaussian noise of 0.01 as standard deviation, on decibels: nothing that could be heard or seen."""
    return log_mel + rng.normal(0, 0.01, size=log_mel.shape)


def published_pitch_shift(log_mel, rng, *, semitones=(-4.0, 4.0)):
    """A pitch shift of the power in each band over time, each band taken for a waveform.

    Parameters
    ----------
    log_mel : (n_frames, n_bands) in dB below the clip's maximum
    semitones : interval from which a real number is drawn

    Returns
    -------
    float32 of the same shape, in dB, at most 80 below its maximum.

    What is moved is how fast each band's power fluctuates, not the pitch; power below zero becomes silence.
    """
    power = librosa.db_to_power(np.ascontiguousarray(log_mel.T, dtype=np.float32))
    with warnings.catch_warnings():  # hardly a clip has the 2,048 frames of librosa's window
        warnings.filterwarnings("ignore", "n_fft=", UserWarning)
        shifted = librosa.effects.pitch_shift(power, sr=44_100, n_steps=rng.uniform(*semitones))
    return librosa.power_to_db(shifted).T


def published_frequency_mask(log_mel, rng):
    """Up to 10–30 neighbouring bands at 0 dB, the level of the loudest point: a scream instead of a silence."""
    return mask_bands(log_mel, rng, width=(0, int(rng.integers(10, 31))), floor=0.0)


def published_time_mask(log_mel, rng):
    """Up to 10–50 frames at 0 dB, the level of the loudest point."""
    return _mask(log_mel, rng, (0, int(rng.integers(10, 51))), 0.0, axis=0)


PUBLISHED_CHANGES = {
    "noise": published_noise,
    "pitch shift": published_pitch_shift,
    "frequency mask": published_frequency_mask,
    "time mask": published_time_mask,
}


def published_clip(log_mel, *, seed, changes=tuple(PUBLISHED_CHANGES), probability=0.6):
    """One artificial copy as the source made it, for comparison only; see the faults above.

    log_mel : (n_frames, n_mels) in dB below the clip's maximum. Returns float32 of the same shape.
    """
    _check(changes, PUBLISHED_CHANGES)
    rng = np.random.default_rng(seed)
    for name, change in PUBLISHED_CHANGES.items():
        if name in changes and rng.random() < probability:
            log_mel = change(log_mel, rng)
    return log_mel.astype(np.float32)
