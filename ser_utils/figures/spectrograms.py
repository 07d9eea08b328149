"""Spectrograms of whole utterances: where they come from, what artificial data does to them, what a network attends to."""

import librosa
import matplotlib.pyplot as plt
import numpy as np

from ser_utils.figures.style import SEQUENTIAL, panels, show_log_mel


def from_sound_to_log_mel(signal, sample_rate, *, n_mels, n_fft, hop_length, fmax=8000):
    """One utterance in five steps: samples, |STFT|, power in dB, mel filters, log-mel.

    signal : (n_samples,); sample_rate : Hz; the rest as in `features.log_mel`. Returns a Figure.
    """
    magnitude = np.abs(librosa.stft(signal, n_fft=n_fft, hop_length=hop_length))
    fmax = min(fmax, sample_rate / 2)
    filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmax=fmax)
    log_mel = librosa.power_to_db(filters @ magnitude**2, ref=np.max)
    seconds, khz = len(signal) / sample_rate, sample_rate / 2000
    figure, axes = plt.subplots(1, 5, figsize=(16, 2.8))
    axes[0].plot(np.arange(len(signal)) / sample_rate, signal, linewidth=0.4)
    axes[0].set(title="x: samples", xlabel="time (s)", ylabel="amplitude")
    for place, level, title, unit in (
        (1, magnitude, "|X|: short-time Fourier transform", "magnitude"),
        (2, librosa.power_to_db(magnitude**2, ref=np.max), "10 log₁₀ |X|²: power", "dB"),
    ):
        extent = (0, seconds, 0, khz)
        image = axes[place].imshow(level, origin="lower", aspect="auto", extent=extent, cmap=SEQUENTIAL)
        axes[place].set(title=title, xlabel="time (s)", ylabel="frequency (kHz)", ylim=(0, fmax / 1000))
        axes[place].grid(False)
        figure.colorbar(image, ax=axes[place], label=unit)
    hertz = librosa.fft_frequencies(sr=sample_rate, n_fft=n_fft) / 1000
    for band in filters[:: max(1, n_mels // 12)]:
        axes[3].plot(hertz, band / band.max(), linewidth=0.8)
    axes[3].set(
        title=f"H: of {n_mels} mel filters", xlabel="frequency (kHz)", ylabel="gain", xlim=(0, fmax / 1000)
    )
    image = show_log_mel(axes[4], log_mel, sample_rate, hop_length=hop_length, fmax=fmax)
    axes[4].set_title("10 log₁₀ H|X|²: log-mel")
    figure.colorbar(image, ax=axes[4], label="dB below maximum")
    return figure


def versions(spectrograms, sample_rate, *, hop_length, columns=4, fmax=8000):
    """Versions of one utterance side by side, on one dB scale.

    spectrograms : dict name -> (n_frames, n_mels) in dB below the maximum. Returns a Figure.
    """
    figure, axes = panels(len(spectrograms), columns=columns, width=3.1, height=2.1, sharey=True)
    for place, (name, frames) in zip(axes, spectrograms.items(), strict=True):
        image = show_log_mel(place, frames.T, sample_rate, hop_length=hop_length, fmax=fmax, vmin=-80, vmax=0)
        place.set_title(name)
    for place in axes:
        if place.get_subplotspec().colspan.start:
            place.set_ylabel("")
    figure.colorbar(image, ax=axes, label="dB below maximum", shrink=0.8)
    return figure


def attention(log_mels, weights, titles, sample_rate, *, hop_length, step_frames, fmax=8000):
    """Log-mel of some clips, and below each how much every step of it counted.

    log_mels : list of (n_frames, n_mels) dB; weights : list of (n_steps,), each summing to one
    step_frames : frames that one step stands for. Returns a Figure.
    """
    figure, grid = plt.subplots(
        2, len(log_mels), figsize=(2.7 * len(log_mels), 3.2), height_ratios=(3, 1), squeeze=False, sharex="col", sharey="row"
    )  # fmt: skip
    for column, (log_mel, weight, title) in enumerate(zip(log_mels, weights, titles, strict=True)):
        top, bottom = grid[:, column]
        show_log_mel(top, log_mel.T, sample_rate, hop_length=hop_length, fmax=fmax)
        top.set(title=title, xlabel="", ylabel=top.get_ylabel() if column == 0 else "")
        step_s = step_frames * hop_length / sample_rate
        bottom.bar((np.arange(len(weight)) + 0.5) * step_s, weight, width=0.9 * step_s, color="0.35")
        bottom.set(xlabel="time (s)", ylabel="weight" if column == 0 else "")
    return figure


def scores(table, *, value="uar", chance=None, columns="protocol", published=None):
    """Scores of models (rows) under protocols (columns of dots), the published ones beside them.

    table : model, `columns`, `value` and, where known, `<value>_low`, `<value>_high`
    chance : drawn as a line; published : dict model -> value, drawn as crosses. Returns a Figure.
    """
    models = list(dict.fromkeys(table["model"]))
    place = {model: len(models) - 1 - i for i, model in enumerate(models)}
    figure, axes = plt.subplots(figsize=(7.5, 0.42 * len(models) + 1.3))
    groups = list(dict.fromkeys(table[columns]))
    for number, group in enumerate(groups):
        rows = table[table[columns] == group]
        height = rows["model"].map(place) + 0.12 * ((len(groups) - 1) / 2 - number)
        axes.plot(rows[value], height, "o", color=f"C{number}", label=str(group))
        if f"{value}_low" in rows:
            axes.hlines(height, rows[f"{value}_low"], rows[f"{value}_high"], color=f"C{number}", linewidth=1)
    if published:
        shown = {model: figure_ for model, figure_ in published.items() if model in place}
        axes.plot(list(shown.values()), [place[model] for model in shown], "kx", label="published")
    if chance is not None:
        axes.axvline(chance, color="0.6", linestyle=":", label="chance")
    axes.set_yticks(range(len(models)), models[::-1])
    axes.set(xlabel=value.upper() if value == "uar" else value, xlim=(0, 1))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
