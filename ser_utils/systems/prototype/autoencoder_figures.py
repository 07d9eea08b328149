"""What an autoencoder gives back."""

import keras
import matplotlib.pyplot as plt
import numpy as np

from ser_utils.figures.style import DIVERGING, SEQUENTIAL, show_log_mel
from ser_utils.systems.prototype import autoencoder


def reconstructions(original, returned, titles, sample_rate):
    """Originals above reconstructions above their difference, one column each.

    original, returned : (n, n_mels, n_frames) in [0, 1]; titles : n texts; sample_rate : Hz. Returns a Figure.
    """
    n = len(original)
    figure, grid = plt.subplots(3, n, figsize=(1.6 * n + 1.6, 5.2), squeeze=False, sharex=True, sharey=True)
    for column, (true, given, title) in enumerate(zip(original, returned, titles, strict=True)):
        for row, (picture, name) in enumerate(
            ((true, "recorded"), (given, "returned"), (given - true, "difference"))
        ):
            axes = grid[row, column]
            limits = {"vmin": -0.3, "vmax": 0.3} if row == 2 else {"vmin": 0, "vmax": 1}
            image = show_log_mel(axes, picture, sample_rate, **limits)
            image.set_cmap(DIVERGING if row == 2 else SEQUENTIAL)
            axes.set(xlabel="time (s)" if row == 2 else "", ylabel=f"{name}\nkHz (mel)" if not column else "")
            if not row:
                axes.set_title(title, fontsize=9)
            if column == n - 1:
                figure.colorbar(image, ax=grid[row], label="error" if row == 2 else "level (scaled)")
    return figure


def sobel_edges(original, returned):
    """A segment, its reconstruction, and the strength of the Sobel edges of both.

    original, returned : (n_mels, n_frames) in [0, 1]. Returns a Figure.
    """
    figure, grid = plt.subplots(1, 4, figsize=(9, 3), sharex=True, sharey=True)
    edges = [_edge_strength(picture) for picture in (original, returned)]
    for axes, picture, title in zip(
        grid,
        (original, returned, *edges),
        ("recorded", "returned", "edges, recorded", "edges, returned"),
        strict=True,
    ):
        top = max(edge.max() for edge in edges) if "edges" in title else 1
        axes.imshow(
            picture,
            origin="lower",
            aspect="auto",
            vmin=0,
            vmax=top,
            cmap="gray_r" if "edges" in title else SEQUENTIAL,
        )
        axes.set(title=title, xlabel="frame")
        axes.grid(False)
    grid[0].set_ylabel("mel band")
    return figure


def _edge_strength(picture):
    down, along = autoencoder.sobel_edges(keras.ops.convert_to_tensor(picture[None]))
    return np.hypot(keras.ops.convert_to_numpy(down), keras.ops.convert_to_numpy(along))[0]
