"""Notebooks side by side: their order, their share of the machine, what one sees, and what a failure does."""

import io
import json
import sys
import time
from pathlib import Path

import pytest

from tools.graph import Step
from tools.reproduce import core_share, run_side_by_side, slots_for
from tools.screen import Screen, Task

READS = {"00": (), "01": ("00",), "02": ("01",), "04": ("00",), "05": ("00",), "09": ("02", "05")}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def steps(tmp_path):
    """Six made-up notebooks that read each other."""
    names = {number: f"{number}_made_up" for number in READS}
    return {n: Step(n, names[n], reads, tmp_path / f"{names[n]}.ipynb", (), "k") for n, reads in READS.items()}


def program(steps, folder, *, seconds=0.0, failing="", slow=""):
    """A command line that notes when a notebook began and ended, for each of them."""
    code = (
        "import os, sys, time, pathlib\nname, folder, seconds, fails = sys.argv[1:]\nbegan = time.time()\n"
        "time.sleep(float(seconds))\n"
        "if fails == 'yes': sys.exit(f'{name} failed in cell 4 (“Training”): ValueError: no\\n  log: {name}.log')\n"
        "pathlib.Path(folder, name).write_text(f'{began} {time.time()} {os.environ[\"SER_JOBS\"]}')\n"
        "print(f'{name}: 1 s → {name}.ipynb')\n"
    )

    def command(step):
        time_needed = 60 if step.number == slow else seconds
        fails = "yes" if step.number == failing else "no"
        return [sys.executable, "-c", code, step.name, str(folder), str(time_needed), fails]

    return command


def times(folder):
    """Number -> when it began, when it ended, its cores."""
    return {path.name[:2]: tuple(map(float, path.read_text().split())) for path in folder.glob("*_made_up")}


@pytest.mark.parametrize("slots", [1, 2])
def test_every_notebook_waits_for_those_it_reads(steps, tmp_path, slots):
    said = io.StringIO()
    run_side_by_side(steps, list(steps), program(steps, tmp_path), Screen(said), cores=slots, slots=slots)
    ran = times(tmp_path)
    assert set(ran) == set(READS)
    for number, reads in READS.items():
        assert all(ran[upstream][1] <= ran[number][0] for upstream in reads)
    assert sorted(line[:2] for line in said.getvalue().splitlines()) == sorted(READS)
    assert "\x1b" not in said.getvalue()


def test_independent_notebooks_run_at_the_same_time_and_never_more_than_asked(steps, tmp_path):
    command = program(steps, tmp_path, seconds=0.6)
    run_side_by_side(steps, list(steps), command, Screen(io.StringIO()), cores=2, slots=2)
    ran = times(tmp_path)
    moments = [began for began, *_ in ran.values()]
    side_by_side = [sum(began <= moment < ended for began, ended, _ in ran.values()) for moment in moments]
    assert max(side_by_side) == 2


def test_those_that_the_longest_chain_waits_for_come_first(steps, tmp_path):
    run_side_by_side(steps, list(steps), program(steps, tmp_path), Screen(io.StringIO()), cores=1, slots=1)
    ran = times(tmp_path)
    assert sorted(ran, key=ran.get) == ["00", "01", "02", "05", "04", "09"]


def test_what_is_up_to_date_is_not_waited_for(steps, tmp_path):
    run_side_by_side(steps, ["09"], program(steps, tmp_path), Screen(io.StringIO()), cores=2, slots=2)
    assert set(times(tmp_path)) == {"09"}


def test_cores_are_shared_by_those_that_can_run_side_by_side(steps):
    def share(number, unfinished, cores):
        return core_share(steps, number, unfinished, cores=cores, slots=cores)

    assert share("00", ["01", "02", "04", "05", "09"], 8) == 8  # all others read it
    assert share("01", ["02", "04", "05", "09"], 9) == 3  # 04 and 05 can run beside it
    assert share("01", ["02", "04", "05", "09"], 2) == 1
    assert share("09", ["04"], 2) == 1 and share("09", [], 2) == 2


def test_few_notebooks_run_where_memory_is_small_and_one_where_ray_spreads_tasks(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, int(8e9 / 4096)))
    assert [slots_for(cores, "local") for cores in (1, 2, 16)] == [1, 2, 3]
    assert slots_for(16, "ray") == 1


def test_the_first_failure_stops_the_others_and_says_where_the_log_is(steps, tmp_path):
    start = time.monotonic()
    command = program(steps, tmp_path, failing="04", slow="01")
    with pytest.raises(SystemExit, match=r"(?s)04_made_up failed in cell 4 \(“Training”\): ValueError: no.*log: "):
        run_side_by_side(steps, ["01", "04", "05"], command, Screen(io.StringIO()), cores=2, slots=2)
    assert time.monotonic() - start < 30
    assert "01" not in times(tmp_path) and not list(tmp_path.glob(".progress/*"))


def test_a_notebook_that_dies_without_a_word_is_named(steps, tmp_path):
    with pytest.raises(SystemExit, match="04_made_up ended with status 3 and said nothing"):
        command = [sys.executable, "-c", "raise SystemExit(3)"]
        run_side_by_side(steps, ["04"], lambda _: command, Screen(io.StringIO()), cores=1, slots=1)


# the screen


@pytest.fixture
def task(tmp_path):
    """A notebook in the third of four cells, half of whose trainings are done."""
    bars = [
        {"label": "models", "done": 6, "total": 12, "value": ""},
        {"label": "deep_cnn", "done": 3, "total": 18, "value": "val_uar 0.51"},
    ]
    (tmp_path / "1-1.json").write_text("\n".join(map(json.dumps, bars)))
    (tmp_path / "cell").write_text("[2, 4]")
    return Task("05_feature_network", time.monotonic() - 65, tmp_path)


def test_a_line_shows_a_bar_the_time_and_what_is_trained(task, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert task.share_done() == pytest.approx(2.5 / 4)
    screen = Screen(Terminal())
    screen.draw([task], n_waiting=3)
    drawn = screen.stream.getvalue()
    assert "05_feature_network" in drawn and "1:05" in drawn and "██████████░░░░░░" in drawn
    assert "models 6/12 · deep_cnn 3/18 val_uar 0.51" in drawn and "3 more to run" in drawn


def test_lines_are_drawn_again_on_a_terminal_and_what_was_said_stays_above(task, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    screen = Screen(Terminal())
    screen.draw([task, task])
    screen.say("04_made_up: 1 s → here")
    assert "\x1b[2F\x1b[J" in screen.stream.getvalue()
    assert screen.stream.getvalue().endswith("\x1b[32m04_made_up\x1b[0m: 1 s → here\n")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Screen(Terminal())
    plain.draw([task])
    assert "m" not in plain.stream.getvalue().replace("models", "").replace("05_feature_network", "")
    assert all(len(line) < 60 for line in plain.stream.getvalue().splitlines())


def test_a_log_gets_a_line_a_minute_and_no_escape_codes(task, monkeypatch):
    screen = Screen(io.StringIO())
    screen.draw([task])
    assert screen.stream.getvalue() == ""
    monkeypatch.setattr(screen, "told", time.monotonic() - 61)
    screen.draw([task])
    screen.draw([task])
    (line,) = screen.stream.getvalue().splitlines()
    assert line.startswith("  … 05_feature_network 1:05  models 6/12") and "\x1b" not in line


def test_a_progress_file_that_is_being_written_is_passed_over(task):
    Path(task.progress, "2-2.json").write_text('{"label": "mod')
    Path(task.progress, "cell").write_text("")
    assert len(task.open_bars()) == 2 and task.share_done() == 0
