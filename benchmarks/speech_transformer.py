"""A speech encoder of base size (random weights): speed against what its arithmetic must cost, memory for long clips.

The bound is the encoder's floating-point operations at the rate of this machine's own large matrix product, measured
in turn with it.
"""

import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from keras import ops

from benchmarks.measuring import MemoryWatch, in_turn, row, seconds_unit, tell
from ser_utils.systems.speech_transformer.embeddings import CONTEXT_S, LONGEST_S, embed, listen
from ser_utils.systems.speech_transformer.encoder import Architecture, SpeechTransformer
from ser_utils.systems.speech_transformer.pretrained import TINY

PRODUCT = 2048  # rows and columns of the matrices


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


def measure(quick):
    encoder = SpeechTransformer(Architecture(**(TINY if quick else {})))
    encoder.build()
    name = f"encoder of {encoder.count_params() / 1e6:.1f} M parameters"
    square = ops.convert_to_tensor(np.random.default_rng(0).random((PRODUCT, PRODUCT), np.float32))
    whole = None  # GB, of the longest clip that is heard in one piece
    for seconds in (1, 2) if quick else (5, 10, 20, 60, 180):
        clip = np.random.default_rng(0).standard_normal(16_000 * seconds).astype(np.float32)
        watch = MemoryWatch(os.getpid())
        watch.start()
        task = functools.partial(embed, clip, 16_000, encoder=encoder, top=2)
        spent, product = in_turn(
            [task, lambda: ops.convert_to_numpy(ops.matmul(square, square))], repeats=3 if seconds <= 20 else 1
        )
        peak = watch.stop() / 1e9
        bound = operations(encoder.architecture, seconds) * product / (2 * PRODUCT**3)
        at = f"a clip of {seconds} s"
        yield row(
            f"{name}, embedding", at, spent, seconds_unit(), other=bound, than="its arithmetic as matrix products"
        )
        yield row(f"{name}, sound embedded a second", at, seconds / spent, f"s a {seconds_unit()}")
        whole = peak if seconds <= LONGEST_S else whole
        than = {} if seconds <= LONGEST_S else {"other": whole, "than": f"a clip of {LONGEST_S:.0f} s"}
        yield row(f"{name}, peak anonymous memory", at, peak, "GB", **than)
    yield from ways_to_listen(encoder, name, seconds=1 if quick else 3)


def ways_to_listen(encoder, name, *, seconds, n_clips=8):
    """One clip as `listen` hears it, operation by operation, and as one of several that are equally long."""
    clips = np.random.default_rng(0).standard_normal((n_clips, 16_000 * seconds)).astype(np.float32)
    traced, literal, batched = in_turn(
        [
            lambda: ops.convert_to_numpy(listen(encoder, clips[:1])[-1]),
            lambda: ops.convert_to_numpy(encoder(clips[:1])[-1]),
            lambda: ops.convert_to_numpy(listen(encoder, clips)[-1]),
        ],
        repeats=3,
    )
    at = f"a clip of {seconds} s"
    yield row(f"{name}, one pass", at, traced, seconds_unit(), other=literal, than="operation by operation")
    yield row(f"{name}, one pass", at, traced, seconds_unit(), other=batched / n_clips, than=f"{n_clips} at once, each")


if __name__ == "__main__":
    tell(measure, __doc__)
