"""Attribution maps beside what they explain, and the checks they went through."""

import matplotlib.pyplot as plt
import numpy as np

from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL, in_order, panels, show_log_mel

METHOD_COLOUR = {
    "gradient": "#56b4e9",
    "gradient_times_input": "#0072b2",
    "smooth_grad": "#009e73",
    "integrated_gradients": "#d55e00",
    "occlusion": "#882255",
    "grad_cam": "#e69f00",
    "attention": "#cc79a7",
    "prototypes": "#000000",
    "energy": "#999999",
    "random": "#cccccc",
}


def maps_over(features, maps, *, region=None, titles=None, hop_s=0.016):
    """One input and the maps several methods drew of it.

    features : (n_frames, n_bands) as the network saw it; maps : dict method -> (n_frames, n_bands)
    region : bool (n_frames, n_bands), outlined where the truth is known; hop_s : seconds a frame. Returns a Figure.
    """
    shown = {"input": features, **maps}
    figure, grid = panels(len(shown), columns=5, width=2.6, height=2.4, sharex=True, sharey=True)
    extent = (0, len(features) * hop_s, 0, features.shape[1])
    for axes, (name, values) in zip(grid, shown.items(), strict=True):
        if name == "input":
            axes.imshow(values.T, origin="lower", aspect="auto", extent=extent, cmap=SEQUENTIAL)
        else:
            top = np.quantile(np.abs(values), 0.995) or 1
            axes.imshow(
                np.abs(values.T) / top, origin="lower", aspect="auto", extent=extent, cmap="viridis", vmax=1
            )
        if region is not None:
            outline = np.linspace(0, extent[1], region.shape[0]), np.linspace(0, extent[3], region.shape[1])
            axes.contour(*outline, region.T.astype(float), levels=[0.5], colors="white", linewidths=1.2)
        axes.set(title=(titles or {}).get(name, name.replace("_", " ")), xlabel="time (s)")
        axes.grid(False)
    grid[0].set_ylabel("feature (mel band or coefficient)")
    return figure


def class_means(maps, *, row_labels=None):
    """Mean attribution of each class, one row of panels per feature type, on one scale a row.

    maps : dict feature type -> dict emotion -> (n_frames, n_features), signed, time in shares of the clip
    row_labels : dict feature type -> label of its vertical axis. Returns a Figure.
    """
    emotions = in_order(emotion for row in maps.values() for emotion in row)
    size = (1.7 * len(emotions) + 1.2, 2.0 * len(maps) + 0.5)
    figure, grid = plt.subplots(len(maps), len(emotions), figsize=size, squeeze=False, sharex=True)
    for row, (kind, means) in zip(grid, maps.items(), strict=True):
        limit = max(np.quantile(np.abs(values), 0.995) for values in means.values()) or 1
        for axes, emotion in zip(row, emotions, strict=True):
            axes.grid(False)
            axes.set_yticks([])
            if emotion in means:
                extent = (0, 100, 0, means[emotion].shape[1])
                image = axes.imshow(
                    means[emotion].T, origin="lower", aspect="auto", extent=extent, cmap=DIVERGING,
                    vmin=-limit, vmax=limit,
                )  # fmt: skip
        row[0].set_ylabel(f"{kind}\n{(row_labels or {}).get(kind, '')}")
        figure.colorbar(image, ax=list(row), label="log-odds added", shrink=0.8)
    for axes, emotion in zip(grid[0], emotions, strict=True):
        axes.set_title(emotion, color=EMOTION_COLOUR[emotion])
    for axes in grid[-1]:
        axes.set_xlabel("time (% of clip)")
    return figure


