"""Prototypes seen: reconstructions, pictures, scores, pitch, bands, and the pages of a speaker's reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from ser_utils.evaluation import metrics
from ser_utils.evaluation.figures import matrix
from ser_utils.features.spectral import MEL, band_frequencies
from ser_utils.figures import networks
from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, in_order, panels, show_log_mel
from ser_utils.workspace import atomic_path

FLOOR_DB = -60  # shown below a prototype's maximum; the rest is silence
PUBLISHED_MAP = "viridis"  # of the paper's pages
HERTZ = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)  # ticks of a mel axis
ERROR_DB = 10  # a reconstruction's error that an error map shows in full colour


def show_on_mel_axis(axes, log_mel: np.ndarray, sample_rate: int, **options):
    """Draw a log-mel picture (n_mels, n_frames) with ms and, on a mel axis, Hz. Returns the image."""
    image = show_log_mel(axes, log_mel, sample_rate, **options)
    axes.set(xlabel="", ylabel="")
    ticks = [hertz for hertz in HERTZ if hertz < sample_rate / 2]
    axes.set_yticks(_band_of(ticks, sample_rate), ticks, fontsize=7)
    axes.set_xticks([0, 0.05, 0.1], ["0", "50", "100"], fontsize=7)
    return image


def _band_of(hertz, sample_rate):
    """Where frequencies lie among the bands of a mel axis."""
    return np.interp(hertz, band_frequencies(sample_rate), np.arange(MEL.n_mels) + 0.5)


def reconstructions(given: np.ndarray, returned: np.ndarray, titles: Sequence[str], sample_rate: int) -> Figure:
    """Draw segments and their reconstructions side by side on one dB scale, as published, and below the error.

    Parameters
    ----------
    given, returned : dB (n, n_mels, n_frames)
    """
    n = len(given)
    figure, grid = plt.subplots(2, 2 * n, figsize=(1.5 * n + 1.2, 4.8), sharey=True, squeeze=False)
    for column, (true, answer, title) in enumerate(zip(given, returned, titles, strict=True)):
        left, right = grid[0, 2 * column : 2 * column + 2]
        for axes, picture, name in ((left, true, "recorded"), (right, answer, "returned")):
            limits = {"vmin": -MEL.top_db, "vmax": 0}
            level = show_on_mel_axis(axes, picture, sample_rate, **limits)
            level.set_cmap(PUBLISHED_MAP)
            axes.set_title(f"{title}\n{name}", fontsize=8)
        below, spare = grid[1, 2 * column : 2 * column + 2]
        error = show_on_mel_axis(below, answer - true, sample_rate, vmin=-ERROR_DB, vmax=ERROR_DB)
        error.set_cmap(DIVERGING)
        below.set_title(f"error\n{abs(answer - true).mean():.1f} dB", fontsize=8)
        spare.set_visible(False)
    figure.supxlabel("time (ms)", fontsize=9)
    figure.supylabel("frequency (Hz, mel axis)", fontsize=9)
    figure.colorbar(level, ax=grid[0], label="dB", aspect=12)
    figure.colorbar(error, ax=grid[1], label="error (dB)", aspect=12)
    return figure


def picture(log_mel: np.ndarray, sample_rate: int, title: str) -> Figure:
    """Draw one prototype, dB (n_mels, n_frames); laid out by hand, since hundreds are drawn."""
    figure = plt.figure(figsize=(2.4, 2.8), layout="none")
    axes = figure.add_axes((0.22, 0.16, 0.52, 0.74))
    image = show_on_mel_axis(axes, log_mel, sample_rate, vmin=FLOOR_DB, vmax=0)
    axes.set(xlabel="time (ms)", ylabel="frequency (Hz, mel axis)")
    bar = figure.colorbar(image, cax=figure.add_axes((0.77, 0.16, 0.04, 0.74)), ticks=[FLOOR_DB, 0])
    bar.set_label("dB", labelpad=-8)
    axes.set_title(title, fontsize=8)
    return figure


def spectrogram_rows(
    rows: dict[str, list[tuple[np.ndarray, str, np.ndarray | None]]], sample_rate: int, heading: str = ""
) -> Figure:
    """Draw rows of spectrograms on one dB scale, with Hz on a mel axis, as the paper's pages do.

    Parameters
    ----------
    rows : name of each row, and its pictures: (dB (n_mels, n_frames), title, pitch track in Hz or None)
    """
    longest, (n_mels, n_frames) = max(map(len, rows.values())), next(iter(rows.values()))[0][0].shape
    size = (0.75 * longest + 1.9, 1.5 * len(rows) + 0.7)
    figure, grid = plt.subplots(len(rows), figsize=size, sharex=True, squeeze=False)
    for axes, (name, pictures) in zip(grid[:, 0], rows.items(), strict=True):
        # one picture a row: an axes for each spectrogram would take ten times as long
        wall = np.full((n_mels, longest * (n_frames + 1)), np.nan)
        for left, (log_mel, title, track) in zip(range(0, wall.shape[1], n_frames + 1), pictures, strict=False):
            wall[:, left : left + n_frames] = log_mel
            axes.text(left + n_frames / 2, n_mels + 3, title, ha="center", fontsize=7)
            if track is not None and np.isfinite(track).any():
                times = left + np.linspace(0, n_frames, len(track))
                mean = np.full(len(track), _band_of(np.nanmean(track), sample_rate))
                axes.plot(times, _band_of(track, sample_rate), "w.-", times, mean, "w:", markersize=2, linewidth=0.8)
        extent = (0, wall.shape[1], 0, n_mels)
        limits = {"vmin": FLOOR_DB, "vmax": 0, "cmap": PUBLISHED_MAP, "extent": extent}
        image = axes.imshow(wall, origin="lower", aspect="auto", interpolation="nearest", **limits)
        ticks = [hertz for hertz in HERTZ if hertz < sample_rate / 2]
        axes.set_yticks(_band_of(ticks, sample_rate), ticks, fontsize=6)
        axes.set_ylabel(name, fontsize=8, color=EMOTION_COLOUR.get(name, "black"))
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.grid(False)
    milliseconds = 1000 * MEL.hop_length * n_frames / sample_rate
    axes.set_xlabel(f"Hz on a mel axis; each {milliseconds:.0f} ms wide", fontsize=8)
    figure.suptitle(heading, fontsize=10)
    figure.colorbar(image, ax=grid, label="dB", aspect=12 * len(rows))
    return figure


def by_emotion(log_mels: np.ndarray, index: pd.DataFrame) -> dict[str, list]:
    """Arrange prototypes as rows of `spectrogram_rows`: a row per emotion, in the order of `rank`.

    Parameters
    ----------
    log_mels : dB (n, n_mels, n_frames) of the n lines of `index`, which has emotion, rank and score
    """
    rows = {emotion: [] for emotion in in_order(index["emotion"])}
    for place in np.argsort(index["rank"], kind="stable"):
        line = index.iloc[place]
        rows[line["emotion"]].append((log_mels[place], f"{line['score']:.0f} %", None))
    return rows


def class_recall(table: pd.DataFrame) -> Figure:
    """Draw recall as a heat map. table : recall, one row per model, one column per emotion."""
    return matrix(100 * table[in_order(table.columns)], label="recall (%)", high=100, form="{:.0f}")


def counts(emotions: Sequence[str], labels: Sequence[str], order: Sequence[str], unit: str) -> Figure:
    """Draw how often each label (a note, a frequency) occurs in each emotion, as a heat map.

    Parameters
    ----------
    emotions, labels : (n,), a pair for each occurrence
    order : of the labels, low to high
    """
    if not len(labels):
        return text_page(f"{unit}: none", size=(8, 2))
    table = pd.crosstab(pd.Series(list(emotions)), pd.Series(list(labels)))
    table = table.reindex(index=in_order(emotions), columns=[name for name in order if name in table])
    return matrix(table, label=unit, high=table.to_numpy().max(), form="{:.0f}" if table.shape[1] < 40 else "")


def band_boxes(statistics: dict[str, pd.DataFrame], *, fmax: float = np.inf, heading: str = "") -> Figure:
    """Draw one box per mel band for each class: quartiles, whiskers, and mean, median and mode as marks.

    Parameters
    ----------
    statistics : `analysis.band_statistics` of each emotion
    fmax : Hz, the highest band shown
    """
    size = (10, 1.7 * len(statistics) + 0.8)
    figure, grid = plt.subplots(len(statistics), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, (emotion, table) in zip(grid[:, 0], statistics.items(), strict=True):
        table = table[table.index <= fmax]
        place, colour = np.arange(len(table)), EMOTION_COLOUR[emotion]
        # lines instead of a thousand rectangles
        axes.vlines(place, table["low"], table["high"], color=colour, linewidth=0.6)
        axes.vlines(place, table["q1"], table["q3"], color=colour, linewidth=360 / len(table), alpha=0.45)
        for name, mark in (("mean", "k."), ("median", "k_"), ("mode", "rx")):
            axes.plot(place, table[name], mark, markersize=3.5, markeredgewidth=0.8, label=name)
        axes.set_ylabel(f"{emotion}\nlevel (dB)", fontsize=8)
        shown = place[:: max(1, len(place) // 24)]
        axes.set_xticks(shown, [f"{hertz:.0f}" for hertz in table.index[shown]], rotation=60, fontsize=7)
        axes.set_xlim(-1, len(table))
    grid[-1, 0].set_xlabel("centre of the mel band (Hz)")
    grid[0, 0].legend(ncols=3, fontsize=7, loc="lower right", bbox_to_anchor=(1, 1))
    figure.suptitle(heading, fontsize=10)
    return figure


def class_profiles(
    prototypes: dict[str, pd.DataFrame], segments: dict[str, pd.DataFrame], agreement: dict[str, dict[str, float]]
) -> Figure:
    """Draw mean ± standard deviation per band of each class's prototypes, over those of its training segments.

    Parameters
    ----------
    prototypes, segments : `analysis.band_statistics` of each emotion
    agreement : `analysis.profile_agreement` of each emotion
    """
    figure, axes = panels(len(prototypes), columns=4, width=3, height=2.4, sharex=True, sharey=True)
    for place, (emotion, table) in zip(axes, prototypes.items(), strict=True):
        drawn = ((segments[emotion], "0.45", "training segments"), (table, EMOTION_COLOUR[emotion], "prototypes"))
        for profile, colour, label in drawn:
            band, mean, spread = np.arange(len(profile)), profile["mean"], profile["sd"]
            place.plot(band, mean, color=colour, linewidth=1.2, label=label)
            place.fill_between(band, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
        kept = agreement[emotion]
        place.set_title(f"{emotion}: r = {kept['correlation']:.2f}, {kept['difference (dB)']:.1f} dB", fontsize=9)
        shown = np.arange(0, len(table), 21)
        place.set_xticks(shown, [f"{hertz:.0f}" for hertz in table.index[shown]], rotation=60, fontsize=7)
    axes[0].legend(fontsize=7)
    figure.supxlabel("centre of the mel band (Hz)", fontsize=9)
    figure.supylabel("level (dB)", fontsize=9)
    return figure


def strongest_boxes(long: pd.DataFrame, groups: dict[str, pd.Series], *, fmax: float | None = None) -> Figure:
    """Draw box plots of the strongest bands by emotion, one panel per group (ours).

    Parameters
    ----------
    long : as `analysis.long_bands` gives it
    groups : mask of its lines for each group
    fmax : Hz, upper end of the axis, for the low view
    """
    order = in_order(long["emotion"])
    figure, axes = panels(len(groups), columns=2, width=4.6, height=2.7, sharex=True, sharey=True)
    common = {"order": order, "hue_order": order, "palette": EMOTION_COLOUR, "legend": False}
    for place, (name, mask) in zip(axes, groups.items(), strict=True):
        shown = long[mask & (long["band_hz"] <= (fmax or np.inf))]
        sns.boxplot(shown, x="emotion", y="band_hz", hue="emotion", fliersize=2, linewidth=0.8, ax=place, **common)
        place.set(title=name, xlabel="", ylabel="strongest bands (Hz)", ylim=(0, fmax))
        place.tick_params(axis="x", rotation=40)
    return figure


def pitch(index: pd.DataFrame) -> Figure:
    """Draw the pitch of prototypes by emotion, one panel per speaker; above, the share in which one was found.

    Parameters
    ----------
    index : table with speaker, emotion, f0_hz
    """
    speakers, order = sorted(index["speaker"].unique()), in_order(index["emotion"])
    figure, axes = panels(len(speakers), columns=4, width=3.2, height=2.9, sharey=True)
    highest = np.nanmax([300, index["f0_hz"].max()])
    for place, speaker in zip(axes, speakers, strict=True):
        for number, emotion in enumerate(order):
            f0 = index.loc[(index["speaker"] == speaker) & (index["emotion"] == emotion), "f0_hz"]
            beside = number + np.linspace(-0.2, 0.2, len(f0))
            place.plot(beside, f0, ".", color=EMOTION_COLOUR[emotion])
            if len(f0):
                share = f"{100 * f0.notna().mean():.0f} %"
                place.text(number, 1.01 * highest, share, ha="center", fontsize=7)
        place.set_xticks(range(len(order)), order, rotation=40)
        place.set(title=f"speaker {speaker}\n", ylabel="pitch (Hz)", ylim=(50, highest))
    return figure


def note_tracks(index: pd.DataFrame, tracks: Sequence[np.ndarray]) -> Figure:
    """Draw the pitch of each prototype over its 100 ms, on an axis of notes, one panel per emotion.

    Parameters
    ----------
    tracks : Hz (n_frames,), NaN where there is none, of the lines of `index`
    """
    emotions = in_order(index["emotion"])
    figure, axes = panels(len(emotions), columns=4, width=2.6, height=2.3, sharex=True, sharey=True)
    octaves = {"A1": 55, "A2": 110, "A3": 220, "A4": 440}
    for place, emotion in zip(axes, emotions, strict=True):
        for track, is_of in zip(tracks, index["emotion"] == emotion, strict=True):
            if is_of:
                times = np.linspace(0, 100, len(track))
                place.plot(times, track, ".-", color=EMOTION_COLOUR[emotion], alpha=0.6, markersize=3)
        place.set(title=emotion, xlabel="time (ms)", yscale="log", ylim=(50, 620))
        place.set_yticks(list(octaves.values()), list(octaves))
        place.minorticks_off()
    return figure


def text_page(title: str, *parts: str | pd.DataFrame, size: tuple[float, float] = (8.3, 11.7)) -> Figure:
    """Set a page of texts and tables for a report, one under the other."""
    blocks = []
    for part in parts:
        if isinstance(part, pd.DataFrame):
            numbered = isinstance(part.index, pd.RangeIndex)
            part = part.to_string(index=not numbered, float_format="{:.3f}".format, na_rep="–")
        blocks.append(str(part))
    text = "\n\n".join(blocks)
    figure = plt.figure(figsize=size, layout="none")
    figure.text(0.08, 0.95, title, fontsize=14, weight="bold", va="top")
    # a long table is set smaller rather than cut off
    widest = max(map(len, text.splitlines()), default=1)
    small = min(9.0, 880 / max(widest, 1), 9.0 * 68 / max(text.count("\n") + 1, 1))
    figure.text(0.08, 0.90, text, fontsize=small, family="monospace", va="top")
    return figure


def training_report(runs, model: str, scores: pd.DataFrame, sample_rate: int) -> Iterable[Figure]:
    """Draw the pages of one speaker's training report, one after another.

    Parameters
    ----------
    runs : runs.PrototypeRuns
    model : such as "speaker_09"
    scores : as `runs.scores` gives them
    """
    workspace, settings = runs.data.workspace, runs.data.of_classifier
    by_protocol = runs.by_speaker()[model]
    shown = by_protocol.get("utterance") or next(iter(by_protocol.values()))
    heading = f"{model}: {workspace.dataset}, profile {workspace.profile}, seed {workspace.seed}"
    lines = scores[scores["model"] == model].drop(columns="model").reset_index(drop=True)
    yield text_page(heading, lines, "Settings", pd.Series(settings).to_string())
    histories = {protocol: trained.fitted.history for protocol, trained in by_protocol.items()}
    yield networks.learning_curves(histories, values=("loss", "macro_f1", "prototype_score"))
    for protocol, trained in by_protocol.items():
        voted = metrics.vote_utterances(trained.predictions)
        tables = [metrics.per_class(t["emotion"], t["prediction"]) for t in (trained.predictions, voted)]
        title = f"{model}: classification report, protocol {protocol}"
        yield text_page(title, "By segment", tables[0], "By voted utterance", tables[1], size=(8.3, 5.8))
    truth, prediction = shown.predictions["emotion"], shown.predictions["prediction"]
    yield networks.confusion_matrix(truth, prediction, title=f"segments, {shown.run.protocol}")
    table, log_mels = shown.strongest(settings["top"])
    yield spectrogram_rows(by_emotion(log_mels, table), sample_rate)


def save_report(path: Path, pages: Iterable[Figure], title: str) -> Path:
    """Write pages, which are closed, as one PDF; the same pages give the same file. Returns the path."""
    facts = {"Title": title, "CreationDate": None}
    with atomic_path(path) as temporary, PdfPages(temporary, metadata=facts) as pdf:
        for page in pages:
            pdf.savefig(page)
            plt.close(page)
    return path
