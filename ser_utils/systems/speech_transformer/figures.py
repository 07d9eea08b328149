"""Speech encoders, drawn: what their layers and dimensions know of emotions, what was mixed, what was frozen."""

import matplotlib.pyplot as plt
import numpy as np

from ser_utils.figures.style import DIVERGING, colours, in_order


def stamp(figure, note):
    """Write `note` across the foot of a figure, where there is one: what was never trained is not to be read."""
    if note:
        figure.supxlabel(note, fontsize=9, color="#d55e00", weight="bold")
    return figure


def layer_heat_map(shares):
    """Which emotions stand out in which hidden state.

    shares : dict encoder -> float (n_states, n_emotions) with an `emotions` list beside, see `standing_out`
    Returns a Figure: one panel an encoder, hidden states upwards, embeddings lowest.
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


def dimension_heat_map(z, emotions, *, title, most=40):
    """Mean of each emotion in the dimensions that tell emotions apart most.

    z : float (n_utterances, n), z-scores of one hidden state; emotions : (n_utterances,)
    most : dimensions shown, ordered by the emotion in which they are highest
    Returns a Figure.
    """
    present = in_order(emotions)
    means = np.stack([z[np.asarray(emotions) == one].mean(axis=0) for one in present])
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


def dimension_boxes(z, emotions, dimensions, *, title):
    """How single dimensions are spread over the clips of each emotion.

    z : float (n_utterances, n), z-scores of one hidden state; dimensions : which of them, one panel each
    Returns a Figure.
    """
    present, emotions = in_order(emotions), np.asarray(emotions)
    figure, grid = plt.subplots(
        1, len(dimensions), figsize=(3 * len(dimensions), 3), sharey=True, squeeze=False
    )
    for axes, dimension in zip(grid[0], dimensions, strict=True):
        groups = [z[emotions == one, dimension] for one in present]
        boxes = axes.boxplot(groups, patch_artist=True, widths=0.65, medianprops={"color": "black"})
        for box, colour in zip(boxes["boxes"], colours(present), strict=True):
            box.set_facecolor(colour)
        axes.set_xticks(range(1, len(present) + 1), present, rotation=60, ha="right")
        axes.set(title=f"dimension {dimension}")
    grid[0, 0].set_ylabel("z-score within speaker")
    figure.suptitle(title)
    return figure


def probing_curve(probed, *, chance):
    """UAR of a linear classifier on each hidden state.

    probed : dict encoder -> table `layer, uar, low, high`, see `embeddings.probe_layers`
    Returns a Figure.
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


def layer_mixtures(mixtures):
    """The weights a head learned for each hidden state.

    mixtures : dict encoder -> float (n_folds, n_states); bars are the mean, dots the folds
    Returns a Figure.
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


def frozen_and_tuned(changes):
    """How far training moved each part of an encoder, beside the learning rate it had.

    changes : dict encoder -> table `part, learning_rate, largest_change`, see `embedding_heads.changes_by_part`
    Returns a Figure: one panel an encoder, parts upwards as sound meets them; frozen ones have no bar.
    """
    tallest = max(map(len, changes.values()))
    figure, grid = plt.subplots(
        1, len(changes), figsize=(4.8 * len(changes), 0.22 * tallest + 1.4), squeeze=False
    )
    for axes, (name, table) in zip(grid[0], changes.items(), strict=True):
        axes.barh(table["part"].str.removeprefix("encoder."), table["largest_change"], color="#0072b2")
        for place, row in enumerate(table.itertuples()):
            label = f" rate {row.learning_rate:.1e}" if row.learning_rate else " frozen"
            axes.text(row.largest_change, place, label, va="center", fontsize=7)
        axes.set(
            title=name, xlabel="largest change of a weight", xlim=(0, 1.4 * table["largest_change"].max())
        )
        axes.tick_params(axis="y", labelsize=7)
    return figure
