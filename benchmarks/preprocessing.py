"""Log-mel of segments: all at once against the original's loop over segments, on one process and on all cores."""

import os

import joblib
import librosa
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measuring import BUSY, clock, nothing, row, seconds_unit, speech_like, tell
from ser_utils.features.spectral import MEL, log_mel_segments, split_segments

LOOP = "loop over segments, as published"


def one_by_one(segments, sample_rate):
    """What the prototype paper's preprocessing does, segment by segment."""
    rows = []
    for segment in segments:
        mel = librosa.feature.melspectrogram(y=segment, sr=sample_rate, n_mels=MEL.n_mels, **MEL.stft)
        rows.append(librosa.power_to_db(mel, ref=np.max))
    return np.array(rows)


def peaks(utterances, sample_rate):
    """All segments of some utterances; peaks only: results go to disk in the worker, not through a pipe."""
    return [float(log_mel_segments(segments, sample_rate).max()) for segments in utterances]


def timed(function, *arguments):
    start = clock()
    function(*arguments)
    return clock() - start


def compare(sample_rate, seconds, repeats):
    signals = [speech_like(sample_rate, 4, seed) for seed in range(max(2, round(seconds / 4)))]
    utterances = [split_segments(signal, sample_rate, segment_ms=100, hop_ms=20) for signal in signals]
    n, few, cores = sum(map(len, utterances)), utterances[0], os.cpu_count()
    difference = abs(log_mel_segments(few, sample_rate) - one_by_one(few, sample_rate)).max()
    spent = []
    with joblib.Parallel(n_jobs=cores) as parallel:
        shares = [utterances[i::cores] for i in range(cores)]
        work = joblib.delayed(peaks)
        parallel(work(share[:1], sample_rate) for share in shares)  # workers start once
        for _ in range(repeats):
            with threadpool_limits(1):
                one_round = [timed(one_by_one, few, sample_rate), timed(peaks, utterances, sample_rate)]
            shared = 0.0 if BUSY else timed(lambda: parallel(work(share, sample_rate) for share in shares))
            spent.append([*one_round, shared])
    loop, ours, shared = 1e6 * np.min(spent, axis=0) / [len(few), n, n]
    at = f"{n:,} segments at {sample_rate // 1000} kHz"
    same = {"other": loop, "than": LOOP}
    yield row("log-mel, one process", at, ours, f"{seconds_unit('µ')} a segment", **same, at_least=15)
    if BUSY:
        yield nothing(f"log-mel, {cores} processes", "left out: other programs held the cores")
    else:
        yield row(f"log-mel, {cores} processes", at, shared, f"{seconds_unit('µ')} a segment", **same, at_least=25)
    yield row("log-mel, largest difference from the loop", at, difference, "dB", at_most=1e-4)


def measure(quick):
    for sample_rate in (16000, 48000):
        yield from compare(sample_rate, *((8, 1) if quick else (60, 9)))


if __name__ == "__main__":
    tell(measure, __doc__)
