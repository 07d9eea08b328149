"""Log-mel of segments: all at once against the original's loop over segments, on one process and on all cores.

python benchmarks/preprocessing.py [--seconds 20]
"""

import argparse
import os
import time

import joblib
import librosa
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ser_utils.features import MEL, log_mel_segments, split_segments

TARGETS = {"one process": 15, "all cores": 25}  # × faster than the loop
TOLERANCE_DB = 1e-4


def one_by_one(segments, sample_rate):
    """What the prototype paper's preprocessing does, segment by segment."""
    rows = []
    for segment in segments:
        mel = librosa.feature.melspectrogram(y=segment, sr=sample_rate, n_mels=MEL.n_mels, **MEL.stft)
        rows.append(librosa.power_to_db(mel, ref=np.max))
    return np.array(rows)


def speech_like(sample_rate, seconds, seed=0):
    """A gliding, breathing harmonic tone in noise: the dynamic range of a voice."""
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(140 + 50 * np.sin(3 * t)) / sample_rate
    tone = sum(np.sin(k * phase) / k**1.5 for k in range(1, 20)) * (0.05 + np.sin(4 * t) ** 2)
    return (0.2 * tone + 1e-4 * rng.standard_normal(len(t))).astype(np.float32)


def seconds_of(function, *arguments, repeats=5):
    """Fastest of several runs, and the result: what other programs take from the machine is not ours."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times), result


def compare(sample_rate, seconds):
    utterances = [speech_like(sample_rate, 4, seed) for seed in range(max(2, round(seconds / 4)))]
    segments = [split_segments(u, sample_rate, segment_ms=100, hop_ms=20) for u in utterances]
    n = sum(map(len, segments))
    few = segments[0]
    one_by_one(few[:5], sample_rate), log_mel_segments(few[:5], sample_rate)
    with threadpool_limits(1):
        loop_s, wanted = seconds_of(one_by_one, few, sample_rate, repeats=3)
        ours_s, got = seconds_of(lambda: [log_mel_segments(s, sample_rate) for s in segments])
    with joblib.Parallel(n_jobs=os.cpu_count()) as parallel:
        batches = [segments[i :: os.cpu_count()] for i in range(os.cpu_count())]
        work = joblib.delayed(_batch)
        parallel(work(batch[:1], sample_rate) for batch in batches)
        all_s, _ = seconds_of(lambda: parallel(work(batch, sample_rate) for batch in batches))
    loop_us = 1e6 * loop_s / len(few)
    return {
        "rate_hz": sample_rate, "segments": n, "loop_us": loop_us, "ours_us": 1e6 * ours_s / n,
        "one process": loop_us / (1e6 * ours_s / n), "all cores": loop_us / (1e6 * all_s / n),
        "largest_difference_db": float(abs(got[0] - wanted).max()),
    }  # fmt: skip


def _batch(segments, sample_rate):
    """Peaks only: results go to disk in the worker, not through a pipe."""
    return [float(log_mel_segments(s, sample_rate).max()) for s in segments]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of sound")
    table = pd.DataFrame([compare(rate, parser.parse_args().seconds) for rate in (16000, 48000)])
    print(table.round({"loop_us": 0, "ours_us": 1, "one process": 1, "all cores": 1}).to_string(index=False))
    assert (table["largest_difference_db"] < TOLERANCE_DB).all(), "values differ from librosa's"
    for name, wanted in TARGETS.items():
        verdict = "reached" if (table[name] >= wanted).all() else "MISSED"
        print(f"{name}: at least {wanted} × wanted, {table[name].min():.1f} × measured: {verdict}")


if __name__ == "__main__":
    main()
