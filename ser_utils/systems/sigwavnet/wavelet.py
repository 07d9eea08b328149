"""SigWavNet: a learnable wavelet transform of the waveform, and attention over its bands (arXiv 2502.00310)."""

from collections.abc import Mapping

import keras
import numpy as np
import pywt
from keras import KerasTensor, ops

from ser_utils.systems.sigwavnet.waveforms import (
    DilatedConvolution,
    convolve,
    last_step,
    leaky_relu,
    load_torch_gru,
    load_torch_layer,
    mean_over_time,
    refuse_short,
    reverse_time,
    scale_weights,
    softmax_over_time,
    split_lengths,
    steps_after,
    time_mask,
)

CONSTRAINTS = ("CQF", "PerLayer", "PerFilter")


@keras.saving.register_keras_serializable(package="ser_utils")
class WaveletTransform(keras.layers.Layer):
    """Split a signal into octave bands by stride-2 correlations with learnable kernels.

    At each level, of the current signal: detail = correlation with the high-pass kernel, the next signal =
    correlation with the low-pass kernel. The high-pass kernel is a low-pass one reversed, its signs
    alternating + - + -.

    wavelet : PyWavelets name; its decomposition low-pass is where every kernel starts
    constraint : "CQF" one kernel for all levels and both filters, "PerLayer" one a level for both, "PerFilter" two

    Call: signal (batch, samples, 1), samples per clip (batch,) -> details, finest first, the approximation
    (each (batch, steps, 1)), and steps per clip of every level. No padding.
    """

    def __init__(self, levels, wavelet="db10", constraint="PerLayer", learnable=True, **kwargs):
        super().__init__(**kwargs)
        if constraint not in CONSTRAINTS:
            raise ValueError(f"constraint must be one of {', '.join(CONSTRAINTS)}. Received: {constraint=}")
        if wavelet not in pywt.wavelist(kind="discrete"):
            raise ValueError(f"wavelet must be a discrete one of pywt.wavelist(). Received: {wavelet=}")
        self.levels, self.wavelet, self.constraint, self.learnable = levels, wavelet, constraint, learnable

    def build(self, *_):
        start = np.asarray(pywt.Wavelet(self.wavelet).dec_lo, "float32")

        def kernels(name, count):
            return [
                self.add_weight(
                    shape=start.shape,
                    initializer=lambda *_, **__: ops.convert_to_tensor(start),
                    trainable=self.learnable,
                    name=f"{name}_{level}",
                )
                for level in range(count)
            ]

        self.lowpass_kernels = kernels("lowpass", 1 if self.constraint == "CQF" else self.levels)
        has_highpass = self.constraint == "PerFilter"
        self.highpass_kernels = kernels("highpass", self.levels) if has_highpass else self.lowpass_kernels
        self.built = True

    def filters(self):
        """The filters as applied: list over levels of (low-pass, high-pass), each (width,)."""
        signs = (-1.0) ** np.arange(len(pywt.Wavelet(self.wavelet).dec_lo), dtype="float32")
        low, high = self.lowpass_kernels, self.highpass_kernels
        return [(low[i % len(low)].value, ops.flip(high[i % len(high)]) * signs) for i in range(self.levels)]

    def call(self, signal, n):
        details, steps = [], []
        for filters in self.filters():
            halves = convolve(signal, ops.stack(filters, axis=-1)[:, None], stride=2)
            signal, detail = halves[..., :1], halves[..., 1:]
            n = steps_after(n, ops.shape(filters[0])[0], stride=2)
            details.append(detail)
            steps.append(n)
        return details, signal, steps


