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
    y = keras.layers.Dense(3, "softmax", use_bias=False, name="dense")(keras.layers.Flatten()(y))
    model = keras.Model(inputs, y)
    model.set_weights([golden["kernel"], golden["dense"]])
    return model


class OnlyThese(attribution.Subject):
    """Asked for the maps of which Captum made golden values."""

    def methods(self, x, label, *, seed=0):
        named = super().methods(x, label, seed=seed)
        return {name: named[name] for name in ("gradient", "integrated_gradients", "occlusion")}


@pytest.fixture(scope="module")
def explained(network, golden):
    subject = OnlyThese(network, 0.0, (4, 4), (2, 2))
    return attribution.Explained("golden", subject, [attribution.Clip("clip", golden["x"][None], CLASS)])


@pytest.fixture(scope="module")
def maps(golden):
    return [{name: golden[name][None] for name in ("gradient", "integrated_gradients", "occlusion")}]


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


def test_insertion_is_the_pixel_flipping_of_quantus_read_from_its_end(golden, network):
    """Putting the most important points in is taking the least important out, backwards (Petsiuk et al. 2018)."""
    x, given = golden["x"][None], golden["integrated_gradients"][None]
    _, scores = faithfulness.removal_curve(lambda x: network(x)[:, CLASS], x, given, fill=0.0, steps=20, keep=True)
    np.testing.assert_allclose(scores[:-1], golden["flipping_of_the_least"].ravel()[::-1], atol=1e-5)
    assert scores[-1] == pytest.approx(float(ops.convert_to_numpy(network(x))[0, CLASS])), (
        "ours ends with the whole clip"
    )


def test_stability_is_the_average_sensitivity_of_quantus_with_ranks_for_a_distance(golden, explained, maps):
    """Quantus adds the noise, asks Captum again and compares the maps by Spearman's correlation of their sizes."""
    measured = faithfulness.stability(explained, maps).set_index("method")["stability"]
    for method, value in measured.items():
        assert value == pytest.approx(float(golden[f"stability_{method}"]), abs=2e-4), method


def test_shuffled_weights_are_the_randomisation_test_of_quantus(golden, explained, maps):
    """Quantus randomises torch's layers and compares the maps; its layers are shuffled here as ours are.

    A layer's own way of starting anew, which Quantus uses, is another distribution of weights.
    """
    model = explained.subject.model
    weights = {
        "independent_kernel": faithfulness.randomised(model, layers=["last"]),
        "independent_dense": faithfulness.randomised(model, layers=["dense"]),
        "bottom_up_dense": faithfulness.randomised(model),
    }
    table = faithfulness.sanity(explained.subject, weights, explained.clips, maps)
    assert len(table) == 9
    for row in table.itertuples():
        assert row.likeness == pytest.approx(abs(float(golden[f"{row.name}_{row.method}"])), abs=2e-4), row


def test_measures_of_maps_are_those_of_quantus(golden):
    given = golden["integrated_gradients"]
    assert faithfulness.sparseness(given) == pytest.approx(float(golden["sparseness"].item()), abs=1e-5)
    assert faithfulness.localisation(given, golden["mask"]) == pytest.approx(float(golden["localisation"].item()))
    alike = faithfulness.rank_correlation(golden["occlusion"], given)
    assert alike == pytest.approx(float(golden["spearman"].item()), abs=1e-6)
