"""What a learnable wavelet network learned and heard: kernels, bands, thresholds, attention."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL, in_order

Filters = list[tuple[np.ndarray, np.ndarray]]  # of every level: low-pass and high-pass kernel, each (width,)


def frequency_response(kernel: np.ndarray, n: int = 512) -> np.ndarray:
    """Gain of a kernel: float (n,) in dB over 0 … half the sampling rate."""
    return 20 * np.log10(np.abs(np.fft.rfft(kernel, 2 * (n - 1))) + 1e-6)


def reconstruction_error(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """How far a pair of filters is from a perfect-reconstruction bank with its own mirror as synthesis.

    Parameters
    ----------
    low, high : float (width,), as applied

    Returns
    -------
    distortion and aliasing, the largest deviation over frequency f of an orthogonal pair's
    |L(f)|² + |H(f)|² = 2 and L(f) L*(f + ½) + H(f) H*(f + ½) = 0; both are 0 for a wavelet

    Source: Vaidyanathan 1993, Multirate Systems and Filter Banks, chapter 5.
    """
    n = 512
    spectra = [np.fft.fft(kernel, n) for kernel in (low, high)]
    distortion = np.abs(sum(np.abs(spectrum) ** 2 for spectrum in spectra) - 2).max()
    aliasing = np.abs(sum(spectrum * np.conj(np.roll(spectrum, n // 2)) for spectrum in spectra)).max()
    return float(distortion), float(aliasing)


def filter_table(before: Filters, after: Filters) -> pd.DataFrame:
    """Distances of the filters from perfect reconstruction, and how far training moved them, level by level."""
    rows = []
    for start, end in zip(before, after, strict=True):
        moved = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(start, end, strict=True)]
        rows.append([*reconstruction_error(*end), *moved])
    columns = ["distortion", "aliasing", "low-pass moved", "high-pass moved"]
    return pd.DataFrame(rows, pd.RangeIndex(1, len(rows) + 1, name="level"), columns)


def kernels(before: Filters, after: Filters, sample_rate_hz: int) -> Figure:
    """Draw each level's kernels and their gains, before training (thin) and after (thick)."""
    figure, grid = plt.subplots(len(after), 2, figsize=(8, 1.7 * len(after)), squeeze=False)
    for level, (weight, gain) in enumerate(grid):
        frequency = np.linspace(0, sample_rate_hz / 2 ** (level + 1), 512)
        for which, name in enumerate(("low-pass", "high-pass")):
            for filters, width, alpha, label in ((before, 0.8, 0.6, None), (after, 1.8, 1.0, name)):
                line = {"color": f"C{which}", "linewidth": width, "alpha": alpha}
                weight.plot(filters[level][which], label=label, **line)
                gain.plot(frequency, frequency_response(filters[level][which]), **line)
        weight.set(ylabel=f"level {level + 1}\nweight")
        gain.set(ylabel="gain (dB)", ylim=(-60, 10))
    grid[0][0].legend(fontsize=8)
    grid[-1][0].set_xlabel("tap")
    grid[-1][1].set_xlabel("frequency at the level's input (Hz)")
    return figure


def thresholds(layers: list, details: list[np.ndarray]) -> Figure:
    """Draw each level's learned threshold curve over the distribution of its coefficients.

    Parameters
    ----------
    layers : AsymmetricHardThreshold of every level
    details : coefficients (n,) of every level
    """
    figure, grid = plt.subplots(1, len(layers), figsize=(2.6 * len(layers), 2.6), squeeze=False)
    x = np.linspace(-3, 3, 241, dtype="float32")
    for level, (axes, layer, detail) in enumerate(zip(grid[0], layers, details, strict=True), 1):
        positive, negative = float(layer.positive.numpy()), float(layer.negative.numpy())
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


def bands(examples: dict[str, tuple[np.ndarray, list[np.ndarray]]], sample_rate_hz: int) -> Figure:
    """Draw the bands of one utterance per emotion: waveform, thresholded details, approximation.

    Parameters
    ----------
    examples : emotion -> waveform (n,) and its bands (steps,), finest first, approximation last

    Colour is each coefficient's size in dB below its band's largest.
    """
    emotions = in_order(examples)
    n_bands = len(examples[emotions[0]][1])
    layout = {"sharey": "row", "height_ratios": [1, 2], "squeeze": False}
    figure, grid = plt.subplots(2, len(emotions), figsize=(1.9 * len(emotions) + 1, 3.6), **layout)
    for (top, low), emotion in zip(grid.T, emotions, strict=True):
        waveform, levels = examples[emotion]
        seconds = len(waveform) / sample_rate_hz
        time = np.linspace(0, seconds, len(waveform))
        top.plot(time, waveform, color=EMOTION_COLOUR[emotion], linewidth=0.4)
        top.set(title=emotion)
        size = np.stack([_envelope(band, 120) for band in levels])
        decibel = 20 * np.log10(size / size.max(axis=1, keepdims=True).clip(1e-9) + 1e-3)
        image = _picture(low, decibel, seconds, cmap=SEQUENTIAL, vmin=-40, vmax=0)
        low.set_xlabel("time (s)")
    grid[1][0].set_yticks(np.arange(n_bands) + 0.5, _band_names(n_bands))
    grid[0][0].set_ylabel("amplitude")
    figure.colorbar(image, ax=grid[1], label="dB below the band's largest")
    return figure


