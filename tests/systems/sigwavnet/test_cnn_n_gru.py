"""CNN-n-GRU: its reference, its sizes, clips of unequal length, saving and learning."""

import json

import keras
import numpy as np
import pytest

from ser_utils.systems.sigwavnet.cnn_n_gru import CnnGru, load_reference_weights
from ser_utils.training.fit import compile_for_lengths
from tests.conftest import GOLDEN_DIR

SMALL = {"classes": 3, "n": 5, "channels": 4, "gru_units": 5}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def built(**settings):
    keras.utils.set_random_seed(0)
    model = CnnGru(**(SMALL | settings))
    model.build()
    return model


@pytest.mark.parametrize("called", [False, True], ids=["new", "called before"])
@pytest.mark.parametrize("n", [3, 11, 18])
def test_the_output_agrees_with_the_reference(n, called):
    golden = dict(np.load(GOLDEN_DIR / f"cnn_n_gru_{n}.npz"))
    model = CnnGru(**json.loads(str(golden["config"])))
    if called:
        model(golden["waveform"])
    load_reference_weights(model, {k[2:]: v for k, v in golden.items() if k.startswith("w:")})
    np.testing.assert_allclose(np.asarray(model(golden["waveform"])), golden["log_probabilities"], atol=1e-4)


PUBLISHED_LAYOUT = {3: "2|2|", 5: "1|1|2|4|", 11: "1|11|22|444|88", 18: "1|1111|2222|4444|8888"}  # a bar: pool by 4


