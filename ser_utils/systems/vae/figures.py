"""What the variational autoencoder hears, keeps and makes of a voice."""

import librosa
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ser_utils.features.spectral import voice_feature_names
from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL, colours, in_order

STATISTIC_COLOUR = {"mean": "#0072b2", "std": "#e69f00", "movement": "#117733"}


def frame_features(signal, frames, sample_rate, hop_length):
    """Draw an utterance's spectrogram with both pitches, and its features on the same time axis.

    signal : float (n_samples,); frames : (n_frames, n_features) as `features.voice_features` gives them
    sample_rate : int, Hz; hop_length : samples. Returns a Figure.
    """
    columns = dict(zip(voice_feature_names(frames.shape[1] - 4), frames.T, strict=True))
    seconds = np.arange(len(frames)) * hop_length / sample_rate
    level = librosa.amplitude_to_db(
        abs(librosa.stft(signal, n_fft=4 * hop_length, hop_length=hop_length)), ref=np.max
    )
    figure, axes = plt.subplots(4, 1, figsize=(8, 7.5), sharex=True, height_ratios=(3, 2, 1, 1))
    extent = (0, seconds[-1], 0, sample_rate / 2)
    image = axes[0].imshow(
        level, origin="lower", aspect="auto", extent=extent, vmin=-80, vmax=0, cmap=SEQUENTIAL
    )
    axes[0].plot(
        seconds, columns["pitch_highest_hz"], ".", color="#56b4e9", markersize=3, label="highest candidate"
    )
    axes[0].plot(seconds, columns["pitch_pyin_hz"], color="white", linewidth=1.8, label="pYIN")
    axes[0].set(ylim=(0, 1000), ylabel="frequency (Hz)")
    axes[0].legend(labelcolor="white", fontsize=8, loc="upper right")
    figure.colorbar(image, ax=axes[0], label="level (dB)")
    mfcc = np.stack([values for name, values in columns.items() if name.startswith("mfcc_")])[1:]
    extent = (0, seconds[-1], 0.5, len(mfcc) + 0.5)
    span = np.percentile(abs(mfcc), 98)
    image = axes[1].imshow(
        mfcc, origin="lower", aspect="auto", extent=extent, vmin=-span, vmax=span, cmap=DIVERGING
    )
    axes[1].set_ylabel("MFCC")
    figure.colorbar(image, ax=axes[1], label="coefficient (dB)")
    axes[2].plot(seconds, columns["band_energy_ratio_db"], color="C0", linewidth=1)
    axes[2].set_ylabel("band energy\nratio (dB)")
    axes[3].plot(seconds, columns["spectral_centroid_hz"] / 1000, color="C0", linewidth=1)
    axes[3].set(ylabel="spectral\ncentroid (kHz)", xlabel="time (s)")
    for axis in axes[:2]:
        axis.grid(False)
    return figure