def _picture(axes, values, seconds, **colours):
    axes.grid(False)
    return axes.imshow(values, aspect="auto", extent=(0, seconds, len(values), 0), **colours)


def _band_names(n_bands):
    return [f"detail {level}" for level in range(1, n_bands)] + ["approximation"]


def _envelope(band, n):
    """Root mean square of (steps,) in n equal pieces; a short band is stretched."""
    edges = np.linspace(0, len(band), n + 1).astype(int)
    pieces = [band[start : max(stop, start + 1)] for start, stop in zip(edges, edges[1:], strict=False)]
    return np.array([np.sqrt(np.mean(piece**2)) for piece in pieces])


def band_attention(
    waveform: np.ndarray, spatial: list[np.ndarray], temporal: list[np.ndarray], sample_rate_hz: int
) -> Figure:
    """Draw both attentions of one utterance over time, band by band, under its waveform.

    Parameters
    ----------
    waveform : (n,)
    spatial, temporal : weights (time,) of every band, details finest first, approximation last

    Weights are shown as multiples of even attention, on a logarithmic scale.
    """
    seconds = len(waveform) / sample_rate_hz
    figure, axes = plt.subplots(3, 1, figsize=(8, 5), sharex=True, height_ratios=[1, 1.4, 1.4])
    axes[0].plot(np.linspace(0, seconds, len(waveform)), waveform, color="0.3", linewidth=0.4)
    axes[0].set(ylabel="amplitude")
    for panel, weights, title in ((axes[1], spatial, "spatial"), (axes[2], temporal, "temporal")):
        multiples = np.stack([_stretch(np.log2(band * len(band) + 1e-3), 240) for band in weights])
        image = _picture(panel, multiples, seconds, cmap=DIVERGING, vmin=-4, vmax=4)
        panel.set_yticks(np.arange(len(weights)) + 0.5, _band_names(len(weights)))
        panel.set(title=f"{title} attention")
    axes[2].set_xlabel("time (s)")
    figure.colorbar(image, ax=axes[1:], label="log₂ of attention / even attention")
    return figure


def search_trials(trials: pd.DataFrame) -> Figure:
    """Draw the trials of a search in parallel coordinates: a line a trial, an axis a setting, coloured by `val_uar`.

    Parameters
    ----------
    trials : as `make search` gives them; rates and decays are on a logarithmic axis
    """
    names = [name for name in trials if name not in ("epochs", "val_uar")] + ["val_uar"]
    places = {name: _axis_of(trials[name]) for name in names}
    heights = np.stack([place for place, _ in places.values()], axis=1)
    figure, axes = plt.subplots(figsize=(1.15 * len(names), 3.6))
    low, high = trials["val_uar"].min(), trials["val_uar"].max()
    colour_of = plt.cm.ScalarMappable(plt.Normalize(low, max(high, low + 1e-6)), "viridis_r")  # the best are dark
    for line, uar in sorted(zip(heights, trials["val_uar"], strict=True), key=lambda pair: pair[1]):
        axes.plot(line, color=colour_of.to_rgba(uar), linewidth=2.5 if uar == high else 0.9)
    for x, (_, labels) in enumerate(places.values()):
        axes.axvline(x, color="0.6", linewidth=0.8)
        for height, label in labels.items():
            box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
            axes.annotate(label, (x, height), (3, 0), textcoords="offset points", fontsize=7, va="center", bbox=box)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks([])
    axes.grid(False)
    figure.colorbar(colour_of, ax=axes, label="best UAR on validation")
    return figure


def _axis_of(values):
    """Heights in [0, 1] of the values of one setting, and what stands at which height."""
    if values.dtype == object or values.dtype == bool or not pd.api.types.is_numeric_dtype(values):
        kinds = sorted(set(values.astype(str)))
        height = dict(zip(kinds, np.linspace(0, 1, len(kinds)) if len(kinds) > 1 else [0.5], strict=True))
        return values.astype(str).map(height).to_numpy(), {place: kind for kind, place in height.items()}
    numbers = values.to_numpy(float)
    scaled = np.log10(numbers) if numbers.min() > 0 and numbers.max() > 50 * numbers.min() else numbers
    span = np.ptp(scaled)
    heights = (scaled - scaled.min()) / span if span else np.full(len(scaled), 0.5)
    return heights, {heights.min(): f"{numbers.min():.3g}", heights.max(): f"{numbers.max():.3g}"}


def _stretch(values, n):
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(values)), values)


def class_scores(table: pd.DataFrame) -> Figure:
    """Draw precision, recall and F1, in [0, 1], of every emotion.

    Parameters
    ----------
    table : indexed by emotion, columns precision, recall, f1
    """
    emotions = in_order(table.index)
    figure, axes = plt.subplots(figsize=(1.1 * len(emotions) + 1.5, 2.8))
    for shift, name in enumerate(("precision", "recall", "f1")):
        axes.bar(np.arange(len(emotions)) + 0.26 * (shift - 1), table.loc[emotions, name], 0.24, label=name)
    axes.set_xticks(range(len(emotions)), emotions, rotation=30, ha="right")
    axes.set(ylim=(0, 1), ylabel="score")
    axes.legend(ncols=3, fontsize=8)
    return figure
