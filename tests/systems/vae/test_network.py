"""The variational autoencoder: its mathematics by numbers, its training by what it finds, its export by running."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_utils.systems.vae.network import (
    KLWarmUp,
    Sampling,
    SupportVectors,
    VariationalAutoencoder,
    active_units,
    kl_divergence,
    voice_classifier,
)
from ser_utils.training.fit import fit_or_load


def numbers(x):
    return ops.convert_to_numpy(x)


@pytest.fixture(scope="module")
def plane():
    """Twelve features of 300 clips that lie near a plane: two dimensions are enough."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 2))
    x = z @ rng.normal(size=(2, 12)) + 0.1 * rng.normal(size=(300, 12))
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32"), z


def build(beta=0.5, **options):
    model = VariationalAutoencoder(12, **({"n_latent": 4, "hidden": (16,)} | options), beta=beta)
    model.compile(keras.optimizers.Adam(0.01))
    return model


@pytest.fixture(scope="module")
def trained(plane):
    keras.utils.set_random_seed(0)
    model, (x, _) = build(beta=1.0), plane
    model.fit(x[:240], x[:240], validation_data=(x[240:], x[240:]), epochs=60, batch_size=32, verbose=0)
    return model


def test_kl_is_what_sampling_estimates():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    z = mean + np.exp(log_variance / 2) * rng.normal(size=(400_000, 2, 3))
    log_ratio = 0.5 * (z**2 - (z - mean) ** 2 / np.exp(log_variance) - log_variance)
    got = numbers(kl_divergence(ops.convert_to_tensor(mean), ops.convert_to_tensor(log_variance)))
    np.testing.assert_allclose(got, log_ratio.sum(axis=-1).mean(axis=0), rtol=0.02)


def test_kl_is_zero_for_the_prior_and_half_the_square_for_a_shift():
    zero = ops.zeros((1, 3))
    assert numbers(kl_divergence(zero, zero)) == 0
    np.testing.assert_allclose(numbers(kl_divergence(zero + 2.0, zero)), 3 * 2.0**2 / 2)


def test_samples_have_the_asked_mean_and_spread_and_repeat_with_the_seed():
    mean, log_variance = ops.full((20_000, 2), 3.0), ops.full((20_000, 2), 2 * np.log(0.5))
    z, again, other = (numbers(Sampling(seed)(mean, log_variance)) for seed in (1, 1, 2))
    np.testing.assert_allclose([z.mean(), z.std()], [3, 0.5], atol=0.01)
    np.testing.assert_array_equal(z, again)
    assert abs(z - other).max() > 0.1


