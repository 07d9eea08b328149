import keras
import numpy as np
import pytest

from ser_utils.training import fit as training


def build():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=keras.backend.backend() == "jax")
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype("float32")
    return (x[:40], x[:40, :1]), (x[40:], x[40:, :1])


def fit(path, data, **changes):
    options = {"key": "k", "seed": 1, "epochs": 6, "patience": 3, "batch_size": 8} | changes
    return training.fit_or_load(path, build, data[0], validation=data[1], **options)


def test_a_finished_model_is_opened_not_trained_again(tmp_path, data, monkeypatch):
    first = fit(tmp_path / "m.keras", data)
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: pytest.fail("trained again"))
    again = fit(tmp_path / "m.keras", data)
    np.testing.assert_array_equal(
        first.model.predict(data[0][0], verbose=0), again.model.predict(data[0][0], verbose=0)
    )
    assert first.history.equals(again.history) and first.seconds == again.seconds


def test_same_seed_same_weights_other_seed_others(tmp_path, data):
    weights = [
        fit(tmp_path / f"{name}.keras", data, seed=seed).model.get_weights()[0]
        for name, seed in zip("abc", (1, 1, 2), strict=True)
    ]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_another_key_or_a_damaged_file_is_trained_again(tmp_path, data):
    path = tmp_path / "m.keras"
    first = fit(path, data)
    assert len(fit(path, data, key="other", epochs=2).history) == 2
    path.write_bytes(path.read_bytes()[:500])
    np.testing.assert_array_equal(fit(path, data).model.get_weights()[0], first.model.get_weights()[0])


def test_the_best_epoch_is_kept(tmp_path, data):
    fitted = fit(tmp_path / "m.keras", data, epochs=30)
    loss = fitted.model.evaluate(*data[1], verbose=0)
    assert loss == pytest.approx(fitted.history["val_loss"].min(), rel=1e-4)


def test_class_weights_balance_classes_and_ignore_absent_ones():
    weights = training.class_weights(np.array([0, 0, 0, 2]), 3)
    assert weights[0] * 3 == pytest.approx(weights[2]) == pytest.approx(2)
    assert weights[1] == 0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces")
def test_a_compiled_model_is_traced_once_whatever_the_length_of_clips():
    class Counted(keras.Model):
        traced = 0

        def call(self, inputs, training=False):
            self.traced += 1
            clips, n_frames = inputs
            return keras.ops.sum(clips, axis=(1, 2)) / keras.ops.cast(n_frames, "float32")

    model, rng = Counted(), np.random.default_rng(0)
    for n_clips, n_frames in ((2, 5), (3, 9), (1, 4)):
        clips = rng.normal(size=(n_clips, n_frames, 3)).astype("float32")
        answer = training.compiled(model)([clips, np.full(n_clips, n_frames, "int32")])
        np.testing.assert_allclose(answer, clips.sum(axis=(1, 2)) / n_frames, rtol=1e-4, atol=1e-5)
    assert model.traced == 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces")
@pytest.mark.parametrize("reuse", ["", "k"])
def test_a_step_of_training_is_traced_once_also_with_metrics_named_by_words(tmp_path, data, reuse):
    traced = []

    class Counted(keras.Sequential):
        def train_step(self, data):
            traced.append(self.name)
            return super().train_step(data)

    def counted():
        model = Counted([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("adam", "mse", metrics=["mae"], jit_compile=False)
        return model

    fitted = training.fit_or_load(tmp_path / "m.keras", counted, data[0], key="k", seed=1, epochs=2, reuse=reuse)
    assert len(traced) == 1 and {"loss", "mae"} <= set(fitted.history)
