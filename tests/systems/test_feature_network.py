import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest

from ser_utils.features.audio import save_audio
from ser_utils.features.frames import clip_frames, frame_store
from ser_utils.systems.feature_network import AttentiveStatistics, attention_over_time, cnn_bilstm, deep_cnn
from ser_utils.systems.spectrogram_cnn import clip_cnn, image_cnn
from ser_utils.training.fit import compile_for_lengths, set_seed
from ser_utils.training.folds import COSTS, ClipBatches, FoldTask, averaged, network_key, train_fold

SMALL = {"filters": (3, 4, 4, 5)}
NETWORKS = {"deep_cnn": lambda: deep_cnn(3, 41, **SMALL), "cnn_bilstm": lambda: cnn_bilstm(3, 41, units=4, **SMALL)}


def clips_of(lengths, n_features=41, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, n_features)).astype("float32") for n in lengths]


def run(model, features, n_frames):
    if keras.backend.backend() == "jax":  # operation by operation it would compile each of them
        return model.predict_on_batch([features, n_frames.astype("int32")])
    return keras.ops.convert_to_numpy(model([features, n_frames]))


@pytest.fixture(params=NETWORKS)
def model(request):
    set_seed(0)
    return NETWORKS[request.param]()


def test_padding_never_changes_a_prediction(model):
    clips = clips_of((22, 9))
    alone = np.concatenate([run(model, clip[None], np.array([len(clip)])) for clip in clips[::-1]])
    padded, n_frames = ClipBatches(clips, batch_size=2)[0][0]
    wild = np.concatenate([padded, np.full((2, 11, 41), 99, "float32")], axis=1)
    wild[0, n_frames[0] :] = np.nan
    np.testing.assert_allclose(run(model, wild, n_frames), alone, atol=1e-6)


def test_attention_sums_to_one_over_the_clip_and_is_zero_beyond(model):
    clips = clips_of((40, 17))
    padded = np.stack([np.pad(clips[1], ((0, 23), (0, 0))), clips[0]])
    weights = attention_over_time(model, padded, np.array([17, 40], "int32"))
    assert weights.shape == (2, 5)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert (weights[0, :3] > 0).all() and not weights[0, 3:].any()


def test_a_saved_model_predicts_the_same(model, tmp_path):
    clip, n = clips_of((12,))[0][None], np.array([12])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(run(again, clip, n), run(model, clip, n))


def test_a_tiny_batch_can_be_learned_by_heart(model):
    for layer in model._flatten_layers():
        if "Dropout" in type(layer).__name__:
            layer.rate = 0.0
    clips, targets = clips_of((24, 24, 24, 24, 20, 20)), np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]]
    accuracy = keras.metrics.CategoricalAccuracy("accuracy")
    compile_for_lengths(model, keras.optimizers.Adam(0.02), "categorical_crossentropy", metrics=[accuracy])
    history = model.fit(ClipBatches(clips, targets, batch_size=6, shuffle=True), epochs=40, verbose=0).history
    assert history["accuracy"][-1] == 1 and history["loss"][-1] < 0.3


def test_attentive_statistics_are_weighted_moments():
    x = clips_of((6, 6), 4)
    layer = AttentiveStatistics(3)
    pooled, weights = (keras.ops.convert_to_numpy(y) for y in layer(np.stack(x), np.array([6, 4], "int32")))
    for clip, n, own, w in zip(x, (6, 4), pooled, weights, strict=True):
        mean = np.average(clip[:n], axis=0, weights=w[:n])
        spread = np.sqrt(np.average((clip[:n] - mean) ** 2, axis=0, weights=w[:n]) + 1e-5)
        np.testing.assert_allclose(own, [*mean, *spread], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "width"), [("log_mel", 32), ("mfcc", 21)])
