"""Systems side by side: intervals, falls, calibration, noise, who fails together."""

import itertools
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ser_utils.evaluation.across import NORMALISED
from ser_utils.evaluation.metrics import reliability
from ser_utils.evaluation.results import NAME, conditions, label_of
from ser_utils.evaluation.splits import PROTOCOLS
from ser_utils.figures.style import DIVERGING, SEQUENTIAL, panels
from ser_utils.profiles import systems

COLOURS = [*plt.get_cmap("tab10").colors, *plt.get_cmap("tab20b").colors]  # more than there are systems
SYSTEM_COLOUR = dict(zip(systems(), COLOURS, strict=False))


def leaderboard(scores: pd.DataFrame, speakers: pd.DataFrame, *, chance: float | None = None) -> Figure:
    """Draw UAR with its 95 % interval, one panel per protocol, the best of the strictest protocol on top.

    Models that know unlabelled clips of the tested speakers have a panel of their own.

    Parameters
    ----------
    scores : rows of one level; a row without an interval (few speakers) gets a tick for each speaker
    speakers : as `results.score_speakers` gives it
    chance : UAR of guessing, drawn as a line
    """
    rows = scores.sort_values("n_utterances").drop_duplicates(NAME[:3], keep="last")
    rows = rows.assign(label=[label_of(row) for row in rows.itertuples()], condition=conditions(rows))
    order = rows.assign(rank=rows["protocol"].map(PROTOCOLS.index)).sort_values(["rank", "uar"])
    labels = list(order.drop_duplicates("label", keep="last")["label"])
    own_values = dict(list(speakers.groupby(NAME)["uar"]))
    there = sorted(set(rows["condition"]), key=lambda name: (PROTOCOLS.index(name.split(",")[0]), name))
    figure, axes_of = _rows_by_protocol(labels, there)
    for condition, axes in axes_of.items():
        for row in rows[rows["condition"] == condition].itertuples():
            colour, height = SYSTEM_COLOUR[row.system], labels.index(row.label)
            axes.plot([row.uar_low, row.uar_high], [height] * 2, color=colour, linewidth=1.6)
            few = np.isnan(row.uar_low)
            if few:
                values = own_values.get((row.system, row.model, row.protocol, row.folds), [])
                axes.plot(values, [height] * len(values), "|", color=colour, markersize=6)
            face = "white" if few else colour
            axes.plot(row.uar, height, "o", color=colour, markersize=5, markerfacecolor=face)
        if chance is not None:
            axes.axvline(chance, color="0.5", linestyle=":", linewidth=1)
        axes.set(xlim=(0, 1), xlabel="UAR", title=condition)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    return figure


def _rows_by_protocol(labels, protocols):
    """A figure with a panel per protocol whose rows are labelled: (figure, {protocol: axes})."""
    size = (1.6 + 2.6 * len(protocols), 0.8 + 0.26 * len(labels))
    figure, grid = plt.subplots(1, len(protocols), figsize=size, sharex=True, sharey=True, squeeze=False)
    grid[0][0].set_yticks(range(len(labels)), labels)
    grid[0][0].set_ylim(-0.6, len(labels) - 0.4)
    return figure, dict(zip(protocols, grid[0], strict=True))


def falls(table: pd.DataFrame) -> Figure:
    """Draw how much UAR each model loses from a protocol to its strictest one, on the same clips.

    A model that was not run under the strictest protocol of all says in its label which one it ends at.

    Parameters
    ----------
    table : as `results.measure_falls` gives it; a row without an interval (few speakers) is hollow
    """
    strictest = table["strictest"].mode()[0]
    ends = table["strictest"].map(lambda name: "" if name == strictest else f" (to {name})")
    table = table.assign(label=[label_of(row) for row in table.itertuples()] + ends)
    of_paper = table[table["protocol"] == table["protocol"].iloc[0]].sort_values("difference")
    labels = list(dict.fromkeys([*of_paper["label"], *table["label"]]))
    figure, axes_of = _rows_by_protocol(labels, [p for p in PROTOCOLS if p in set(table["protocol"])])
    for protocol, axes in axes_of.items():
        axes.axvline(0, color="0.5", linewidth=1)
        for row in table[table["protocol"] == protocol].itertuples():
            colour, height = SYSTEM_COLOUR[row.system], labels.index(row.label)
            axes.plot([row.low, row.high], [height] * 2, color=colour, linewidth=1.6)
            face = "white" if np.isnan(row.low) else colour
            axes.plot(row.difference, height, "o", color=colour, markersize=5, markerfacecolor=face)
        axes.set(xlabel="UAR lost", title=f"from {protocol} to {strictest}")
    return figure


