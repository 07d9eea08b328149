"""Attribution maps beside what they explain, and the checks they went through."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ser_utils.explanation.attribution import BASELINES
from ser_utils.explanation.faithfulness import RULES
from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL, in_order, panels, show_log_mel

METHOD_COLOUR = {
    "gradient": "#56b4e9",
    "gradient_times_input": "#0072b2",
    "smooth_grad": "#009e73",
    "integrated_gradients": "#d55e00",
    "occlusion": "#882255",
    "grad_cam": "#e69f00",
    "attention": "#cc79a7",
    "prototypes": "#000000",
    "energy": "#999999",
    "random": "#cccccc",
}
VERDICT_COLOUR = {"trust": "#117733", "with care": "#e69f00", "not shown": "#bbbbbb", "do not trust": "#d55e00"}
PICTURE = {"origin": "lower", "aspect": "auto"}


def _line(method):
    """How a method is drawn: its colour, dashed where it knows nothing of the model, its name as a label."""
    style = "--" if method in BASELINES else "-"
    return {"color": METHOD_COLOUR[method], "linestyle": style, "label": method.replace("_", " ")}


def method_legend(figure: Figure, methods: Sequence[str]) -> None:
    """Put one legend below a figure for all of these methods."""
    lines = [plt.Line2D([], [], **_line(method)) for method in METHOD_COLOUR if method in set(methods)]
    figure.legend(handles=lines, loc="outside lower center", ncols=5, fontsize=8)


def maps_over(
    features: np.ndarray, maps: Mapping[str, np.ndarray], *, region: np.ndarray | None = None, hop_s: float = 0.016
) -> Figure:
    """Draw one input and the maps several methods drew of it.

    Parameters
    ----------
    features : (n_frames, n_bands) as the network saw it
    maps : method -> (n_frames, n_bands)
    region : bool (n_frames, n_bands), outlined where the truth is known
    hop_s : seconds a frame
    """
    figure, grid = panels(1 + len(maps), columns=5, width=2.6, height=2.4, sharex=True, sharey=True)
    extent = (0, len(features) * hop_s, 0, features.shape[1])
    grid[0].imshow(features.T, extent=extent, cmap=SEQUENTIAL, **PICTURE)
    for axes, values in zip(grid[1:], maps.values(), strict=True):
        top = np.quantile(np.abs(values), 0.995) or 1
        axes.imshow(np.abs(values.T) / top, extent=extent, cmap="viridis", vmax=1, **PICTURE)
    for axes, name in zip(grid, ["input", *maps], strict=True):
        if region is not None:
            outline = np.linspace(0, extent[1], region.shape[0]), np.linspace(0, extent[3], region.shape[1])
            axes.contour(*outline, region.T.astype(float), levels=[0.5], colors="white", linewidths=1.2)
        axes.set(title=name.replace("_", " "), xlabel="time (s)")
        axes.grid(False)
    grid[0].set_ylabel("feature (mel band or coefficient)")
    return figure


def class_means(maps: Mapping[str, Mapping[str, np.ndarray]], *, row_labels: Mapping[str, str] | None = None) -> Figure:
    """Draw the mean attribution of each class, one row of panels per feature type, on one scale a row.

    Parameters
    ----------
    maps : feature type -> emotion -> (n_frames, n_features), signed, time in shares of the clip
    row_labels : feature type -> label of its vertical axis
    """
    emotions = in_order(emotion for row in maps.values() for emotion in row)
    size = (1.7 * len(emotions) + 1.2, 2.0 * len(maps) + 0.5)
    figure, grid = plt.subplots(len(maps), len(emotions), figsize=size, squeeze=False, sharex=True)
    for row, (kind, means) in zip(grid, maps.items(), strict=True):
        limit = max(np.quantile(np.abs(values), 0.995) for values in means.values()) or 1
        colours = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
        for axes, emotion in zip(row, emotions, strict=True):
            axes.grid(False)
            axes.set_yticks([])
            if emotion in means:
                extent = (0, 100, 0, means[emotion].shape[1])
                image = axes.imshow(means[emotion].T, extent=extent, **colours, **PICTURE)
        row[0].set_ylabel(f"{kind}\n{(row_labels or {}).get(kind, '')}")
        figure.colorbar(image, ax=list(row), label="log-odds added", shrink=0.8)
    for axes, emotion in zip(grid[0], emotions, strict=True):
        axes.set_title(emotion, color=EMOTION_COLOUR[emotion])
    for axes in grid[-1]:
        axes.set_xlabel("time (% of clip)")
    return figure


def bands_by_class(profiles: Mapping[str, Mapping[str, np.ndarray]], *, labels: Mapping[str, str]) -> Figure:
    """Draw how the attribution of each class is spread over features, one panel per feature type.

    Parameters
    ----------
    profiles : feature type -> emotion -> (n_features,), at least 0
    labels : feature type -> label of its axis
    """
    figure, grid = panels(len(profiles), columns=3, width=4.2, height=2.6, sharey=True)
    for axes, (kind, means) in zip(grid, profiles.items(), strict=True):
        for emotion, values in means.items():
            share = 100 * values / values.sum()
            axes.plot(share, color=EMOTION_COLOUR[emotion], label=emotion, linewidth=1.2)
        axes.set(title=kind, xlabel=labels[kind])
    grid[0].set_ylabel("share of the attribution (%)")
    grid[-1].legend(fontsize=7, ncols=2)
    return figure


def part_and_rest_levels(levels: Mapping[str, np.ndarray], sample_rate: int, *, hop_length: int) -> Figure:
    """Draw log-mel spectrograms of a recording, of the part a model relied on, and of the rest.

    levels : title -> (n_mels, n_frames) in dB, on one scale
    """
    figure, grid = panels(len(levels), columns=3, width=3.6, height=2.6, sharey=True)
    for axes, (title, level) in zip(grid, levels.items(), strict=True):
        image = show_log_mel(axes, level, sample_rate, hop_length=hop_length, vmin=-70, vmax=0)
        axes.set_title(title)
    figure.colorbar(image, ax=grid, label="dB")
    return figure


def over_time(
    recording: np.ndarray, curves: Mapping[str, Mapping[str, np.ndarray]], *, seconds: float, title: str = ""
) -> Figure:
    """Draw what several methods say of each moment under the recording they speak of, one panel per network.

    Parameters
    ----------
    recording : (n_mels, n_frames) in dB, or samples (n_samples,)
    curves : network -> method -> (n_steps,)
    seconds : length of the recording
    """
    figure, grid = plt.subplots(1 + len(curves), 1, figsize=(8, 1.5 + 1.5 * len(curves)), sharex=True)
    if recording.ndim == 1:
        grid[0].plot(np.linspace(0, seconds, len(recording)), recording, color="0.4", linewidth=0.4)
        grid[0].set_ylabel("amplitude")
    else:
        grid[0].imshow(recording, extent=(0, seconds, 0, len(recording)), cmap=SEQUENTIAL, vmin=-70, **PICTURE)
        grid[0].set(ylabel="mel band")
        grid[0].grid(False)
    grid[0].set_title(title)
    for axes, (network, methods) in zip(grid[1:], curves.items(), strict=True):
        for method, values in methods.items():
            edges = np.linspace(0, seconds, len(values) + 1)
            share = values / max(np.abs(values).max(), 1e-12)
            axes.stairs(share, edges, baseline=None, label=method.replace("_", " "), linewidth=1.2)
        axes.axhline(0, color="0.6", linewidth=0.6)
        axes.set_title(network, loc="left", fontsize=8)
        axes.set_ylabel("share of its largest", fontsize=7)
    grid[1].legend(fontsize=7, ncols=5, loc="lower right", bbox_to_anchor=(1, 1))
    grid[-1].set_xlabel("time (s)")
    return figure


def neighbours(
    prototypes: np.ndarray, segments: np.ndarray, titles: Sequence[str], sample_rate: int, *, columns: int = 10
) -> Figure:
    """Draw prototypes above the real segments nearest to them, both dB (n, n_mels, n_frames)."""
    n = min(len(titles), columns)
    figure, grid = plt.subplots(2, n, figsize=(1.25 * n + 0.8, 4), sharex=True, sharey=True, squeeze=False)
    for number in range(n):
        for axes, log_mel in zip(grid[:, number], (prototypes[number], segments[number]), strict=True):
            image = show_log_mel(axes, log_mel, sample_rate, vmin=-60, vmax=0)
            axes.set(xlabel="", ylabel="")
        grid[0][number].set_title(titles[number], fontsize=8)
    for axes, name in zip(grid[:, 0], ("prototype", "nearest real"), strict=True):
        axes.set_ylabel(f"{name}\nkHz (mel)")
    figure.supxlabel("time (s)", fontsize=9)
    figure.colorbar(image, ax=grid, label="dB", shrink=0.7)
    return figure


def prototype_removal(curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], *, chance: float) -> Figure:
    """Draw UAR as prototypes go, one panel per model.

    curves : model -> order -> (shares, scores), scores (steps + 1,) or several draws (n, steps + 1)
    """
    figure, grid = panels(len(curves), columns=3, width=3.6, height=2.6, sharey=True)
    for axes, (model, orders) in zip(grid, curves.items(), strict=True):
        for order, (shares, scores) in orders.items():
            draws = np.atleast_2d(scores)
            (line,) = axes.plot(100 * shares, draws.mean(axis=0), label=order, linewidth=1.4)
            if len(draws) > 1:
                low, high = np.quantile(draws, [0.05, 0.95], axis=0)
                axes.fill_between(100 * shares, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.axhline(chance, color="0.5", linestyle=":", linewidth=1)
        axes.set(title=model.replace("_", " "), xlabel="prototypes removed (%)")
    grid[0].set_ylabel("UAR, held-out segments")
    grid[-1].legend(fontsize=7)
    return figure


def moments_beside_prototypes(
    log_mel: np.ndarray,
    support: np.ndarray,
    moments: pd.DataFrame,
    prototypes: np.ndarray,
    segments: np.ndarray,
    sample_rate: int,
    *,
    hop_s: float,
    segment_s: float,
    title: str = "",
) -> Figure:
    """Draw one utterance as "this 100 ms sounds like that prototype".

    Parameters
    ----------
    log_mel : dB (n_mels, n_frames) of the utterance
    support : (n_segments,), what speaks for the class in each
    moments : a row per moment with `segment` and the `emotion` of its prototype
    prototypes, segments : dB (n, n_mels, n_frames) of these rows
    hop_s, segment_s : s from one segment to the next, and of one
    """
    figure = plt.figure(figsize=(9, 5.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=(3, 2.4))
    image_axes, axes = top.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    seconds = hop_s * (len(support) - 1) + segment_s
    image_axes.imshow(log_mel, cmap=SEQUENTIAL, vmin=-70, extent=(0, seconds, 0, len(log_mel)), **PICTURE)
    image_axes.set_title(title, pad=14)
    image_axes.set_ylabel("mel band")
    image_axes.grid(False)
    axes.plot(hop_s * np.arange(len(support)) + segment_s / 2, support, color="0.3", linewidth=1)
    axes.axhline(0, color="0.6", linewidth=0.6)
    axes.set(xlabel="time (s)", ylabel="support")
    grid = bottom.subplots(1, 2 * len(moments), sharey=True)
    for number, row in enumerate(moments.itertuples()):
        colour, begin = EMOTION_COLOUR[row.emotion], hop_s * row.segment
        for marked in (image_axes, axes):
            marked.axvspan(begin, begin + segment_s, facecolor="none", edgecolor=colour, linewidth=1.6)
        middle, above = begin + segment_s / 2, 1.01 * len(log_mel)
        image_axes.text(middle, above, str(number + 1), ha="center", color=colour)
        pictures = {f"{number + 1}: this": segments[number], f"that: {row.emotion}": prototypes[number]}
        for small, (name, picture) in zip(grid[2 * number :], pictures.items(), strict=False):
            show_log_mel(small, picture, sample_rate, vmin=-60, vmax=0)
            small.set(ylabel="", xlabel="")
            small.set_title(name, fontsize=8, color=colour)
    grid[0].set_ylabel("kHz (mel)")
    bottom.supxlabel("time (s)", fontsize=9)
    return figure


def score_bars(
    table: pd.DataFrame, value: str, low: str, high: str, *, chance: float | None = None, label: str = ""
) -> Figure:
    """Draw one bar per method (the table's index) with its interval, and a line where chance is."""
    ordered = table.sort_values(value)
    figure, axes = plt.subplots(figsize=(5.5, 0.36 * len(ordered) + 1))
    spread = np.abs(ordered[[low, high]].to_numpy() - ordered[[value]].to_numpy()).T
    axes.barh(ordered.index, ordered[value], xerr=spread, color="#56b4e9", error_kw={"linewidth": 1})
    if chance is not None:
        axes.axvline(chance, color="0.3", linestyle="--", linewidth=1)
        axes.text(chance, len(ordered) - 0.4, " chance", fontsize=8)
    axes.set(xlabel=label or value)
    return figure


def removal_curves(rows: pd.DataFrame, kind: str) -> Figure:
    """Draw the mean score as points are removed, or put in, one panel per model and one line per method.

    Parameters
    ----------
    rows : as `faithfulness.removals_of` gives them, of one fill
    kind : "deletion" or "insertion"
    """
    models = list(dict.fromkeys(rows["model"]))
    figure, grid = panels(len(models), columns=4, width=3.1, height=2.5)
    for axes, model in zip(grid, models, strict=True):
        for method, curves in rows[rows["model"] == model].groupby("method", sort=False)[f"{kind}_curve"]:
            mean = np.mean(list(curves), axis=0)
            axes.plot(np.linspace(0, 100, len(mean)), mean, **_line(method), linewidth=1.3)
        axes.set(title=model, xlabel=f"points {'removed' if kind == 'deletion' else 'put in'} (%)")
    grid[0].set_ylabel("score (log-odds)")
    method_legend(figure, rows["method"])
    return figure


def cascade(likeness: pd.DataFrame, *, value: str = "spearman") -> Figure:
    """Draw the likeness of maps to the trained model's as layers lose their weights, a panel per model and way.

    Parameters
    ----------
    likeness : `model, way, name` (of the layer, from the left)`, method` and `value`
    value : "spearman" or "ssim"
    """
    groups = list(likeness.groupby(["model", "way"], sort=False))
    figure, grid = panels(len(groups), columns=4, width=3.2, height=2.7, sharey=True)
    for axes, ((model, way), rows) in zip(grid, groups, strict=True):
        names = list(dict.fromkeys(rows["name"]))
        wide = rows.pivot_table(index="name", columns="method", values=value, sort=False).loc[names]
        for method in wide.columns:
            axes.plot(wide[method].to_numpy(), marker="o", markersize=3, linewidth=1.2, **_line(method))
        axes.axhline(0, color="0.6", linewidth=0.6)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=7)
        axes.set_title(f"{model}, {way}", fontsize=8)
    grid[0].set_ylim(min(likeness[value].min(), 0) - 0.05, 1.05)
    grid[0].set_ylabel("rank correlation" if value == "spearman" else value.upper())
    method_legend(figure, likeness["method"])
    return figure


def verdict_table(verdicts: pd.DataFrame) -> Figure:
    """Draw every method on every model: its verdict as a colour, and how many of all checks it passes.

    verdicts : as `faithfulness.verdicts` gives them, indexed by model and method
    """
    models, methods = (list(dict.fromkeys(verdicts.index.get_level_values(level))) for level in (0, 1))
    figure, axes = plt.subplots(figsize=(1.5 * len(models) + 2.2, 0.36 * len(methods) + 1.5))
    passed = verdicts[RULES["check"]].eq(True).sum(axis=1)
    for (model, method), verdict in verdicts["verdict"].items():
        x, y = models.index(model), methods.index(method)
        axes.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, color=VERDICT_COLOUR[verdict], alpha=0.75))
        text = f"{verdict}\n{passed[model, method]} of {len(RULES)}"
        axes.text(x, y, text, ha="center", va="center", fontsize=6.5)
    axes.set(xlim=(-0.5, len(models) - 0.5), ylim=(len(methods) - 0.5, -0.5))
    axes.set_xticks(range(len(models)), models, rotation=25, ha="right")
    axes.set_yticks(range(len(methods)), [method.replace("_", " ") for method in methods])
    axes.grid(False)
    return figure
