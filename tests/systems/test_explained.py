"""Networks that notebooks 09 and 10 open: only those that are as they were trained."""

import keras
import numpy as np
import pytest

from ser_utils.systems.explained import open_trained
from ser_utils.workspace import MissingResult, Workspace, seal


@pytest.fixture
def workspace(tmp_path):
    return Workspace("demo", "smoke", 0, tmp_path)


def test_a_trained_network_answers_as_when_it_was_saved(workspace):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    path = workspace.folder("models") / "small.keras"
    model.save(path)
    seal(path)
    x = np.arange(6, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(open_trained(workspace, "small", made_by="05")(x), model(x))


@pytest.mark.parametrize(("content", "state"), [(b"half a model", "is damaged"), (None, "is not there")])
def test_a_damaged_or_absent_network_is_named_with_what_trains_it_again(workspace, content, state):
    path = workspace.folder("models") / "small.keras"
    if content:
        path.write_bytes(b"a model")
        seal(path)
        path.write_bytes(content)
    with pytest.raises(MissingResult) as error:
        open_trained(workspace, "small", made_by="05")
    assert f"{path} {state}. Delete " in str(error.value)
    assert "05_*.ipynb and run make 05 DATASET=demo PROFILE=smoke SEED=0: it trains what is missing." in str(
        error.value
    )
