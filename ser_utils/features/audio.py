"""Recordings in and out, and the noise around a voice."""

import io
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from ser_utils.features.containers import examine
from ser_utils.workspace import atomic_path

UNREADABLE = "cannot be read: "  # begins reasons that lie in the machine and may pass
LOWEST_HZ, HIGHEST_HZ = 4000, 768_000  # rates at which speech can have been recorded
FAINTEST = 1e-4  # of full scale, 80 dB below it: three steps of 16 bits; what moves less is silence
LOUDEST = 8.0  # of full scale: what goes beyond was never scaled to it
LOST = 1e-3  # of the power: less than that is left of channels that cancel each other, or of sound beyond a new rate
HEARD_DB = 40  # below the loudest 10 ms: silence around the voice
LOGGED = ("SVX", "VOC", "WVE")
NO_FILE = "no file, but a pipe or a device"
UNKNOWN_LENGTH = 2**48  # samples; libsndfile's largest number stands for a length that no header gives


class AudioError(Exception):
    """A file that cannot be used as a recording.

    Parameters
    ----------
    path : of the file
    reason : in words
    """

    def __init__(self, path: str | Path, reason: str):
        self.path, self.reason = Path(path), reason
        super().__init__(f"{str(path)!r}: {reason}")

    def __reduce__(self):  # an exception with two arguments does not survive a process pool by itself
        return AudioError, (self.path, self.reason)


class Recording(NamedTuple):
    """A recording as it is in its file.

    Parameters
    ----------
    samples : float32 (n_samples, n_channels), 1.0 being full scale
    sample_rate_hz : Hz
    remark : what its header promises that is not so, or another peculiarity, in words; "" for none
    """

    samples: np.ndarray
    sample_rate_hz: int
    remark: str


def read_samples(path: str | Path) -> Recording:
    """Read a recording as it is.

    Parameters
    ----------
    path : any format libsndfile reads (wav, flac, ogg, mp3, aiff, …)

    Returns
    -------
    Recording

    Raises
    ------
    AudioError : if the file is absent, empty, truncated or not audio, if its rate or scale cannot be, or if it holds
        NaN or only zeros
    """
    path, remark = Path(path), ""
    try:
        facts = os.stat(path)
        size = facts.st_size
        if stat.S_ISFIFO(facts.st_mode) or stat.S_ISCHR(facts.st_mode) or stat.S_ISSOCK(facts.st_mode):
            raise ValueError(NO_FILE)
        if size == 0:
            raise ValueError("empty file (0 bytes)")
        with open(path, "rb") as stream:
            remark, content = examine(stream, size)
        # the name as bytes, since it need not be UTF-8
        with _OneWay(io.BytesIO(content) if content else os.fsencode(path)) as recording:
            rate = recording.samplerate
            if not LOWEST_HZ <= rate <= HIGHEST_HZ:
                raise ValueError(
                    f"its header gives a rate of {rate} Hz, which cannot be: speech is recorded at "
                    f"{LOWEST_HZ} to {HIGHEST_HZ} Hz"
                )
            remark = remark or _truncation_in_log(recording)
            samples = _decode(recording)
            _refuse_fractions_as_whole_numbers(recording)
        _refuse_unusable(samples)
    except OSError as error:
        raise AudioError(path, f"{UNREADABLE}{error.strerror}") from error
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"not audio, or damaged ({size} bytes): {_in_words(error)}") from error
    except MemoryError as error:
        raise AudioError(path, f"more than memory holds ({size} bytes)") from error
    except ValueError as error:
        raise AudioError(path, str(error) + (f" ({remark})" if remark else "")) from error
    return Recording(samples, rate, "; ".join(filter(None, [remark, _describe_offset(samples)])))


class _OneWay(soundfile.SoundFile):
    """A sound file read from start to end; soundfile goes back and forth, which GSM, G.721 and some FLAC do not allow."""

    def seekable(self):
        return False


def _in_words(error):
    if "SF_INFO struct incomplete" in error.error_string:
        return "its header gives no possible rate, or no channels"
    return error.error_string


def _decode(recording):
    """All samples, float32 (n_samples, n_channels); raises ValueError where fewer are there than promised."""
    wanted = recording.frames
    if wanted > UNKNOWN_LENGTH:
        return _decode_to_the_end(recording)
    try:
        samples = recording.read(wanted, dtype="float32", always_2d=True)
    except (MemoryError, ValueError) as error:  # no array is that large
        promised = f"its header promises {wanted} samples of {recording.channels} channels"
        raise ValueError(f"{UNREADABLE}{promised}, more than memory holds") from error
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"truncated or damaged: {error.error_string} (its header promises {wanted} samples)"
        ) from error
    if len(samples) < wanted:
        raise ValueError(f"truncated: {len(samples)} of {wanted} samples are there")
    return samples


