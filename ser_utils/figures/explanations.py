"""Attribution maps beside what they explain, and the checks they went through."""

import matplotlib.pyplot as plt
import numpy as np

from ser_utils.figures.style import SEQUENTIAL


def maps_over(features, maps, *, region=None, titles=None, hop_s=0.016):
    """One input and the maps several methods drew of it.

    features : (n_frames, n_bands) as the network saw it; maps : dict method -> (n_frames, n_bands)
    region : bool (n_frames, n_bands), outlined where the truth is known; hop_s : seconds a frame. Returns a Figure.
    """
    panels = {"input": features, **maps}
    figure, grid = plt.subplots(1, len(panels), figsize=(2.3 * len(panels), 2.6), sharex=True, sharey=True)
    extent = (0, len(features) * hop_s, 0, features.shape[1])
    for axes, (name, values) in zip(grid, panels.items(), strict=True):
        if name == "input":
            axes.imshow(values.T, origin="lower", aspect="auto", extent=extent, cmap=SEQUENTIAL)
        else:
            top = np.quantile(np.abs(values), 0.995) or 1
            axes.imshow(
                np.abs(values.T) / top, origin="lower", aspect="auto", extent=extent, cmap="viridis", vmax=1
            )
        if region is not None:
            outline = np.linspace(0, extent[1], region.shape[0]), np.linspace(0, extent[3], region.shape[1])
            axes.contour(*outline, region.T.astype(float), levels=[0.5], colors="white", linewidths=1.2)
        axes.set(title=(titles or {}).get(name, name.replace("_", " ")), xlabel="time (s)")
        axes.grid(False)
    grid[0].set_ylabel("feature (mel band or coefficient)")
    return figure


def mean_maps(mean_of_class, *, hop_s, label="feature"):
    """Mean absolute attribution of each class over features, as curves: where does a model look?

    mean_of_class : dict emotion -> (n_features,). Returns a Figure.
    """
    from ser_utils.figures.style import EMOTION_COLOUR

    figure, axes = plt.subplots(figsize=(6, 3))
    for emotion, values in mean_of_class.items():
        axes.plot(values / values.sum(), color=EMOTION_COLOUR[emotion], label=emotion, linewidth=1.2)
    axes.set(xlabel=label, ylabel="share of the attribution")
    axes.legend(fontsize=7, ncols=2)
    return figure


def score_bars(table, value, low, high, *, chance=None, label=""):
    """One bar per method with its interval; a line where chance is.

    table : indexed by method, with columns value, low, high. Returns a Figure.
    """
    ordered = table.sort_values(value)
    figure, axes = plt.subplots(figsize=(5.5, 0.36 * len(ordered) + 1))
    spread = np.abs(ordered[[low, high]].to_numpy() - ordered[[value]].to_numpy()).T
    axes.barh(ordered.index, ordered[value], xerr=spread, color="#56b4e9", error_kw={"linewidth": 1})
    if chance is not None:
        axes.axvline(chance, color="0.3", linestyle="--", linewidth=1)
        axes.text(chance, len(ordered) - 0.4, " chance", fontsize=8)
    axes.set(xlabel=label or value)
    return figure


def removal_curves(curves, *, label="score (log-odds)"):
    """Mean score as points are removed, one line per method.

    curves : dict method -> (shares, scores). Returns a Figure.
    """
    figure, axes = plt.subplots(figsize=(5, 3.2))
    for name, (shares, scores) in curves.items():
        dashed = "--" if name in ("random", "energy") else "-"
        axes.plot(100 * np.asarray(shares), scores, dashed, label=name.replace("_", " "), linewidth=1.3)
    axes.set(xlabel="points removed (%)", ylabel=label)
    axes.legend(fontsize=7)
    return figure


def cascade(similarity):
    """Likeness of a map to the trained model's as layers lose their weights, from the output down.

    similarity : DataFrame, one row per number of layers randomised, one column per method. Returns a Figure.
    """
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for method in similarity.columns:
        axes.plot(
            np.arange(len(similarity)),
            similarity[method],
            marker="o",
            markersize=3,
            label=method.replace("_", " "),
        )
    axes.set_xticks(range(len(similarity)), similarity.index, rotation=40, ha="right", fontsize=7)
    axes.set(
        ylabel="rank correlation with the trained model's map", xlabel="randomised down to", ylim=(-0.2, 1.05)
    )
    axes.legend(fontsize=7)
    return figure