def known_clips(curve: pd.DataFrame) -> Figure:
    """Draw UAR against the number of unlabelled clips known of a new speaker.

    Parameters
    ----------
    curve : as `known_clips.adaptation_curve` gives it; bands and bars are 95 % intervals over speakers and draws
    """
    numbers = sorted(set(curve["n_known"]))
    figure, axes = plt.subplots(figsize=(5.2, 3.4))
    styles = {"random": ("o", "C0"), "neutral": ("s", "C7"), "neutral_told": ("s", "C2"), "lopsided": ("v", "C3")}
    styles["all"] = ("D", "C0")
    for known, rows in curve.groupby("known"):
        marker, colour = styles[known]
        places = [numbers.index(n) for n in rows["n_known"]]
        axes.plot(places, rows["uar"], marker=marker, color=colour, label=known.replace("_told", ", and told so"))
        if known == "random":
            axes.fill_between(places, rows["uar_low"], rows["uar_high"], color=colour, alpha=0.15, linewidth=0)
        else:
            axes.vlines(places, rows["uar_low"], rows["uar_high"], color=colour, linewidth=0.8, alpha=0.6)
    without = curve.loc[curve["n_known"] == 0, "uar"].max()
    axes.axhline(without, color="0.5", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(numbers)), numbers)
    axes.set(xlabel="unlabelled clips known of the new speaker", ylabel="UAR on new speakers")
    axes.legend(title="what they express", fontsize=8, title_fontsize=8)
    return figure


def calibration(tables: Mapping[str, pd.DataFrame], *, columns: int = 4) -> Figure:
    """Draw how often each system is right against how sure it is.

    Parameters
    ----------
    tables : {label: predictions}
    """
    shared = {"width": 2.3, "height": 2.3, "sharex": True, "sharey": True}
    figure, grid = panels(len(tables), columns=columns, **shared)
    for place, (axes, (label, predictions)) in enumerate(zip(grid, tables.items(), strict=True)):
        table = reliability(predictions)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        axes.plot(table["confidence"], table["accuracy"], "-", color="C0", linewidth=1)
        size = 4 + 80 * table["n"] / table["n"].sum()
        axes.scatter(table["confidence"], table["accuracy"], s=size, color="C0")
        axes.set_title(label.replace(" · ", "\n"), fontsize=7)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="highest probability")
        if place % columns == 0:
            axes.set_ylabel("share right")
    return figure


def noise(table: pd.DataFrame) -> Figure:
    """Draw UAR over the level of added noise.

    Parameters
    ----------
    table : rows models, columns "clean" and dB; values UAR
    """
    figure, axes = plt.subplots(figsize=(5, 3))
    for model, values in table.iterrows():
        axes.plot(range(len(values)), values, "o-", label=model)
    axes.set_xticks(range(table.shape[1]), [c if c == "clean" else f"{c} dB" for c in table.columns])
    axes.set(ylim=(0, 1), xlabel="white noise, signal-to-noise ratio", ylabel="UAR, speaker-independent")
    axes.legend(fontsize=8)
    return figure


def matrix(
    table: pd.DataFrame,
    *,
    label: str,
    low: float = 0.0,
    high: float = 1.0,
    diverging: bool = False,
    form: str = "{:z.2f}",
    marks: pd.DataFrame | None = None,
) -> Figure:
    """Draw a table of numbers as a map with its values written in.

    Parameters
    ----------
    label : of the colours
    form : of the numbers, "" for none
    marks : texts put below the numbers
    """
    rows, columns = table.shape
    figure, axes = plt.subplots(figsize=(2.2 + 0.52 * columns, 1.6 + 0.42 * rows))
    colours = DIVERGING if diverging else SEQUENTIAL
    image = axes.imshow(table.to_numpy(float), cmap=colours, vmin=low, vmax=high, aspect="auto")
    for row, column in np.ndindex(rows, columns):
        value = table.iat[row, column]
        if np.isnan(value):
            continue
        text = form.format(value) + (f"\n{marks.iat[row, column]}" if marks is not None else "")
        _write_in(image, column, row, value, text)
    axes.set_xticks(range(columns), table.columns, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(rows), table.index, fontsize=8)
    axes.set(xlabel=table.columns.name or "", ylabel=table.index.name or "")
    axes.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label=label)
    return figure


def _write_in(image, x, y, value, text):
    """Write a text into a cell of a map, readable on the colour of its value."""
    shade = np.dot(image.cmap(image.norm(value))[:3], (0.3, 0.59, 0.11))
    colour = "black" if shade > 0.5 else "white"
    image.axes.text(x, y, text, ha="center", va="center", fontsize=7, color=colour)


