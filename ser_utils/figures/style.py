"""One look for every figure: emotion order and colours, axes with units, captions that travel in the file."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ser_utils.corpora.loading import EMOTIONS
from ser_utils.workspace import atomic_path

# Okabe–Ito and two of its neighbours: told apart by readers who do not see red and green alike
EMOTION_COLOUR = dict(
    zip(
        EMOTIONS,
        ("#d55e00", "#8c6d46", "#56b4e9", "#117733", "#882255", "#e69f00", "#7f7f7f", "#0072b2", "#cc79a7"),
        strict=True,
    )
)
SEQUENTIAL = "magma"  # levels in dB
DIVERGING = "RdBu_r"  # differences, around zero


def set_style():
    """Fonts, sizes and grid, once per notebook."""
    mpl.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 130,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.6,
            "image.cmap": SEQUENTIAL,
            "legend.frameon": False,
        }
    )


def in_order(emotions):
    """The distinct `emotions` in the one order used everywhere."""
    present = set(emotions)
    return [emotion for emotion in EMOTIONS if emotion in present]


def sort_by_emotion(table):
    """The table's lines in the one order of emotions used everywhere; otherwise as they were."""
    return table.sort_values("emotion", key=lambda names: names.map(EMOTIONS.index), kind="stable")


def colours(emotions):
    """Colours of `emotions`, in their order."""
    return [EMOTION_COLOUR[emotion] for emotion in emotions]


def save_figure(workspace, figure, name, caption):
    """Write `figure` as figures/<dataset>/<name>.png with its caption inside, close it, show it once.

    name : lower-case words joined by "_", starting with the notebook's number, e.g. "00_durations"
    caption : what is seen, from which recordings, under which split; synthetic data is called so here
    Returns the path.
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
    with atomic_path(path) as temporary:
        few_colours.save(temporary, "png", optimize=True, pnginfo=inside)
    return path


def caption_of(path):
    """The caption inside a PNG that `save_figure` wrote."""
    with Image.open(path) as image:
        return image.info.get("Description", "")


def show_log_mel(axes, log_mel, sample_rate, *, hop_length=256, fmax=None, vmin=None, vmax=None):
    """Draw a log-mel spectrogram with time in s and mel bands labelled in kHz.

    log_mel : (n_mels, n_frames) in dB. Returns the image, for a colour bar.
    """
    import librosa

    n_mels, n_frames = log_mel.shape
    extent = (0, n_frames * hop_length / sample_rate, 0, n_mels)
    image = axes.imshow(
        log_mel, origin="lower", aspect="auto", extent=extent, vmin=vmin, vmax=vmax, cmap=SEQUENTIAL
    )
    centres = librosa.mel_frequencies(n_mels + 2, fmin=0, fmax=fmax or sample_rate / 2)[1:-1]
    ticks = np.linspace(0, n_mels - 1, 5).astype(int)
    axes.set_yticks(ticks + 0.5, [f"{centres[i] / 1000:.1f}" for i in ticks])
    axes.set(xlabel="time (s)", ylabel="frequency (kHz, mel)")
    axes.grid(False)
    return image


def panels(n, *, columns=4, width=2.6, height=2.2, **options):
    """A figure with `n` axes in rows of `columns`, the spare ones hidden. Returns (figure, axes list)."""
    rows = -(-n // columns)
    columns = min(n, columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options
    )
    for spare in grid.flat[n:]:
        spare.set_visible(False)
    return figure, list(grid.flat[:n])
