import keras
import librosa
import numpy as np
import pytest
from keras import ops

from ser_utils.explanation import attribution as explain
from ser_utils.features import spectral as features
from ser_utils.systems.feature_network import attention_over_time, cnn_bilstm, deep_cnn
from tests.explanation.conftest import linear


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
    np.testing.assert_allclose(explain.gradient_times_input(linear(weights), x, 0)[0], contribution, rtol=1e-5)
    against = explain.gradient_times_input(linear(weights), x, np.full_like(x, 0.5))
    np.testing.assert_allclose(against[0], weights * (x[0] - 0.5), rtol=1e-4, atol=1e-6)
    given = explain.integrated_gradients(linear(weights), x, np.zeros_like(x))
    np.testing.assert_allclose(given[0], contribution, rtol=1e-4, atol=1e-6)
    hidden = explain.occlusion(linear(weights), x, patch=(1, 1), stride=(1, 1), fill=0.0)
    np.testing.assert_allclose(hidden[0], contribution, rtol=1e-3, atol=1e-5)


def test_integrated_gradients_of_a_square_are_its_closed_form(x):
    # the path integral of d(x²)/dx from b to x is x² − b², and for x·y along the diagonal (x·y)/2 each
    square = explain.integrated_gradients(lambda v: ops.sum(v**2, axis=(1, 2)), x, np.full_like(x, 0.5))
    np.testing.assert_allclose(square, x**2 - 0.25, rtol=1e-4, atol=1e-5)
    product = explain.integrated_gradients(lambda v: v[:, 0, 0] * v[:, 1, 1], x, np.zeros_like(x))
    wanted = np.zeros_like(x)
    wanted[0, 0, 0] = wanted[0, 1, 1] = x[0, 0, 0] * x[0, 1, 1] / 2
    np.testing.assert_allclose(product, wanted, atol=1e-5)


def test_what_hides_a_patch_may_differ_from_feature_to_feature(weights, x):
    fill = np.arange(5, dtype="float32")
    hidden = explain.occlusion(linear(weights), x, patch=(1, 1), stride=(1, 1), fill=fill)
    np.testing.assert_allclose(hidden[0], weights * (x[0] - fill), rtol=1e-3, atol=1e-5)


def test_integrated_gradients_sum_to_the_change(network, x):
    score = explain.class_score(network, 1)
    baseline = np.full_like(x, -1.0)
    given = explain.integrated_gradients(score, x, baseline)
    assert explain.completeness_gap(score, x, baseline, given) < 0.01
    assert explain.completeness_gap(score, x, baseline, 1.5 * given) > 0.4
    few = explain.integrated_gradients(score, x, baseline, steps=1, within=np.inf)
    assert explain.completeness_gap(score, x, baseline, few) > explain.completeness_gap(score, x, baseline, given)


def test_a_very_sure_model_still_has_a_slope(weights, x):
    sure = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    sure(x)
    scaled = weights.ravel() * 40 / (weights * x[0]).sum()  # a logit of 40 against two of 0
    sure.layers[1].set_weights([np.stack([scaled, 0 * scaled, 0 * scaled], axis=1), np.zeros(3)])
    assert float(ops.convert_to_numpy(sure(x)).max()) == 1
    given = explain.gradient(explain.class_score(sure, 0), x)
    np.testing.assert_allclose(given[0].ravel(), scaled, rtol=1e-3)


def test_the_way_is_looked_at_closely_where_the_score_turns(x):
    steep = lambda v: ops.sum(ops.tanh(500 * (v - 0.91)), axis=(1, 2))  # noqa: E731 -- all of it in a short piece
    inputs, nothing = np.ones_like(x), np.zeros_like(x)
    evenly = explain.integrated_gradients(steep, inputs, nothing, steps=100, within=np.inf)
    closely = explain.integrated_gradients(steep, inputs, nothing, steps=20, most_steps=100)
    assert explain.completeness_gap(steep, inputs, nothing, evenly) > 0.3
    assert explain.completeness_gap(steep, inputs, nothing, closely) <= 0.01


def test_where_no_more_steps_are_allowed_only_gradients_are_asked_for(x):
    asked = []

    def score(v):
        asked.append(len(v))
        return ops.sum(v**2, axis=(1, 2))

    explain.path_gradient(score, x, np.zeros_like(x), steps=20, most_steps=0)
    assert asked == [20]


def test_logarithms_of_probabilities_give_the_same_score(network, x):
    logarithms = keras.Model(network.inputs, keras.layers.Lambda(ops.log)(network.output))
    one, other = explain.class_score(network, 0), explain.class_score(logarithms, 0, log_probabilities=True)
    np.testing.assert_allclose(ops.convert_to_numpy(one(x)), ops.convert_to_numpy(other(x)), rtol=1e-4)


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


def test_grad_cam_of_a_recurrent_network_is_a_curve_over_its_steps():
    keras.utils.set_random_seed(0)
    model = cnn_bilstm(3, 12, filters=(4, 4, 4, 4), units=3)
    x, n = np.random.default_rng(0).normal(size=(1, 40, 12)).astype("float32"), np.array([40], "int32")
    given = explain.grad_cam(model, "bilstm", 1, x, n)
    assert given.shape == (1, 5) and given.min() >= 0
    assert explain.grad_cam(model, "block_4", 1, x, n).shape == (1, 5, 1), "5 steps of one band are left"
    model.to_json()  # which a model whose layers were called again by another cannot


