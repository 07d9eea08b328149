"""Systems side by side: intervals, falls, calibration, noise, who fails together."""

import matplotlib.pyplot as plt
import numpy as np

from ser_utils.evaluation.metrics import FEWEST_SPEAKERS, reliability
from ser_utils.evaluation.results import label_of
from ser_utils.evaluation.splits import PROTOCOLS
from ser_utils.figures.style import DIVERGING, SEQUENTIAL
from ser_utils.profiles import systems

SYSTEM_COLOUR = dict(zip(systems(), plt.get_cmap("tab10").colors, strict=False))


def leaderboard(scores, *, chance=None):
    """Draw UAR with its 95 % interval, one panel per protocol, the best of the strictest protocol on top.

    scores : rows of one level; chance : UAR of guessing, drawn as a line. Marks of few speakers are hollow.
    Returns a Figure.
    """
    protocols = [protocol for protocol in PROTOCOLS if protocol in set(scores["protocol"])]
    rows = scores.sort_values("n_utterances").drop_duplicates(["system", "model", "protocol"], keep="last")
    rows = rows.assign(label=[label_of(row) for row in rows.itertuples()])
    order = rows.assign(rank=rows["protocol"].map(PROTOCOLS.index)).sort_values(["rank", "uar"])
    place = {label: i for i, label in enumerate(order.drop_duplicates("label", keep="last")["label"])}
    figure, grid = plt.subplots(
        1, len(protocols), figsize=(1.6 + 2.6 * len(protocols), 0.8 + 0.26 * len(place)), sharey=True, squeeze=False
    )  # fmt: skip
    for axes, protocol in zip(grid[0], protocols, strict=True):
        for row in rows[rows["protocol"] == protocol].itertuples():
            colour = SYSTEM_COLOUR[row.system]
            axes.plot([row.uar_low, row.uar_high], [place[row.label]] * 2, color=colour, linewidth=1.6)
            few = row.n_speakers < FEWEST_SPEAKERS
            axes.plot(
                row.uar,
                place[row.label],
                "o",
                color=colour,
                markersize=5,
                markerfacecolor="white" if few else colour,
            )
        if chance is not None:
            axes.axvline(chance, color="0.5", linestyle=":", linewidth=1)
        axes.set(xlim=(0, 1), xlabel="UAR", title=protocol)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    grid[0][0].set_yticks(list(place.values()), list(place))
    grid[0][0].set_ylim(-0.6, len(place) - 0.4)
    return figure


def falls(table, *, chance=None):
    """Draw each model's UAR from the loosest protocol to the strictest.

    table : as `results.fall` gives it; chance : UAR of guessing, drawn as a line
    """
    figure, axes = plt.subplots(figsize=(8, 4.5))
    ends = []
    for row in table.itertuples():
        values = np.array([getattr(row, protocol) for protocol in PROTOCOLS], float)
        if (known := np.flatnonzero(~np.isnan(values))).size > 1:
            # a system's other models get other lines
            again = sum(end[-1].system == row.system for end in ends) % 3
            (line,) = axes.plot(
                known, values[known], marker="os^"[again], linestyle=("-", "--", ":")[again],
                color=SYSTEM_COLOUR[row.system], linewidth=1.4, markersize=4,
            )  # fmt: skip
            ends.append((values[known[-1]], line, row))
    ends.sort(key=lambda end: -end[0])
    names = [label_of(row) for _, _, row in ends]
    if chance is not None:
        ends.append((chance, axes.axhline(chance, color="0.5", linestyle=":", linewidth=1), None))
        names.append("chance")
    axes.legend(
        [line for _, line, _ in ends], names, bbox_to_anchor=(1.02, 0.5), loc="center left", fontsize=8
    )
    axes.set_xticks(range(len(PROTOCOLS)), PROTOCOLS)
    axes.set(ylim=(0, 1), ylabel="UAR", xlabel="what is kept apart")
    return figure


