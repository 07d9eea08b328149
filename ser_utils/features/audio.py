"""Recordings in and out, and the noise around a voice."""

import os
import struct
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ser_utils.workspace import atomic_path

UNREADABLE = "cannot be read: "  # begins reasons that lie in the machine and may pass


class AudioError(Exception):
    """A file that cannot be used as a recording: `path`, and `reason` in words."""

    def __init__(self, path, reason):
        self.path, self.reason = Path(path), reason
        super().__init__(f"{str(path)!r}: {reason}")

    def __reduce__(self):  # an exception with two arguments does not survive a process pool by itself
        return AudioError, (self.path, self.reason)


def read_samples(path):
    """Read a recording as it is.

    path : any format libsndfile reads (wav, flac, ogg, mp3, aiff, …)
    Returns float32 (n_samples, n_channels), 1.0 being full scale, and the sample rate in Hz.
    Raises AudioError if the file is absent, empty, truncated, not audio, holds NaN or only zeros.
    """
    path = Path(path)
    try:
        size = os.stat(path).st_size
        if size == 0:
            raise AudioError(path, "empty file (0 bytes)")
        with open(path, "rb") as stream:
            missing = _missing_bytes(stream, size)
        if missing:
            raise AudioError(path, f"truncated: {missing} of {size + missing} bytes are missing")
        # as bytes, since a name need not be UTF-8
        with soundfile.SoundFile(os.fsencode(path)) as recording:
            rate, wanted = recording.samplerate, recording.frames
            try:
                samples = recording.read(dtype="float32", always_2d=True)
            except (MemoryError, ValueError) as error:  # no array is that large
                promised = f"its header promises {wanted} samples of {recording.channels} channels"
                raise AudioError(path, f"{UNREADABLE}{promised}, more than memory holds") from error
    except OSError as error:
        raise AudioError(path, f"{UNREADABLE}{error.strerror}") from error
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"not audio, or damaged ({size} bytes): {error.error_string}") from error
    if not len(samples):
        raise AudioError(path, "empty: it holds no samples")
    if len(samples) < wanted:
        raise AudioError(path, f"truncated: {len(samples)} of {wanted} samples are there")
    if not np.isfinite(samples).all():
        raise AudioError(path, f"{np.count_nonzero(~np.isfinite(samples))} samples are NaN or infinite")
    if not samples.any():
        raise AudioError(path, f"silent: all {len(samples)} samples are zero")
    return samples, rate


def _missing_bytes(stream, size):
    """How many bytes a RIFF header promises beyond the end of the file; libsndfile does not tell."""
    head = stream.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return 0
    position = 12
    while len(chunk := stream.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        position += 8
        if name == b"data":
            # writers to a pipe cannot know the length: they leave the largest number (or nearly)
            return max(0, position + length - size) if length < 0x7FFFF000 else 0
        position = stream.seek(position + length + length % 2)
    return 0


def load_audio(path, sample_rate_hz=None):
    """Load a recording as one channel.

    path : any format libsndfile reads; channels are averaged
    sample_rate_hz : int, Hz to resample to (band-limited, by soxr); None keeps the file's own
    Returns float32 (n_samples,), 1.0 being full scale, and the sample rate in Hz.
    Raises AudioError as `read_samples` does.
    """
    samples, rate = read_samples(path)
    signal = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if sample_rate_hz is None or sample_rate_hz == rate:
        return np.ascontiguousarray(signal), rate
    return resample(signal, rate, sample_rate_hz), sample_rate_hz


def resample(signal, sample_rate_hz, wanted_hz):
    """Resample float32 (n_samples,) to `wanted_hz`, ceil(n_samples · wanted_hz / sample_rate_hz) samples."""
    # not through librosa, whose first call compiles for seconds; it would do the same
    changed = soxr.resample(signal, sample_rate_hz, wanted_hz, quality="HQ")
    wanted = -(-len(signal) * wanted_hz // sample_rate_hz)
    return np.pad(changed, (0, max(0, wanted - len(changed))))[:wanted].astype(np.float32, copy=False)


def save_audio(path, signal, sample_rate_hz):
    """Write float (n_samples,) as 16-bit wav, atomically. Returns the path.

    A signal beyond full scale is scaled down to it as a whole: nothing is clipped. What was read from
    16 bits is written back unchanged.
    Raises ValueError if the signal is empty, not one channel, or not finite.
    """
    signal = np.asarray(signal, np.float64)
    if signal.ndim != 1 or not signal.size or not np.isfinite(signal).all():
        raise ValueError(f"A finite signal (n_samples,) is wanted. Received: shape={signal.shape}")
    signal = signal / max(1.0, np.abs(signal).max())
    with atomic_path(path) as temporary:
        whole = np.round(signal * 32768).clip(-32768, 32767).astype(np.int16)
        soundfile.write(temporary, whole, sample_rate_hz)
    return Path(path)


def reduce_noise(signal, sample_rate_hz, *, noise_s=None, strength=1.0):
    """Lower stationary noise by spectral gating.

    signal : float32 (n_samples,); sample_rate_hz : int, Hz
    noise_s : seconds at the start to take as noise, as the spectrogram CNN does with 1.0, which is
        right only where nobody speaks yet; None estimates the noise from the whole recording
    strength : share of what lies below the noise threshold that is removed, 0 to 1
    Returns float32 (n_samples,), not normalised.
    Source: Sainburg et al. 2020, noisereduce, stationary variant.
    """
    import noisereduce  # two seconds to import, and most runs do not denoise

    noise = None if noise_s is None else signal[: max(1, round(noise_s * sample_rate_hz))]
    cleaned = noisereduce.reduce_noise(
        y=signal, sr=sample_rate_hz, y_noise=noise, stationary=True, prop_decrease=strength, n_jobs=1
    )
    return np.nan_to_num(cleaned).astype(np.float32, copy=False)
