import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN_DIR = REPOSITORY / "tests" / "golden"
sys.path.insert(0, str(REPOSITORY))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def golden():
    """Folder of values computed once with the published implementations."""
    return GOLDEN_DIR


@pytest.fixture(scope="session")
def data_dir():
    """Folder of the real recordings; tests that want them are skipped without SER_DATA_DIR."""
    if not os.environ.get("SER_DATA_DIR"):
        pytest.skip("SER_DATA_DIR is not set: no real recordings here")
    return Path(os.environ["SER_DATA_DIR"]).resolve()


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that all workers end together; a file is one worker's.

    What interrupts programs or measures them comes after the notebooks, which have processes of their own.
    """
    longest = "notebooks training site embeddings faults interrupted_runs benchmarks results".split()
    longest = [f"test_{name}.py" for name in longest]
    items.sort(key=lambda item: (*longest, item.path.name).index(item.path.name))
