"""SigWavNet against its reference, the wavelet against PyWavelets, and clips of unequal length."""

import json

import keras
import numpy as np
import pytest
import pywt

from ser_utils.systems.sigwavnet.wavelet import (
    AsymmetricHardThreshold,
    DilatedConvolution,
    SigWavNet,
    WaveletTransform,
    load_reference_weights,
    run_bidirectional,
)
from ser_utils.training.fit import compile_for_lengths
from ser_utils.training.folds import ClipBatches, predict_clips
from tests.conftest import GOLDEN_DIR

GOLDEN = GOLDEN_DIR
SMALL = {"classes": 3, "levels": 2, "gru_units": 4, "gru_layers": 2, "channels": 3, "wavelet": "db4"}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = SigWavNet(**SMALL, mean=0.1, std=2.0)
    model.build()
    return model


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("called", [False, True], ids=["new", "called before"])
@pytest.mark.parametrize("constraint", ["per_layer", "per_filter", "cqf"])
def test_every_band_and_the_output_agree_with_the_reference(constraint, called):
    golden = dict(np.load(GOLDEN / f"sigwavnet_{constraint}.npz"))
    config = json.loads(str(golden["config"]))
    model = SigWavNet(**config)
    if called:
        model(golden["waveform"][:1, 0, : model.minimum_samples])
    load_reference_weights(model, {k[2:]: v for k, v in golden.items() if k.startswith("w:")})
    waveform = golden["waveform"][:, 0]
    inside = model.look_inside(waveform)
    for level in range(config["levels"]):
        for ours, name in (("details", "detail"), ("thresholded", "detail_thresholded")):
            wanted = golden[f"{name}_{level}"][:, 0]
            np.testing.assert_allclose(np.asarray(inside[ours][level])[..., 0], wanted, atol=1e-4)
    approximation = np.asarray(inside["approximation"])[..., 0]
    np.testing.assert_allclose(approximation, golden["approximation"][:, 0], atol=1e-4)
    np.testing.assert_allclose(np.asarray(model(waveform)), golden["log_probabilities"], atol=1e-4)


def test_an_untrained_transform_is_the_discrete_wavelet_transform():
    signal = noise(1, 200)
    transform = WaveletTransform(levels=1, wavelet="db4")
    transform.build()
    (detail,), approximation, _ = transform(signal[..., None], np.array([200]))
    # correlation is convolution with the reversed kernel, and PyWavelets convolves
    low, high = (np.asarray(kernel)[::-1] for kernel in transform.filters()[0])
    wanted = [np.convolve(signal[0], kernel, "valid")[::2] for kernel in (low, high)]
    np.testing.assert_allclose(np.asarray(approximation)[0, :, 0], wanted[0], atol=1e-5)
    np.testing.assert_allclose(np.asarray(detail)[0, :, 0], wanted[1], atol=1e-5)
    np.testing.assert_allclose(np.abs(high), np.abs(pywt.Wavelet("db4").dec_lo[::-1])[::-1], atol=1e-6)
    assert abs(low @ high) < 1e-6  # a quadrature pair


@pytest.mark.parametrize(("constraint", "kernels"), [("CQF", 1), ("PerLayer", 3), ("PerFilter", 6)])
def test_a_constraint_says_how_many_kernels_are_learned(constraint, kernels):
    transform = WaveletTransform(levels=3, constraint=constraint)
    transform.build()
    assert len(transform.trainable_weights) == kernels


def test_the_two_thresholds_are_independent():
    layer = AsymmetricHardThreshold(sharpness=50.0)
    layer.build()
    layer.positive.assign(1.0)
    layer.negative.assign(0.2)
    x = np.array([-2.0, -0.5, -0.1, 0.0, 0.5, 2.0], "float32")
    np.testing.assert_allclose(np.asarray(layer(x)), [-2, -0.5, 0, 0, 0, 2], atol=5e-3)