def test_frames_of_a_tone_lie_where_it_sounds(kind, width):
    rate = 16_000
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype("float32")
    signal = np.concatenate([np.zeros(rate, "float32"), tone, np.zeros(rate, "float32")])
    grid = {"kind": kind, "n_mels": 32, "n_fft": 1024, "hop_length": 512, "n_mfcc": 20}
    whole, trimmed = (clip_frames(signal, rate, trim_db=db, **grid) for db in (0, 40))
    assert whole.shape == (1 + 3 * rate // 512, width)
    assert trimmed.shape[1] == width and rate // 512 <= len(trimmed) <= rate // 512 + 5


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of 'log_mel', 'mfcc'. Received: kind='plp'"):
        clip_frames(np.ones(4000, "float32"), 16_000, kind="plp", n_mels=8, n_fft=512, hop_length=256)


def test_frames_are_made_without_importing_a_network_library():
    code = "import sys, ser_utils.features.frames; sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_another_process_finds_a_finished_model():
    code = """from functools import partial
from ser_utils.training.folds import network_key
from ser_utils.systems.feature_network import deep_cnn
print(network_key(partial(deep_cnn, filters=(3, 4, 4, 5))))"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split()[-1] == network_key(partial(deep_cnn, **SMALL))
    assert network_key(partial(deep_cnn, dropout=0.1)) != network_key(deep_cnn) != network_key(cnn_bilstm)


def test_models_asked_at_once_give_the_mean_of_their_probabilities():
    names = {"utterance_id": ["a", "b"], "fold": [0, 1], "emotion": ["anger", "fear"]}
    one = pd.DataFrame(names | {"prediction": ["anger", "fear"], "p_anger": [0.6, 0.4], "p_fear": [0.4, 0.6]})
    two = pd.DataFrame(names | {"prediction": ["fear", "fear"], "p_anger": [0.1, 0.2], "p_fear": [0.9, 0.8]})
    costs = dict.fromkeys(COSTS, 2)
    both = averaged([{"predictions": one, **costs}, {"predictions": two[::-1], **costs}])
    assert list(both["predictions"]["prediction"]) == ["fear", "fear"]
    np.testing.assert_allclose(both["predictions"]["p_anger"], [0.35, 0.3])
    assert all(both[key] == 4 for key in COSTS)


@pytest.fixture
def store(tmp_path):
    """Sixteen tones, high ones happy and low ones sad."""
    rate, rows = 16_000, []
    for i in range(16):
        happy = i % 2
        tone = np.sin(2 * np.pi * (900 if happy else 250) * np.arange(rate // 2 + 800 * i) / rate)
        path = save_audio(tmp_path / f"{i:02d}.wav", 0.3 * tone, rate)
        rows.append(
            {
                "utterance_id": f"{i:02d}",
                "corpus": "tones",
                "speaker": str(i // 4),
                "path": str(path),
                "emotion": "happiness" if happy else "sadness",
                "pcm_sha256": str(i),
            }
        )
    frames = {"kind": "log_mel", "n_mels": 16, "n_fft": 1024, "hop_length": 512}
    return frame_store(tmp_path / "store", pd.DataFrame(rows), frames)


@pytest.mark.slow
@pytest.mark.parametrize(("resized", "rate"), [(0, 0.02), (16, 0.005)])
def test_a_fold_is_learned_tested_and_found_finished(store, tmp_path, resized, rate, monkeypatch):
    role = np.repeat(["train", "train", "validation", "test"], 4)
    fold = pd.DataFrame({"utterance_id": store.table["utterance_id"], "start_ms": np.nan, "fold": 2, "role": role})
    settings = {
        "scale": "training",
        "batch_size": 4,
        "epochs": 10,
        "least_updates": 50,
        "patience": 25,
        "learning_rate": rate,
        "one_cycle": False,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "mask_bands": 0,
        "mask_frames": 0,
        "resized_frames": resized,
    }
    network = partial(image_cnn, n_frames=16, filters=(4, 4)) if resized else partial(clip_cnn, filters=(4, 4))
    task = FoldTask("tones", network, store.folder, fold, settings, tmp_path)
    found = train_fold(task)
    assert len(found["history"]) == 25 and (found["history"]["seconds"] > 0).all()  # two steps an epoch
    predictions = found["predictions"]
    assert list(predictions["utterance_id"]) == ["12", "13", "14", "15"] and set(predictions["fold"]) == {2}
    assert (predictions["prediction"] == predictions["emotion"]).all()
    np.testing.assert_allclose(predictions[["p_happiness", "p_sadness"]].sum(axis=1), 1, atol=1e-5)
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: pytest.fail("trained again"))
    pd.testing.assert_frame_equal(train_fold(task)["predictions"], predictions)