@keras.saving.register_keras_serializable(package="ser_utils")
class AsymmetricHardThreshold(keras.layers.Layer):
    """x (σ(α(x - t⁺)) + σ(-α(x + t⁻))): keeps what is above t⁺ or below -t⁻; thresholds and sharpness α learn."""

    def __init__(self, threshold=0.5, sharpness=10.0, learnable=True, **kwargs):
        super().__init__(**kwargs)
        self.threshold, self.sharpness, self.learnable = threshold, sharpness, learnable

    def build(self, *_):
        def scalar(name, value):
            start = keras.initializers.Constant(value)
            return self.add_weight(shape=(), initializer=start, trainable=self.learnable, name=name)

        self.positive = scalar("positive", self.threshold)
        self.negative = scalar("negative", self.threshold)
        self.alpha = scalar("alpha", self.sharpness)
        self.built = True

    def call(self, x):
        above = ops.sigmoid(self.alpha * (x - self.positive))
        below = ops.sigmoid(-self.alpha * (x + self.negative))
        return x * (above + below)


def instance_norm(x: KerasTensor, n: KerasTensor) -> KerasTensor:
    """Bring every clip and channel to mean 0 and variance 1 over the clip's own steps; 0 beyond them.

    Parameters
    ----------
    x : (batch, time, channels)
    n : (batch,), steps of each clip
    """
    mask = time_mask(x, n)
    centred = ops.where(mask, x - mean_over_time(x, n)[:, None], 0.0)
    variance = mean_over_time(centred**2, n)[:, None]
    return centred * ops.rsqrt(variance + 1e-5)


@keras.saving.register_keras_serializable(package="ser_utils")
class SpatialAttention(keras.layers.Layer):
    """Where in time a band matters: softmax over time of a 1 × 1 convolution of x + gate.

    Call: x, gate (batch, time, channels), n -> attended vector Σ a·x (batch, 1, channels), a (batch, time, 1).
    """

    def build(self, input_shape, *_):
        self.kernel = self.add_weight(shape=(input_shape[-1], 1), name="kernel")
        self.built = True

    def call(self, x, gate, n):
        attention = softmax_over_time(ops.matmul(x + gate, self.kernel), n)
        return ops.sum(attention * x, axis=1, keepdims=True), attention


@keras.saving.register_keras_serializable(package="ser_utils")
class TemporalAttention(keras.layers.Layer):
    """tanh(W₂ [Σ aₜhₜ, h_last]) with a = softmax over time of (W₁hₜ)·h_last.

    Call: h (batch, time, features), n -> (batch, features), a (batch, time, 1).
    """

    def build(self, input_shape, *_):
        features = input_shape[-1]
        self.query = self.add_weight(shape=(features, features), name="query")
        self.output_kernel = self.add_weight(shape=(2 * features, features), name="output_kernel")
        self.built = True

    def call(self, h, n):
        last = last_step(h, n)
        scores = ops.matmul(ops.matmul(h, self.query), last[:, :, None])
        attention = softmax_over_time(scores, n)
        context = ops.sum(attention * h, axis=1)
        return ops.tanh(ops.matmul(ops.concatenate([context, last], axis=-1), self.output_kernel)), attention


