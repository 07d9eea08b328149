"""A corpus at a glance, and one recording on its way from waveform to log-mel and back."""

from collections.abc import Mapping, Sequence

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ser_utils.corpora import emotions_in_order
from ser_utils.features.spectral import MelSettings
from ser_utils.figures import style
from ser_utils.figures.style import EMOTION_COLOUR, panels, show_levels, show_log_mel


def counts(table: pd.DataFrame) -> Figure:
    """Draw utterances per speaker and emotion, as a heat map with the numbers in it.

    Parameters
    ----------
    table : utterance table
    """
    pivot = pd.crosstab(table["speaker"], table["emotion"])[emotions_in_order(table["emotion"])]
    height = max(2.2, 0.27 * len(pivot) + 1)
    figure, axes = plt.subplots(figsize=(1.6 + 0.8 * pivot.shape[1], min(height, 12)))
    numbers = {"annot": len(pivot) <= 40, "fmt": "d", "annot_kws": {"fontsize": 8}}
    scale = {"cmap": "Blues", "vmin": 0, "cbar_kws": {"label": "utterances"}}
    sns.heatmap(pivot, linewidths=0.5, ax=axes, **numbers, **scale)
    axes.set(xlabel="", ylabel="speaker")
    axes.grid(False)
    return figure


def overview(table: pd.DataFrame) -> Figure:
    """Draw each corpus's durations, share of every emotion, and files at each sampling rate.

    Parameters
    ----------
    table : utterance table
    """
    corpora = list(dict.fromkeys(table["corpus"]))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 1.9 + 0.55 * len(corpora)), sharey=True)
    look = {"color": "0.85", "fliersize": 2, "linewidth": 0.8}
    sns.boxplot(table, x="duration_s", y="corpus", order=corpora, ax=left, **look)
    left.set(xlabel="duration (s)", ylabel="")
    emotions = emotions_in_order(table["emotion"])
    shares = 100 * pd.crosstab(table["corpus"], table["emotion"], normalize="index").loc[corpora, emotions]
    _stack_bars(middle, shares, style.colours(emotions), columns=4)
    middle.set(xlabel="utterances (%)", xlim=(0, 100))
    rates = pd.crosstab(table["corpus"], table["sample_rate_hz"]).loc[corpora]
    rates.columns = [f"{rate / 1000:g} kHz" for rate in rates]
    _stack_bars(right, rates, [f"C{number}" for number in range(rates.shape[1])], columns=3)
    right.set(xlabel="utterances")
    return figure


