"""Prototypes seen: pictures, scores, pitch, bands, and pages of a speaker's reports."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_pdf import PdfPages

from ser_utils.evaluation.splits import PROTOCOLS
from ser_utils.figures.style import EMOTION_COLOUR, SEQUENTIAL, in_order, panels, show_log_mel
from ser_utils.systems.prototype.analysis import band_frequencies
from ser_utils.workspace import atomic_path

FLOOR_DB = -60  # shown below a prototype's maximum; the rest is silence


def picture(log_mel, sample_rate, title):
    """One prototype, dB (n_mels, n_frames). Returns a Figure, laid out by hand: hundreds are drawn."""
    figure = plt.figure(figsize=(2.4, 2.8), layout="none")
    axes = figure.add_axes((0.22, 0.16, 0.52, 0.74))
    image = show_log_mel(axes, log_mel, sample_rate, vmin=FLOOR_DB, vmax=0)
    figure.colorbar(image, cax=figure.add_axes((0.77, 0.16, 0.04, 0.74)), ticks=[FLOOR_DB, 0]).set_label(
        "dB", labelpad=-8
    )
    axes.set_title(title, fontsize=8)
    return figure


def grid(log_mels, index, sample_rate, *, columns=10):
    """Prototypes of one speaker: a row per emotion, the most typical first.

    log_mels : dB (n, n_mels, n_frames) of the n lines of `index`, which has emotion, rank and score
    Returns a Figure.
    """
    emotions, columns = in_order(index["emotion"]), min(columns, int(index["rank"].max()))
    n_mels, n_frames = np.shape(log_mels)[1:]
    gap, room = 1, 22  # frames between pictures, bands above them for the score
    # one picture of all: an axes for each would take ten times as long
    wall = np.full((len(emotions) * (n_mels + room), columns * (n_frames + gap)), np.nan)
    figure, axes = plt.subplots(figsize=(0.75 * columns + 1.9, 1.15 * len(emotions) + 0.5))
    for log_mel, row in zip(log_mels, index.itertuples(), strict=True):
        if row.rank <= columns:
            top, left = emotions.index(row.emotion) * (n_mels + room), (row.rank - 1) * (n_frames + gap)
            wall[top + room : top + room + n_mels, left : left + n_frames] = log_mel[::-1]
            axes.text(left + n_frames / 2, top + room - 4, f"{row.score:.0f} %", ha="center", fontsize=7)
    image = axes.imshow(wall, aspect="auto", vmin=FLOOR_DB, vmax=0, cmap=SEQUENTIAL, interpolation="nearest")
    middles = (np.arange(len(emotions)) + 0.5) * (n_mels + room) + room / 2
    axes.set_yticks(middles, emotions)
    for label, emotion in zip(axes.get_yticklabels(), emotions, strict=True):
        label.set_color(EMOTION_COLOUR[emotion])
    axes.set_xticks((np.arange(columns) + 0.5) * (n_frames + gap), range(1, columns + 1))
    milliseconds = 1000 * 256 * n_frames / sample_rate
    axes.set_xlabel(f"rank; each {milliseconds:.0f} ms wide, 0 to {sample_rate / 2000:g} kHz high (mel)")
    axes.spines[:].set_visible(False)
    axes.grid(False)
    figure.colorbar(image, ax=axes, label="dB", shrink=0.6)
    return figure


def fall(scores, value="uar", *, chance=None):
    """Each model's score from the protocol that leaks to the strictest.

    scores : table with model, protocol, level and `value`; chance : drawn as a line. Returns a Figure.
    """
    levels = list(dict.fromkeys(scores["level"]))
    protocols = [protocol for protocol in PROTOCOLS if protocol in set(scores["protocol"])]
    figure, axes = plt.subplots(1, len(levels), figsize=(4.2 * len(levels), 3.2), sharey=True, squeeze=False)
    for one, level in zip(axes[0], levels, strict=True):
        for number, (model, rows) in enumerate(scores[scores["level"] == level].groupby("model", sort=False)):
            places = rows["protocol"].map(protocols.index)
            one.plot(
                places,
                rows[value],
                "o-",
                label=model.replace("_", " "),
                color=f"C{number % 10}",
                linewidth=1.2,
            )
        if chance is not None:
            one.axhline(chance, color="0.5", linestyle=":", linewidth=1)
        one.set_xticks(range(len(protocols)), protocols)
        one.set(title=f"decided by {level}", ylim=(0, 1), xlabel="what is kept apart")
    axes[0][0].set_ylabel(value.replace("_", " ").upper() if value == "uar" else value.replace("_", " "))
    axes[0][-1].legend(fontsize=8)
    return figure


def class_recall(table):
    """Recall per emotion as a heat map. table : recall, one row per model, one column per emotion. Returns a Figure."""
    table = table[in_order(table.columns)]
    figure, axes = plt.subplots(figsize=(1.4 + 0.85 * table.shape[1], 0.9 + 0.36 * len(table)))
    sns.heatmap(
        100 * table, annot=True, fmt=".0f", cmap="Blues", vmin=0, vmax=100, ax=axes, annot_kws={"fontsize": 8},
        cbar_kws={"label": "recall (%)"},
    )  # fmt: skip
    axes.set(xlabel="", ylabel="")
    axes.tick_params(axis="x", rotation=40)
    axes.grid(False)
    return figure


def class_profiles(log_mels, index, sample_rate):
    """Mean level of each emotion's prototypes over time, and by frequency, with one standard deviation.

    log_mels : dB (n, n_mels, n_frames) of the n lines of `index`. Returns a Figure.
    """
    emotions, centres = in_order(index["emotion"]), band_frequencies(sample_rate)
    figure, axes = plt.subplots(
        2, len(emotions), figsize=(1.9 * len(emotions) + 1, 4.2), sharey="row", squeeze=False
    )
    for (over_time, by_band), emotion in zip(axes.T, emotions, strict=True):
        own = np.asarray(log_mels)[(index["emotion"] == emotion).to_numpy()]
        seconds = 1000 * 256 / sample_rate * np.arange(own.shape[2])
        for one, x, levels in (
            (over_time, seconds, own.mean(axis=1)),
            (by_band, centres / 1000, own.mean(axis=2)),
        ):
            mean, spread = levels.mean(axis=0), levels.std(axis=0)
            one.plot(x, mean, color=EMOTION_COLOUR[emotion], linewidth=1.4)
            one.fill_between(
                x, mean - spread, mean + spread, color=EMOTION_COLOUR[emotion], alpha=0.25, linewidth=0
            )
        over_time.set(title=emotion, xlabel="time (ms)")
        by_band.set(xlabel="frequency (kHz)", xlim=(0, centres[-1] / 1000))
    axes[0][0].set_ylabel("level (dB)")
    axes[1][0].set_ylabel("level (dB)")
    return figure


def band_boxes(long, groups, *, fmax=None):
    """Box plots of the strongest bands by emotion, one panel per group.

    long : as `prototype_analysis.long_bands` gives it; groups : dict name -> mask of its lines
    fmax : Hz, upper end of the axis, for the low view. Returns a Figure.
    """
    order = in_order(long["emotion"])
    figure, axes = panels(len(groups), columns=2, width=4.6, height=2.7, sharex=True, sharey=True)
    for one, (name, mask) in zip(axes, groups.items(), strict=True):
        own = long[mask & (long["band_hz"] <= (fmax or np.inf))]
        sns.boxplot(
            own, x="emotion", y="band_hz", hue="emotion", order=order, hue_order=order, palette=EMOTION_COLOUR,
            fliersize=2, linewidth=0.8, legend=False, ax=one,
        )  # fmt: skip
        one.set(title=name, xlabel="", ylabel="strongest bands (Hz)", ylim=(0, fmax))
        one.tick_params(axis="x", rotation=40)
    return figure


def prototype_bands(index, bands_hz, *, fmax=None):
    """The strongest bands of every prototype as dots, a column per prototype, grouped by emotion. Returns a Figure."""
    figure, axes = plt.subplots(figsize=(9, 3.2))
    place = 0
    for emotion in in_order(index["emotion"]):
        own = bands_hz[(index["emotion"] == emotion).to_numpy()]
        x = place + np.arange(len(own))
        colour = EMOTION_COLOUR[emotion]
        axes.plot(np.repeat(x, own.shape[1]), own.ravel(), ".", color=colour, markersize=5, label=emotion)
        place += len(own) + 1
    axes.set(
        ylabel="strongest bands (Hz)", xlabel="prototype, by emotion and rank", xticks=[], ylim=(0, fmax)
    )
    axes.legend(fontsize=7, ncols=4)
    return figure


def pitch(index):
    """Pitch of prototypes by emotion, one panel per speaker; the share with a pitch stands above.

    index : table with speaker, emotion, f0_hz. Returns a Figure.
    """
    speakers, order = sorted(index["speaker"].unique()), in_order(index["emotion"])
    figure, axes = panels(len(speakers), columns=4, width=3.2, height=2.9, sharey=True)
    for one, speaker in zip(axes, speakers, strict=True):
        own = index[index["speaker"] == speaker]
        sns.stripplot(
            own, x="emotion", y="f0_hz", hue="emotion", order=order, hue_order=order, palette=EMOTION_COLOUR,
            size=4, legend=False, ax=one,
        )  # fmt: skip
        share = own.groupby("emotion")["f0_hz"].agg(lambda f0: f0.notna().mean())
        for place, emotion in enumerate(order):
            if emotion in share:
                one.text(place, 305, f"{100 * share[emotion]:.0f} %", ha="center", fontsize=7)
        one.set(title=f"speaker {speaker}\n", xlabel="", ylabel="pitch (Hz)", ylim=(50, 300))
        one.tick_params(axis="x", rotation=40)
    return figure


def notes(index):
    """How often each note is the nearest to a prototype's pitch, by emotion. index : with emotion, note, f0_hz.

    Returns a Figure; it says so where no prototype has a pitch.
    """
    known = index[index["note"] != ""]
    figure, axes = plt.subplots(figsize=(8, 3.4))
    if known.empty:
        axes.text(0.5, 0.5, "no prototype has a pitch", ha="center")
        axes.axis("off")
        return figure
    order = known.sort_values("f0_hz")["note"].drop_duplicates()
    table = pd.crosstab(known["emotion"], known["note"]).reindex(
        index=in_order(known["emotion"]), columns=order
    )
    sns.heatmap(table, annot=True, fmt="d", cmap=SEQUENTIAL, cbar_kws={"label": "prototypes"}, ax=axes)
    axes.set(xlabel="nearest note, low to high", ylabel="")
    axes.grid(False)
    return figure


def text_page(title, *parts, size=(8.3, 11.7)):
    """A page of text and tables for a report. parts : texts, or DataFrames, one under the other. Returns a Figure."""
    blocks = [
        part.to_string(index=not isinstance(part.index, pd.RangeIndex), float_format="{:.3f}".format, na_rep="–")
        if isinstance(part, pd.DataFrame) else str(part)
        for part in parts
    ]  # fmt: skip
    text = "\n\n".join(blocks)
    figure = plt.figure(figsize=size, layout="none")
    figure.text(0.08, 0.95, title, fontsize=14, weight="bold", va="top")
    # a long table is set smaller rather than cut off
    widest = max(map(len, text.splitlines()), default=1)
    small = min(9.0, 880 / widest, 9.0 * 68 / max(text.count("\n") + 1, 1))
    figure.text(0.08, 0.90, text, fontsize=small, family="monospace", va="top")
    return figure


def save_report(path, pages, title):
    """Write pages (Figures, which are closed) as one PDF; the same pages give the same file. Returns the path."""
    with (
        atomic_path(path) as temporary,
        PdfPages(temporary, metadata={"Title": title, "CreationDate": None}) as pdf,
    ):
        for page in pages:
            pdf.savefig(page)
            plt.close(page)
    return path