def _truncation_in_log(recording):
    """What libsndfile notes of a size that is not so, in the containers that `examine` does not know."""
    logged = re.search(r"^.*(should be|truncated).*$", recording.extra_info, re.M)
    return f"libsndfile notes: {logged[0].strip()}" if logged and recording.format in LOGGED else ""


def _refuse_fractions_as_whole_numbers(recording):
    """Raises ValueError where the bits of 32-bit whole numbers make sense as fractions alone."""
    if recording.subtype != "PCM_32":
        return
    recording.seek(0)
    fractions = np.abs(recording.read(recording.frames, dtype="int32").view(np.float32))
    # taken for fractions, whole numbers of any loudness are beyond 1e9 where negative, and below 1e-9 where not
    if np.isfinite(fractions).all() and 1e-6 < np.median(fractions) and fractions.max() <= LOUDEST:
        raise ValueError(
            "its header says 32-bit whole numbers, but it holds 32-bit fractions: have it written anew, as float"
        )


def _decode_to_the_end(recording):
    blocks = []
    while len(block := recording.read(2**16, dtype="float32", always_2d=True)):
        blocks.append(block)
    return np.concatenate(blocks or [block])


def _refuse_unusable(samples):
    if not len(samples):
        raise ValueError("empty: it holds no samples")
    if not np.isfinite(samples).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(samples))} samples are NaN or infinite")
    if not samples.any():
        raise ValueError(f"silent: all {len(samples)} samples are zero")
    if (peak := max(samples.max(), -samples.min())) > LOUDEST:
        raise ValueError(
            f"its samples reach {peak:.0f}, where 1.0 is full scale: whole numbers were written as fractions. "
            f"Divide them by 32768 (of 16 bits), or write them as whole numbers"
        )


def _describe_offset(samples):
    """In words, that the zero line is further off than the voice is loud; "" otherwise."""
    offset = samples.mean(dtype=np.float64)
    power = np.mean(np.square(samples, dtype=np.float64))
    if abs(offset) < 0.01 or offset**2 <= power / 2:
        return ""
    loudness = np.sqrt(max(power - offset**2, 0))
    return f"its zero line lies at {offset:+.2f}, further off than the voice is loud ({loudness:.3f}, root mean square)"


def hear(samples: np.ndarray, sample_rate_hz: int, wanted_hz: int | None = None) -> np.ndarray:
    """Bring a recording to the one channel and the rate at which a network hears it.

    Parameters
    ----------
    samples : float32 (n_samples, n_channels); channels are averaged
    sample_rate_hz : Hz
    wanted_hz : Hz to resample to (band-limited, by soxr); None keeps the rate

    Returns
    -------
    float32 (n_samples,)

    Raises
    ------
    ValueError : if nothing can be heard there: channels that cancel each other, a constant, sound beyond the rate
    """
    signal = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    fault = _find_silence(signal)
    if samples.shape[1] > 1 and np.var(signal) < LOST * np.var(samples, axis=0).mean():
        fault = (
            f"silent after its {samples.shape[1]} channels are averaged, as every network hears them: they are each "
            f"other's opposite. Keep one of them"
        )
    if not fault and wanted_hz not in (None, sample_rate_hz):
        power = np.var(signal)
        signal = resample(signal, sample_rate_hz, wanted_hz)
        if _find_silence(signal) or np.var(signal) < LOST * power:
            fault = f"silent at {wanted_hz} Hz: all its sound lies above {wanted_hz // 2} Hz"
    if fault:
        raise ValueError(fault)
    return np.ascontiguousarray(signal)


def _find_silence(signal):
    """Why a signal is no sound, in words; "" if it is."""
    low, high = float(signal.min()), float(signal.max())
    if high - low >= 2 * FAINTEST:
        return ""
    if max(high, -low) >= 2 * FAINTEST:
        return f"constant: all {len(signal)} samples lie at {low:.3g}, as a dead microphone leaves them"
    return (
        f"silent: its loudest sample is {max(high, -low):.1g} of full scale, less than three steps of 16 bits. If a voice "
        f"was scaled down by mistake, scale it up"
    )


