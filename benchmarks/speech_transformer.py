"""A base-size speech encoder (random weights): speed against what its arithmetic must cost, and memory for long clips.

Wall time is what a reader waits; processor time is what remains comparable on a busy machine. The bound is the
encoder's floating-point operations at the rate of this machine's own large matrix product.

    python benchmarks/speech_transformer.py [--seconds 5 10 20 60 180]
"""

import argparse
import functools
import os
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from keras import ops

from ser_utils.embeddings import CONTEXT_S, LONGEST_S, embed
from ser_utils.models.speech_transformer import Architecture, SpeechTransformer


def operations(architecture, seconds, rate=16_000):
    """Floating-point operations to embed one clip in pieces, two for each multiplication with its addition."""
    a, total = architecture, 0
    pieces = 1 if seconds <= LONGEST_S else np.ceil(seconds / (LONGEST_S - 2 * CONTEXT_S))
    seconds = seconds / pieces + (2 * CONTEXT_S if pieces > 1 else 0)
    n, channels = int(seconds * rate), 1
    for out, kernel, stride in zip(a.conv_dim, a.conv_kernel, a.conv_stride, strict=True):
        n = (n - kernel) // stride + 1
        total += n * out * channels * kernel
        channels = out
    d, wide = a.hidden_size, a.intermediate_size
    total += n * d * (channels + a.num_conv_pos_embeddings * d // a.num_conv_pos_embedding_groups)
    total += a.num_hidden_layers * (n * (4 * d * d + 2 * d * wide) + 2 * n * n * d)
    return 2 * total * pieces


def measure(function, repeats):
    """Least wall and processor seconds of several runs: what other programs take from the machine is not ours."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        function()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return np.min(times, axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, nargs="+", default=[5, 10, 20, 60, 180])
    given = parser.parse_args()
    encoder = SpeechTransformer(Architecture())
    encoder.build()
    square = ops.convert_to_tensor(np.random.default_rng(0).random((2048, 2048), np.float32))
    product = measure(lambda: ops.convert_to_numpy(ops.matmul(square, square)), 10)
    rate = 2 * 2048**3 / product / 1e9
    print(
        f"{encoder.count_params() / 1e6:.1f} M parameters; matrix product {rate[0]:.0f} GFLOP/s, "
        f"{rate[1]:.0f} per processor second; the encoder asks "
        f"{operations(encoder.architecture, 10) / 1e10:.1f} GFLOP a second of sound"
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"before the first clip: {memory:.2f} GB\nclip (s)  wall (s)  sound/wall  sound/processor  bound  share  peak (GB)"
    )
    for seconds in given.seconds:
        clip = np.random.default_rng(0).standard_normal(16_000 * seconds).astype(np.float32)
        wall, processor = measure(
            functools.partial(embed, clip, 16_000, encoder=encoder, top=2), 3 if seconds <= 20 else 1
        )
        bound = seconds * rate[1] * 1e9 / operations(encoder.architecture, seconds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{seconds:8d}{wall:10.2f}{seconds / wall:12.1f}{seconds / processor:17.1f}{bound:7.1f}"
            f"{seconds / processor / bound:7.0%}{memory:11.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
