"""Our explanations and their measures agree with Captum's and Quantus's (see tests/golden/make_explanations.py)."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from ser_utils.explanation import attribution, faithfulness

GOLDEN = Path(__file__).parents[1] / "golden" / "explanations.npz"
CLASS = 1


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def network(golden):
    inputs = keras.Input((10, 10))
    y = keras.layers.Reshape((10, 10, 1))(inputs)
    y = keras.layers.Conv2D(4, 3, padding="same", activation="relu", use_bias=False, name="last")(y)
    y = keras.layers.Dense(3, "softmax", use_bias=False)(keras.layers.Flatten()(y))
    model = keras.Model(inputs, y)
    model.set_weights([golden["kernel"], golden["dense"]])
    return model


@pytest.mark.parametrize(
    "method", ["gradient", "gradient_times_input", "integrated_gradients", "occlusion", "grad_cam"]
)
def test_attributions_are_those_of_captum(golden, network, method):
    x = golden["x"][None]
    score, nothing = attribution.class_score(network, CLASS), np.zeros_like(x)
    of_method = {
        "gradient": lambda: attribution.gradient(score, x),
        "gradient_times_input": lambda: attribution.gradient_times_input(score, x, nothing),
        "integrated_gradients": lambda: attribution.integrated_gradients(score, x, nothing, steps=50, most_steps=0),
        "occlusion": lambda: attribution.occlusion(score, x, patch=(4, 4), stride=(2, 2), fill=0.0),
        "grad_cam": lambda: attribution.grad_cam(network, "last", CLASS, x),
    }
    np.testing.assert_allclose(of_method[method]()[0], golden[method], rtol=1e-3, atol=2e-5)


def test_deletion_is_the_pixel_flipping_of_quantus(golden, network):
    def probability(inputs):
        return network(inputs)[:, CLASS]

    x, given = golden["x"][None], golden["integrated_gradients"][None]
    shares, scores = faithfulness.removal_curve(probability, x, given, fill=0.0, steps=20)
    np.testing.assert_allclose(scores[1:], golden["deletion"], atol=1e-5)
    assert scores[0] == pytest.approx(float(ops.convert_to_numpy(probability(x))[0])), "ours begins with the whole clip"
    assert shares[1] == pytest.approx(0.05), "5 of 100 points at a time"


def test_measures_of_maps_are_those_of_quantus(golden):
    given = golden["integrated_gradients"]
    assert faithfulness.sparseness(given) == pytest.approx(float(golden["sparseness"].item()), abs=1e-5)
    assert faithfulness.localisation(given, golden["mask"]) == pytest.approx(float(golden["localisation"].item()))
    alike = faithfulness.rank_correlation(golden["occlusion"], given)
    assert alike == pytest.approx(float(golden["spearman"].item()), abs=1e-6)
