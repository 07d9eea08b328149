import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import roc_auc_score

from ser_utils import explain, faithfulness


def linear(weights):
    return lambda x: ops.sum(x * ops.convert_to_tensor(weights), axis=(1, 2))


@pytest.fixture
def weights():
    return np.random.default_rng(0).normal(size=(6, 5)).astype("float32")


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(1, 6, 5)).astype("float32")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5))
    y = keras.layers.Reshape((6, 5, 1))(inputs)
    y = keras.layers.Conv2D(4, 3, activation="relu", padding="same", name="last")(y)
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(y))


def test_a_linear_score_is_explained_by_its_weights(weights, x):
    np.testing.assert_allclose(explain.gradient(linear(weights), x)[0], weights, rtol=1e-5)
    np.testing.assert_allclose(explain.smooth_grad(linear(weights), x)[0], weights, rtol=1e-5)
    contribution = weights * x[0]
    np.testing.assert_allclose(explain.gradient_times_input(linear(weights), x)[0], contribution, rtol=1e-5)
    given = explain.integrated_gradients(linear(weights), x, np.zeros_like(x))
    np.testing.assert_allclose(given[0], contribution, rtol=1e-4, atol=1e-6)
    hidden = explain.occlusion(linear(weights), x, patch=(1, 1), stride=(1, 1), fill=0.0)
    np.testing.assert_allclose(hidden[0], contribution, rtol=1e-3, atol=1e-5)


def test_integrated_gradients_sum_to_the_change(network, x):
    score = explain.class_score(network, 1)
    baseline = np.full_like(x, -1.0)
    given = explain.integrated_gradients(score, x, baseline, steps=100)
    assert explain.completeness_gap(score, x, baseline, given) < 0.01


def test_grad_cam_is_the_literal_formula(network, x):
    front = keras.Model(network.inputs, network.get_layer("last").output)
    activation = ops.convert_to_numpy(front(x))[0]
    dense = network.layers[-1].get_weights()[0]
    p = ops.convert_to_numpy(network(x))[0]
    # d log-odds / d mean activation, by hand: (w_k − Σ_j≠k p_j w_j / (1 − p_k)); the mean spreads it evenly
    k = 2
    others = sum(p[j] * dense[:, j] for j in range(3) if j != k) / (1 - p[k])
    wanted = np.maximum((activation * (dense[:, k] - others) / 30).sum(-1), 0)
    given = explain.grad_cam(network, "last", k, x)
    np.testing.assert_allclose(given[0], wanted, rtol=1e-3, atol=1e-7)
    assert explain.stretch(given, (12, 10)).shape == (1, 12, 10)


def test_removing_what_matters_first_falls_fastest(weights, x):
    score = linear(weights)
    contribution = weights * x[0]
    good = faithfulness.removal_curve(score, x, contribution[None], fill=0.0)
    bad = faithfulness.removal_curve(score, x, -contribution[None], fill=0.0)
    assert faithfulness.area(*good) < faithfulness.area(*bad)
    kept = faithfulness.removal_curve(score, x, contribution[None], fill=0.0, keep=True)
    assert kept[1][-1] == pytest.approx(good[1][0], rel=1e-5)
    top = np.sort(contribution.ravel())[::-1][:6].sum()
    assert faithfulness.comprehensiveness(score, x, contribution[None], fill=0.0) == pytest.approx(
        top, rel=1e-4
    )


def test_sparseness_and_localisation_agree_with_known_cases():
    assert faithfulness.sparseness(np.ones(100)) == pytest.approx(0, abs=1e-9)
    assert faithfulness.sparseness(np.eye(1, 100)) == pytest.approx(0.99)
    rng = np.random.default_rng(0)
    region, values = rng.random((20, 20)) < 0.2, rng.random((20, 20)).round(1)
    wanted = roc_auc_score(region.ravel(), values.ravel())
    assert faithfulness.localisation(values, region) == pytest.approx(wanted)
    assert faithfulness.localisation(region.astype(float), region) == 1
    with pytest.raises(ValueError, match="0 inside"):
        faithfulness.localisation(values, np.zeros_like(region))


def test_maps_are_like_themselves_and_unlike_noise():
    rng = np.random.default_rng(0)
    one, other = rng.random((30, 40)), rng.random((30, 40))
    assert faithfulness.rank_correlation(one, one**3) == pytest.approx(1)
    assert abs(faithfulness.rank_correlation(one, other)) < 0.1
    assert faithfulness.structural_similarity(one, one) == pytest.approx(1)
    assert faithfulness.structural_similarity(one, other) < 0.3


def test_a_randomised_model_explains_differently(network, x):
    copy = faithfulness.randomised(network, seed=1)
    assert [w.shape for w in copy.get_weights()] == [w.shape for w in network.get_weights()]
    before, after = (explain.gradient(explain.class_score(model, 0), x) for model in (network, copy))
    assert faithfulness.rank_correlation(before, after) < 0.9
    only_last = faithfulness.randomised(network, layers=faithfulness.weighted_layers(network)[:1])
    np.testing.assert_array_equal(only_last.get_weights()[0], network.get_weights()[0])
    with pytest.raises(ValueError, match="No layer nothing"):
        faithfulness.randomised(network, layers=["nothing"])
