"""What the variational autoencoder hears, keeps and makes of a voice."""

from collections.abc import Sequence

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ser_utils.features.spectral import voice_feature_names
from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL, colours, in_order

STATISTIC_COLOUR = {"mean": "#0072b2", "std": "#e69f00", "movement": "#117733"}


def frame_features(signal: np.ndarray, frames: np.ndarray, sample_rate: int, hop_length: int) -> Figure:
    """Draw an utterance's spectrogram with both pitches, and its features on the same time axis.

    Parameters
    ----------
    signal : float (n_samples,)
    frames : (n_frames, n_features) as `features.spectral.voice_features` gives them
    sample_rate : Hz
    hop_length : samples
    """
    columns = dict(zip(voice_feature_names(frames.shape[1] - 4), frames.T, strict=True))
    seconds = np.arange(len(frames)) * hop_length / sample_rate
    spectrum = abs(librosa.stft(signal, n_fft=4 * hop_length, hop_length=hop_length))
    mfcc = np.stack([values for name, values in columns.items() if name.startswith("mfcc_")])[1:]
    span = np.percentile(abs(mfcc), 98)
    figure, axes = plt.subplots(4, 1, figsize=(8, 7.5), sharex=True, height_ratios=(3, 2, 1, 1))
    pictures = (
        (librosa.amplitude_to_db(spectrum, ref=np.max), 0, sample_rate / 2, -80, 0, SEQUENTIAL, "level (dB)"),
        (mfcc, 0.5, len(mfcc) + 0.5, -span, span, DIVERGING, "coefficient (dB)"),
    )
    for panel, (values, bottom, top, low, high, cmap, label) in zip(axes, pictures, strict=False):
        extent, limits = (0, seconds[-1], bottom, top), {"vmin": low, "vmax": high, "cmap": cmap}
        image = panel.imshow(values, origin="lower", aspect="auto", extent=extent, **limits)
        figure.colorbar(image, ax=panel, label=label)
        panel.grid(False)
    candidate = {"color": "#56b4e9", "markersize": 3, "label": "highest candidate"}
    axes[0].plot(seconds, columns["pitch_highest_hz"], ".", **candidate)
    axes[0].plot(seconds, columns["pitch_pyin_hz"], color="white", linewidth=1.8, label="pYIN")
    axes[0].legend(labelcolor="white", fontsize=8, loc="upper right")
    axes[0].set(ylim=(0, 1000), ylabel="frequency (Hz)")
    axes[1].set_ylabel("MFCC")
    axes[2].plot(seconds, columns["band_energy_ratio_db"], color="C0", linewidth=1)
    axes[2].set_ylabel("band energy\nratio (dB)")
    axes[3].plot(seconds, columns["spectral_centroid_hz"] / 1000, color="C0", linewidth=1)
    axes[3].set(ylabel="spectral\ncentroid (kHz)", xlabel="time (s)")
    return figure


def workflow(n_features: int, n_latent: int, hidden: Sequence[int], n_classes: int) -> Figure:
    """Draw the way from sound to emotion as boxes and arrows, with the sizes of the model."""
    encoder, decoder = ([n_features, *hidden], [*reversed(hidden), n_features])
    boxes = (  # place, text, colour, the boxes its arrows go to
        (0, 1, "recording", "#dddddd", [1]),
        (1, 1, f"MFCC, pitch,\nband energy ratio,\ncentroid\n{n_features} statistics", "#cfe8f5", [2, 6]),
        (2, 1, "encoder\n" + " → ".join(map(str, encoder)), "#cdebc5", [3]),
        (3, 1, f"latent z ~ N(μ, σ²)\n{n_latent} dimensions", "#fde2a7", [4, 6]),
        (4, 1, "decoder\n" + " → ".join(map(str, decoder)), "#cdebc5", [5]),
        (5, 1, "features,\nreconstructed", "#cfe8f5", [8]),
        (3, 0, "classifier (SVC)\non [features, μ]", "#f5d0d0", [7]),
        (4, 0, f"{n_classes} emotions", "#dddddd", []),
        (5, 0, "loss: ½‖x − x̂‖²\n+ β KL(N(μ, σ²) ‖ N(0, 1))", "#eeeeee", []),
    )
    figure, axes = plt.subplots(figsize=(10.5, 3))
    arrow = {"arrowstyle": "->", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    for x, y, text, colour, targets in boxes:
        shape = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "0.4"}
        axes.text(2 * x, 1.4 * y, text, ha="center", va="center", fontsize=8.5, bbox=shape, zorder=2)
        for to_x, to_y, *_ in (boxes[target] for target in targets):
            side, fall = np.sign(to_x - x), y - to_y  # an arrow ends at the side of a box, or above it
            end = 2 * to_x - (0.5 if fall else 0.72) * side, 1.4 * to_y + 0.3 * fall
            axes.annotate("", end, (2 * x, 1.4 * y), arrowprops=arrow, zorder=1)
    axes.set(xlim=(-1, 11.2), ylim=(-0.6, 2.1))
    axes.axis("off")
    return figure


