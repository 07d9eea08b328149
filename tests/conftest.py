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


@pytest.hookimpl(wrapper=True)  # runs before pytest-xdist reads the marks
def pytest_collection_modifyitems(items):
    """Side by side, a file's tests stay together, since they share trained models; the longest wait comes first."""
    items.sort(key=lambda item: "smoke" not in getattr(item, "fixturenames", ()))
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            name = "smoke" if "smoke" in getattr(item, "fixturenames", ()) else str(item.path)
            item.add_marker(pytest.mark.xdist_group(name))
    return (yield)
