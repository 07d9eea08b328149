"""The one look of figures: what `save_figure` leaves in the file."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
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


def test_a_notebook_shows_the_saved_file_and_draws_what_was_not_saved(drawing, tmp_path):
    shell = InteractiveShell.instance()
    shell.display_formatter.active_types = ["image/png"]  # as a notebook's
    shown = shell.display_formatter.format
    try:
        path = style.save_figure(Workspace("emodb", root=tmp_path), drawing, "00_noise", "Noise")
        data, about = shown(drawing)
        other, _ = shown(plt.subplots()[0])
    finally:
        InteractiveShell.clear_instance()
    assert data["image/png"] == path.read_bytes() and about["image/png"] == {"width": 400}
    assert base64.b64decode(other["image/png"]).startswith(b"\x89PNG")


def test_the_same_figure_is_the_same_file(drawing, tmp_path):
    once, again = (
        style.save_figure(Workspace("demo", root=tmp_path / name), drawing, "00_noise", "Noise")
        for name in ("once", "again")
    )
    assert once.read_bytes() == again.read_bytes()
    assert style.caption_of(once) == "Synthetic demo corpus. Noise"


def test_a_picture_tells_what_code_and_data_it_is_of(drawing, tmp_path):
    space = Workspace("emodb", root=tmp_path)
    code, data = style.origin_of(style.save_figure(space, drawing, "00_noise", "Noise"))
    assert code == style.drawing_code("00_other") != style.drawing_code("11_noise")
    assert space.drawn == {"00_noise": data}
    drawing.axes[0].set_title("another word")
    other = style.origin_of(style.save_figure(space, drawing, "00_noise", "Noise"))
    assert other[0] == code and other[1] != data


def test_comments_and_docstrings_draw_nothing(monkeypatch, tmp_path):
    scripts = tmp_path / "notebooks" / "scripts"
    scripts.mkdir(parents=True)
    (tmp_path / "ser_utils" / "figures").mkdir(parents=True)
    module = tmp_path / "ser_utils" / "figures" / "speech.py"
    (scripts / "00_a.py").write_text("from ser_utils.figures import speech\n")
    monkeypatch.setattr(style, "REPOSITORY", tmp_path)
    keys = []
    for text in (
        'def f():\n    """One."""\n    return 1\n',
        "def f():\n    # two\n    return 1\n",
        "def f():\n    return 2\n",
    ):
        module.write_text(text)
        keys.append(style.drawing_code("00_a"))
    assert keys[0] == keys[1] != keys[2]
