"""Everything that is measured, one after another, kept in benchmarks/measured.txt with the machine it ran on."""

import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

import keras
import numpy as np

from ser_utils.workspace import REPOSITORY, atomic_path

HERE = Path(__file__).parent


def processor():
    """The processor's name, where Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def main():
    report = [
        f"{date.today()} · {processor()}, {os.cpu_count()} cores · Python {platform.python_version()}, "
        f"NumPy {np.__version__}, Keras {keras.__version__} on {keras.backend.backend()}"
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    failed = []
    for script in sorted(path for path in HERE.glob("*.py") if not path.name.startswith("__")):
        print(f"--- {script.stem}", flush=True)
        run = subprocess.run(
            [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        print(run.stdout, flush=True)
        report += [f"--- {script.stem}", run.stdout.rstrip()]
        failed += [script.stem] * (run.returncode != 0)
    with atomic_path(HERE / "measured.txt") as temporary:
        temporary.write_text("\n".join(report) + "\n", "utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
