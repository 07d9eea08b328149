"""The autoencoder's loss against the published values, and its shapes, saving and learning."""

import keras
import numpy as np
import pytest
from scipy.ndimage import sobel

from ser_utils.systems.prototype.autoencoder import (
    AutoencoderLoss,
    HighFrequencyErrorNorm,
    build_autoencoder,
    edge_strength,
    reconstruction_errors,
    sobel_edges,
)
from tests.conftest import GOLDEN_DIR

GOLDEN = np.load(GOLDEN_DIR / "prototype_paper.npz")
SMALL = dict(filters=(8, 4), strides=(2, 1))


def test_sobel_agrees_with_scipy():
    images = np.random.default_rng(0).random((3, 12, 7), dtype=np.float32)
    for axis, edges in enumerate(sobel_edges(images), 1):
        expected = np.stack([sobel(image, axis=axis - 1, mode="mirror") for image in images])
        np.testing.assert_allclose(edges, expected, atol=1e-5)


def test_high_frequency_error_norm_agrees_with_the_published_value():
    value = HighFrequencyErrorNorm()(GOLDEN["spectrogram_true"], GOLDEN["spectrogram_pred"])
    assert float(value) == pytest.approx(float(GOLDEN["hfenn"]), abs=1e-5)


def test_autoencoder_loss_is_mse_plus_weighted_hfenn():
    true, pred = GOLDEN["spectrogram_true"], GOLDEN["spectrogram_pred"]
    mse = np.mean((true - pred) ** 2)
    assert float(AutoencoderLoss(0)(true, pred)) == pytest.approx(mse, rel=1e-5)
    assert float(AutoencoderLoss(0.5)(true, pred)) == pytest.approx(mse + 0.5 * GOLDEN["hfenn"], rel=1e-5)
    with pytest.raises(ValueError, match="hfenn_weight=-1"):
        AutoencoderLoss(-1)


@pytest.mark.parametrize("n_frames, embedding_frames", [(7, 4), (8, 4), (19, 10)])
def test_any_number_of_frames_comes_back_as_it_went_in(n_frames, embedding_frames):
    model = build_autoencoder(16, n_frames, **SMALL)
    segments = np.random.default_rng(0).random((2, 16, n_frames), dtype=np.float32)
    embedding = model.encoder(segments)
    assert embedding.shape == (2, 8, embedding_frames, 4)
    np.testing.assert_allclose(model(segments), model.decoder(embedding), atol=1e-6)
    assert model(segments).shape == segments.shape


def test_the_published_network():
    model = build_autoencoder(128, 8)
    assert model.encoder.output_shape == (None, 64, 4, 4)
    convolutions = [layer for layer in model.encoder.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [64, 32, 16, 8, 4]
    assert [layer.strides for layer in convolutions] == [(2, 2)] + [(1, 1)] * 4
    assert float(np.max(model(np.zeros((1, 128, 8), np.float32)))) <= 1


def test_save_and_load_keep_encoder_and_decoder(tmp_path):
    model = build_autoencoder(16, 7, **SMALL, hfenn_weight=0.01)
    segments = np.random.default_rng(0).random((4, 16, 7), dtype=np.float32)
    model.save(tmp_path / "autoencoder.keras")
    loaded = keras.saving.load_model(tmp_path / "autoencoder.keras")
    np.testing.assert_allclose(loaded(segments), model(segments), atol=1e-6)
    np.testing.assert_allclose(loaded.encoder(segments), model.encoder(segments), atol=1e-6)
    np.testing.assert_allclose(loaded.decoder(loaded.encoder(segments)), model(segments), atol=1e-6)
    assert loaded.loss.hfenn_weight == 0.01


def test_fitting_reduces_the_loss():
    keras.utils.set_random_seed(0)
    bands = np.linspace(0, 1, 16)[:, None]
    phases = np.random.default_rng(0).random((128, 1, 1))
    segments = np.repeat(0.5 + 0.5 * np.sin(6 * (bands + phases)), 7, axis=2).astype(np.float32)
    model = build_autoencoder(16, 7, **SMALL, learning_rate=1e-2)
    history = model.fit(segments, segments, batch_size=32, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert "mae" in history


def test_the_rate_rises_and_falls_along_a_cosine():
    rate = build_autoencoder(16, 8, **SMALL, learning_rate=3e-3, cosine_steps=200).optimizer._learning_rate
    values = [float(rate(step)) for step in range(201)]
    assert values[0] == 0 and np.argmax(values) == 10 and max(values) == pytest.approx(3e-3)
    assert values[105] == pytest.approx(1.5e-3, rel=0.01) and values[200] == pytest.approx(0, abs=1e-8)
    assert float(build_autoencoder(16, 8, **SMALL).optimizer.learning_rate) == pytest.approx(1e-3)


def test_errors_are_told_in_decibels():
    true = np.full((2, 16, 8), 0.5, np.float32)
    errors = reconstruction_errors(true, true + 0.01, 80)
    assert errors["mae_db"] == pytest.approx(0.8, rel=1e-3) and errors["hfenn"] == pytest.approx(0, abs=1e-5)


def test_edges_are_strong_where_levels_change():
    strength = edge_strength(np.repeat(np.arange(16) > 7, 8).reshape(16, 8).astype(np.float32))
    assert strength.shape == (16, 8) and strength[7:9].min() == 4 and strength[:7].max() == 0


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"strides=\(2,\)"):
        build_autoencoder(16, 8, filters=(8, 4), strides=(2,))
