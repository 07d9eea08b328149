"""Bars that are told to whoever runs a notebook."""

import json

import pytest
from tqdm.auto import tqdm

from ser_utils.progress import FOLDER, progress_bar


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A function that reads what is told of the bars of this process."""
    monkeypatch.setenv(FOLDER, str(tmp_path))

    def read():
        (path,) = tmp_path.glob("*.json")
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


def test_open_bars_are_told_outermost_first(told, capfd):
    with progress_bar(total=3, desc="models", mininterval=0) as models:
        models.update()
        with progress_bar(total=18, desc="deep_cnn", mininterval=0) as epochs:
            epochs.set_postfix_str("val_uar 0.51", refresh=False)
            epochs.update()
            assert told() == [
                {"label": "models", "done": 1, "total": 3, "value": ""},
                {"label": "deep_cnn", "done": 1, "total": 18, "value": "val_uar 0.51"},
            ]
        assert [bar["label"] for bar in told()] == ["models"]
    assert told() == []
    assert capfd.readouterr() == ("", "")


def test_a_disabled_bar_and_a_folder_that_is_not_there_do_no_harm(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path / "on another machine"))
    assert list(progress_bar(range(3), desc="tasks", mininterval=0)) == [0, 1, 2]
    assert list(progress_bar(range(3), disable=True)) == [0, 1, 2]


def test_without_a_folder_bars_are_drawn(monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    with progress_bar(total=1) as bar:
        assert isinstance(bar, tqdm) and not bar.leave