def latent_maps(latent: np.ndarray, table: pd.DataFrame, seed: int = 0) -> Figure:
    """Draw the latent in two dimensions, by PCA (top) and t-SNE, coloured by emotion (left) and by who speaks.

    Each speaker's name stands amid their points; of several corpora, each has its colour instead.

    Parameters
    ----------
    latent : (n, n_latent)
    table : `emotion`, `speaker`, `corpus` of the same rows
    """
    pca, perplexity = PCA(2).fit(latent), min(30, (len(latent) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    maps = {
        f"PCA ({pca.explained_variance_ratio_.sum():.0%} of the variance)": pca.transform(latent),
        "t-SNE": tsne.fit_transform(latent),
    }
    who = "corpus" if table["corpus"].nunique() > 1 else "speaker"
    emotions, people = in_order(table["emotion"]), sorted(table[who].unique())
    wheel = plt.get_cmap("turbo")(np.linspace(0.05, 0.95, len(people)))
    groups = (("emotion", emotions, colours(emotions)), (who, people, wheel))
    figure, grid = plt.subplots(2, 2, figsize=(10, 8))
    for row, (name, points) in zip(grid, maps.items(), strict=True):
        for axes, (column, values, palette) in zip(row, groups, strict=True):
            for value, colour in zip(values, palette, strict=True):
                members = points[(table[column] == value).to_numpy()]
                axes.scatter(*members.T, s=9, color=colour, alpha=0.8, linewidth=0, label=value)
                if column == "speaker":
                    middle = axes.text(*np.median(members, axis=0), value, fontsize=7, weight="bold", ha="center")
                    middle.set_path_effects([withStroke(linewidth=2, foreground="white")])
            axes.set(title=f"{name}, by {column}", xticks=[], yticks=[])
            if column != "speaker":
                axes.legend(fontsize=7, markerscale=1.6, loc="upper left", framealpha=0.7)
    for axes in grid[0]:
        axes.set(xlabel="first component", ylabel="second component")
    return figure


def variance_returned(explained: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw how much of each feature's variance comes back from the latent, feature by feature.

    Parameters
    ----------
    explained : (n_features,) 1 − error / variance, on clips not trained on
    names : of the features, as `voice_statistic_names` gives them
    """
    figure, grid = plt.subplots(3, 1, figsize=(9, 6.6), sharex=True, sharey=True)
    labels = [name.split(maxsplit=1)[1].removesuffix("_hz").removesuffix("_db") for name in names]
    n = len(names) // 3
    for axes, start in zip(grid, range(0, len(names), n), strict=True):
        statistic = names[start].split()[0]
        axes.bar(range(n), explained[start : start + n], color=STATISTIC_COLOUR[statistic], width=0.75)
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set(title=f"{statistic} over time", ylabel="variance\nreturned")
        axes.set_ylim(min(-0.1, explained.min()), 1)
    grid[-1].set_xticks(range(n), labels[:n], rotation=90, fontsize=8)
    return figure


def reconstruction_examples(
    truth: np.ndarray, returned: np.ndarray, names: Sequence[str], titles: Sequence[str]
) -> Figure:
    """Draw the standardised features of some clips (bars) and what comes back of them (dots).

    Parameters
    ----------
    truth, returned : (n_clips, n_features)
    titles : one per clip
    """
    size = (10, 1.35 * len(truth) + 0.6)
    figure, grid = plt.subplots(len(truth), 1, figsize=size, sharex=True, sharey=True, squeeze=False)
    bar_colours = [STATISTIC_COLOUR[name.split()[0]] for name in names]
    for axes, true, back, title in zip(grid[:, 0], truth, returned, titles, strict=True):
        axes.bar(range(len(names)), true, color=bar_colours, width=0.8, alpha=0.55)
        axes.plot(range(len(names)), back, "k.", markersize=4)
        axes.set_title(title, fontsize=9, color=EMOTION_COLOUR.get(title, "black"), loc="left")
        axes.set(ylim=(-3.5, 3.5), xlim=(-1, len(names)))
    grid[-1][0].set_xlabel("feature: means (blue), standard deviations (yellow), movements (green)")
    figure.supylabel("standard deviations from the training mean", fontsize=9)
    return figure


def latent_use(kl: np.ndarray, variance: np.ndarray, threshold: float) -> Figure:
    """Draw each latent dimension's KL divergence, the active ones in colour.

    Parameters
    ----------
    kl : (n_latent,) nats
    variance : (n_latent,) of the posterior mean over the data; above `threshold` a dimension is active
    """
    order = np.argsort(-kl)
    active = variance[order] > threshold
    figure, axes = plt.subplots(figsize=(6, 2.6))
    axes.bar(range(len(kl)), kl[order], color=np.where(active, "#0072b2", "#bbbbbb"))
    axes.set_xticks(range(len(kl)), order, fontsize=8)
    title = f"{active.sum()} of {len(kl)} dimensions are active"
    axes.set(xlabel="latent dimension", ylabel="KL (nats)", title=title)
    return figure


def traversals(changes: dict[str, np.ndarray], names: Sequence[str], steps: np.ndarray) -> Figure:
    """Draw what walking along single latent dimensions does to the features.

    Parameters
    ----------
    changes : title -> (n_steps, n_features) in standard deviations, against the middle of the walk
    names : of the features
    steps : (n_steps,) positions on the walk
    """
    figure, grid = plt.subplots(len(changes), 1, figsize=(10, 1.7 * len(changes)), sharex=True, squeeze=False)
    span, n = max(abs(change).max() for change in changes.values()), len(names) // 3
    looks = {"aspect": "auto", "origin": "lower", "cmap": DIVERGING, "vmin": -span, "vmax": span}
    for axes, (title, change) in zip(grid[:, 0], changes.items(), strict=True):
        image = axes.imshow(change, extent=(-0.5, len(names) - 0.5, steps[0], steps[-1]), **looks)
        axes.vlines([n - 0.5, 2 * n - 0.5], steps[0], steps[-1], color="0.2", linewidth=0.8)
        axes.set(title=title, ylabel="position")
        axes.grid(False)
    kinds = ["means: MFCC …, pitch, ratio, centroid", "standard deviations", "movements"]
    grid[-1][0].set_xticks(np.arange(3) * n + n / 2, kinds)
    figure.colorbar(image, ax=grid[:, 0].tolist(), label="change (standard deviations)")
    return figure


def interpolation(
    envelopes_db: np.ndarray, centres_hz: np.ndarray, pitch_hz: np.ndarray, shares: np.ndarray, ends: Sequence[str]
) -> Figure:
    """Draw the spectral envelope (left) and the pitch (right) on the way from one emotion to another.

    Parameters
    ----------
    envelopes_db : (n_steps, n_mels)
    centres_hz : (n_mels,)
    pitch_hz : (n_steps,)
    shares : (n_steps,) 0 is the first of `ends`, 1 the second
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(2, 1))
    shades = plt.get_cmap("viridis")(shares * 0.9)
    for envelope, shade, share in zip(envelopes_db, shades, shares, strict=True):
        label = {0.0: ends[0], 1.0: ends[1]}.get(float(share))
        left.plot(centres_hz / 1000, envelope, color=shade, linewidth=1.6, label=label)
    left.set(xlabel="frequency (kHz)", ylabel="mean level (dB)", title="spectral envelope")
    left.legend()
    right.plot(shares, pitch_hz, color="0.6", linewidth=1)
    right.scatter(shares, pitch_hz, color=shades, s=40, zorder=2)
    right.set(xlabel=f"way from {ends[0]} to {ends[1]}", ylabel="mean pitch (Hz)", title="pitch")
    return figure
