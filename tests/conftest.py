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
    """The longest wait comes first: the notebooks of smoke, and the rest of their file."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
