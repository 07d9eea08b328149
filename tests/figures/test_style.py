"""The one look of figures: what `save_figure` leaves in the file."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from ser_utils.figures import style
from ser_utils.workspace import Workspace


@pytest.fixture
def drawing():
    figure, axes = plt.subplots(figsize=(4, 3))
    image = style.show_log_mel(axes, -80 * np.random.default_rng(0).random((64, 40)), 16000)
    figure.colorbar(image)
    for place, emotion in enumerate(("anger", "happiness", "surprise", "disgust")):
        axes.text(0.1, 10 * place, emotion, color=style.EMOTION_COLOUR[emotion], fontsize=7)
    return figure


def test_a_figure_is_kept_in_few_colours_and_seems_the_same(drawing, tmp_path):
    drawn = io.BytesIO()
    drawing.savefig(drawn, format="png")
    path = style.save_figure(Workspace("emodb", root=tmp_path), drawing, "00_noise", "Noise – in dB")
    with Image.open(drawn) as full, Image.open(path) as kept:
        assert kept.mode == "P" and kept.size == full.size
        difference = np.abs(np.subtract(kept.convert("RGB"), full.convert("RGB"), dtype=int))
    assert difference.mean() < 3 and difference.max() < 32  # small coloured print too
    assert path.stat().st_size < 0.6 * len(drawn.getvalue())
    assert style.caption_of(path) == "Noise – in dB (profile quick)"


def test_the_same_figure_is_the_same_file(drawing, tmp_path):
    once, again = (
        style.save_figure(Workspace("demo", root=tmp_path / name), drawing, "00_noise", "Noise")
        for name in ("once", "again")
    )
    assert once.read_bytes() == again.read_bytes()
    assert style.caption_of(once) == "Synthetic demo corpus. Noise"
