"""What is measured is measured rightly, and README shows what was measured."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from benchmarks import __main__ as bench
from benchmarks import growth, measuring, memory, waveforms
from tests.conftest import REPOSITORY


def test_in_turn_gives_the_least_and_alternates(monkeypatch):
    monkeypatch.setattr(measuring, "clock", time.perf_counter)
    order = []

    def slow():
        order.append("slow")
        time.sleep(0.03 if order.count("slow") > 1 else 0.2)

    slow_s, quick_s = measuring.in_turn([slow, lambda: order.append("quick")], repeats=3)
    assert order == ["slow", "quick"] * 3
    assert 0.03 <= slow_s < 0.2 and quick_s < 0.03


def test_ratios_say_how_many_times_better():
    faster = measuring.row("a", "1 clip", 2, "s", other=30, than="loop", at_least=15)
    assert faster["ratio"] == 15 and faster["reached"]
    higher = measuring.row("a", "", 0.6, "", other=0.5, than="loop", better="more", at_least=1)
    assert higher["ratio"] == pytest.approx(1.2) and higher["reached"]
    assert not measuring.row("a", "", 1.6, "GB", at_most=1.5)["reached"]


def test_the_watch_counts_what_a_child_allocates_and_not_what_it_maps(tmp_path):
    np.save(tmp_path / "mapped.npy", np.zeros(40_000_000, np.float32))
    code = (
        "import numpy as np, time\n"
        f"mapped = np.load({str(tmp_path / 'mapped.npy')!r}, mmap_mode='r'); mapped.sum()\n"
        "anonymous = np.ones(25_000_000, np.float32); time.sleep(0.5)\n"
    )
    shell = ["/bin/sh", "-c", f'"{sys.executable}" -c "$CODE"; true']  # the child of a child
    running = subprocess.Popen(shell, env=os.environ | {"CODE": code})
    watch = measuring.MemoryWatch(running.pid)
    watch.start()
    assert running.wait() == 0
    assert 0.1e9 <= watch.stop() < 0.25e9


def test_exponents_by_hand():
    assert growth.exponent([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert growth.exponent([1, 2, 4, 8], [1, 4, 16, 64]) == pytest.approx(2)


def test_notebook_01_can_still_be_run_for_one_speaker(tmp_path):
    script = memory.one_speaker(tmp_path, dataset="demo", profile="smoke", root=str(tmp_path), speaker="51")
    text = script.read_text()
    assert "speakers = '51'" in text and '{"epochs": 1}' in text
    compile(text, "script", "exec")


def test_pytorch_is_timed_only_where_it_is_the_same_network(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_PYTHON", raising=False)
    assert waveforms.in_pytorch() is None
    other = tmp_path / "python"
    other.write_text('#!/bin/sh\necho \'{"difference": 0.2, "version": "2", "seconds": 1}\'\n')
    other.chmod(0o755)
    monkeypatch.setenv("TORCH_PYTHON", str(other))
    with pytest.raises(SystemExit, match="another network: off by 0.2"):
        waveforms.in_pytorch()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["preprocessing", "growth", "latency"])
def test_a_part_runs_and_its_lines_are_kept(part, tmp_path):
    bench.main([part, "--quick", "--into", str(tmp_path)])
    bench.main(["pipeline", "--quick", "--into", str(tmp_path)])
    kept = bench.read_measured(tmp_path / "measured.csv")
    assert list(kept.columns) == list(measuring.COLUMNS) and set(kept["part"]) == {part, "pipeline"}
    own = kept[kept["part"] == part]
    measured = own["value"].notna() | own["at"].str.contains("left out")  # beside other programs
    assert measured.all() and (own["at"] != "").all() and own["machine"].str.contains("cores").all()
    assert "nothing to do" in bench.performance_table(kept)


@pytest.mark.parametrize(
    ("given", "words"), [(["speed"], "part must be of preprocessing"), (["--quick"], "say --into")]
)
def test_strange_wishes_are_refused(given, words, capsys):
    with pytest.raises(SystemExit):
        bench.main(given)
    assert words in capsys.readouterr().err


def test_a_missed_goal_is_said(tmp_path):
    lines = [
        measuring.row("memory", "all", 1.9, "GB", at_most=1.5),
        measuring.row("loop", "some", 1, "s", other=20, than="the loop", at_least=15),
        measuring.nothing("accelerator", "none here"),
    ]
    about = {"part": "memory", "load": 0.5, "machine": "one", "date": "2026-01-02"}
    pd.DataFrame([line | about for line in lines], columns=measuring.COLUMNS).to_csv(tmp_path / "measured.csv")
    table = bench.performance_table(bench.read_measured(tmp_path / "measured.csv"))
    assert "| 1.9 GB |  |  | ≤ 1.5 GB: **missed** |" in table
    assert "| the loop: 20 s | 20 | ≥ 15 × |" in table and "none here" in table
    assert json.dumps(lines)  # plain numbers


def test_both_readmes_show_what_was_measured(tmp_path):
    pages = ["README.md", "benchmarks/README.md"]
    (tmp_path / "benchmarks").mkdir()
    for page in pages:
        (tmp_path / page).write_text((REPOSITORY / page).read_text().replace("| log-mel", "| old"))
    bench.write_readme(bench.read_measured(bench.HERE / "measured.csv"), tmp_path)
    for page in pages:
        assert (tmp_path / page).read_text() == (REPOSITORY / page).read_text()
        assert "log-mel, one process" in (tmp_path / page).read_text()
