"""Any network, drawn: its architecture, its learning, its confusions."""

from collections.abc import Mapping, Sequence

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix as count_confusions

from ser_utils.corpora import emotions_in_order

COLUMN = 3.6  # inches


def architecture(*models: keras.Model, names: Sequence[str] | None = None) -> Figure:
    """Draw models as columns of blocks, from the Keras objects themselves.

    Parameters
    ----------
    models : built; each layer becomes a block with its output shape and number of weights
    names : one heading per model; None takes their own names
    """
    names = names or [model.name for model in models]
    columns = [[layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)] for model in models]
    tallest = max(map(len, columns))
    figure, axes = plt.subplots(figsize=(COLUMN * len(models), 0.55 * (tallest + 2)))
    for number, (model, layers, name) in enumerate(zip(models, columns, names, strict=True)):
        x = number * COLUMN
        axes.text(x + 1.5, 1.1, name, ha="center", weight="bold")
        axes.text(x + 1.5, 0.72, f"input {_shape(model.input_shape)}", ha="center", fontsize=8)
        for depth, layer in enumerate(layers):
            _draw_block(axes, x, -depth, layer)
            if depth:
                ends = (x + 1.5, -depth + 0.56), (x + 1.5, -depth + 0.74)
                axes.annotate("", *ends, arrowprops={"arrowstyle": "->"})
        weights = f"{model.count_params():,} weights"
        axes.text(x + 1.5, -len(layers) + 0.35, weights, ha="center", fontsize=8, style="italic")
    axes.set(xlim=(-0.1, COLUMN * len(models) - 0.4), ylim=(-tallest + 0.1, 1.5))
    axes.axis("off")
    return figure


def _draw_block(axes, x, y, layer):
    colour = plt.cm.Pastel2(sum(map(ord, type(layer).__name__)) % 8)
    axes.add_patch(plt.Rectangle((x, y - 0.02), 3, 0.58, facecolor=colour, edgecolor="0.4", linewidth=0.7))
    axes.text(x + 1.5, y + 0.35, _label(layer), ha="center", va="center", fontsize=8)
    shape = getattr(getattr(layer, "output", None), "shape", None) if layer._inbound_nodes else None
    note = (f"{_shape(shape)}   " if shape else "") + f"{layer.count_params():,} weights"
    axes.text(x + 1.5, y + 0.12, note, ha="center", va="center", fontsize=7, color="0.3")


def _label(layer):
    settings = layer.get_config()
    words = [type(layer).__name__]
    for key, mark in (("filters", ""), ("units", ""), ("kernel_size", ""), ("strides", "/"), ("rate", "p=")):
        value = settings.get(key)
        if value is None or (key == "strides" and np.all(np.asarray(value) == 1)):
            continue
        words.append(mark + ("×".join(map(str, value)) if isinstance(value, list | tuple) else str(value)))
    activation = settings.get("activation")
    return " ".join(words + ([activation] if isinstance(activation, str) and activation != "linear" else []))


def _shape(shape):
    if isinstance(shape, list | dict) or (shape and isinstance(shape[0], tuple | list)):
        return "several"
    return " × ".join("?" if size is None else str(size) for size in tuple(shape)[1:])


def learning_curves(
    histories: Mapping[str, pd.DataFrame], *, values: Sequence[str] = ("loss",), kept: Mapping[str, int] | None = None
) -> Figure:
    """Draw curves over epochs: training thin; validation, or what is watched in its place, thick.

    Parameters
    ----------
    histories : name → table as `training.fit_or_load` returns it; a column `epoch` numbers epochs where some are left out
    values : column names, one panel each; `val_<name>` is drawn where it exists
    kept : name → epoch whose weights were kept, marked by a dot
    """
    figure, grid = plt.subplots(1, len(values), figsize=(4.2 * len(values), 3), squeeze=False)
    for axes, value in zip(grid[0], values, strict=True):
        for number, (name, history) in enumerate(histories.items()):
            epochs, colour = history.get("epoch", np.arange(1, len(history) + 1)), f"C{number % 10}"
            axes.plot(epochs, history[value], color=colour, linewidth=0.8, alpha=0.6)
            watched = history[f"val_{value}" if f"val_{value}" in history else value]
            axes.plot(epochs, watched, color=colour, linewidth=1.8, label=str(name))
            if kept and name in kept:
                axes.plot(kept[name], watched.iloc[kept[name] - 1], "o", color=colour)
        axes.set(xlabel="epoch", ylabel="UAR" if value == "uar" else value.replace("_", " "))
    title = {"title": "thin: training\nthick: watched", "title_fontsize": 7}
    grid[0][-1].legend(fontsize=8, **title, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def confusion_matrix(truth: Sequence[str], prediction: Sequence[str], *, title: str = "") -> Figure:
    """Draw a confusion matrix: rows are the truth, each summing to 100 %; counts in small print.

    Parameters
    ----------
    truth, prediction : emotions (n,)
    """
    names = emotions_in_order([*truth, *prediction])
    counts = count_confusions(truth, prediction, labels=names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 0.62 * len(names) + 1.8
    figure, axes = plt.subplots(figsize=(size, size - 0.4))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if share[row, column] > 0.55 else "0.2"
        text = f"{100 * share[row, column]:.0f} %\n{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    return figure