def harmonisation(labels: pd.DataFrame, table: pd.DataFrame, spectra: pd.DataFrame) -> Figure:
    """Draw what several corpora bring to one: how often each emotion, how loud, and how their recordings sound.

    Parameters
    ----------
    labels : files of each corpus × emotion; those of emotions that `table` lacks are in grey
    table : with `corpus, emotion, rms_db`
    spectra : mean level in dB by corpus, corpora in columns; its index is the centre of each band in Hz
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 2.2 + 0.4 * len(labels)), width_ratios=(1.3, 1, 1))
    kept = labels.columns.isin(table["emotion"])
    left.imshow(np.where(kept, labels, np.nan), cmap="Blues", vmin=0, aspect="auto")
    for (row, column), count in np.ndenumerate(labels.to_numpy()):
        is_dark = kept[column] and count > 0.6 * labels.loc[:, kept].to_numpy().max()
        colour = "white" if is_dark else "0.1" if kept[column] else "0.6"
        left.text(column, row, str(count) if count else "–", ha="center", va="center", fontsize=8, color=colour)
    left.set_xticks(range(labels.shape[1]), labels.columns, rotation=45, ha="right")
    left.set_yticks(range(len(labels)), labels.index)
    left.set(title="files; grey: left out")
    left.grid(False)
    look = {"color": "0.85", "fliersize": 2, "linewidth": 0.8}
    sns.boxplot(table, x="rms_db", y="corpus", order=list(labels.index), ax=middle, **look)
    middle.set(xlabel="RMS level (dB of full scale)", ylabel="", title="level")
    for corpus in spectra:
        right.semilogx(spectra.index, spectra[corpus], label=corpus)
    right.set(xlabel="frequency (Hz)", ylabel="mean level (dB)", title="mean spectrum")
    right.legend(fontsize=8)
    return figure


def _stack_bars(axes, table, colours, columns):
    """One bar a row of the table, its columns one after another."""
    starts = table.cumsum(axis=1) - table
    for name, colour in zip(table, colours, strict=True):
        axes.barh(table.index, table[name], left=starts[name], color=colour, label=name)
    axes.legend(fontsize=7, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1))


def by_emotion(table: pd.DataFrame, column: str, label: str) -> Figure:
    """Draw one number per utterance as boxes by emotion; one row of boxes per corpus where there are several.

    Parameters
    ----------
    table : with `emotion`, `corpus` and `column`
    column : which number
    label : of the axis, with its unit
    """
    order = emotions_in_order(table["emotion"])
    corpora = list(dict.fromkeys(table["corpus"]))
    figure, grid = plt.subplots(len(corpora), 1, figsize=(7, 2.6 * len(corpora)), squeeze=False, sharex=True)
    hue = {"hue": "emotion", "hue_order": order, "palette": EMOTION_COLOUR, "legend": False}
    for axes, corpus in zip(grid[:, 0], corpora, strict=True):
        rows = table[table["corpus"] == corpus]
        sns.boxplot(rows, x="emotion", y=column, order=order, **hue, fliersize=2, linewidth=0.8, ax=axes)
        axes.set(xlabel="", ylabel=label, title=corpus if len(corpora) > 1 else "")
    return figure


def one_per_emotion(examples: Mapping[str, tuple[np.ndarray, int]]) -> Figure:
    """Draw the waveform above the spectrogram for one recording of each emotion.

    Parameters
    ----------
    examples : emotion → (signal, sample_rate)
    """
    names = emotions_in_order(examples)
    shape = {"figsize": (2.1 * len(names) + 0.8, 3.6), "height_ratios": (1, 2), "squeeze": False}
    figure, grid = plt.subplots(2, len(names), sharex="col", **shape)
    for column, name in enumerate(names):
        signal, rate = examples[name]
        top, bottom = grid[:, column]
        top.plot(np.arange(len(signal)) / rate, signal, color=EMOTION_COLOUR[name], linewidth=0.4)
        top.set(title=name, ylim=(-1, 1), yticks=[-1, 0, 1] if column == 0 else [])
        level = librosa.amplitude_to_db(_magnitude(signal), ref=np.max)
        image = show_levels(bottom, level, len(signal) / rate, rate / 2000, vmin=-70, vmax=0)
        bottom.set(xlabel="time (s)", ylim=(0, min(8, rate / 2000)))
        if column:
            bottom.set_yticklabels([])
    grid[0, 0].set_ylabel("amplitude")
    grid[1, 0].set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=grid[1, -1], label="dB below the loudest point")
    return figure


def _magnitude(signal):
    return np.abs(librosa.stft(signal, n_fft=1024, hop_length=256))


def power_and_mel(signal: np.ndarray, sample_rate: int, settings: MelSettings) -> Figure:
    """Draw the four steps from samples to log-mel on one segment: taper, power spectrum, mel filters, dB.

    Parameters
    ----------
    signal : (n_samples,) of one segment
    sample_rate : Hz
    settings : of the spectrogram
    """
    taper = librosa.filters.get_window(settings.window, settings.window_length)
    power = np.abs(librosa.stft(signal, **settings.stft)) ** 2
    filters = librosa.filters.mel(sr=sample_rate, n_fft=settings.n_fft, n_mels=settings.n_mels)
    log_mel = librosa.power_to_db(filters @ power, ref=np.max, top_db=settings.top_db)
    khz = librosa.fft_frequencies(sr=sample_rate, n_fft=settings.n_fft) / 1000
    middle = power.shape[1] // 2

    figure, (frame, spectrum, gains, mel) = plt.subplots(1, 4, figsize=(13, 2.9))
    start = max(0, middle * settings.hop_length - settings.window_length // 2)
    samples = signal[start : start + settings.window_length]
    ms = 1000 * np.arange(len(samples)) / sample_rate
    frame.plot(ms, samples / np.abs(samples).max(), linewidth=0.7, color="0.6", label="samples")
    frame.plot(ms, taper[: len(samples)], color="C3", linewidth=1, label="Hamming taper")
    frame.set(title="one frame, tapered", xlabel="time (ms)", ylabel="amplitude (relative)")
    frame.legend(fontsize=7, loc="lower left")
    spectrum.plot(khz, librosa.power_to_db(power[:, middle], ref=np.max), linewidth=0.8)
    spectrum.set(title="its power spectrum", xlabel="frequency (kHz)", ylabel="dB")
    for band in filters[::8]:
        gains.plot(khz, band / band.max(), linewidth=0.8)
    gains.set(title=f"every 8th of {settings.n_mels} mel filters", xlabel="frequency (kHz)", ylabel="gain")
    image = show_log_mel(mel, log_mel, sample_rate, hop_length=settings.hop_length)
    mel.set_title("log-mel of the segment")
    figure.colorbar(image, ax=mel, label="dB")
    return figure


def before_and_after(
    before: np.ndarray, after: np.ndarray, sample_rate: int, names: Sequence[str] = ("before", "after")
) -> Figure:
    """Draw two versions of one recording and their difference, as spectrograms on one scale.

    Parameters
    ----------
    before, after : (n_samples,)
    sample_rate : Hz
    names : of the two
    """
    levels = [librosa.power_to_db(_magnitude(signal) ** 2, ref=1.0, amin=1e-9) for signal in (before, after)]
    top = levels[0].max()
    figure, grid = plt.subplots(1, 3, figsize=(12, 2.8), sharey=True)
    shown = (
        (levels[0], names[0], style.SEQUENTIAL, top - 80, top),
        (levels[1], names[1], style.SEQUENTIAL, top - 80, top),
        (levels[1] - levels[0], f"{names[1]} − {names[0]}", style.DIVERGING, -30, 30),
    )
    images = []
    for axes, (level, title, colour_map, low, high) in zip(grid, shown, strict=True):
        size = len(before) / sample_rate, sample_rate / 2000
        images.append(show_levels(axes, level, *size, colour_map, vmin=low, vmax=high))
        axes.set(title=title, xlabel="time (s)")
    figure.colorbar(images[1], ax=grid[1], label="dB")
    figure.colorbar(images[2], ax=grid[2], label="change (dB)")
    grid[0].set_ylabel("frequency (kHz)")
    return figure


def log_mel_grid(spectrograms: np.ndarray, titles: Sequence[str], sample_rate: int, *, columns: int = 8) -> Figure:
    """Draw log-mel spectrograms in a grid on one dB scale.

    Parameters
    ----------
    spectrograms : (n, n_mels, n_frames) dB
    titles : (n,)
    sample_rate : Hz
    columns : panels in a row
    """
    shape = {"columns": columns, "width": 1.55, "height": 1.9}
    figure, grid = panels(len(spectrograms), **shape, sharey=True, sharex=True)
    for number, (axes, log_mel, title) in enumerate(zip(grid, spectrograms, titles, strict=True)):
        image = show_log_mel(axes, log_mel, sample_rate, vmin=-80, vmax=0)
        axes.set_title(title, fontsize=8)
        axes.set(ylabel="" if number % columns else "kHz (mel)", xlabel="time (s)")
    figure.colorbar(image, ax=grid, label="dB", shrink=0.8)
    return figure