def crossings(scores: pd.DataFrame) -> Figure:
    """Draw UAR from every training set on every corpus, a row of panels per model, one panel per normalisation.

    Framed cells are speaker-independent within the tested corpus; the others never heard it.

    Parameters
    ----------
    scores : as `across.score_crossings` gives it
    """
    models, kinds = scores["model"].unique(), [kind for kind in NORMALISED if kind in set(scores["normalised"])]
    size = {"width": 3.4, "height": 2.9, "sharex": True, "sharey": True}
    figure, grid = panels(len(models) * len(kinds), columns=len(kinds), **size)
    highest = scores["uar"].max()
    for axes, (model, kind) in zip(grid, itertools.product(models, kinds), strict=True):
        rows = scores[(scores["model"] == model) & (scores["normalised"] == kind)]
        uar = rows.pivot(index="trained_on", columns="tested_on", values="uar")
        uar = uar.loc[rows["trained_on"].unique(), rows["tested_on"].unique()]
        image = axes.imshow(uar, cmap=SEQUENTIAL, vmin=0, vmax=highest, aspect="auto")
        for row in rows.itertuples():
            place = list(uar.columns).index(row.tested_on), list(uar.index).index(row.trained_on)
            text = f"{row.uar:.2f}" + ("" if np.isnan(row.uar_low) else f"\n{row.uar_low:.2f}–{row.uar_high:.2f}")
            _write_in(image, *place, row.uar, text)
            if row.tested_on in row.trained_on.split("+"):
                corner = (place[0] - 0.46, place[1] - 0.46)
                axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="#d55e00", linewidth=1.5))
        axes.set_xticks(range(uar.shape[1]), uar.columns)
        axes.set_yticks(range(len(uar)), uar.index.str.replace("+", " +\n"), fontsize=7)
        axes.set(title=f"{model.replace('_', ' ')}, {NORMALISED[kind]}", xlabel="tested on")
        axes.title.set_fontsize(8)
        axes.grid(False)
    return figure


def losses(table: pd.DataFrame, *, chance: float) -> Figure:
    """Draw what each pair of corpora loses: models of the tested corpus itself, and of the other one.

    Parameters
    ----------
    table : as `across.measure_losses` gives it
    chance : UAR of guessing, drawn as a line
    """
    looks = {
        "within": ("o", "0.2", "own models"),
        "worn": ("x", "#cc79a7", "own models, clips in the other's statistics"),
        "across_normalised": ("D", "#0072b2", "other corpus, normalised"),
        "across": ("s", "#d55e00", "other corpus"),
    }
    models = table["model"].unique()
    figure, grid = panels(len(models), columns=3, width=3.4, height=3.2, sharex=True, sharey=True)
    for axes, model in zip(grid, models, strict=True):
        rows = table[table["model"] == model][::-1]
        shown = [name for name in looks if name in rows and rows[name].notna().any()]
        axes.hlines(range(len(rows)), rows[shown].min(axis=1), rows[shown].max(axis=1), color="0.8")
        for name in shown:
            marker, colour, label = looks[name]
            axes.plot(rows[name], range(len(rows)), marker, color=colour, markersize=5, label=label)
        axes.set_yticks(range(len(rows)), rows["trained_on"] + " → " + rows["tested_on"], fontsize=8)
        axes.axvline(chance, color="0.5", linestyle=":", linewidth=1)
        axes.set(title=model.replace("_", " "), xlabel="UAR", xlim=(0, 1))
    figure.legend(*grid[0].get_legend_handles_labels(), fontsize=8, ncols=2, loc="outside lower center")
    return figure


def by_gender(table: pd.DataFrame) -> Figure:
    """Draw each system's UAR for female and male speakers; table : as `results.score_genders` gives it."""
    styles = {"female": ("o", "#882255", "female"), "male": ("s", "#0072b2", "male")}
    return _dumbbells(table[::-1], styles, list(table["label"][::-1]), "UAR")


def published(table: pd.DataFrame) -> Figure:
    """Draw each published figure beside ours; table : as `results.beside_published` gives it."""
    rows = table[table["ours"].notna()][::-1].astype({"published": float})
    names = [f"{row.system} · {row.model} · {row.protocol} ({row.metric})" for row in rows.itertuples()]
    styles = {"published": ("D", "0.3", "published"), "ours": ("o", "C0", "ours, same kind of split")}
    return _dumbbells(rows, styles, [name.replace("_", " ") for name in names], "score")


def _dumbbells(rows, styles, labels, what) -> Figure:
    """Two values a row, joined by a line; styles : {column: (marker, colour, name)}."""
    figure, axes = plt.subplots(figsize=(7, 1 + 0.3 * len(rows)))
    first, second = styles
    axes.hlines(range(len(rows)), rows[first], rows[second], color="0.7")
    for column, (marker, colour, name) in styles.items():
        axes.plot(rows[column], range(len(rows)), marker, color=colour, label=name)
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel=what)
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure
