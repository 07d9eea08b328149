"""A corpus at a glance, and one recording on its way from waveform to log-mel and back."""

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL, in_order, panels, show_log_mel


def counts(table):
    """Utterances per speaker and emotion, as a heat map with the numbers in it. Returns a Figure."""
    pivot = table.pivot_table(
        index="speaker", columns="emotion", values="path", aggfunc="count", fill_value=0
    )
    pivot = pivot[in_order(table["emotion"])]
    height = max(2.2, 0.27 * len(pivot) + 1)
    figure, axes = plt.subplots(figsize=(1.6 + 0.8 * pivot.shape[1], min(height, 12)))
    sns.heatmap(
        pivot, annot=len(pivot) <= 40, fmt="d", cmap="Blues", linewidths=0.5, ax=axes, vmin=0,
        annot_kws={"fontsize": 8}, cbar_kws={"label": "utterances"},
    )  # fmt: skip
    axes.set(xlabel="", ylabel="speaker")
    axes.grid(False)
    return figure


def overview(table):
    """Each corpus's durations, share of every emotion, and files at each sampling rate. Returns a Figure."""
    corpora = list(dict.fromkeys(table["corpus"]))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 1.9 + 0.55 * len(corpora)), sharey=True)
    sns.boxplot(
        table, x="duration_s", y="corpus", order=corpora, color="0.85", fliersize=2, linewidth=0.8, ax=left
    )
    left.set(xlabel="duration (s)", ylabel="")
    shares = pd.crosstab(table["corpus"], table["emotion"], normalize="index").loc[corpora]
    start = np.zeros(len(corpora))
    for emotion in in_order(table["emotion"]):
        middle.barh(corpora, 100 * shares[emotion], left=start, color=EMOTION_COLOUR[emotion], label=emotion)
        start = start + 100 * shares[emotion].to_numpy()
    middle.set(xlabel="utterances (%)", xlim=(0, 100))
    middle.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    rates = pd.crosstab(table["corpus"], table["sample_rate_hz"]).loc[corpora]
    start = np.zeros(len(corpora))
    for number, rate in enumerate(rates):
        right.barh(corpora, rates[rate], left=start, color=f"C{number}", label=f"{rate / 1000:g} kHz")
        start = start + rates[rate].to_numpy()
    right.set(xlabel="utterances")
    right.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def by_emotion(table, column, label):
    """Box plot of one number per utterance by emotion; one row of boxes per corpus where there are several.

    table : with `emotion`, `corpus` and `column`; label : axis label with its unit. Returns a Figure.
    """
    order = in_order(table["emotion"])
    corpora = list(dict.fromkeys(table["corpus"]))
    figure, grid = plt.subplots(len(corpora), 1, figsize=(7, 2.6 * len(corpora)), squeeze=False, sharex=True)
    for axes, corpus in zip(grid[:, 0], corpora, strict=True):
        own = table[table["corpus"] == corpus]
        sns.boxplot(
            own, x="emotion", y=column, hue="emotion", order=order, hue_order=order, palette=EMOTION_COLOUR,
            fliersize=2, linewidth=0.8, legend=False, ax=axes,
        )  # fmt: skip
        axes.set(xlabel="", ylabel=label, title=corpus if len(corpora) > 1 else "")
    return figure


def one_per_emotion(examples, *, fmax=8000):
    """Waveform above spectrogram for one recording of each emotion.

    examples : dict emotion -> (signal, sample_rate); fmax : Hz shown. Returns a Figure.
    """
    names = in_order(examples)
    figure, grid = plt.subplots(
        2, len(names), figsize=(2.1 * len(names) + 0.8, 3.6), height_ratios=(1, 2), sharex="col"
    )
    grid = grid.reshape(2, -1)
    for column, name in enumerate(names):
        signal, rate = examples[name]
        top, bottom = grid[:, column]
        top.plot(np.arange(len(signal)) / rate, signal, color=EMOTION_COLOUR[name], linewidth=0.4)
        top.set(title=name, ylim=(-1, 1), yticks=[-1, 0, 1] if column == 0 else [])
        level = librosa.amplitude_to_db(np.abs(librosa.stft(signal, n_fft=1024, hop_length=256)), ref=np.max)
        extent = (0, len(signal) / rate, 0, rate / 2000)
        image = bottom.imshow(
            level, origin="lower", aspect="auto", extent=extent, vmin=-70, vmax=0, cmap=SEQUENTIAL
        )
        bottom.set(xlabel="time (s)", ylim=(0, min(fmax, rate / 2) / 1000))
        bottom.grid(False)
        if column:
            bottom.set_yticklabels([])
    grid[0, 0].set_ylabel("amplitude")
    grid[1, 0].set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=grid[1, -1], label="dB below the loudest point")
    return figure


