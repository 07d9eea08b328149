"""Spectrograms of whole utterances: where they come from, what artificial data does to them, what a network attends to."""

from collections.abc import Mapping, Sequence

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ser_utils.figures.style import panels, show_levels, show_log_mel

Clips = Sequence[np.ndarray]
HIGHEST_HZ = 8000  # upper end of the highest band


def from_sound_to_log_mel(signal: np.ndarray, sample_rate: int, *, n_mels: int, n_fft: int, hop_length: int) -> Figure:
    """Draw one utterance in five steps: samples, |STFT|, power in dB, mel filters, log-mel.

    Parameters
    ----------
    signal : (n_samples,)
    sample_rate : Hz
    n_mels, n_fft, hop_length : as in `features.spectral.log_mel`
    """
    magnitude = np.abs(librosa.stft(signal, n_fft=n_fft, hop_length=hop_length))
    fmax = min(HIGHEST_HZ, sample_rate / 2)
    filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmax=fmax)
    log_mel = librosa.power_to_db(filters @ magnitude**2, ref=np.max)
    decibels = librosa.power_to_db(magnitude**2, ref=np.max)
    figure, (samples, linear, power, gains, mel) = plt.subplots(1, 5, figsize=(16, 2.8))
    samples.plot(np.arange(len(signal)) / sample_rate, signal, linewidth=0.4)
    samples.set(title="x: samples", xlabel="time (s)", ylabel="amplitude")
    for axes, level, title, unit in (
        (linear, magnitude, "|X|: short-time Fourier transform", "magnitude"),
        (power, decibels, "10 log₁₀ |X|²: power", "dB"),
    ):
        image = show_levels(axes, level, len(signal) / sample_rate, sample_rate / 2000)
        axes.set(title=title, xlabel="time (s)", ylabel="frequency (kHz)", ylim=(0, fmax / 1000))
        figure.colorbar(image, ax=axes, label=unit)
    khz = librosa.fft_frequencies(sr=sample_rate, n_fft=n_fft) / 1000
    for band in filters[:: max(1, n_mels // 12)]:
        gains.plot(khz, band / band.max(), linewidth=0.8)
    gains.set(title=f"H: of {n_mels} mel filters", ylabel="gain")
    gains.set(xlabel="frequency (kHz)", xlim=(0, fmax / 1000))
    image = show_log_mel(mel, log_mel, sample_rate, hop_length=hop_length, fmax=fmax)
    mel.set_title("10 log₁₀ H|X|²: log-mel")
    figure.colorbar(image, ax=mel, label="dB below maximum")
    return figure


def versions(spectrograms: Mapping[str, np.ndarray], sample_rate: int, *, hop_length: int, columns: int = 4) -> Figure:
    """Draw versions of one utterance side by side, on one dB scale.

    Parameters
    ----------
    spectrograms : name → (n_frames, n_mels) in dB below the maximum
    sample_rate : Hz
    hop_length : samples
    columns : panels in a row
    """
    figure, grid = panels(len(spectrograms), columns=columns, width=3.1, height=2.1, sharey=True)
    scale = {"fmax": HIGHEST_HZ, "vmin": -80, "vmax": 0}
    for axes, (name, frames) in zip(grid, spectrograms.items(), strict=True):
        image = show_log_mel(axes, frames.T, sample_rate, hop_length=hop_length, **scale)
        axes.set_title(name)
        if axes.get_subplotspec().colspan.start:
            axes.set_ylabel("")
    figure.colorbar(image, ax=grid, label="dB below maximum", shrink=0.8)
    return figure


def attention(
    log_mels: Clips, weights: Clips, titles: Sequence[str], sample_rate: int, *, hop_length: int, step_frames: int
) -> Figure:
    """Draw the log-mel of some clips, and below each how much every step of it counted.

    Parameters
    ----------
    log_mels : (n_frames, n_mels) dB of each clip
    weights : (n_steps,) of each clip, summing to one
    titles : one a clip
    sample_rate : Hz
    hop_length : samples
    step_frames : frames that one step stands for
    """
    shape = {"figsize": (2.7 * len(log_mels), 3.2), "height_ratios": (3, 1), "squeeze": False}
    figure, grid = plt.subplots(2, len(log_mels), **shape, sharex="col", sharey="row")
    step_s = step_frames * hop_length / sample_rate
    for column, (log_mel, weight, title) in enumerate(zip(log_mels, weights, titles, strict=True)):
        top, bottom = grid[:, column]
        show_log_mel(top, log_mel.T, sample_rate, hop_length=hop_length, fmax=HIGHEST_HZ)
        top.set(title=title, xlabel="", ylabel=top.get_ylabel() if column == 0 else "")
        bottom.bar((np.arange(len(weight)) + 0.5) * step_s, weight, width=0.9 * step_s, color="0.35")
        bottom.set(xlabel="time (s)", ylabel="weight" if column == 0 else "")
    return figure


def scores(table: pd.DataFrame, *, chance: float | None = None) -> Figure:
    """Draw the UAR of models (rows) under protocols (colours).

    Parameters
    ----------
    table : model, protocol, uar and, where known, uar_low and uar_high
    chance : drawn as a line
    """
    models = list(dict.fromkeys(table["model"]))
    place = {model: len(models) - 1 - i for i, model in enumerate(models)}
    figure, axes = plt.subplots(figsize=(7.5, 0.42 * len(models) + 1.3))
    n_protocols = table["protocol"].nunique()
    for number, (protocol, rows) in enumerate(table.groupby("protocol", sort=False)):
        height = rows["model"].map(place) + 0.12 * ((n_protocols - 1) / 2 - number)
        axes.plot(rows["uar"], height, "o", color=f"C{number}", label=protocol)
        if "uar_low" in rows:
            axes.hlines(height, rows["uar_low"], rows["uar_high"], color=f"C{number}", linewidth=1)
    if chance is not None:
        axes.axvline(chance, color="0.6", linestyle=":", label="chance")
    axes.set_yticks(range(len(models)), models[::-1])
    axes.set(xlabel="UAR", xlim=(0, 1))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
