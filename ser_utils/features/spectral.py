"""Features of speech: log-mel segments and their way back to sound, and features of whole utterances.

Segments follow the prototype paper. Features of whole utterances share one grid: 1 + n_samples // hop_length frames,
each centred on a multiple of hop_length, the ends padded with zeros.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import librosa
import numpy as np
from threadpoolctl import threadpool_limits


@dataclass(frozen=True)
class MelSettings:
    """The prototype paper's spectrogram, the same forward and inverse.

    Parameters
    ----------
    n_fft, window_length, hop_length : samples
    window : the taper
    n_mels : bands
    top_db : dB kept below each segment's maximum
    """

    n_fft: int = 1024
    window_length: int = 512
    hop_length: int = 256
    window: str = "hamming"
    n_mels: int = 128
    top_db: float = 80.0

    @property
    def stft(self) -> dict[str, Any]:
        """The settings as librosa's STFT and its inverse name them."""
        lengths = {"n_fft": self.n_fft, "win_length": self.window_length, "hop_length": self.hop_length}
        return lengths | {"window": self.window}


MEL = MelSettings()
POWER_FLOOR = 1e-10  # librosa's amin: no power is taken for less
LEVEL_STEP_DB = 0.5  # of levels kept as whole numbers: off by 0.25 dB at most
GRIFFIN_LIM_STEPS, MOMENTUM, NNLS_STEPS = 32, 0.99, 50
PEAK = 0.5  # largest sample of a sound made from a spectrogram, whose dB do not tell its level
BANDS_AT_ONCE = 16  # of the mel matrix
FRAMES_AT_ONCE = 64  # their double-precision spectra fit a core's cache (about 2 MB)


def split_segments(signal: np.ndarray, sample_rate: int, *, segment_ms: float, hop_ms: float) -> np.ndarray:
    """Cut one utterance into equal, overlapping segments.

    Parameters
    ----------
    signal : float32 (n_samples,), within [-1, 1]
    sample_rate : Hz
    segment_ms, hop_ms : ms; neighbours share segment_ms - hop_ms

    Returns
    -------
    float32 (n_segments, segment_length), a read-only view; an incomplete tail is dropped

    Raises
    ------
    ValueError : if the signal is shorter than one segment

    Source: the prototype paper's 0_preprocess stage.
    """
    length, hop = round(segment_ms * sample_rate / 1000), round(hop_ms * sample_rate / 1000)
    if length < 1 or hop < 1:
        raise ValueError(f"segment_ms and hop_ms must be positive. Received: {segment_ms=}, {hop_ms=}")
    signal = np.asarray(signal, dtype=np.float32)
    if signal.ndim != 1 or len(signal) < length:
        raise ValueError(
            f"A mono signal of at least one segment ({segment_ms} ms = {length} samples at {sample_rate} Hz) "
            f"is needed. Received: shape={signal.shape}"
        )
    return np.lib.stride_tricks.sliding_window_view(signal, length)[::hop]