def test_loss_and_metrics_are_the_formula(plane):
    model, x = build(beta=0.5), plane[0][:8]
    report = model.evaluate(x, x, verbose=0, return_dict=True)
    out = {name: numbers(value) for name, value in model(x).items()}
    reconstruction = ((x - out["reconstruction"]) ** 2).sum(axis=1).mean() / 2
    kl = numbers(kl_divergence(out["mean"], out["log_variance"])).mean()
    np.testing.assert_allclose(report["reconstruction"], reconstruction, rtol=1e-4)
    np.testing.assert_allclose(report["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(report["objective"], reconstruction + 0.5 * kl, rtol=1e-4)
    np.testing.assert_allclose(report["loss"], report["objective"], rtol=1e-4)


def test_training_finds_the_plane_and_hardly_uses_more_dimensions_than_it_has(plane, trained):
    x, z = plane
    out = trained.predict(x[240:], verbose=0)
    assert ((out["reconstruction"] - x[240:]) ** 2).mean() < 0.15  # of a variance of 1
    variance = out["mean"].var(axis=0)
    used = np.argsort(-variance)[:2]
    assert active_units(out["mean"])[used].all()
    assert variance.sum() - variance[used].sum() < 0.2 * variance[used].min()
    design = np.column_stack([out["mean"][:, used], np.ones(60)])
    left = z[240:] - design @ np.linalg.lstsq(design, z[240:], rcond=None)[0]
    assert left.var() < 0.2 * z.var()


def test_a_heavy_kl_collapses_the_posterior_and_active_units_tell(plane):
    model, (x, _) = build(beta=50.0), plane
    model.fit(x, x, epochs=15, batch_size=32, verbose=0)
    assert not active_units(model.predict(x, verbose=0)["mean"]).any()


def test_warm_up_raises_the_weight_to_beta(plane):
    model, x = build(beta=0.8), plane[0][:32]
    weights = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: weights.append(float(numbers(model.kl_weight))))
    history = model.fit(x, x, epochs=6, verbose=0, callbacks=[KLWarmUp(4), watch]).history
    np.testing.assert_allclose(weights, [0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rtol=1e-6)
    by_hand = np.array(history["reconstruction"]) + np.array(weights) * history["kl"]
    np.testing.assert_allclose(history["loss"], by_hand, rtol=1e-3)


def test_saved_model_gives_equal_outputs_and_the_same_seed_the_same_model(plane, tmp_path):
    x = plane[0]
    runs = [
        fit_or_load(
            tmp_path / f"{name}.keras",
            build,
            (x[:200], x[:200]),
            key=name,
            seed=3,
            epochs=3,
            patience=2,
            validation=(x[200:], x[200:]),
            monitor="val_objective",
            batch_size=32,
            callbacks=[KLWarmUp(2)],
        ).model.predict(x, verbose=0)
        for name in "ab"
    ]
    loaded = keras.saving.load_model(tmp_path / "a.keras").predict(x, verbose=0)
    for name, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][name])
        np.testing.assert_allclose(value, loaded[name], atol=1e-6)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="n_latent=0"):
        VariationalAutoencoder(12, n_latent=0)


@pytest.mark.parametrize("n_classes", [2, 3, 8])
def test_support_vector_layer_decides_as_scikit_learn(n_classes):
    rng = np.random.default_rng(n_classes)
    x, label = rng.normal(size=(200, 5)), rng.integers(0, n_classes, 200)
    svc = SVC().fit(x + label[:, None] * 0.5, label)
    decisions = numbers(SupportVectors.of(svc)(x.astype("float32")))
    if n_classes > 2:
        np.testing.assert_allclose(decisions, svc.decision_function(x), atol=1e-3)
    ties_broken = svc.set_params(break_ties=n_classes > 2).predict(x)
    np.testing.assert_array_equal(decisions.argmax(axis=1), ties_broken)


@pytest.fixture(scope="module")
def whole(plane, trained):
    x, z = plane
    raw = 100 * x + 7
    scaler = StandardScaler().fit(raw)
    scaled = scaler.transform(raw)
    latent = trained.predict(scaled, verbose=0)["mean"]
    svc = SVC().fit(np.hstack([scaled, latent]), np.digitize(z[:, 0], [-0.5, 0.5]))
    return voice_classifier(scaler, trained, svc), svc, np.hstack([scaled, latent]), raw.astype("float32")


def test_the_whole_classifier_is_its_parts(whole):
    model, svc, inputs, raw = whole
    p = model.predict(raw, verbose=0)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert (p.argmax(axis=1) == svc.predict(inputs)).mean() > 0.99  # ties apart


def test_exported_model_gives_the_same_answers_when_run(whole, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("LiteRT export starts from the TensorFlow backend")
    import tensorflow as tf

    model, _, _, raw = whole
    model.export(tmp_path / "voice.tflite", format="litert", verbose=False)
    interpreter = tf.lite.Interpreter(str(tmp_path / "voice.tflite"), num_threads=1)
    answer = interpreter.get_signature_runner()
    (name,) = answer.get_input_details()
    got = np.concatenate([next(iter(answer(**{name: row[None]}).values())) for row in raw[:50]])
    np.testing.assert_allclose(got, model.predict(raw[:50], verbose=0), atol=1e-4)