@keras.saving.register_keras_serializable(package="ser_utils")
class BandBranch(keras.layers.Layer):
    """One band to one vector: dilated convolutions, spatial attention, stacked BiGRU, temporal attention.

    The recurrent part of all branches runs together, so a branch is called in two halves:
    features(band (batch, steps, 1), n) -> (batch, time, 2 channels), spatial attention (batch, time, 1),
    time steps per clip; summary(h (batch, time, 2 gru_units), n) -> (batch, 2 gru_units), temporal attention.
    """

    def __init__(self, channels, gru_units, gru_layers, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.gru_units, self.gru_layers = channels, gru_units, gru_layers
        self.wide = DilatedConvolution(channels, width=7, stride=4, dilation=3, name="wide")
        self.narrow = DilatedConvolution(2 * channels, width=5, stride=4, dilation=2, name="narrow")
        self.gate = DilatedConvolution(2 * channels, width=7, padding="same", name="gate")
        self.spatial_attention = SpatialAttention(name="spatial_attention")
        self.grus = [
            [keras.layers.GRU(gru_units, return_sequences=True, name=f"{way}_{i}") for way in ("forward", "backward")]
            for i in range(gru_layers)
        ]
        self.temporal_attention = TemporalAttention(name="temporal_attention")

    def build(self, *_):
        features, hidden = (None, None, 2 * self.channels), (None, None, 2 * self.gru_units)
        self.wide.build((None, None, 1))
        self.narrow.build((None, None, self.channels))
        self.gate.build(features)
        self.spatial_attention.build(features)
        for i, pair in enumerate(self.grus):
            for gru in pair:
                gru.build(hidden if i else features)
        self.temporal_attention.build(hidden)
        self.built = True

    def features(self, band, n):
        n = self.wide.steps(n)
        x = leaky_relu(instance_norm(self.wide(band), n))
        n = self.narrow.steps(n)
        x = leaky_relu(instance_norm(self.narrow(x), n))
        gate = leaky_relu(instance_norm(self.gate(x), n))
        attended, attention = self.spatial_attention(x, gate, n)
        return leaky_relu(x + attended), attention, n

    def summary(self, h, n):
        return self.temporal_attention(h, n)


def run_bidirectional(
    pairs: list[tuple[keras.layers.GRU, keras.layers.GRU]], sequences: list[KerasTensor], n: list[KerasTensor]
) -> list[KerasTensor]:
    """Run every sequence through its own pair of GRUs, one forwards, one backwards from the clip's own last step.

    Parameters
    ----------
    pairs : (forward, backward), all of one size
    sequences : (batch, time, features) each, the longest first, the last two of one length
    n : steps per clip (batch,) of each

    Returns
    -------
    (batch, time, 2 units) of each; states start anew at every clip
    """
    ways = [(x, reverse_time(x, steps)) for x, steps in zip(sequences, n, strict=True)]
    run = _run_one_by_one if _has_cudnn() else _run_together
    outputs = run(pairs, ways)
    return [
        ops.concatenate([forward, reverse_time(backward, steps)], axis=-1)
        for (forward, backward), steps in zip(outputs, n, strict=True)
    ]


def _has_cudnn():  # of which TensorFlow uses a kernel for a whole GRU, and JAX does not
    gpus = any("gpu" in device for device in keras.distribution.list_devices())
    return gpus and keras.backend.backend() == "tensorflow"


def _run_one_by_one(pairs, ways):
    return [[gru(x) for gru, x in zip(*band, strict=True)] for band in zip(pairs, ways, strict=True)]


def _run_together(pairs, ways):
    """One loop over time through all bands, each dropped when it ends.

    On a CPU TensorFlow's loops cost more than what they compute. Against a loop a GRU, five bands of 32
    units take 2.5 times less time a step and a tenth of the time to trace. On an accelerator JAX compiles a
    loop for every stage and each of its steps waits for the last: all bands but three are padded to the third's
    length there, three stages instead of eight, and four steps are one.
    """
    jax = keras.backend.backend() == "jax"
    lengths = [ops.shape(x)[1] for x, _ in ways]
    if jax:
        ways = [[_padded(x, lengths[min(i, 2)]) for x in band] for i, band in enumerate(ways)]
    units = pairs[0][0].units
    cells = [[gru.cell for gru in pair] for pair in pairs]
    recurrent = ops.stack([ops.stack([cell.recurrent_kernel.value for cell in pair]) for pair in cells])
    bias = ops.stack([ops.stack([cell.bias[1:] for cell in pair]) for pair in cells])
    # per band (time, 2, batch, 3 units), gates in the order update, reset, new
    inputs = [
        ops.stack([_time_first(ops.matmul(x, cell.kernel) + cell.bias[0]) for cell, x in zip(*band, strict=True)], 1)
        for band in zip(cells, ways, strict=True)
    ]
    state = ops.stack([ops.zeros_like(x[0, ..., :units]) for x in inputs])
    outputs, start = [[] for _ in inputs], 0
    for count in (len(inputs), *range(min(len(inputs) - 2, 2 if jax else len(inputs)), 0, -1)):
        stop = ops.shape(inputs[count - 1])[0]

        def step(h, x, recurrent=recurrent[:count], bias=bias[:count]):
            r = ops.matmul(h, recurrent) + bias
            gates = ops.sigmoid(x[..., : 2 * units] + r[..., : 2 * units])
            update, reset = gates[..., :units], gates[..., units:]
            new = ops.tanh(x[..., 2 * units :] + reset * r[..., 2 * units :])
            h = new + update * (h - new)
            return h, h

        state, states = ops.scan(
            step, state[:count], ops.stack([x[start:stop] for x in inputs[:count]], axis=1), unroll=4 if jax else 1
        )
        for band in range(count):
            outputs[band].append(states[:, band])
        start = stop
    # (time, 2, batch, units)
    joined = [ops.concatenate(parts)[:length] for parts, length in zip(outputs, lengths, strict=True)]
    return [[_time_first(h[:, way]) for way in (0, 1)] for h in joined]


def _padded(x, steps):
    return ops.pad(x, ((0, 0), (0, steps - x.shape[1]), (0, 0)))


def _time_first(x):  # and back
    return ops.swapaxes(x, 0, 1)


@keras.saving.register_keras_serializable(package="ser_utils")
class SigWavNet(keras.Model):
    """Log-probabilities of emotions from the raw waveform.

    classes, levels : int, number of emotions and of wavelet levels
    gru_units, gru_layers, channels : int, the size of every band's branch
    wavelet, constraint, learnable_kernels : see WaveletTransform
    threshold, sharpness, learnable_thresholds : see AsymmetricHardThreshold
    mean, std : of the training signals; the waveform is standardised with them
    Call: waveform (batch, samples), or (waveform, samples per clip (batch,)) where clips are padded at the
    end, which changes nothing -> (batch, classes).
    Source: arXiv 2502.00310 and its code.
    """

    def __init__(
        self,
        classes,
        levels,
        gru_units,
        gru_layers,
        channels,
        wavelet="db10",
        constraint="PerLayer",
        learnable_kernels=True,
        threshold=0.5,
        sharpness=10.0,
        learnable_thresholds=True,
        mean=0.0,
        std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        sizes = dict(levels=levels, gru_units=gru_units, gru_layers=gru_layers, channels=channels)
        kernels = dict(wavelet=wavelet, constraint=constraint, learnable_kernels=learnable_kernels)
        limits = dict(threshold=threshold, sharpness=sharpness, learnable_thresholds=learnable_thresholds)
        self.settings = dict(classes=classes, **sizes, **kernels, **limits, mean=float(mean), std=float(std))
        self.levels, self.gru_units, self.gru_layers = levels, gru_units, gru_layers
        self.mean, self.std = scale_weights(self, mean, std)
        self.transform = WaveletTransform(levels, wavelet, constraint, learnable_kernels, name="transform")
        self.thresholds = [
            AsymmetricHardThreshold(threshold, sharpness, learnable_thresholds, name=f"threshold_{level}")
            for level in range(levels)
        ]
        self.branches = [
            BandBranch(channels, gru_units, gru_layers, name=f"branch_{band}") for band in range(levels + 1)
        ]
        self.head = DilatedConvolution(classes, width=5, name="head")

    def build(self, *_):
        for layer in (self.transform, *self.thresholds, *self.branches):
            layer.build()
        self.head.build((None, 2 * self.gru_units, self.levels + 1))
        self.band_weights = self.add_weight(shape=(self.levels + 1,), initializer="ones", name="band_weights")
        self.built = True

    @property
    def minimum_samples(self):
        """Samples a clip needs for every band to come out of its convolutions."""
        branch = self.branches[0]
        n = samples_for(samples_for(1, branch.narrow), branch.wide)
        width = len(pywt.Wavelet(self.transform.wavelet).dec_lo)
        for _ in range(self.levels):
            n = (n - 1) * 2 + width
        return n

    def call(self, inputs, training=False):
        return self.look_inside(inputs)["log_probabilities"]

    def look_inside(self, inputs):
        """What the network does with clips: a dict of log-probabilities, bands and attentions.

        details, thresholded : list, finest level first, of (batch, steps, 1); approximation (batch, steps, 1)
        spatial, temporal : attention over time, list of (batch, time, 1): details, finest first, approximation
        band_steps, attention_steps : lists in the same order, how many of the steps are the clip's own
        """
        waveform, n = split_lengths(inputs)
        refuse_short(waveform, self.minimum_samples, f"{self.levels} levels need", "use fewer levels or append silence")
        signal = ((waveform - self.mean) / self.std)[:, :, None]
        details, approximation, steps = self.transform(signal, n)
        thresholded = [threshold(detail) for threshold, detail in zip(self.thresholds, details, strict=True)]
        bands, band_steps = [*thresholded, approximation], [*steps, steps[-1]]
        halves = [branch.features(*band) for branch, *band in zip(self.branches, bands, band_steps, strict=True)]
        sequences, spatial, n = map(list, zip(*halves, strict=True))
        for layer in range(self.gru_layers):
            sequences = run_bidirectional([branch.grus[layer] for branch in self.branches], sequences, n)
        summaries = [branch.summary(h, k) for branch, h, k in zip(self.branches, sequences, n, strict=True)]
        vectors, temporal = map(list, zip(*summaries, strict=True))
        # the approximation first, as in the reference
        stacked = ops.stack([vectors[-1], *vectors[:-1]], axis=-1) * self.band_weights
        x = self.head(stacked)
        x = leaky_relu(instance_norm(x, ops.full((ops.shape(x)[0],), ops.shape(x)[1], dtype="int32")))
        return {
            "log_probabilities": ops.log_softmax(ops.mean(x, axis=1)),
            "details": details,
            "thresholded": thresholded,
            "approximation": approximation,
            "spatial": spatial,
            "temporal": temporal,
            "band_steps": band_steps,
            "attention_steps": n,
        }

    def get_config(self):
        return super().get_config() | self.settings


def samples_for(steps: int, convolution: DilatedConvolution) -> int:
    """Count the samples that a convolution needs to give `steps` steps."""
    return (steps - 1) * convolution.stride + (convolution.width - 1) * convolution.dilation + 1


def load_reference_weights(model: SigWavNet, arrays: Mapping[str, np.ndarray]) -> None:
    """Give a SigWavNet, built or not, the weights of its reference implementation.

    Parameters
    ----------
    model, arrays : as in `cnn_n_gru.load_reference_weights`, and the same errors
    """
    if not model.built:
        model.build()
    level_of = {"lowpass": "kernelsG_", "highpass": "kernelsH_"}
    for kind, name in level_of.items():
        for level, kernel in enumerate(getattr(model.transform, f"{kind}_kernels")):
            if kind == "lowpass" or model.transform.constraint == "PerFilter":
                kernel.assign(arrays[f"{name}.{level}.kernel"])
    for level, threshold in enumerate(model.thresholds):
        prefix = f"HardThresholdAssymH.{level}."
        for variable, name in ((threshold.positive, "thrP"), (threshold.negative, "thrN"), (threshold.alpha, "alpha")):
            variable.assign(arrays[prefix + name][0])
    for band, branch in enumerate(model.branches):
        prefix = f"conv1ds.{band}."
        _load_branch(branch, {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
    model.band_weights.assign(arrays["channel_weighting.weights"])
    load_torch_layer(model.head, arrays, "conv1_3")


def _load_branch(branch, arrays):
    for layer, name in ((branch.wide, "conv1"), (branch.narrow, "conv1_1"), (branch.gate, "dense1")):
        load_torch_layer(layer, arrays, name)
    branch.spatial_attention.kernel.assign(arrays["spatialAttn.op.weight"][:, :, 0].T)
    branch.temporal_attention.query.assign(arrays["tempAttn.fc1.weight"].T)
    branch.temporal_attention.output_kernel.assign(arrays["tempAttn.fc2.weight"].T)
    for layer, pair in enumerate(branch.grus):
        for gru, way in zip(pair, ("", "_reverse"), strict=True):
            load_torch_gru(gru, arrays, "gru1", f"l{layer}{way}")
