"""One process at a time."""

import subprocess
import sys

import pytest

from ser_utils.locks import locked
from tests.conftest import REPOSITORY


def test_who_comes_second_is_told_and_waits(tmp_path):
    path = tmp_path / ".lock"
    code = (
        "import sys\nfrom ser_utils.locks import locked\n"
        "with locked(sys.argv[1]):\n    print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as first:
        assert first.stdout.readline() == "held\n"
        told = []

        def waiting():
            told.append("waiting")
            first.communicate("go on\n")

        with locked(path, waiting):
            assert first.wait() == 0
        assert told == ["waiting"]
    with locked(path, lambda: pytest.fail("nobody holds it")):
        pass