def bands_by_class(profiles, *, labels):
    """How the attribution of each class is spread over features, one panel per feature type.

    profiles : dict feature type -> dict emotion -> (n_features,), at least 0; labels : dict feature type -> of its
        axis. Returns a Figure.
    """
    figure, axes = panels(len(profiles), columns=3, width=4.2, height=2.6, sharey=True)
    for one, (kind, means) in zip(axes, profiles.items(), strict=True):
        for emotion, values in means.items():
            one.plot(100 * values / values.sum(), color=EMOTION_COLOUR[emotion], label=emotion, linewidth=1.2)
        one.set(title=kind, xlabel=labels[kind])
    axes[0].set_ylabel("share of the attribution (%)")
    axes[-1].legend(fontsize=7, ncols=2)
    return figure


def part_and_rest(levels, sample_rate, *, hop_length):
    """Log-mel spectrograms of a recording, of the part a model relied on, and of the rest.

    levels : dict title -> (n_mels, n_frames) in dB, on one scale. Returns a Figure.
    """
    figure, axes = panels(len(levels), columns=3, width=3.6, height=2.6, sharey=True)
    for one, (title, level) in zip(axes, levels.items(), strict=True):
        image = show_log_mel(one, level, sample_rate, hop_length=hop_length, vmin=-70, vmax=0)
        one.set_title(title)
    figure.colorbar(image, ax=axes, label="dB")
    return figure


def over_time(level, curves, *, seconds, title="", note=""):
    """What several methods say of each moment, under the recording they speak of.

    level : (n_mels, n_frames) in dB, or samples (n_samples,); curves : dict name -> dict method -> (n_steps,)
    seconds : length of the recording. Returns a Figure, one panel per name below the recording.
    """
    figure, grid = plt.subplots(1 + len(curves), 1, figsize=(8, 1.5 + 1.5 * len(curves)), sharex=True)
    if level.ndim == 1:
        grid[0].plot(np.linspace(0, seconds, len(level)), level, color="0.4", linewidth=0.4)
        grid[0].set_ylabel("amplitude")
    else:
        extent = (0, seconds, 0, len(level))
        grid[0].imshow(level, origin="lower", aspect="auto", extent=extent, cmap=SEQUENTIAL, vmin=-70)
        grid[0].set(ylabel="mel band")
        grid[0].grid(False)
    grid[0].set_title(title)
    for axes, (name, methods) in zip(grid[1:], curves.items(), strict=True):
        for method, values in methods.items():
            edges = np.linspace(0, seconds, len(values) + 1)
            axes.stairs(values / max(np.abs(values).max(), 1e-12), edges, baseline=None,
                        label=method.replace("_", " "), linewidth=1.2)  # fmt: skip
        axes.axhline(0, color="0.6", linewidth=0.6)
        axes.set_title(name, loc="left", fontsize=8)
        axes.set_ylabel("share of its largest", fontsize=7)
    grid[1].legend(fontsize=7, ncols=5, loc="lower right", bbox_to_anchor=(1, 1))
    grid[-1].set_xlabel(f"time (s)   {note}".strip())
    return figure


def pairs(upper, lower, titles, sample_rate, *, names=("prototype", "nearest real"), columns=10):
    """Prototypes above the real segments nearest to them.

    upper, lower : (n, n_mels, n_frames) in dB; titles : n texts. Returns a Figure.
    """
    n = min(len(titles), columns)
    figure, grid = plt.subplots(2, n, figsize=(1.25 * n + 0.8, 4), sharex=True, sharey=True, squeeze=False)
    for number in range(n):
        for axes, log_mel in zip(grid[:, number], (upper[number], lower[number]), strict=True):
            image = show_log_mel(axes, log_mel, sample_rate, vmin=-60, vmax=0)
            axes.set(xlabel="", ylabel="")
        grid[0][number].set_title(titles[number], fontsize=8)
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.set_ylabel(f"{name}\nkHz (mel)")
    figure.supxlabel("time (s)", fontsize=9)
    figure.colorbar(image, ax=grid, label="dB", shrink=0.7)
    return figure