def heard_seconds(signal: np.ndarray, sample_rate_hz: int) -> float:
    """Measure how long a signal is without the silence around it.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate_hz : Hz

    Returns
    -------
    seconds, in steps of 10 ms, from the first to the last within HEARD_DB of the loudest; the zero line may be anywhere
    """
    power = block_power(signal, sample_rate_hz)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-HEARD_DB / 10))
    return min(len(signal) / sample_rate_hz, (loud[-1] + 1 - loud[0]) / 100)


def block_power(signal: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Measure the power of every 10 ms of a signal around its zero line, wherever that lies.

    Parameters
    ----------
    signal, sample_rate_hz : as in `heard_seconds`

    Returns
    -------
    float32 (n_blocks,), mean squares; an incomplete last block is left out, unless it is the only one
    """
    hop = max(1, min(sample_rate_hz // 100, len(signal)))
    blocks = signal[: len(signal) // hop * hop].reshape(-1, hop)
    return np.square(blocks - signal.mean(dtype=np.float64).astype(np.float32)).mean(axis=1)


def load_audio(path: str | Path, sample_rate_hz: int | None = None) -> tuple[np.ndarray, int]:
    """Load a recording as one channel.

    Parameters
    ----------
    path : any format libsndfile reads
    sample_rate_hz : Hz to resample to; None keeps the file's own

    Returns
    -------
    signal : float32 (n_samples,), 1.0 being full scale
    sample_rate_hz : Hz

    Raises
    ------
    AudioError : as `read_samples` does, and if nothing can be heard (see `hear`)
    """
    return load_with_remark(path, sample_rate_hz)[:2]


def load_with_remark(path: str | Path, sample_rate_hz: int | None = None) -> tuple[np.ndarray, int, str]:
    """Load a recording as `load_audio` does, with the remark that `read_samples` makes."""
    samples, rate, remark = read_samples(path)
    try:
        return hear(samples, rate, sample_rate_hz), sample_rate_hz or rate, remark
    except ValueError as error:
        raise AudioError(path, str(error)) from error


def resample(signal: np.ndarray, sample_rate_hz: int, wanted_hz: int) -> np.ndarray:
    """Resample to another rate.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate_hz, wanted_hz : Hz

    Returns
    -------
    float32 (ceil(n_samples · wanted_hz / sample_rate_hz),)
    """
    # not through librosa, whose first call compiles for seconds; it would do the same
    changed = soxr.resample(signal, sample_rate_hz, wanted_hz, quality="HQ")
    length = -(-len(signal) * wanted_hz // sample_rate_hz)
    return np.pad(changed, (0, max(0, length - len(changed))))[:length].astype(np.float32, copy=False)


def save_audio(path: str | Path, signal: np.ndarray, sample_rate_hz: int) -> Path:
    """Write a signal as 16-bit wav, atomically.

    A signal beyond full scale is scaled down to it as a whole: nothing is clipped. What was read from 16 bits is
    written back unchanged.

    Parameters
    ----------
    path : of the file
    signal : float (n_samples,)
    sample_rate_hz : Hz

    Returns
    -------
    the path

    Raises
    ------
    ValueError : if the signal is empty, not one channel, or not finite
    """
    signal = np.asarray(signal, np.float64)
    if signal.ndim != 1 or not signal.size or not np.isfinite(signal).all():
        raise ValueError(f"A finite signal (n_samples,) is needed. Received: shape={signal.shape}")
    signal = signal / max(1.0, np.abs(signal).max())
    with atomic_path(path) as temporary:
        steps = np.round(signal * 32768).clip(-32768, 32767).astype(np.int16)
        soundfile.write(temporary, steps, sample_rate_hz)
    return Path(path)


def reduce_noise(signal: np.ndarray, sample_rate_hz: int, *, noise_s: float | None = None) -> np.ndarray:
    """Lower stationary noise by spectral gating.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate_hz : Hz
    noise_s : seconds at the start that are taken for noise, as the spectrogram CNN does with 1.0, which is right only
        where nobody speaks yet; None estimates the noise from the whole recording

    Returns
    -------
    float32 (n_samples,), not normalised

    Source: Sainburg et al. 2020, noisereduce, stationary variant.
    """
    import noisereduce  # two seconds to import, and most runs do not denoise

    noise = None if noise_s is None else signal[: max(1, round(noise_s * sample_rate_hz))]
    cleaned = noisereduce.reduce_noise(y=signal, sr=sample_rate_hz, y_noise=noise, stationary=True, n_jobs=1)
    return np.nan_to_num(cleaned).astype(np.float32, copy=False)
