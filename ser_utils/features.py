"""Features of speech: log-mel segments and their way back to sound, and features of whole utterances."""

from dataclasses import dataclass
from functools import cache

import librosa
import numpy as np
from threadpoolctl import threadpool_limits

# ---------------------------------------------------------------------------------------------------------
# Segments, the prototype paper's way
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MelSettings:
    """The prototype paper's spectrogram, the same forward and inverse.

    n_fft, window_length, hop_length : samples
    window : the taper
    top_db : dB kept below each segment's maximum
    """

    n_fft: int = 1024
    window_length: int = 512
    hop_length: int = 256
    window: str = "hamming"
    n_mels: int = 128
    top_db: float = 80.0

    @property
    def stft(self):
        """The settings as librosa's STFT and its inverse name them."""
        return {
            "n_fft": self.n_fft,
            "win_length": self.window_length,
            "hop_length": self.hop_length,
            "window": self.window,
        }


MEL = MelSettings()
POWER_FLOOR = 1e-10  # librosa's amin: no power is taken for less
FRAMES_AT_ONCE = 64  # their double-precision spectra fit a core's cache (about 2 MB)


def split_segments(signal, sample_rate, *, segment_ms, hop_ms):
    """Cut one utterance into equal, overlapping segments.

    signal : float32 (n_samples,), within [-1, 1]
    sample_rate : int, Hz
    segment_ms, hop_ms : float, ms; neighbours share segment_ms - hop_ms
    Returns float32 (n_segments, segment_length), a read-only view; an incomplete tail is dropped.
    Raises ValueError if the signal is shorter than one segment.
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


def log_mel_segments(segments, sample_rate):
    """Log-mel spectrogram of each segment in dB below its own maximum, as librosa gives them one by one.

    segments : float (n_segments, length), within [-1, 1]
    sample_rate : int, Hz
    Returns float32 (n_segments, 128, 1 + length // 256) in dB, within [-80, 0].

    Equal to `power_to_db(melspectrogram(segment), ref=np.max)` within 1e-4 dB: like librosa the transform is
    in double precision, single would be 4e-4 dB off in the quietest bands. Overlapping segments share next to
    nothing: 20 ms are no multiple of 256 samples, and each segment is padded at its own ends.
    """
    segments = np.asarray(segments)
    if segments.ndim != 2:
        raise ValueError(f"segments must have shape (n_segments, length). Received: shape={segments.shape}")
    n_segments, length = segments.shape
    window, bands = _window(), _mel_bands(sample_rate)
    n_frames, taper = 1 + length // MEL.hop_length, len(window)
    batch = max(1, min(n_segments, FRAMES_AT_ONCE // n_frames))

    # the taper is shorter than the transform: its place among the zeros turns phases, not powers
    padded = np.zeros((batch, length + taper))
    frames = np.lib.stride_tricks.sliding_window_view(padded, taper, axis=1)[:, :: MEL.hop_length][
        :, :n_frames
    ]
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


def _log_power(power):
    """dB of a power; the natural logarithm has a vector instruction, the decadic has none."""
    decibels = np.log(np.maximum(power, np.float32(POWER_FLOOR)))
    decibels *= np.float32(10 / np.log(10))
    return decibels


@cache
def _window():
    return librosa.filters.get_window(MEL.window, MEL.window_length)


@cache
def _mel_filters(sample_rate):
    return librosa.filters.mel(sr=sample_rate, n_fft=MEL.n_fft, n_mels=MEL.n_mels)


@cache
def _mel_bands(sample_rate, rows_at_once=16):
    """The mel matrix in blocks of rows, each with the few bins it touches: 1/5 of the full product's work."""
    blocks = []
    for first in range(0, MEL.n_mels, rows_at_once):
        rows = slice(first, first + rows_at_once)
        filters = _mel_filters(sample_rate)[rows]
        touched = np.flatnonzero(filters.any(axis=0))
        bins = slice(touched[0], touched[-1] + 1)
        blocks.append((rows, bins, np.ascontiguousarray(filters[:, bins].T)))
    return blocks


def mel_to_audio(log_mel, sample_rate, *, length=None, seed=0, n_iter=32, peak=0.5):
    """Sound of a log-mel spectrogram: mel to linear by non-negative least squares, then Griffin–Lim.

    log_mel : float (..., 128, n_frames) in dB below its maximum, as `log_mel_segments` gives it
    sample_rate : int, Hz
    length : samples wanted; None is 256 · (n_frames - 1). Frames beyond it (padding) are left out.
    seed : of the first phases; every spectrogram of a batch starts from the same ones
    peak : largest absolute sample of each sound; dB below a segment's own maximum do not tell its level
    Returns float32 (..., n_samples). The phases are invented: waveforms differ from the recording's, while
    their log-mel is close to the one given.
    """
    log_mel = np.asarray(log_mel)
    if log_mel.ndim < 2 or log_mel.shape[-2] != MEL.n_mels:
        raise ValueError(
            f"log_mel must have shape (..., {MEL.n_mels}, n_frames). Received: shape={log_mel.shape}"
        )
    if length is None:
        length = MEL.hop_length * (log_mel.shape[-1] - 1)
    log_mel = log_mel[..., : 1 + length // MEL.hop_length]
    magnitude = np.sqrt(_mel_to_linear(10 ** (log_mel.astype(np.float64) / 10), sample_rate))
    signal = _griffin_lim(magnitude, length, seed, n_iter)
    return (signal * (peak / np.maximum(abs(signal).max(axis=-1, keepdims=True), 1e-9))).astype(np.float32)


def _mel_to_linear(mel, sample_rate, n_iter=50):
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
        for _ in range(n_iter):
            linear *= wanted / (linear @ filters.T @ filters + 1e-30)
            np.maximum(linear, POWER_FLOOR, out=linear)  # what sinks further costs time as denormal numbers
    return np.moveaxis(linear.reshape(*mel.shape[:-1], -1), -1, -2)


def _griffin_lim(magnitude, length, seed, n_iter, momentum=0.99):
    """Signal whose STFT has nearly the given magnitude (Perraudin et al. 2013, Griffin–Lim with momentum)."""
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random(magnitude.shape[-2:]))
    previous = 0.0
    for _ in range(n_iter):
        signal = librosa.istft(magnitude * phases, length=length, **MEL.stft)
        rebuilt = librosa.stft(signal, **MEL.stft)
        phases = rebuilt - momentum / (1 + momentum) * previous
        phases /= abs(phases) + 1e-16
        previous = rebuilt
    return librosa.istft(magnitude * phases, length=length, **MEL.stft)