def power_and_mel(signal, sample_rate, settings):
    """The four steps from samples to log-mel on one segment: taper, power spectrum, mel filters, dB.

    signal : (n_samples,) of one segment; settings : features.MelSettings. Returns a Figure.
    """
    taper = librosa.filters.get_window(settings.window, settings.window_length)
    power = np.abs(librosa.stft(signal, **settings.stft)) ** 2
    filters = librosa.filters.mel(sr=sample_rate, n_fft=settings.n_fft, n_mels=settings.n_mels)
    log_mel = librosa.power_to_db(filters @ power, ref=np.max, top_db=settings.top_db)
    hertz = librosa.fft_frequencies(sr=sample_rate, n_fft=settings.n_fft) / 1000
    middle = power.shape[1] // 2

    figure, grid = plt.subplots(1, 4, figsize=(13, 2.9))
    start = max(0, middle * settings.hop_length - settings.window_length // 2)
    piece = signal[start : start + settings.window_length]
    milliseconds = 1000 * np.arange(len(piece)) / sample_rate
    grid[0].plot(milliseconds, piece / np.abs(piece).max(), linewidth=0.7, color="0.6", label="samples")
    grid[0].plot(milliseconds, taper[: len(piece)], color="C3", linewidth=1, label="Hamming taper")
    grid[0].set(title="one frame, tapered", xlabel="time (ms)", ylabel="amplitude (relative)")
    grid[0].legend(fontsize=7, loc="lower left")
    grid[1].plot(hertz, librosa.power_to_db(power[:, middle], ref=np.max), linewidth=0.8)
    grid[1].set(title="its power spectrum", xlabel="frequency (kHz)", ylabel="dB")
    for band in filters[::8]:
        grid[2].plot(hertz, band / band.max(), linewidth=0.8)
    grid[2].set(title=f"every 8th of {settings.n_mels} mel filters", xlabel="frequency (kHz)", ylabel="gain")
    image = show_log_mel(grid[3], log_mel, sample_rate, hop_length=settings.hop_length)
    grid[3].set_title("log-mel of the segment")
    figure.colorbar(image, ax=grid[3], label="dB")
    return figure


def before_and_after(before, after, sample_rate, names=("before", "after")):
    """Two versions of one recording and their difference, as spectrograms on one scale. Returns a Figure.

    before, after : (n_samples,); sample_rate : Hz
    """
    levels = [
        librosa.power_to_db(np.abs(librosa.stft(signal, n_fft=1024, hop_length=256)) ** 2, ref=1.0, amin=1e-9)
        for signal in (before, after)
    ]
    figure, grid = plt.subplots(1, 3, figsize=(12, 2.8), sharey=True)
    extent = (0, len(before) / sample_rate, 0, sample_rate / 2000)
    top = levels[0].max()
    for axes, level, name in zip(grid, levels, names, strict=False):
        image = axes.imshow(
            level, origin="lower", aspect="auto", extent=extent, vmin=top - 80, vmax=top, cmap=SEQUENTIAL
        )
        axes.set(title=name, xlabel="time (s)")
    figure.colorbar(image, ax=grid[1], label="dB")
    change = levels[1] - levels[0]
    image = grid[2].imshow(
        change, origin="lower", aspect="auto", extent=extent, vmin=-30, vmax=30, cmap=DIVERGING
    )
    figure.colorbar(image, ax=grid[2], label="change (dB)")
    grid[2].set(title=f"{names[1]} − {names[0]}", xlabel="time (s)")
    grid[0].set_ylabel("frequency (kHz)")
    for axes in grid:
        axes.grid(False)
    return figure


def log_mel_grid(spectrograms, titles, sample_rate, *, hop_length=256, columns=8):
    """Log-mel spectrograms in a grid on one dB scale.

    spectrograms : (n, n_mels, n_frames) dB; titles : n texts. Returns a Figure.
    """
    figure, grid = panels(
        len(spectrograms), columns=columns, width=1.55, height=1.9, sharey=True, sharex=True
    )
    for number, (axes, log_mel, title) in enumerate(zip(grid, spectrograms, titles, strict=True)):
        image = show_log_mel(axes, log_mel, sample_rate, hop_length=hop_length, vmin=-80, vmax=0)
        axes.set_title(title, fontsize=8)
        axes.set(ylabel="" if number % columns else "kHz (mel)", xlabel="time (s)")
    figure.colorbar(image, ax=grid, label="dB", shrink=0.8)
    return figure