def workflow(n_features, n_latent, hidden, classes):
    """Draw the way from sound to emotion as boxes and arrows. Sizes as the model has them. Returns a Figure."""
    encoder = " → ".join(map(str, [n_features, *hidden]))
    decoder = " → ".join(map(str, [*reversed(hidden), n_features]))
    boxes = {
        "sound": (0, 1, "recording", "#dddddd"),
        "features": (1, 1, f"MFCC, pitch,\nband energy ratio,\ncentroid\n{n_features} statistics", "#cfe8f5"),
        "encoder": (2, 1, f"encoder\n{encoder}", "#cdebc5"),
        "latent": (3, 1, f"latent z ~ N(μ, σ²)\n{n_latent} dimensions", "#fde2a7"),
        "decoder": (4, 1, f"decoder\n{decoder}", "#cdebc5"),
        "back": (5, 1, "features,\nreconstructed", "#cfe8f5"),
        "classifier": (3, 0, "classifier (SVC)\non [features, μ]", "#f5d0d0"),
        "emotion": (4, 0, f"{classes} emotions", "#dddddd"),
        "loss": (5, 0, "loss: ½‖x − x̂‖²\n+ β KL(N(μ, σ²) ‖ N(0, 1))", "#eeeeee"),
    }
    figure, axes = plt.subplots(figsize=(10.5, 3))
    for x, y, text, colour in boxes.values():
        axes.text(
            2 * x, 1.4 * y, text, ha="center", va="center", fontsize=8.5,
            bbox={"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "0.4"},
        )  # fmt: skip
    arrows = ["sound features", "features encoder", "encoder latent", "latent decoder", "decoder back"]
    for arrow in [*arrows, "features classifier", "latent classifier", "classifier emotion", "back loss"]:
        (x0, y0, *_), (x1, y1, *_) = (boxes[name] for name in arrow.split())
        if y0 == y1:
            ends = (2 * x1 - 0.72, 1.4 * y1), (2 * x0 + 0.72, 1.4 * y0)
        else:
            ends = (
                (2 * x1 - 0.5 * np.sign(x1 - x0), 1.4 * y1 + 0.3),
                (2 * x0, 1.4 * y0 - (0.5 if x0 == 1 else 0.3)),
            )
        axes.annotate("", *ends, arrowprops={"arrowstyle": "->", "color": "0.3"})
    axes.set(xlim=(-1, 11.2), ylim=(-0.6, 2.1))
    axes.axis("off")
    return figure


def latent_maps(latent, table, seed=0):
    """Draw the latent in two dimensions, by PCA (top) and t-SNE, coloured by emotion (left) and by speaker.

    latent : (n, n_latent); table : `emotion`, `speaker` of the same rows. Returns a Figure.
    """
    pca = PCA(2).fit(latent)
    perplexity = min(30, (len(latent) - 1) / 3)
    maps = {
        f"PCA ({pca.explained_variance_ratio_.sum():.0%} of the variance)": pca.transform(latent),
        "t-SNE": TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(latent),
    }
    emotions, speakers = in_order(table["emotion"]), sorted(table["speaker"].unique())
    wheel = plt.get_cmap("turbo")(np.linspace(0.05, 0.95, len(speakers)))
    groups = (
        ("emotion", emotions, colours(emotions)),
        ("speaker", speakers, wheel),
    )
    figure, grid = plt.subplots(2, 2, figsize=(10, 8))
    for row, (name, points) in zip(grid, maps.items(), strict=True):
        for axes, (column, values, palette) in zip(row, groups, strict=True):
            for value, colour in zip(values, palette, strict=True):
                chosen = (table[column] == value).to_numpy()
                axes.scatter(*points[chosen].T, s=9, color=colour, alpha=0.8, linewidth=0, label=value)
            axes.set(title=f"{name}, by {column}", xticks=[], yticks=[])
    for axes in grid[0]:
        axes.legend(fontsize=7, markerscale=1.6, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1)
    return figure


def reconstruction_errors(explained, names):
    """Draw how much of each feature's variance comes back from the latent, feature by feature.

    explained : (n_features,) 1 − error / variance on clips not trained on; names : as `voice_statistic_names`
    Returns a Figure.
    """
    per_statistic = len(names) // 3
    figure, grid = plt.subplots(3, 1, figsize=(9, 6.6), sharex=True, sharey=True)
    for axes, start in zip(grid, range(0, len(names), per_statistic), strict=True):
        statistic = names[start].split()[0]
        values = explained[start : start + per_statistic]
        axes.bar(range(per_statistic), values, color=STATISTIC_COLOUR[statistic], width=0.75)
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set(
            title=f"{statistic} over time", ylabel="variance\nreturned", ylim=(min(-0.1, explained.min()), 1)
        )
    labels = [
        name.split(maxsplit=1)[1].replace("_hz", "").replace("_db", "") for name in names[:per_statistic]
    ]
    grid[-1].set_xticks(range(per_statistic), labels, rotation=90, fontsize=8)
    return figure


def reconstruction_examples(truth, returned, names, titles):
    """Draw the standardised features of some clips (bars) and what comes back of them (dots).

    truth, returned : (n_clips, n_features); titles : one per clip. Returns a Figure.
    """
    figure, grid = plt.subplots(
        len(truth), 1, figsize=(10, 1.35 * len(truth) + 0.6), sharex=True, sharey=True, squeeze=False
    )
    bar_colours = [STATISTIC_COLOUR[name.split()[0]] for name in names]
    for axes, true, back, title in zip(grid[:, 0], truth, returned, titles, strict=True):
        axes.bar(range(len(names)), true, color=bar_colours, width=0.8, alpha=0.55)
        axes.plot(range(len(names)), back, "k.", markersize=4)
        axes.set_title(title, fontsize=9, color=EMOTION_COLOUR.get(title, "black"), loc="left")
        axes.set(ylim=(-3.5, 3.5), xlim=(-1, len(names)))
    grid[-1][0].set_xlabel("feature: means (blue), standard deviations (yellow), movements (green)")
    figure.supylabel("standard deviations from the training mean", fontsize=9)
    return figure


def latent_use(kl, variance, threshold):
    """Draw each latent dimension's KL divergence, the active ones in colour.

    kl : (n_latent,) nats; variance : (n_latent,) of the posterior mean over the data. Returns a Figure.
    """
    order = np.argsort(-kl)
    active = variance[order] > threshold
    figure, axes = plt.subplots(figsize=(6, 2.6))
    axes.bar(range(len(kl)), kl[order], color=np.where(active, "#0072b2", "#bbbbbb"))
    axes.set_xticks(range(len(kl)), order, fontsize=8)
    axes.set(
        xlabel="latent dimension",
        ylabel="KL (nats)",
        title=f"{active.sum()} of {len(kl)} dimensions are active",
    )
    return figure


def traversals(changes, names, steps):
    """Draw what walking along single latent dimensions does to the features.

    changes : dict title -> (n_steps, n_features) in standard deviations, against the walk's middle
    names : of the features; steps : (n_steps,) positions on the walk. Returns a Figure.
    """
    per_statistic = len(names) // 3
    figure, grid = plt.subplots(len(changes), 1, figsize=(10, 1.7 * len(changes)), sharex=True, squeeze=False)
    span = max(abs(change).max() for change in changes.values())
    for axes, (title, change) in zip(grid[:, 0], changes.items(), strict=True):
        image = axes.imshow(
            change, aspect="auto", origin="lower", cmap=DIVERGING, vmin=-span, vmax=span,
            extent=(-0.5, len(names) - 0.5, steps[0], steps[-1]),
        )  # fmt: skip
        for edge in (per_statistic, 2 * per_statistic):
            axes.axvline(edge - 0.5, color="0.2", linewidth=0.8)
        axes.set(title=title, ylabel="position")
        axes.grid(False)
    middles = np.arange(3) * per_statistic + per_statistic / 2
    grid[-1][0].set_xticks(
        middles, ["means: MFCC …, pitch, ratio, centroid", "standard deviations", "movements"]
    )
    figure.colorbar(image, ax=grid[:, 0].tolist(), label="change (standard deviations)")
    return figure


def interpolation(envelopes_db, centres_hz, pitch_hz, shares, ends):
    """Draw the decoded spectral envelope and pitch on the way from one emotion's middle to another's.

    envelopes_db : (n_steps, n_mels); centres_hz : (n_mels,); pitch_hz : (n_steps,)
    shares : (n_steps,) of the way, 0 … 1; ends : the two emotions. Returns a Figure.
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
