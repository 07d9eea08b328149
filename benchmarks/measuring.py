"""How things are measured here: in turn, the least of several runs, with what else the machine was doing."""

import argparse
import json
import os
import platform
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np

from ser_utils.corpora import demo as demo_corpus

# Where other programs hold the cores, seconds on the wall say more about them than about us: then it is the
# processor's seconds that are counted, of all threads together, and units say so.
BUSY = os.getloadavg()[0] > os.cpu_count()
clock = time.process_time if BUSY else time.perf_counter

COLUMNS = (
    "part",
    "what",
    "at",
    "value",
    "unit",
    "than",
    "other",
    "ratio",
    "at_least",
    "at_most",
    "reached",
    "load",
    "machine",
    "date",
)


def in_turn(functions, *, repeats):
    """Seconds of each function, the least of `repeats` rounds in which all of them run once, one after another.

    What other programs take from the machine then falls on all sides alike, and the least is nearest to none.
    Returns a list of seconds.
    """
    spent = np.full((repeats, len(functions)), np.inf)
    for one_round in spent:
        for place, function in enumerate(functions):
            start = clock()
            function()
            one_round[place] = clock() - start
    return spent.min(axis=0).tolist()


def seconds_unit(prefix=""):
    """ "s" or "ms", of the processor where that is what `clock` counts."""
    return f"{prefix}s of processor" if BUSY else f"{prefix}s"


def row(what, at, value, unit, *, other=None, than="", at_least=None, at_most=None, better="less"):
    """One line of the report.

    at : the size it was measured at, in words; value : in `unit`
    other, than : what the thing it is compared with needs, in the same unit, and its name
    at_least : wanted of the ratio, how many times better than `other`; at_most : wanted of the value
    better : whether "less" or "more" of the unit is
    """
    line = {"what": what, "at": at, "value": float(value), "unit": unit, "than": than}
    if other is not None:
        line |= {"other": float(other), "ratio": float(other / value if better == "less" else value / other)}
    if at_least is not None:
        line |= {"at_least": at_least, "reached": line["ratio"] >= at_least}
    if at_most is not None:
        line |= {"at_most": at_most, "reached": line["value"] <= at_most}
    return line


def nothing(what, why):
    """A line that says why something was not measured."""
    return {"what": what, "at": why, "unit": "", "than": ""}


def machine():
    """The processor as Linux names it, its cores, memory and the interpreter."""
    facts = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(": ")[1] for line in facts if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GB, Python {platform.python_version()}"


def tell(measure, description):
    """Run a part as a program: each line it yields is printed as JSON, with the load it was measured under."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, measures nothing")
    about = {"machine": machine(), "date": str(date.today())}
    for line in measure(parser.parse_args().quick):
        print(json.dumps(line | {"load": round(os.getloadavg()[0], 1)} | about), flush=True)


class MemoryWatch(threading.Thread):
    """Peak anonymous memory of a process and all it started, bytes; mapped file pages are not counted.

    Samples RssAnon of /proc every 20 ms until `stop`. Pages shared after a fork count twice, so the peak is not
    underestimated by more than what comes and goes between two samples.
    """

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.stopped = pid, 0, threading.Event()

    def run(self):
        while not self.stopped.wait(0.02):
            self.peak = max(self.peak, sum(map(anonymous_bytes, family(self.pid))))

    def stop(self):
        self.stopped.set()
        self.join()
        return self.peak


def family(pid):
    """A process id and those of everything it started."""
    found = [pid]
    for parent in found:
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, listing.read_text().split())
            except OSError:  # gone meanwhile
                continue
    return found


def anonymous_bytes(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def speech_like(sample_rate, seconds, seed=0):
    """A gliding, breathing harmonic tone in noise: the dynamic range of a voice. float32 (n_samples,)."""
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(140 + 50 * np.sin(3 * t)) / sample_rate
    tone = sum(np.sin(k * phase) / k**1.5 for k in range(1, 20)) * (0.05 + np.sin(4 * t) ** 2)
    return (0.2 * tone + 1e-4 * rng.standard_normal(len(t))).astype(np.float32)


def demo_voice(n_segments):
    """Log-mel segments of one synthetic speaker, (n, 128, 7) in dB, and labels 0 … 6, in random order.

    Utterances are made, with other seeds, until there are enough.
    """
    from ser_utils.features.spectral import log_mel_segments, split_segments

    rate, speaker = demo_corpus.SAMPLE_RATE_HZ, next(iter(demo_corpus.SPEAKERS))
    found, labels, seed = [], [], 0
    while len(labels) < n_segments:
        for sentence in demo_corpus.SENTENCES:
            for label, emotion in enumerate(demo_corpus.EXPRESSIONS):
                signal = demo_corpus.synthesise_utterance(speaker, emotion, sentence, seed=seed)
                found.append(log_mel_segments(split_segments(signal, rate, segment_ms=100, hop_ms=20), rate))
                labels += [label] * len(found[-1])
        seed += 1
    order = np.random.default_rng(0).permutation(len(labels))[:n_segments]
    return np.concatenate(found)[order], np.array(labels)[order]
