"""One look for every figure: emotion order and colours, axes with units, captions that travel in the file."""

import ast
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ser_utils.corpora import EMOTIONS, emotions_in_order
from ser_utils.workspace import REPOSITORY, Workspace, atomic_path, content_key

# Okabe–Ito and two of its neighbours: told apart by readers who do not see red and green alike
COLOURS = "#d55e00 #8c6d46 #56b4e9 #117733 #882255 #e69f00 #7f7f7f #0072b2 #cc79a7".split()
EMOTION_COLOUR = dict(zip(EMOTIONS, COLOURS, strict=True))
SEQUENTIAL = "magma"  # levels in dB; in style.mplstyle too
DIVERGING = "RdBu_r"  # differences, around zero
in_order = emotions_in_order  # as notebooks call it


def set_style() -> None:
    """Set fonts, sizes and grid, once per notebook."""
    plt.style.use(Path(__file__).with_suffix(".mplstyle"))


def sort_by_emotion(table: pd.DataFrame) -> pd.DataFrame:
    """Sort a table's lines by the one order of emotions; lines of one emotion stay as they were."""
    return table.sort_values("emotion", key=lambda names: names.map(EMOTIONS.index), kind="stable")


def colours(emotions: Iterable[str]) -> list[str]:
    """Look up the colours of emotions, in their order."""
    return [EMOTION_COLOUR[emotion] for emotion in emotions]


def save_figure(workspace: Workspace, figure: Figure, name: str, caption: str) -> Path:
    """Write a figure as figures/<dataset>/<name>.png, with its caption inside.

    Parameters
    ----------
    workspace : of the run
    figure : what is drawn
    name : lower-case words joined by "_", starting with the notebook's number, such as "00_durations"
    caption : what is seen, from which recordings, under which split; synthetic data is called so here

    Returns
    -------
    the path
    """
    if workspace.dataset == "demo":
        caption = f"Synthetic demo corpus. {caption}"
    elif workspace.profile != "paper":
        caption = f"{caption} (profile {workspace.profile})"
    path = workspace.figures / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        # a quarter of the size; covering the span of colours, not the most frequent, so that small print keeps its own
        few_colours = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    inside = PngInfo()  # no software or date: the same figure is the same file
    inside.add_text("Description", caption)
    inside.add_text("Code", drawing_code(name))
    workspace.drawn[name] = content_key(*_numbers(figure))
    inside.add_text("Data", workspace.drawn[name])
    with atomic_path(path) as temporary:
        few_colours.save(temporary, "png", optimize=True, pnginfo=inside)
    figure.saved_as = path
    if shell := get_ipython():
        shell.display_formatter.formatters["image/png"].for_type(Figure, _shown)
    return path


def _shown(figure):
    """The file of a figure, as wide as it is drawn: to draw it once more takes as long as the first time."""
    if path := vars(figure).get("saved_as"):
        return path.read_bytes(), {"width": round(figure.bbox.width)}
    return print_figure(figure, "png", base64=True)


def drawing_code(name: str) -> str:
    """Key of the code that draws a picture: its notebook and the figure modules that notebook imports.

    Comments, docstrings and layout of the code do not count. name : of the picture, e.g. "00_durations"
    """
    scripts = sorted((REPOSITORY / "notebooks" / "scripts").glob(f"{name[:2]}_*.py"))
    trees = [ast.parse(path.read_text("utf-8")) for path in scripts]
    imported = [
        f"{node.module}.{alias.name}"
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ser_utils")
        for alias in node.names
    ]
    places = {REPOSITORY / f"{dotted.replace('.', '/')}.py" for dotted in imported if "figures" in dotted}
    trees += [ast.parse(path.read_text("utf-8")) for path in sorted(places) if path.exists()]
    return content_key(*[ast.dump(_without_docstrings(tree)) for tree in trees])


def _without_docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:]
    return tree


def _numbers(figure):
    """What a figure shows as numbers and words: its lines, images, points, bars and texts."""
    for artist in figure.findobj():
        if isinstance(artist, Text):
            yield artist.get_text()
        shown = [read() for name in ("get_xydata", "get_array", "get_offsets") if (read := getattr(artist, name, None))]
        shown += [artist.get_bbox().get_points()] if isinstance(artist, Rectangle) else []
        for numbers in shown:
            if numbers is not None:
                yield np.round(np.ma.filled(np.ma.asarray(numbers, dtype=float), np.nan), 6)


def origin_of(path: Path) -> tuple[str, str]:
    """The keys of drawing code and data inside a PNG that `save_figure` wrote; empty where there are none."""
    with Image.open(path) as image:
        return image.info.get("Code", ""), image.info.get("Data", "")


def caption_of(path: str | Path) -> str:
    """Read the caption inside a PNG that `save_figure` wrote."""
    with Image.open(path) as image:
        return image.info.get("Description", "")


def show_levels(
    axes: Axes, levels: np.ndarray, seconds: float, height: float, colours: str = SEQUENTIAL, **options: Any
) -> AxesImage:
    """Draw levels over time and frequency.

    Parameters
    ----------
    levels : (n_bins, n_frames), lowest frequency first
    seconds : length of the time axis
    height : of the frequency axis, in its unit
    colours : name of a colour map
    options : of `Axes.imshow`, such as vmin and vmax

    Returns
    -------
    the image, for a colour bar
    """
    extent = (0, seconds, 0, height)
    image = axes.imshow(levels, origin="lower", aspect="auto", extent=extent, cmap=colours, **options)
    axes.grid(False)
    return image


def show_log_mel(
    axes: Axes,
    log_mel: np.ndarray,
    sample_rate: int,
    *,
    hop_length: int = 256,
    fmax: float | None = None,
    **options: Any,
) -> AxesImage:
    """Draw a log-mel spectrogram with time in s and mel bands labelled in kHz.

    Parameters
    ----------
    log_mel : (n_mels, n_frames) in dB
    sample_rate : Hz
    hop_length : samples
    fmax : Hz, upper end of the highest band; None is half the rate
    options : of `Axes.imshow`, such as vmin and vmax, dB

    Returns
    -------
    the image, for a colour bar
    """
    import librosa

    n_mels, n_frames = log_mel.shape
    image = show_levels(axes, log_mel, n_frames * hop_length / sample_rate, n_mels, **options)
    centres = librosa.mel_frequencies(n_mels + 2, fmin=0, fmax=fmax or sample_rate / 2)[1:-1]
    ticks = np.linspace(0, n_mels - 1, 5).astype(int)
    axes.set_yticks(ticks + 0.5, [f"{centres[i] / 1000:.1f}" for i in ticks])
    axes.set(xlabel="time (s)", ylabel="frequency (kHz, mel)")
    return image


def panels(
    n: int, *, columns: int = 4, width: float = 2.6, height: float = 2.2, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Make a figure with `n` axes in rows of `columns`, the spare ones hidden.

    Parameters
    ----------
    width, height : inches of one panel
    options : of `plt.subplots`
    """
    rows, columns = -(-n // columns), min(n, columns)
    figure, grid = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options)
    for spare in grid.flat[n:]:
        spare.set_visible(False)
    return figure, list(grid.flat[:n])
