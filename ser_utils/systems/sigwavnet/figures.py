"""What a learnable wavelet network learned and heard: kernels, bands, thresholds, attention."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL, in_order

FILTERS = ("low-pass", "high-pass")


def frequency_response(kernel, n=512):
    """Gain of a kernel: float (n,) in dB over 0 … half the sampling rate."""
    return 20 * np.log10(np.abs(np.fft.rfft(kernel, 2 * (n - 1))) + 1e-6)


def reconstruction_error(low, high):
    """How far a pair of filters is from a perfect-reconstruction bank with its own mirror as synthesis.

    low, high : float (width,), as applied. For an orthogonal pair |L(f)|² + |H(f)|² = 2 at every frequency
    (no distortion) and L(f) L*(f + ½) + H(f) H*(f + ½) = 0 (no aliasing).
    Returns (distortion, aliasing): the largest deviation from each over frequency; both 0 for a wavelet.
    Source: Vaidyanathan 1993, Multirate Systems and Filter Banks, chapter 5.
    """
    n = 512
    spectra = [np.fft.fft(kernel, n) for kernel in (low, high)]
    distortion = np.abs(sum(np.abs(spectrum) ** 2 for spectrum in spectra) - 2).max()
    aliasing = np.abs(sum(spectrum * np.conj(np.roll(spectrum, n // 2)) for spectrum in spectra)).max()
    return float(distortion), float(aliasing)


def filter_table(before, after):
    """Distances of the filters from perfect reconstruction, and how far training moved them.

    before, after : list over levels of (low-pass, high-pass), each (width,). Returns a DataFrame.
    """
    rows = []
    for level, (start, end) in enumerate(zip(before, after, strict=True), 1):
        distortion, aliasing = reconstruction_error(*end)
        moved = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(start, end, strict=True)]
        rows.append({"level": level, "distortion": distortion, "aliasing": aliasing,
                     "low-pass moved": moved[0], "high-pass moved": moved[1]})  # fmt: skip
    return pd.DataFrame(rows).set_index("level")


def kernels(before, after, sample_rate_hz):
    """Draw each level's kernels and their gains, before training (thin) and after (thick).

    before, after : as `filter_table`; sample_rate_hz : of the network's input. Returns a Figure.
    """
    figure, grid = plt.subplots(len(after), 2, figsize=(8, 1.7 * len(after)), squeeze=False)
    for level, axes in enumerate(grid):
        frequency = np.linspace(0, sample_rate_hz / 2 ** (level + 1), 512)
        for which, colour in ((0, "C0"), (1, "C1")):
            for filters, width, alpha in ((before, 0.8, 0.6), (after, 1.8, 1.0)):
                style = {"color": colour, "linewidth": width, "alpha": alpha}
                label = FILTERS[which] if width > 1 else None
                axes[0].plot(filters[level][which], label=label, **style)
                axes[1].plot(frequency, frequency_response(filters[level][which]), **style)
        axes[0].set(ylabel=f"level {level + 1}\nweight")
        axes[1].set(ylabel="gain (dB)", ylim=(-60, 10))
    grid[0][0].legend(fontsize=8)
    grid[-1][0].set_xlabel("tap")
    grid[-1][1].set_xlabel("frequency at the level's input (Hz)")
    return figure


def thresholds(layers, details):
    """Draw each level's learned threshold curve over the distribution of its coefficients.

    layers : AsymmetricHardThreshold of every level; details : list over levels of coefficients (n,)
    Returns a Figure.
    """
    figure, grid = plt.subplots(1, len(layers), figsize=(2.6 * len(layers), 2.6), squeeze=False)
    for level, (axes, layer, detail) in enumerate(zip(grid[0], layers, details, strict=True), 1):
        positive, negative = float(layer.positive.numpy()), float(layer.negative.numpy())
        x = np.linspace(-3, 3, 241, dtype="float32")
        counts = axes.twinx()
        counts.hist(detail, x[::8], density=True, color="0.85")
        counts.set_axis_off()
        axes.set_zorder(counts.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.plot(x, np.asarray(layer(x)), color="C3")
        axes.plot([-negative, positive], [0, 0], "|", color="black", markersize=10)
        axes.set(title=f"level {level}: −{negative:.2f}, +{positive:.2f}", xlabel="detail")
    grid[0][0].set_ylabel("kept")
    return figure


def bands(examples, sample_rate_hz):
    """Draw the bands of one utterance per emotion: waveform, thresholded details, approximation.

    examples : dict emotion -> (waveform (n,), list of bands (steps,), finest first, approximation last)
    Returns a Figure; colour is each coefficient's size in dB below its band's largest.
    """
    emotions = in_order(examples)
    n_bands = len(examples[emotions[0]][1])
    figure, grid = plt.subplots(
        2, len(emotions), figsize=(1.9 * len(emotions) + 1, 3.6), squeeze=False, sharey="row",
        height_ratios=[1, 2],
    )  # fmt: skip
    for column, emotion in enumerate(emotions):
        waveform, own = examples[emotion]
        seconds = len(waveform) / sample_rate_hz
        top, low = grid[:, column]
        top.plot(
            np.linspace(0, seconds, len(waveform)), waveform, color=EMOTION_COLOUR[emotion], linewidth=0.4
        )
        top.set(title=emotion)
        picture = np.stack([_envelope(band, 120) for band in own])
        decibel = 20 * np.log10(picture / picture.max(axis=1, keepdims=True).clip(1e-9) + 1e-3)
        image = low.imshow(
            decibel, aspect="auto", cmap=SEQUENTIAL, vmin=-40, vmax=0, extent=(0, seconds, n_bands, 0)
        )
        low.set_xlabel("time (s)")
        low.grid(False)
    names = [f"detail {level}" for level in range(1, n_bands)] + ["approximation"]
    grid[1][0].set_yticks(np.arange(n_bands) + 0.5, names)
    grid[0][0].set_ylabel("amplitude")
    figure.colorbar(image, ax=grid[1], label="dB below the band's largest")
    return figure


def _envelope(band, n):
    """Root mean square of (steps,) in n equal pieces; a short band is stretched."""
    edges = np.linspace(0, len(band), n + 1).astype(int)
    return np.array([
        np.sqrt(np.mean(band[start : max(stop, start + 1)] ** 2)) for start, stop in zip(edges, edges[1:], strict=False)
    ])  # fmt: skip


def attention(waveform, spatial, temporal, sample_rate_hz):
    """Draw both attentions of one utterance over time, band by band, under its waveform.

    waveform : (n,); spatial, temporal : lists of (time,), details finest first, approximation last
    Weights are shown as multiples of even attention, on a logarithmic scale. Returns a Figure.
    """
    seconds = len(waveform) / sample_rate_hz
    figure, axes = plt.subplots(3, 1, figsize=(8, 5), sharex=True, height_ratios=[1, 1.4, 1.4])
    axes[0].plot(np.linspace(0, seconds, len(waveform)), waveform, color="0.3", linewidth=0.4)
    axes[0].set(ylabel="amplitude")
    names = [f"detail {level}" for level in range(1, len(spatial))] + ["approximation"]
    for panel, weights, title in ((axes[1], spatial, "spatial"), (axes[2], temporal, "temporal")):
        picture = np.stack([_stretch(np.log2(band * len(band) + 1e-3), 240) for band in weights])
        extent = (0, seconds, len(weights), 0)
        image = panel.imshow(picture, aspect="auto", cmap=DIVERGING, vmin=-4, vmax=4, extent=extent)
        panel.set_yticks(np.arange(len(weights)) + 0.5, names)
        panel.set(title=f"{title} attention")
        panel.grid(False)
    axes[2].set_xlabel("time (s)")
    figure.colorbar(image, ax=axes[1:], label="log₂ of attention / even attention")
    return figure


def _stretch(values, n):
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(values)), values)


def class_scores(table):
    """Draw precision, recall and F1 of every emotion.

    table : DataFrame indexed by emotion, columns precision, recall, f1, in [0, 1]. Returns a Figure.
    """
    emotions, names = in_order(table.index), ("precision", "recall", "f1")
    figure, axes = plt.subplots(figsize=(1.1 * len(emotions) + 1.5, 2.8))
    for shift, name in enumerate(names):
        axes.bar(np.arange(len(emotions)) + 0.26 * (shift - 1), table.loc[emotions, name], 0.24, label=name)
    axes.set_xticks(range(len(emotions)), emotions, rotation=30, ha="right")
    axes.set(ylim=(0, 1), ylabel="score")
    axes.legend(ncols=3, fontsize=8)
    return figure


def search_trials(table, parameters, *, value="val_uar"):
    """Draw trials as lines through parallel coordinates, coloured by what they reached.

    table : DataFrame, one row per trial; parameters : its columns to draw; value : the column that colours
    Returns a Figure.
    """
    figure, axes = plt.subplots(figsize=(1.3 * (len(parameters) + 1) + 1, 3.4))
    columns = [*parameters, value]
    scaled = np.stack([_axis(axes, place, table[name]) for place, name in enumerate(columns)], axis=1)
    colour = plt.get_cmap(SEQUENTIAL)
    for row in np.argsort(table[value].to_numpy()):
        axes.plot(scaled[row], color=colour(0.9 * scaled[row, -1]), linewidth=1.2, alpha=0.8)
    axes.set_xticks(
        range(len(columns)), [name.replace("_", " ") for name in columns], rotation=25, ha="right"
    )
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    return figure


def _axis(axes, place, values):
    """One coordinate's values in [0, 1], its ends or its choices written beside it."""
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if not numeric or values.nunique() <= 4:
        choices = sorted(values.unique(), key=lambda choice: (str(type(choice)), choice))
        heights = np.linspace(0, 1, len(choices)) if len(choices) > 1 else np.array([0.5])
        for choice, height in zip(choices, heights, strict=True):
            text = f"{choice:.3g}" if numeric else str(choice)
            axes.text(place + 0.04, height, text, fontsize=7, va="center")
        return values.map(dict(zip(choices, heights, strict=True))).to_numpy(float)
    numbers = values.to_numpy(float)
    if numbers.min() > 0 and numbers.max() / numbers.min() > 50:
        numbers = np.log10(numbers)
    for height, text in ((0, values.min()), (1, values.max())):
        axes.text(place + 0.04, height, f"{text:.2g}", fontsize=7, va="center")
    return (numbers - numbers.min()) / np.ptp(numbers)
