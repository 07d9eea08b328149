"""Speech encoders, drawn: what their layers and dimensions know of emotions, what was mixed, what was frozen."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ser_utils.figures.style import DIVERGING, colours, in_order


def stamp(figure: Figure, note: str) -> Figure:
    """Write `note`, if there is one, across the foot of a figure that is not to be read as a result."""
    if note:
        figure.supxlabel(note, fontsize=9, color="#d55e00", weight="bold")
    return figure


def layer_heat_map(shares: dict[str, tuple[np.ndarray, list[str]]]) -> Figure:
    """Draw which emotions stand out in which hidden state, one panel per encoder, embeddings lowest.

    Parameters
    ----------
    shares : encoder -> float (n_states, n_emotions) and the emotions, as `standing_out` gives them
    """
    figure, grid = plt.subplots(1, len(shares), figsize=(4.4 * len(shares), 3.6), squeeze=False)
    highest = max(values.max() for values, _ in shares.values())
    for axes, (name, (values, emotions)) in zip(grid[0], shares.items(), strict=True):
        image = axes.imshow(values, origin="lower", aspect="auto", vmin=0, vmax=highest)
        axes.set_xticks(range(len(emotions)), emotions, rotation=45, ha="right")
        axes.set(title=name, ylabel="hidden state")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(False)
    figure.colorbar(image, ax=grid[0].tolist(), label="share of variance explained")
    return figure


def dimension_heat_map(z: np.ndarray, emotions: Sequence[str], *, title: str, most: int = 40) -> Figure:
    """Draw the mean of each emotion in the dimensions that tell emotions apart most.

    Parameters
    ----------
    z : float (n_utterances, n), z-scores of one hidden state
    emotions : (n_utterances,)
    most : how many dimensions are shown, ordered by the emotion in which they are highest
    """
    present = in_order(emotions)
    means = np.stack([z[np.asarray(emotions) == emotion].mean(axis=0) for emotion in present])
    chosen = np.argsort(-means.std(axis=0))[:most]
    chosen = chosen[np.argsort(means[:, chosen].argmax(axis=0), kind="stable")]
    limit = np.abs(means[:, chosen]).max()
    figure, axes = plt.subplots(figsize=(9, 0.35 * len(present) + 1.4))
    image = axes.imshow(means[:, chosen], aspect="auto", cmap=DIVERGING, vmin=-limit, vmax=limit)
    axes.set_yticks(range(len(present)), present)
    axes.set_xticks(range(len(chosen)), chosen, rotation=90, fontsize=6)
    axes.set(title=title, xlabel="dimension")
    axes.grid(False)
    figure.colorbar(image, ax=axes, label="mean (standard deviations)")
    return figure


def dimension_boxes(z: np.ndarray, emotions: Sequence[str], dimensions: Sequence[int], *, title: str) -> Figure:
    """Draw how single dimensions are spread over the clips of each emotion.

    Parameters
    ----------
    z : float (n_utterances, n), z-scores of one hidden state
    dimensions : which of them, one panel each
    """
    present, emotions = in_order(emotions), np.asarray(emotions)
    size = (3 * len(dimensions), 3)
    figure, grid = plt.subplots(1, len(dimensions), figsize=size, sharey=True, squeeze=False)
    for axes, dimension in zip(grid[0], dimensions, strict=True):
        groups = [z[emotions == emotion, dimension] for emotion in present]
        boxes = axes.boxplot(groups, patch_artist=True, widths=0.65, medianprops={"color": "black"})
        for box, colour in zip(boxes["boxes"], colours(present), strict=True):
            box.set_facecolor(colour)
        axes.set_xticks(range(1, len(present) + 1), present, rotation=60, ha="right")
        axes.set(title=f"dimension {dimension}")
    grid[0, 0].set_ylabel("z-score within speaker")
    figure.suptitle(title)
    return figure


def probing_curve(probed: dict[str, pd.DataFrame], *, chance: float) -> Figure:
    """Draw the UAR of a linear classifier on each hidden state.

    Parameters
    ----------
    probed : encoder -> table layer, uar, low, high, as `embeddings.probe_layers` gives it
    """
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for name, table in probed.items():
        (line,) = axes.plot(table["layer"], table["uar"], marker="o", label=name)
        axes.fill_between(table["layer"], table["low"], table["high"], color=line.get_color(), alpha=0.15)
    axes.axhline(chance, color="0.5", linestyle=":", label="chance")
    axes.set(xlabel="hidden state (0: embeddings)", ylabel="UAR", ylim=(0, 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)
    return figure


def layer_mixtures(mixtures: dict[str, np.ndarray]) -> Figure:
    """Draw the weights a head learned for each hidden state: bars are the mean, dots the folds.

    Parameters
    ----------
    mixtures : encoder -> float (n_folds, n_states)
    """
    figure, grid = plt.subplots(1, len(mixtures), figsize=(4.2 * len(mixtures), 2.8), squeeze=False)
    for axes, (name, weights) in zip(grid[0], mixtures.items(), strict=True):
        weights = np.asarray(weights)
        states = np.arange(weights.shape[1])
        axes.bar(states, weights.mean(axis=0), color="0.75")
        axes.plot(np.tile(states, (len(weights), 1)).T, weights.T, ".", color="0.2", markersize=4)
        axes.axhline(1 / len(states), color="0.5", linestyle=":", linewidth=1)
        axes.set(title=name, xlabel="hidden state", ylabel="weight")
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def frozen_and_tuned(changes: dict[str, pd.DataFrame]) -> Figure:
    """Draw how far training moved each part of an encoder, beside the learning rate it had.

    One panel per encoder, parts upwards as sound meets them; frozen ones have no bar.

    Parameters
    ----------
    changes : encoder -> table part, learning_rate, largest_change, as `heads.changes_by_part` gives it
    """
    tallest = max(map(len, changes.values()))
    size = (4.8 * len(changes), 0.22 * tallest + 1.4)
    figure, grid = plt.subplots(1, len(changes), figsize=size, squeeze=False)
    for axes, (name, table) in zip(grid[0], changes.items(), strict=True):
        axes.barh(table["part"].str.removeprefix("encoder."), table["largest_change"], color="#0072b2")
        for place, row in enumerate(table.itertuples()):
            label = f" rate {row.learning_rate:.1e}" if row.learning_rate else " frozen"
            axes.text(row.largest_change, place, label, va="center", fontsize=7)
        right = 1.4 * table["largest_change"].max()
        axes.set(title=name, xlabel="largest change of a weight", xlim=(0, right))
        axes.tick_params(axis="y", labelsize=7)
    return figure
