"""What one sees of notebooks that run: on a terminal a line each that is drawn again, in a log a line now and then."""

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

BAR_WIDTH = 16  # characters
EVERY_S = 60  # between two lines about the same notebook in a log
DIM, GREEN = "2", "32"
INTERRUPTED = "interrupted: finished work is kept; run the same command to go on."


@dataclass(frozen=True)
class Task:
    """A notebook that runs.

    Parameters
    ----------
    name : such as "04_spectrogram_cnn"
    started : time.monotonic() when it did
    progress : folder where its kernel, and what that starts, tell how far they are
    """

    name: str
    started: float
    progress: Path

    @property
    def elapsed(self) -> str:
        """Minutes and seconds since it was started, such as "1:05"."""
        return minutes(time.monotonic() - self.started)

    def open_bars(self) -> list[dict]:
        """The progress bars that are open, outermost first: label, done, total, value."""
        bars = []
        for path in sorted(self.progress.glob("*.json")):
            try:
                bars += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            except (OSError, ValueError):  # it is being written
                continue
        return bars

    def share_done(self) -> float:
        """Share of the cells that are done, 0 to 1; a cell that is running counts as its outermost bar says."""
        try:
            cell, n_cells = json.loads((self.progress / "cell").read_text("utf-8"))
        except (OSError, ValueError):
            return 0.0
        outermost = next((bar for bar in self.open_bars() if bar["total"]), None)
        within = min(1.0, outermost["done"] / outermost["total"]) if outermost else 0.0
        return (cell + within) / n_cells

    def doing(self) -> str:
        """What is being done, such as "models 3/12 · speaker_03 5/18 val_loss 0.1234"."""
        bars = self.open_bars()
        return " · ".join(map(_words, bars if len(bars) < 3 else [bars[0], bars[-1]]))


def _words(bar):
    total = f"/{bar['total']}" if bar["total"] else ""
    return " ".join(filter(None, (bar["label"], f"{bar['done']}{total}", bar["value"])))


def near(path: str | Path) -> str:
    """A path as one would type it here."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)


def minutes(seconds: float) -> str:
    """Seconds as minutes and seconds: 65.2 is "1:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Screen:
    """Lines that stay and, on a terminal, below them one line for each notebook that runs.

    Parameters
    ----------
    stream : where it is written, sys.stdout by default; colours and redrawing only on a terminal
    """

    def __init__(self, stream=None):
        self.stream = stream or sys.stdout
        self.is_terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.has_colour = self.is_terminal and not os.environ.get("NO_COLOR")
        self.n_drawn, self.told = 0, time.monotonic()

    def say(self, text: str) -> None:
        """Write lines that stay, the name they begin with in colour."""
        self.clear()
        name, colon, rest = text.partition(":")
        print(f"{self._coloured(name, GREEN)}{colon}{rest}", file=self.stream, flush=True)

    def draw(self, tasks: list[Task], n_waiting: int = 0) -> None:
        """Show what runs: drawn again on a terminal, told now and then in a log."""
        if self.is_terminal:
            self._redraw(tasks, n_waiting)
        elif tasks and time.monotonic() - self.told > EVERY_S:
            self.told = time.monotonic()
            lines = [f"  … {task.name} {task.elapsed}  {task.doing()}".rstrip() for task in tasks]
            print("\n".join(lines), file=self.stream, flush=True)

    def clear(self) -> None:
        """Take away what `draw` has drawn."""
        if self.n_drawn:
            self.stream.write(f"\x1b[{self.n_drawn}F\x1b[J")  # up to the first of them; delete to the end
            self.stream.flush()
        self.n_drawn = 0

    def _redraw(self, tasks, n_waiting):
        width = shutil.get_terminal_size().columns - 1
        lines = [self._line(task, width) for task in tasks]
        if n_waiting:
            lines.append(self._coloured(f"{n_waiting} more to run"[:width], DIM))
        self.clear()
        self.stream.write("".join(f"{line}\n" for line in lines))
        self.stream.flush()
        self.n_drawn = len(lines)

    def _line(self, task, width):
        filled = round(BAR_WIDTH * task.share_done())
        head = f"{task.name:<24} {'█' * filled}{'░' * (BAR_WIDTH - filled)} {task.elapsed:>6}"
        doing = f"  {task.doing()}"[: max(0, width - len(head))]
        return head[:width] + self._coloured(doing, DIM)

    def _coloured(self, text, colour):
        return f"\x1b[{colour}m{text}\x1b[0m" if self.has_colour and text else text
