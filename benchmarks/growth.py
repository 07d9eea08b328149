"""How cost grows with the work: seconds at 1, 2, 4 and 8 times the segments, and the exponent between them."""

import functools
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from threadpoolctl import threadpool_limits

from benchmarks.measuring import demo_voice, in_turn, row, seconds_unit, speech_like, tell
from ser_utils.evaluation.splits import HOP_MS, audit_leakage, make_folds
from ser_utils.features.spectral import log_mel_segments, split_segments
from ser_utils.features.store import build_store
from ser_utils.systems.prototype.autoencoder import build_autoencoder
from ser_utils.systems.prototype.classifier import build_prototype_classifier

RATE_HZ, TIMES = 16_000, (1, 2, 4, 8)


def log_mels(signal, rate):
    return log_mel_segments(split_segments(signal, rate, segment_ms=100, hop_ms=HOP_MS), rate)


def exponent(sizes, seconds):
    """Slope of log seconds over log size: 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def recordings(folder, n_files):
    """An utterance table of `n_files` recordings of 2 s, one sound under many names."""
    soundfile.write(folder / "one.wav", speech_like(RATE_HZ, 2), RATE_HZ, subtype="PCM_16")
    names = [f"u{number}" for number in range(n_files)]
    return pd.DataFrame({"utterance_id": names, "path": str(folder / "one.wav"), "pcm_sha256": names})


def training(build, x, y, n):
    """A function that trains one epoch on the first `n`, compiled before."""
    model = build()
    epoch = functools.partial(model.fit, x[:n], y[:n], batch_size=min(512, n), epochs=1, verbose=0)
    epoch()
    return epoch


def tasks(quick, folder):
    """Name, unit of size and {size: function} of each kind of work."""
    base = 256 if quick else 1024
    sizes = [base * times for times in TIMES]
    many = split_segments(speech_like(RATE_HZ, sizes[-1] * HOP_MS / 1000 + 0.2), RATE_HZ, segment_ms=100, hop_ms=HOP_MS)
    yield (
        "log-mel of segments",
        "segments",
        {n: functools.partial(log_mel_segments, many[:n], RATE_HZ) for n in sizes},
    )

    files = [n // 64 for n in sizes]
    table, again = recordings(folder, files[-1]), itertools.count()
    yield (
        "features from files to disk",
        "recordings of 2 s",
        {
            n: lambda n=n: build_store(folder / f"store_{n}", table[:n], log_mels, key=str(next(again)), jobs=1)
            for n in files
        },
    )

    log_mel, labels = demo_voice(sizes[-1])
    x, y = (1 + log_mel / 80).astype(np.float32), np.eye(7, dtype=np.float32)[labels]
    small = [n // 4 for n in sizes]
    build = functools.partial(build_autoencoder, *x.shape[1:])
    yield "an epoch of the autoencoder", "segments", {n: training(build, x, x, n) for n in small}

    embeddings = x.reshape(len(x), -1)

    def build(n):
        return build_prototype_classifier(embeddings.shape[1], 7, 315, steps_per_epoch=-(-n // 512))

    work = {n: training(functools.partial(build, n), embeddings, y, n) for n in sizes}
    yield "an epoch of the classifier", "segments", work

    whole = [32 * n for n in sizes]
    segments = segment_lines(whole[-1])
    folds = {n: make_folds(segments[:n], "paper", system="prototype", seed=0) for n in whole}
    about = segments.drop_duplicates("utterance_id").drop(columns="start_ms")
    yield (
        "the audit of a split for leaks",
        "segments",
        {n: functools.partial(audit_leakage, folds[n], about, fit={"scaler": "train"}) for n in whole},
    )


def segment_lines(n, in_one=100):
    """`n` lines of a segment table, utterances of `in_one` segments, ten speakers, four emotions, ten texts."""
    place, utterance = np.arange(n) % in_one, np.arange(n) // in_one
    pick = {"speaker": 10, "emotion": 4, "sentence": 10}
    lines = {
        name: (utterance // step % many).astype(str)
        for (name, many), step in zip(pick.items(), (1, 10, 40), strict=True)
    }
    emotions = np.array(["anger", "happiness", "neutral", "sadness"])
    names = pd.Series(utterance).map("u{:06d}".format)
    facts = {"corpus": "made", "gender": "", "intensity": "", "language": "", "pcm_sha256": names, "duration_s": 2.1}
    return pd.DataFrame({"utterance_id": names, "start_ms": place * float(HOP_MS), **lines, **facts}).assign(
        emotion=emotions[lines["emotion"].astype(int)]
    )


def measure(quick):
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        for what, unit, work in tasks(quick, Path(folder)):
            for function in work.values():
                function()  # fills caches
            seconds = in_turn(list(work.values()), repeats=1 if quick else 3)
            for n, spent in zip(work, seconds, strict=True):
                yield row(what, f"{n:,} {unit}", spent, seconds_unit())
            slope = exponent(list(work), seconds)
            yield row(f"{what}: exponent", f"{min(work):,} to {max(work):,} {unit}", slope, "", at_most=1.1)


if __name__ == "__main__":
    tell(measure, __doc__)