def literal(arrays, waveform, n):
    """The published forward pass of one clip in NumPy, from PyTorch's weights; x is (channels, time)."""

    def leaky(x):
        return np.where(x > 0, x, 0.01 * x)

    x, number = waveform[None].astype("float64"), 0
    for mark in PUBLISHED_LAYOUT[n]:
        if mark == "|":
            x = x[:, : x.shape[1] // 4 * 4].reshape(len(x), -1, 4).max(axis=2)
            continue
        number += 1
        kernel, stride = arrays[f"conv{number}.weight"], 4 if number == 1 else 1
        padded = x if number == 1 else np.pad(x, ((0, 0), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2], axis=1)[:, ::stride]
        x = np.einsum("itk,oik->ot", windows, kernel) + arrays[f"conv{number}.bias"][:, None]
        mean, variance, scale, shift = (
            arrays[f"bn{number}.{name}"][:, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = leaky((x - mean) / np.sqrt(variance + 1e-5) * scale + shift)
    x = arrays["fc1.weight"] @ leaky(x.mean(axis=1)) + arrays["fc1.bias"]
    given = arrays["gru1.weight_ih_l0"] @ x + arrays["gru1.bias_ih_l0"]  # one step from a state of zero
    reset, update, new = np.split(given, 3)
    reset_h, update_h, new_h = np.split(arrays["gru1.bias_hh_l0"], 3)
    reset, update = (1 / (1 + np.exp(-gate)) for gate in (reset + reset_h, update + update_h))
    logits = arrays["fc2.weight"] @ leaky((1 - update) * np.tanh(new + reset * new_h)) + arrays["fc2.bias"]
    return logits - np.log(np.exp(logits).sum())


@pytest.mark.parametrize("n", [3, 18])
def test_the_literal_network_is_the_reference(n):
    golden = dict(np.load(GOLDEN_DIR / f"cnn_n_gru_{n}.npz"))
    arrays = {k[2:]: v for k, v in golden.items() if k.startswith("w:")}
    said = [literal(arrays, clip, n) for clip in golden["waveform"]]
    np.testing.assert_allclose(said, golden["log_probabilities"], atol=1e-4)


@pytest.mark.parametrize("n", [5, 11])
def test_the_output_agrees_with_a_literal_network(n):
    """n = 5 has no golden file, and in that of n = 11 the reference runs the third convolution through the first norm."""
    model, rng = CnnGru(8, n=n, gru_units=6), np.random.default_rng(n)
    model.build()
    c, width, arrays = n, 1, {}
    multiples = PUBLISHED_LAYOUT[n].replace("|", "")
    for i, multiple in enumerate(multiples, 1):
        shape = (c * int(multiple), width, 160 if i == 1 else 3)
        width, fan_in = shape[0], shape[1] * shape[2]
        arrays[f"conv{i}.weight"], arrays[f"conv{i}.bias"] = rng.normal(0, fan_in**-0.5, shape), rng.normal(size=width)
        for name in ("weight", "bias", "running_mean"):
            arrays[f"bn{i}.{name}"] = rng.normal(size=width)
        arrays[f"bn{i}.running_var"] = rng.uniform(0.5, 2, width)
    for layer, (out, inside) in {"fc1": (width // 2, width), "fc2": (8, 6)}.items():
        arrays[f"{layer}.weight"], arrays[f"{layer}.bias"] = rng.normal(0, 0.3, (out, inside)), rng.normal(size=out)
    for way, inside in (("ih", width // 2), ("hh", 6)):
        arrays[f"gru1.weight_{way}_l0"] = rng.normal(0, 0.3, (18, inside))
        arrays[f"gru1.bias_{way}_l0"] = rng.normal(size=18)
    arrays = {name: values.astype("float32") for name, values in arrays.items()}
    load_reference_weights(model, arrays)
    clips = noise(2, model.minimum_samples + 300, seed=n)
    np.testing.assert_allclose(np.asarray(model(clips)), [literal(arrays, clip, n) for clip in clips], atol=1e-4)


def test_reference_weights_of_another_size_are_refused():
    golden = dict(np.load(GOLDEN_DIR / "cnn_n_gru_3.npz"))
    arrays = {k[2:]: v for k, v in golden.items() if k.startswith("w:")}
    with pytest.raises(ValueError, match="shape"):
        load_reference_weights(CnnGru(8, n=3, channels=4), arrays)
    with pytest.raises(KeyError, match="fc2.bias"):
        load_reference_weights(CnnGru(8, n=3), {k: v for k, v in arrays.items() if k != "fc2.bias"})


def test_the_published_network_has_the_published_number_of_weights():
    model = CnnGru(classes=8, n=18)
    model.build()
    assert sum(weight.size for weight in map(np.asarray, model.trainable_weights)) == 333_286


@pytest.mark.parametrize(("n", "halved"), [(3, 3), (5, 10), (11, 44), (18, 72)])
def test_width_is_depth_and_the_dense_layer_halves_it(n, halved):
    model = built(n=n, channels=0)
    assert model.convolutions[-1].filters == 2 * halved and model.reduce.units == halved


@pytest.mark.parametrize(
    ("n", "widths"),
    [
        (3, [8] * 2),
        (5, [4, 4, 8, 16]),
        (11, [4] * 3 + [8] * 2 + [16] * 3 + [32] * 2),
        (18, [4] * 5 + [8] * 4 + [16] * 4 + [32] * 4),
    ],
)
def test_every_n_has_its_convolutions_and_a_norm_each(n, widths):
    model = built(n=n)
    assert [layer.filters for layer in model.convolutions] == widths
    assert len({id(norm) for norm in model.norms}) == len(widths) == n - 1
    out = np.asarray(model(noise(2, model.minimum_samples + 500)))
    np.testing.assert_allclose(np.exp(out).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("over_time", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_what_lies_beyond_a_clip_changes_nothing(over_time, training):
    model = built(over_time=over_time)
    clips, lengths = noise(2, 3000), np.array([3000, 2100])
    other = clips.copy()
    other[1, 2100:] = 7
    one, two = (np.asarray(model((x, lengths), training=training)) for x in (clips, other))
    np.testing.assert_allclose(one, two, atol=1e-5)
    if not training:  # in training a batch is normalised together
        np.testing.assert_allclose(one[1:], np.asarray(model(clips[1:, :2100])), atol=1e-5)


def test_only_a_gru_over_time_hears_the_order():
    clip = noise(1, 6000) * np.linspace(0, 2, 6000, dtype="float32")
    averaged, sequence = built(), built(over_time=True)
    assert averaged.count_params() == sequence.count_params()
    assert np.abs(np.asarray(averaged(clip)) - np.asarray(sequence(clip))).max() > 1e-4


def test_a_saved_model_opens_with_equal_outputs(tmp_path):
    model, clip = built(mean=0.1, std=2.0), noise(2, 2000)
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(opened(clip)), np.asarray(model(clip)), atol=1e-6)


@pytest.mark.slow
def test_a_tiny_batch_is_learned_by_heart():
    model, clips, truth = built(), noise(6, 1300), np.arange(6) % 3
    compile_for_lengths(model, keras.optimizers.Adam(0.01), keras.losses.CategoricalFocalCrossentropy(from_logits=True))
    model.fit((clips, np.full(6, 1300, "int32")), keras.utils.to_categorical(truth), epochs=60, batch_size=6, verbose=0)
    assert (np.asarray(model(clips)).argmax(axis=1) == truth).all()


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="n must be one of 3, 5, 11, 18. Received: n=7"):
        CnnGru(classes=3, n=7)
    model = built()
    with pytest.raises(ValueError, match=f"at least {model.minimum_samples} samples"):
        model(noise(1, model.minimum_samples - 1))