def test_dilated_convolution_is_the_literal_sum():
    layer = DilatedConvolution(2, width=3, stride=4, dilation=2)
    x = noise(1, 30, 5)
    ours, kernel = np.asarray(layer(x)), np.asarray(layer.kernel)
    wanted = [sum(x[0, 4 * t + 2 * k] @ kernel[k] for k in range(3)) for t in range(7)]
    np.testing.assert_allclose(ours[0], wanted, atol=1e-5)


def test_bands_in_one_loop_give_what_each_gru_gives_alone():
    pairs = [[keras.layers.GRU(4, return_sequences=True) for _ in range(2)] for _ in range(3)]
    lengths = [9, 5, 5]
    sequences = [noise(2, time, 3, seed=time) for time in lengths]
    for pair in pairs:
        for gru in pair:
            gru.build((None, None, 3))
    together = run_bidirectional(pairs, sequences, [np.full(2, time, "int32") for time in lengths])
    for (forward, backward), x, ours in zip(pairs, sequences, together, strict=True):
        back = np.asarray(backward(x[:, ::-1].copy()))[:, ::-1]
        wanted = np.concatenate([np.asarray(forward(x)), back], axis=-1)
        np.testing.assert_allclose(np.asarray(ours), wanted, atol=1e-5)


def test_padding_changes_nothing(model):
    long, short = noise(1, 900), noise(1, 700, seed=1)
    batch = np.concatenate([long, np.pad(short, ((0, 0), (0, 200)), constant_values=7)])
    together = np.asarray(model((batch, np.array([900, 700]))))
    alone = np.concatenate([np.asarray(model(long)), np.asarray(model(short))])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_probabilities_sum_to_one_and_attention_to_one(model):
    inside = model.look_inside((noise(2, 900), np.array([900, 800])))
    np.testing.assert_allclose(np.exp(np.asarray(inside["log_probabilities"])).sum(axis=1), 1, atol=1e-5)
    for attention in (*inside["spatial"], *inside["temporal"]):
        np.testing.assert_allclose(np.asarray(attention).sum(axis=1), 1, atol=1e-5)


def test_no_state_is_carried_from_call_to_call(model):
    clip = noise(2, 800)
    first = np.asarray(model(clip))
    model(noise(2, 800, seed=5))
    np.testing.assert_array_equal(np.asarray(model(clip)), first)


def test_a_saved_model_opens_with_equal_outputs(model, tmp_path):
    clip = noise(2, 800)
    wanted = np.asarray(model(clip))
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(opened(clip)), wanted, atol=1e-6)
    assert opened.get_config()["std"] == 2.0


@pytest.mark.slow
def test_a_tiny_batch_is_learned_by_heart():
    keras.utils.set_random_seed(0)
    model = SigWavNet(classes=3, levels=2, gru_units=8, gru_layers=1, channels=4, wavelet="db4")
    clips = [noise(samples, seed=samples) for samples in (600, 590, 580, 520, 510, 500)]
    truth = np.arange(6) % 3
    batches = ClipBatches(clips, keras.utils.to_categorical(truth), batch_size=3)  # of unequal lengths
    batches.multiple = 100 if keras.backend.backend() == "jax" else 1
    loss = keras.losses.CategoricalFocalCrossentropy(from_logits=True)
    model.build()
    compile_for_lengths(model, keras.optimizers.Adam(0.02), loss)
    model.fit(batches, epochs=60, verbose=0)
    assert (predict_clips(model, batches).argmax(axis=1) == truth).all()


def test_a_clip_too_short_for_its_levels_is_refused(model):
    n = model.minimum_samples
    assert np.isfinite(np.asarray(model(noise(1, n)))).all()
    with pytest.raises(ValueError, match=f"2 levels need clips of at least {n} samples.*fewer levels"):
        model(noise(1, n - 1))


@pytest.mark.parametrize("setting", [{"constraint": "PerBand"}, {"wavelet": "db99"}])
def test_an_unknown_setting_is_named(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be.*{next(iter(setting.values()))}"):
        SigWavNet(**(SMALL | setting))