def test_a_curve_over_time_is_repeated_for_every_feature():
    wide = explain.stretch(np.array([[0.0, 1.0]]), (4, 3))
    assert wide.shape == (1, 4, 3) and np.ptp(wide, axis=2).max() == 0
    assert wide[0, 0, 0] == 0 and wide[0, -1, 0] == 1
    np.testing.assert_array_equal(explain.stretch(np.array([[0.0, 1.0]]), (2,)), [[0.0, 1.0]])


def test_every_method_speaks_of_every_point_of_a_clip_of_any_length():
    keras.utils.set_random_seed(0)
    model = deep_cnn(3, 12, filters=(4, 4, 4, 4))
    subject = explain.FrameSubject(model, -2.0, (8, 4), (8, 4), layer="block_4", attention="attention")
    for n_frames in (9, 30):
        x = np.random.default_rng(0).normal(size=(1, n_frames, 12)).astype("float32")
        found = subject.maps(x, 1)
        assert {values.shape for values in found.values()} == {x.shape}
        assert set(found) == {
            "gradient",
            "gradient_times_input",
            "smooth_grad",
            "integrated_gradients",
            "occlusion",
            "grad_cam",
            "attention",
        }
        again = subject.maps(x, 1)
        np.testing.assert_array_equal(found["smooth_grad"], again["smooth_grad"])
        n = np.array([n_frames], "int32")
        weights = explain.attention_weights(model, "attention", x, n)
        np.testing.assert_array_equal(weights, attention_over_time(model, x, n))
        assert subject.predict(x).sum() == pytest.approx(1, abs=1e-5)


def test_held_out_clips_are_scaled_by_training_alone():
    rng = np.random.default_rng(0)
    frames = {name: rng.normal(5, 2, (n, 3)).astype("float32") for name, n in zip("abcd", (4, 6, 8, 5), strict=True)}
    emotions = {"a": "fear", "b": "anger", "c": "fear", "d": "anger"}
    roles = {"a": "train", "b": "train", "c": "test", "d": "validation", "e": "test"}
    found = explain.held_out(frames, emotions, roles)
    pooled = np.concatenate([frames["a"], frames["b"]])
    np.testing.assert_allclose(found.mean, pooled.mean(axis=0), rtol=1e-5)
    ((name, x, label),) = found.tested
    assert name == "c" and found.classes[label] == "fear" and found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(x[0] * found.spread + found.mean, frames["c"], rtol=1e-4)
    np.testing.assert_allclose(found.silence() * found.spread + found.mean, pooled.min(axis=0), rtol=1e-4)
    flat = found.silence("mfcc") * found.spread + found.mean
    np.testing.assert_allclose(flat, [pooled[:, 0].min(), 0, pooled[:, 2].min()], rtol=1e-4, atol=1e-5)


def test_clips_to_explain_are_right_ones_of_every_class_in_turn():
    class Said:  # the first number of a clip is what is said of it
        def predict(self, x):
            return np.eye(3)[int(x[0, 0, 0])]

    clips = [
        explain.Clip(name, np.full((1, 2, 2), said), label)
        for name, said, label in [("a", 0, 0), ("b", 0, 0), ("c", 1, 1), ("d", 2, 1), ("e", 1, 1), ("f", 0, 0)]
    ]
    assert [name for name, _, _ in explain.choose_clips(Said(), clips, most=4)] == ["a", "c", "b", "e"]
    wrong = [explain.Clip("d", clips[3].x, 1)]
    assert [(name, label) for name, _, label in explain.choose_clips(Said(), wrong, most=4)] == [("d", 2)]


def test_a_slope_over_cepstra_leads_back_to_the_bands():
    rng = np.random.default_rng(0)
    bands, slope = rng.normal(size=(32, 7)), rng.normal(size=(7, 20))
    cepstra = librosa.feature.mfcc(S=bands, n_mfcc=20)
    back = explain.mel_of_cepstra(slope, 32)
    assert back.shape == (7, 32)
    # the score Σ slope · MFCC is linear in the bands, with that gradient
    assert (slope * cepstra.T).sum() == pytest.approx((back * bands.T).sum())


def test_part_and_rest_add_up_and_keep_what_the_map_points_at():
    rate, seconds = 16000, np.arange(16000) / 16000
    low, high = np.sin(2 * np.pi * 300 * seconds), np.sin(2 * np.pi * 4000 * seconds)
    signal = (0.3 * (low + high)).astype("float32")
    grid = {"n_fft": 1024, "hop_length": 256}
    level = features.log_mel(signal, rate, n_mels=64, **grid)
    centres = librosa.mel_frequencies(66, fmin=0, fmax=8000)[1:-1]
    points = np.broadcast_to(centres < 1000, level.T.shape).astype(float)
    part, rest = explain.part_and_rest(signal, rate, points, share=points.mean(), **grid)
    np.testing.assert_allclose(part + rest, signal, atol=1e-6)
    assert np.corrcoef(part, low)[0, 1] > 0.99 and np.corrcoef(rest, high)[0, 1] > 0.99