def calibration(found, *, columns=4):
    """Draw how often each system is right against how sure it is. found : {label: predictions}."""
    rows = -(-len(found) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.3 * columns, 2.3 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    for axes, (label, predictions) in zip(grid.flat, found.items(), strict=False):
        table = reliability(predictions)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        axes.plot(table["confidence"], table["accuracy"], "-", color="C0", linewidth=1)
        axes.scatter(
            table["confidence"], table["accuracy"], s=4 + 80 * table["n"] / table["n"].sum(), color="C0"
        )
        axes.set_title(label.replace(" · ", "\n"), fontsize=7)
        axes.set(xlim=(0, 1), ylim=(0, 1))
    for axes in grid[:, 0]:
        axes.set_ylabel("share right")
    for axes in grid[-1]:
        axes.set_xlabel("highest probability")
    return figure


def noise(table):
    """Draw UAR over the level of added noise. table : rows models, columns "clean" and dB; values UAR."""
    figure, axes = plt.subplots(figsize=(5, 3))
    for model, values in table.iterrows():
        axes.plot(range(len(values)), values, "o-", label=model)
    axes.set_xticks(range(table.shape[1]), [c if c == "clean" else f"{c} dB" for c in table.columns])
    axes.set(ylim=(0, 1), xlabel="white noise, signal-to-noise ratio", ylabel="UAR, speaker-independent")
    axes.legend(fontsize=8)
    return figure


def matrix(table, *, label, low=0.0, high=1.0, diverging=False, form="{:.2f}", marks=None):
    """Draw a table of numbers as a map with its values written in. marks : table of texts put below them."""
    rows, columns = table.shape
    figure, axes = plt.subplots(figsize=(2.2 + 0.52 * columns, 1.6 + 0.42 * rows))
    colours = DIVERGING if diverging else SEQUENTIAL
    image = axes.imshow(table.to_numpy(float), cmap=colours, vmin=low, vmax=high, aspect="auto")
    for row, column in np.ndindex(rows, columns):
        value = table.iat[row, column]
        if np.isnan(value):
            continue
        shade = np.dot(image.cmap(image.norm(value))[:3], (0.3, 0.59, 0.11))
        text = form.format(value) + (f"\n{marks.iat[row, column]}" if marks is not None else "")
        axes.text(
            column, row, text, ha="center", va="center", fontsize=7, color="black" if shade > 0.5 else "white"
        )
    axes.set_xticks(range(columns), table.columns, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(rows), table.index, fontsize=8)
    axes.set(xlabel=table.columns.name or "", ylabel=table.index.name or "")
    axes.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label=label)
    return figure


def by_gender(table):
    """Draw each system's UAR for female and male speakers. table : as `results.by_gender` gives it."""
    table = table.iloc[::-1]
    figure, axes = plt.subplots(figsize=(6, 0.9 + 0.26 * len(table)))
    axes.hlines(range(len(table)), table["female"], table["male"], color="0.7")
    axes.plot(table["female"], range(len(table)), "o", color="#882255", label="female")
    axes.plot(table["male"], range(len(table)), "s", color="#0072b2", label="male")
    axes.set_yticks(range(len(table)), table["label"])
    axes.set(xlim=(0, 1), ylim=(-0.6, len(table) - 0.4), xlabel="UAR")
    axes.legend(fontsize=8)
    return figure


def published(table):
    """Draw each published figure beside ours under the same protocol. table : `results.beside_published`."""
    rows = table[table["ours"].notna()].iloc[::-1]
    figure, axes = plt.subplots(figsize=(7, 1 + 0.35 * len(rows)))
    values = rows["published"].astype(float)
    axes.hlines(range(len(rows)), rows["ours"], values, color="0.7")
    axes.plot(values, range(len(rows)), "D", color="0.3", label="published")
    axes.plot(rows["ours"], range(len(rows)), "o", color="C0", label="ours, same protocol")
    names = [f"{row.system} · {row.model} · {row.protocol} ({row.metric})" for row in rows.itertuples()]
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in names], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel="score")
    axes.legend(fontsize=8)
    return figure
