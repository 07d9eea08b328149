"""Progress bars: on a terminal, in a notebook that somebody has open, or told to whoever runs the notebook."""

import contextlib
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from tqdm.std import tqdm as plain_tqdm

FOLDER = "SER_PROGRESS"  # environment variable: where bars are told instead of shown
_STARTED = time.time_ns()


class StatusBar(plain_tqdm):
    """A bar that draws nothing: a small file in $SER_PROGRESS says which bars of this process are open.

    The file holds one line of JSON a bar, outermost first: label, done, total (or null) and a value such as the
    loss that is watched.
    """

    open_bars: dict[int, "StatusBar"] = {}  # by identity: tqdm's bars are equal where they are drawn on one line

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options, file=io.StringIO())

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.open_bars[id(self)] = self
        _tell(self.open_bars.values())

    def close(self) -> None:
        super().close()
        if self.open_bars.pop(id(self), None):
            _tell(self.open_bars.values())


def _tell(bars: Iterable[StatusBar]) -> None:
    # named by the time this process began: that of the notebook comes before those of its workers
    path = Path(os.environ.get(FOLDER, ""), f"{_STARTED}-{os.getpid()}.json")
    facts = [
        {"label": bar.desc.removesuffix(": "), "done": bar.n, "total": bar.total, "value": bar.postfix or ""}
        for bar in bars
    ]
    with contextlib.suppress(OSError):  # a worker on another machine has no such folder
        path.write_text("\n".join(map(json.dumps, facts)), "utf-8")


def progress_bar(iterable: Iterable | None = None, **options: Any) -> plain_tqdm:
    """Make a progress bar that vanishes when it is done; options : of tqdm."""
    bar = StatusBar if os.environ.get(FOLDER) else tqdm
    return bar(iterable, **{"leave": False} | options)