def log_mel_segments(segments: np.ndarray, sample_rate: int) -> np.ndarray:
    """Compute the log-mel spectrogram of each segment in dB below its own maximum.

    Equal to librosa's `power_to_db(melspectrogram(segment), ref=np.max)` within 1e-4 dB: the transform is in double
    precision too. Overlapping segments share no frames, as 20 ms are no multiple of 256 samples.

    Parameters
    ----------
    segments : float (n_segments, length), within [-1, 1]
    sample_rate : Hz

    Returns
    -------
    float32 (n_segments, 128, 1 + length // 256) in dB, within [-80, 0]

    Raises
    ------
    ValueError : if `segments` has not two axes
    """
    segments = np.asarray(segments)
    if segments.ndim != 2:
        raise ValueError(f"segments must have shape (n_segments, length). Received: shape={segments.shape}")
    n_segments, length = segments.shape
    window, bands = librosa.filters.get_window(MEL.window, MEL.window_length), _mel_bands(sample_rate)
    n_frames, taper = 1 + length // MEL.hop_length, len(window)
    batch = max(1, min(n_segments, FRAMES_AT_ONCE // n_frames))

    # the taper is shorter than the transform: its place among the zeros turns phases, not powers
    padded = np.zeros((batch, length + taper))
    frames = np.lib.stride_tricks.sliding_window_view(padded, taper, axis=1)
    frames = frames[:, :: MEL.hop_length][:, :n_frames]
    tapered = np.zeros((batch, n_frames, MEL.n_fft))
    spectra = np.empty((batch, n_frames, 1 + MEL.n_fft // 2), np.complex128)
    powers = np.empty(spectra.shape, np.float32)
    mel = np.empty((batch, n_frames, MEL.n_mels), np.float32)
    log_mel = np.empty((n_segments, MEL.n_mels, n_frames), np.float32)

    for start in range(0, n_segments, batch):
        n = min(batch, n_segments - start)
        padded[:n, taper // 2 : taper // 2 + length] = segments[start : start + n]
        np.multiply(frames[:n], window, out=tapered[:n, :, :taper])
        squares = np.fft.rfft(tapered[:n], out=spectra[:n]).view(np.float64)
        np.square(squares, out=squares)
        np.add(squares[..., ::2], squares[..., 1::2], out=powers[:n], casting="same_kind")
        for rows, bins, weights in bands:
            np.matmul(powers[:n, :, bins], weights, out=mel[:n, :, rows])
        decibels = _log_power(mel[:n])
        decibels -= decibels.max(axis=(1, 2), keepdims=True)
        log_mel[start : start + n] = np.maximum(decibels, -MEL.top_db, out=decibels).transpose(0, 2, 1)
    return log_mel


def round_levels(log_mel: np.ndarray) -> np.ndarray:
    """Round levels to steps of LEVEL_STEP_DB below 0 dB, as pictures for the site are kept.

    Parameters
    ----------
    log_mel : dB, any shape; more than 0 dB counts as 0

    Returns
    -------
    uint8, same shape: how many steps below 0 dB
    """
    return np.clip(np.round(-log_mel / LEVEL_STEP_DB), 0, 255).astype(np.uint8)


def _log_power(power):
    """dB of a power; the natural logarithm has a vector instruction, the decadic has none."""
    decibels = np.log(np.maximum(power, np.float32(POWER_FLOOR)))
    decibels *= np.float32(10 / np.log(10))
    return decibels


@cache
def _mel_filters(sample_rate):
    return librosa.filters.mel(sr=sample_rate, n_fft=MEL.n_fft, n_mels=MEL.n_mels)


@cache
def _mel_bands(sample_rate):
    """The mel matrix in blocks of rows, each with the few bins it touches: 1/5 of the full product's work."""
    blocks = []
    for first in range(0, MEL.n_mels, BANDS_AT_ONCE):
        rows = slice(first, first + BANDS_AT_ONCE)
        filters = _mel_filters(sample_rate)[rows]
        touched = np.flatnonzero(filters.any(axis=0))
        bins = slice(touched[0], touched[-1] + 1)
        blocks.append((rows, bins, np.ascontiguousarray(filters[:, bins].T)))
    return blocks


def band_frequencies(sample_rate: int) -> np.ndarray:
    """Give the centre frequencies of the 128 mel bands, Hz."""
    return librosa.mel_frequencies(MEL.n_mels + 2, fmin=0, fmax=sample_rate / 2)[1:-1]


def mel_to_audio(log_mel: np.ndarray, sample_rate: int, *, length: int | None = None, seed: int = 0) -> np.ndarray:
    """Turn a log-mel spectrogram into sound: mel to linear by non-negative least squares, then Griffin–Lim.

    The phases are invented: waveforms differ from the recording's, while their log-mel is close to the one given.

    Parameters
    ----------
    log_mel : float (..., 128, n_frames) in dB below its maximum, as `log_mel_segments` gives it
    sample_rate : Hz
    length : samples of the sound; None is 256 · (n_frames - 1). Frames beyond it (padding) are left out
    seed : of the first phases; every spectrogram of a batch starts from the same ones

    Returns
    -------
    float32 (..., n_samples), the largest sample of each sound PEAK

    Raises
    ------
    ValueError : if `log_mel` has another shape
    """
    log_mel = np.asarray(log_mel)
    if log_mel.ndim < 2 or log_mel.shape[-2] != MEL.n_mels:
        raise ValueError(f"log_mel must have shape (..., {MEL.n_mels}, n_frames). Received: shape={log_mel.shape}")
    if length is None:
        length = MEL.hop_length * (log_mel.shape[-1] - 1)
    log_mel = log_mel[..., : 1 + length // MEL.hop_length]
    magnitude = np.sqrt(_mel_to_linear(10 ** (log_mel.astype(np.float64) / 10), sample_rate))
    signal = _griffin_lim(magnitude, length, seed)
    return (signal * (PEAK / np.maximum(abs(signal).max(axis=-1, keepdims=True), 1e-9))).astype(np.float32)


def _mel_to_linear(mel, sample_rate):
    """Powers (..., n_bins, n_frames) whose mel bands are closest to `mel`.

    Multiplicative updates (Lee & Seung 2001) from the clipped least-norm solution: each frame on its own, so
    that a batch gives what its members give, and eight times faster than librosa's joint search.
    """
    filters = _mel_filters(sample_rate).astype(np.float64)
    mel = np.moveaxis(mel, -1, -2)
    frames = mel.reshape(-1, MEL.n_mels)
    with threadpool_limits(1, "blas"):  # on a busy machine threads of so small products mostly wait
        linear = np.maximum(frames @ np.linalg.pinv(filters).T, POWER_FLOOR)
        wanted = frames @ filters
        for _ in range(NNLS_STEPS):
            linear *= wanted / (linear @ filters.T @ filters + 1e-30)
            np.maximum(linear, POWER_FLOOR, out=linear)  # what sinks further costs time as denormal numbers
    return np.moveaxis(linear.reshape(*mel.shape[:-1], -1), -1, -2)


def _griffin_lim(magnitude, length, seed):
    """Signal whose STFT has nearly the given magnitude (Perraudin et al. 2013, Griffin–Lim with momentum)."""
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random(magnitude.shape[-2:]))
    previous = 0.0
    for _ in range(GRIFFIN_LIM_STEPS):
        signal = librosa.istft(magnitude * phases, length=length, **MEL.stft)
        rebuilt = librosa.stft(signal, **MEL.stft)
        phases = rebuilt - MOMENTUM / (1 + MOMENTUM) * previous
        phases /= abs(phases) + 1e-16
        previous = rebuilt
    return librosa.istft(magnitude * phases, length=length, **MEL.stft)


def log_mel(
    signal: np.ndarray,
    sample_rate: int,
    *,
    n_mels: int = 128,
    n_fft: int = 2048,
    hop_length: int = 512,
    fmax: float = 8000,
) -> np.ndarray:
    """Compute the log-mel spectrogram of an utterance in dB below its maximum, not further down than 80 dB.

    Parameters
    ----------
    signal : float (n_samples,)
    sample_rate : Hz
    n_mels : bands
    n_fft, hop_length : samples
    fmax : Hz, upper end of the highest band, at most half the rate

    Returns
    -------
    float32 (n_mels, n_frames)
    """
    grid = {"n_mels": n_mels, "n_fft": n_fft, "hop_length": hop_length}
    return librosa.power_to_db(_mel_power(signal, sample_rate, fmax, grid), ref=np.max)


def _mel_power(signal, sample_rate, fmax, grid):
    fmax = min(fmax, sample_rate / 2)
    return librosa.feature.melspectrogram(y=np.asarray(signal, np.float32), sr=sample_rate, fmax=fmax, **grid)


def mfcc(
    signal: np.ndarray,
    sample_rate: int,
    *,
    n_mfcc: int = 40,
    energy: bool = True,
    deltas: bool = False,
    n_mels: int = 128,
    n_fft: int = 2048,
    hop_length: int = 512,
    fmax: float = 8000,
) -> np.ndarray:
    """Compute mel-frequency cepstral coefficients: the orthonormal DCT-II of the log-mel spectrum of each frame.

    Parameters
    ----------
    signal : float (n_samples,), within [-1, 1]
    sample_rate : Hz
    n_mfcc : coefficients
    energy : whether the last row is each frame's mean square in dB of full scale
    deltas : whether first and second differences over time (9 frames, Savitzky–Golay) follow below
    n_mels, n_fft, hop_length, fmax : as in `log_mel`

    Returns
    -------
    float32 (n_rows, n_frames), n_rows = (n_mfcc + energy) · (3 if deltas else 1)
    """
    grid = {"n_mels": n_mels, "n_fft": n_fft, "hop_length": hop_length}
    decibels = librosa.power_to_db(_mel_power(signal, sample_rate, fmax, grid))
    rows = librosa.feature.mfcc(S=decibels, n_mfcc=n_mfcc)
    if energy:
        rms = librosa.feature.rms(y=np.asarray(signal, np.float32), frame_length=n_fft, hop_length=hop_length)
        rows = np.vstack([rows, librosa.power_to_db(rms**2, top_db=None)])
    if deltas:
        changes = [librosa.feature.delta(rows, order=order, mode="nearest") for order in (1, 2)]
        rows = np.vstack([rows, *changes])
    return rows.astype(np.float32)


PITCH_METHODS = ("highest", "pyin")


def pitch_track(
    signal: np.ndarray,
    sample_rate: int,
    *,
    fmin: float,
    fmax: float,
    method: str = "pyin",
    frame_length: int | None = None,
    hop_length: int | None = None,
) -> np.ndarray:
    """Find the fundamental frequency in each frame.

    Parameters
    ----------
    signal : float (n_samples,)
    sample_rate : Hz
    fmin, fmax : Hz, what is taken for a voice
    method : "highest": of the spectrum's peaks between fmin and fmax that reach a tenth of the frame's largest
        magnitude, the one of highest frequency (parabolic interpolation), so a harmonic where there is one;
        "pyin": probabilistic YIN (Mauch & Dixon 2014) in steps of a fifth of a semitone, which decides voicing
    frame_length : samples; None is the power of two that holds four periods of fmin
    hop_length : samples; None is a quarter of frame_length

    Returns
    -------
    float32 (n_frames,) in Hz, NaN where there is no voice

    Raises
    ------
    ValueError : for another method
    """
    if method not in PITCH_METHODS:
        raise ValueError(f"method must be one of {', '.join(PITCH_METHODS)}. Received: method={method!r}")
    signal = np.asarray(signal, np.float32)
    frame_length = frame_length or 1 << int(np.ceil(np.log2(4 * sample_rate / fmin)))
    hop_length = hop_length or frame_length // 4
    common = {"sr": sample_rate, "fmin": fmin, "fmax": fmax, "hop_length": hop_length}
    if method == "pyin":
        # a tenth of a semitone, librosa's default, takes three times as long and moves the median by 0.6 %
        f0, _, _ = librosa.pyin(signal, frame_length=frame_length, resolution=0.2, **common)
    else:
        candidates, _ = librosa.piptrack(y=signal, n_fft=frame_length, threshold=0.1, **common)
        f0 = candidates.max(axis=0)
        f0 = np.where(f0 > 0, f0, np.nan)
    return f0.astype(np.float32)


def band_energy_ratio(
    signal: np.ndarray, sample_rate: int, *, split_hz: float = 2000, n_fft: int = 2048, hop_length: int = 512
) -> np.ndarray:
    """Compare the energy below a frequency with the energy from it on, in each frame.

    Parameters
    ----------
    signal, sample_rate, n_fft, hop_length : as in `log_mel`
    split_hz : Hz; bins below it are the numerator Σ |S|², the others the denominator

    Returns
    -------
    float32 (n_frames,) in dB; 0 in silence
    """
    power = abs(_spectrum(signal, n_fft, hop_length)) ** 2
    low = librosa.fft_frequencies(sr=sample_rate, n_fft=n_fft) < split_hz
    below, above = (np.maximum(power[bins].sum(axis=0), POWER_FLOOR) for bins in (low, ~low))
    return (10 * np.log10(below / above)).astype(np.float32)


def spectral_centroid(signal: np.ndarray, sample_rate: int, *, n_fft: int = 2048, hop_length: int = 512) -> np.ndarray:
    """Average the frequencies of each frame's spectrum, weighted by magnitude: Σ f·|S(f)| / Σ |S(f)|.

    Parameters
    ----------
    signal, sample_rate, n_fft, hop_length : as in `log_mel`

    Returns
    -------
    float32 (n_frames,) in Hz; 0 in silence
    """
    magnitude = abs(_spectrum(signal, n_fft, hop_length))
    return librosa.feature.spectral_centroid(S=magnitude, sr=sample_rate)[0].astype(np.float32)


def _spectrum(signal, n_fft, hop_length):
    return librosa.stft(np.asarray(signal, np.float32), n_fft=n_fft, hop_length=hop_length)


def voice_features(
    signal: np.ndarray,
    sample_rate: int,
    *,
    n_mfcc: int = 20,
    fmin: float = 50,
    fmax: float = 500,
    split_hz: float = 2000,
    n_fft: int = 1024,
    hop_length: int = 256,
) -> np.ndarray:
    """Compute what the variational autoencoder knows of a voice, frame by frame on one grid.

    Parameters
    ----------
    signal, sample_rate, n_mfcc, n_fft, hop_length : as in `mfcc`
    fmin, fmax : as in `pitch_track`
    split_hz : as in `band_energy_ratio`

    Returns
    -------
    float32 (n_frames, n_mfcc + 4): MFCC, pitch by both methods, band energy ratio and spectral centroid, in the order of
    `voice_feature_names`; pitch is NaN where there is no voice
    """
    frames = {"n_fft": n_fft, "hop_length": hop_length}
    pitch = {"fmin": fmin, "fmax": fmax, "frame_length": n_fft, "hop_length": hop_length}
    rows = [
        *mfcc(signal, sample_rate, n_mfcc=n_mfcc, energy=False, **frames),
        *(pitch_track(signal, sample_rate, method=method, **pitch) for method in PITCH_METHODS),
        band_energy_ratio(signal, sample_rate, split_hz=split_hz, **frames),
        spectral_centroid(signal, sample_rate, **frames),
    ]
    return np.stack(rows, axis=1)


def voice_feature_names(n_mfcc: int = 20) -> list[str]:
    """Name the columns of `voice_features`, with units where there are any."""
    pitch = [f"pitch_{method}_hz" for method in PITCH_METHODS]
    return [*(f"mfcc_{i}" for i in range(n_mfcc)), *pitch, "band_energy_ratio_db", "spectral_centroid_hz"]


STATISTICS = ("mean", "std", "movement")


def voice_statistics(frames: np.ndarray, *, within_db: float = 30) -> np.ndarray:
    """Summarise an utterance's voice features over time, silence left out.

    Parameters
    ----------
    frames : (n_frames, n_features) as `voice_features` gives them, MFCC first
    within_db : dB; only frames whose mean level over the mel bands (mfcc_0 / √128) comes this near to the loudest one's
        count

    Returns
    -------
    float32 (3 · n_features,): means, standard deviations, and movements, which are the standard deviations of the change
    from one frame to the next. NaN (no pitch) is left out; what is never there is 0.
    """
    level_db = frames[:, 0] / np.sqrt(128)
    sounds = level_db >= level_db.max() - within_db
    change = np.diff(frames, axis=0)[sounds[1:] & sounds[:-1]]
    return np.concatenate([*_moments(frames[sounds]), _moments(change)[1]]).astype(np.float32)


def _moments(values):
    """Mean and standard deviation of each column over its finite values; 0 where there is none."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    variance = (np.where(known, values - mean, 0) ** 2).sum(axis=0) / count
    return mean, np.sqrt(variance)


def voice_statistic_names(names: list[str]) -> list[str]:
    """Name the values of `voice_statistics`, `mean mfcc_0`, …, for the columns `names` of its frames."""
    return [f"{statistic} {name}" for statistic in STATISTICS for name in names]


def sustained_voice(mfcc_means: np.ndarray, f0_hz: float, sample_rate: int, *, seconds: float = 0.6) -> np.ndarray:
    """Make a steady tone with the spectral envelope of mean MFCC: what average features sound like.

    Parameters
    ----------
    mfcc_means : float (n_mfcc,), as `mfcc` gives them
    f0_hz : Hz, the harmonics' spacing
    sample_rate : Hz
    seconds : length

    Returns
    -------
    float32 (n_samples,). It has timbre and pitch, but no words, rhythm or melody: those are not in means.
    """
    power = librosa.feature.inverse.mfcc_to_mel(np.asarray(mfcc_means, float)[:, None], n_mels=MEL.n_mels)[:, 0]
    centres = librosa.mel_frequencies(MEL.n_mels + 2, fmax=min(8000, sample_rate / 2))[1:-1]
    harmonics = np.arange(f0_hz, centres[-1], f0_hz)[:, None]
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    # Schroeder's phases keep the peaks of the sum low
    phases = np.pi * np.arange(len(harmonics))[:, None] ** 2 / len(harmonics)
    waves = np.sqrt(np.interp(harmonics, centres, power)) * np.sin(2 * np.pi * harmonics * t + phases)
    tone = waves.sum(axis=0)
    tone *= np.minimum(1, np.minimum(t, t[::-1]) / 0.03)  # 30 ms in and out, against clicks
    return (0.3 * tone / np.maximum(abs(tone).max(), 1e-12)).astype(np.float32)