def prototype_removal(curves, *, chance):
    """UAR as prototypes go, one panel per model.

    curves : dict model -> dict order -> (shares, scores), scores (steps + 1,) or several draws (n, steps + 1)
    Returns a Figure.
    """
    figure, axes = panels(len(curves), columns=3, width=3.6, height=2.6, sharey=True)
    for one, (model, orders) in zip(axes, curves.items(), strict=True):
        for order, (shares, scores) in orders.items():
            draws = np.atleast_2d(scores)
            (line,) = one.plot(100 * shares, draws.mean(axis=0), label=order, linewidth=1.4)
            if len(draws) > 1:
                low, high = np.quantile(draws, [0.05, 0.95], axis=0)
                one.fill_between(100 * shares, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        one.axhline(chance, color="0.5", linestyle=":", linewidth=1)
        one.set(title=model.replace("_", " "), xlabel="prototypes removed (%)")
    axes[0].set_ylabel("UAR, held-out segments")
    axes[-1].legend(fontsize=7)
    return figure


def sounds_like(log_mel, support, chosen, prototypes, segments, sample_rate, *, hop_s, segment_s, title=""):
    """One utterance as "this 100 ms sounds like that prototype".

    log_mel : dB (n_mels, n_frames) of the utterance; support : (n_segments,), what speaks for the class in each
    chosen : table with segment, emotion (of the prototype) and contribution; prototypes, segments : dB (n, n_mels,
        n_frames) of its rows; hop_s, segment_s : s from one segment to the next, and of one. Returns a Figure.
    """
    n = len(chosen)
    figure = plt.figure(figsize=(9, 5.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=(3, 2.4))
    (image_axes, axes) = top.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    seconds = hop_s * (len(support) - 1) + segment_s
    image_axes.imshow(log_mel, origin="lower", aspect="auto", cmap=SEQUENTIAL, vmin=-70,
                      extent=(0, seconds, 0, len(log_mel)))  # fmt: skip
    image_axes.set_title(title, pad=14)
    image_axes.set_ylabel("mel band")
    image_axes.grid(False)
    middle = hop_s * np.arange(len(support)) + segment_s / 2
    axes.plot(middle, support, color="0.3", linewidth=1)
    axes.axhline(0, color="0.6", linewidth=0.6)
    axes.set(xlabel="time (s)", ylabel="support")
    grid = bottom.subplots(1, 2 * n, sharey=True)
    for number, row in enumerate(chosen.itertuples()):
        colour, begin = EMOTION_COLOUR[row.emotion], hop_s * row.segment
        for one in (image_axes, axes):
            one.axvspan(begin, begin + segment_s, facecolor="none", edgecolor=colour, linewidth=1.6)
        image_axes.text(
            begin + segment_s / 2, 1.01 * len(log_mel), str(number + 1), ha="center", color=colour
        )
        for one, picture, name in zip(grid[2 * number :], (segments[number], prototypes[number]),
                                      (f"{number + 1}: this", f"that: {row.emotion}"), strict=False):  # fmt: skip
            show_log_mel(one, picture, sample_rate, vmin=-60, vmax=0)
            one.set(ylabel="", xlabel="")
            one.set_title(name, fontsize=8, color=colour)
    grid[0].set_ylabel("kHz (mel)")
    bottom.supxlabel("time (s)", fontsize=9)
    return figure


def score_bars(table, value, low, high, *, chance=None, label=""):
    """One bar per method with its interval; a line where chance is.

    table : indexed by method, with columns value, low, high. Returns a Figure.
    """
    ordered = table.sort_values(value)
    figure, axes = plt.subplots(figsize=(5.5, 0.36 * len(ordered) + 1))
    spread = np.abs(ordered[[low, high]].to_numpy() - ordered[[value]].to_numpy()).T
    axes.barh(ordered.index, ordered[value], xerr=spread, color="#56b4e9", error_kw={"linewidth": 1})
    if chance is not None:
        axes.axvline(chance, color="0.3", linestyle="--", linewidth=1)
        axes.text(chance, len(ordered) - 0.4, " chance", fontsize=8)
    axes.set(xlabel=label or value)
    return figure


def removal_curves(curves, *, label="score (log-odds)", kind="deletion"):
    """Mean score as points are removed, or put in, one panel per model and one line per method.

    curves : dict model -> dict method -> scores (steps + 1,); kind : "deletion" or "insertion". Returns a Figure.
    """
    figure, axes = panels(len(curves), columns=4, width=3.1, height=2.5)
    for one, (model, own) in zip(axes, curves.items(), strict=True):
        for method, scores in own.items():
            dashed = "--" if method in ("random", "energy") else "-"
            shares = np.linspace(0, 100, len(scores))
            one.plot(
                shares,
                scores,
                dashed,
                color=METHOD_COLOUR[method],
                label=method.replace("_", " "),
                linewidth=1.3,
            )
        verb = "removed" if kind == "deletion" else "put in"
        one.set(title=model, xlabel=f"points {verb} (%)")
    axes[0].set_ylabel(label)
    method_legend(figure, curves.values())
    return figure


def cascade(likeness, order, *, value="spearman"):
    """Likeness of maps to the trained model's as layers lose their weights, one panel per model and way.

    likeness : table panel, name, method and `value`; order : dict panel -> names from left to right
    Returns a Figure.
    """
    figure, axes = panels(len(order), columns=4, width=3.2, height=2.7, sharey=True)
    for one, (panel, names) in zip(axes, order.items(), strict=True):
        own = (
            likeness[likeness["panel"] == panel]
            .pivot(index="name", columns="method", values=value)
            .loc[names]
        )
        for method in own.columns:
            dashed = "--" if method in ("energy", "random") else "-"
            one.plot(
                range(len(names)), own[method], dashed, marker="o", markersize=3, color=METHOD_COLOUR[method],
                label=method.replace("_", " "), linewidth=1.2,
            )  # fmt: skip
        one.axhline(0, color="0.6", linewidth=0.6)
        one.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=7)
        one.set_title(panel, fontsize=8)
    axes[0].set_ylim(min(likeness[value].min(), 0) - 0.05, 1.05)
    axes[0].set_ylabel("rank correlation" if value == "spearman" else value.upper())
    method_legend(figure, [likeness["method"]])
    return figure


def method_legend(figure, groups):
    """One legend below a figure for all methods named in `groups`."""
    named = {method for group in groups for method in group}
    lines = [
        plt.Line2D([], [], color=colour, linestyle="--" if method in ("energy", "random") else "-",
                   label=method.replace("_", " "))
        for method, colour in METHOD_COLOUR.items() if method in named
    ]  # fmt: skip
    figure.legend(handles=lines, loc="outside lower center", ncols=5, fontsize=8)


VERDICT_COLOUR = {"trust": "#117733", "with care": "#e69f00", "do not trust": "#d55e00", "unknown": "#bbbbbb"}


def verdict_table(verdicts):
    """Every method on every model: its verdict as a colour, and how many of the checks made it passes.

    verdicts : table model, method, verdict, passed, made. Returns a Figure.
    """
    models, methods = (list(dict.fromkeys(verdicts[column])) for column in ("model", "method"))
    figure, axes = plt.subplots(figsize=(1.5 * len(models) + 2.2, 0.36 * len(methods) + 1.5))
    for row in verdicts.itertuples():
        x, y = models.index(row.model), methods.index(row.method)
        axes.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, color=VERDICT_COLOUR[row.verdict], alpha=0.75))
        text = f"{row.verdict}\n{row.passed} of {row.made}"
        axes.text(x, y, text, ha="center", va="center", fontsize=6.5)
    axes.set(xlim=(-0.5, len(models) - 0.5), ylim=(len(methods) - 0.5, -0.5))
    axes.set_xticks(range(len(models)), models, rotation=25, ha="right")
    axes.set_yticks(range(len(methods)), [method.replace("_", " ") for method in methods])
    axes.grid(False)
    return figure
