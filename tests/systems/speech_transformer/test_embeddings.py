import keras
import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile

from ser_utils.systems.speech_transformer import embeddings
from ser_utils.systems.speech_transformer.encoder import checkpoint_names, copy_weights
from ser_utils.systems.speech_transformer.heads import (
    HEADS,
    LayerWeighting,
    LayerwiseAdam,
    changes_by_part,
    rates_by_layer,
)
from ser_utils.systems.speech_transformer.pretrained import load_encoder
from ser_utils.training.folds import ClipBatches, predict_clips, train_fold

OPTIONS = {
    "top_layers": 2,
    "units": 16,
    "dropout": 0.1,
    "batch_size": 4,
    "learning_rate": 3e-3,
    "top_learning_rate": 1e-3,
    "decay": 0.5,
    "epochs": 15,
    "patience": 15,
    "tuning_epochs": 2,
    "tuning_patience": 2,
}
RATE = 16_000
PITCH_HZ = {"anger": 2000, "neutral": 300, "sadness": 900}


@pytest.fixture(scope="module", params=["hubert", "wav2vec2"])
def encoder(request):
    return load_encoder(f"nobody/{request.param}")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three speakers hum one pitch an emotion: what an encoder cannot miss."""
    folder, rows, rng = tmp_path_factory.mktemp("corpus"), [], np.random.default_rng(0)
    for speaker in ("1", "2", "3"):
        for emotion, pitch in PITCH_HZ.items():
            for take in range(2):
                name = f"{speaker}_{emotion}_{take}"
                time = np.arange(int(rng.integers(3000, 6000))) / RATE
                sound = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.05 * rng.standard_normal(len(time))
                wavfile.write(folder / f"{name}.wav", RATE, (sound * 32767).astype(np.int16))
                rows.append(
                    {
                        "utterance_id": name,
                        "corpus": "hum",
                        "path": str(folder / f"{name}.wav"),
                        "speaker": speaker,
                        "emotion": emotion,
                        "duration_s": len(time) / RATE,
                        "pcm_sha256": name,
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def embedded(corpus, encoder, tmp_path_factory):
    return embeddings.build_embeddings(tmp_path_factory.mktemp("features"), corpus, encoder, top=2)


@pytest.fixture
def folds(corpus):
    role = corpus["speaker"].map({"1": "train", "2": "validation", "3": "test"})
    table = corpus[["utterance_id"]].assign(start_ms=np.nan, fold=0, role=role)
    table.attrs = {"protocol": "speaker"}
    return table


def train_head(embedded, head, folds, options, folder):
    task = embeddings.HeadTask("head", head, embedded.store.folder, folds, options, folder, embeddings=embedded)
    return train_fold(task)


def arrays(model):
    return {name: keras.ops.convert_to_numpy(weight) for name, weight in checkpoint_names(model).items()}


def test_rows_are_the_encoders_states(corpus, encoder, embedded):
    rate, samples = wavfile.read(corpus["path"].iloc[0])
    states = np.stack(encoder.model(encoder.model.preprocessing.pad([samples / 32768])[0]))[:, 0]
    states[-1] = encoder.model.last_hidden_state(states[-1])
    rows = embedded.store.of(corpus["utterance_id"].iloc[0])
    n = embedded.n_states
    assert rows.shape == (n + states.shape[1], 2, 32)
    np.testing.assert_allclose(rows[:n, 0], states.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(rows[:n, 1], states.std(axis=1), atol=1e-4)
    np.testing.assert_allclose(rows[n:, 0], states[-3], atol=1e-4)
    np.testing.assert_allclose(rows[n:, 1], states[-1], atol=1e-4)
    assert {head: embedded.clips(head)[0].shape[1] for head in HEADS} == {
        "pooled": 64,
        "layer_weighting": 64 * n,
        "cnn": 32,
        "rnn": 32,
        "fine_tuned": 32,
    }


def test_a_corpus_is_embedded_once(corpus, encoder, embedded, monkeypatch):
    monkeypatch.setattr(type(encoder.model), "call", None)
    again = embeddings.build_embeddings(embedded.store.folder.parent, corpus, encoder, top=2)
    np.testing.assert_array_equal(again.store.array, embedded.store.array)


def test_long_clips_come_in_pieces_of_bounded_length(encoder, monkeypatch):
    heard, model, listen = [], encoder.model, embeddings.listen

    def spy(model, waveform):
        heard.append(waveform.shape[1])
        return listen(model, waveform)

    monkeypatch.setattr(embeddings, "listen", spy)
    signal = np.random.default_rng(0).standard_normal(int(7.7 * RATE))
    whole = next(embeddings.hidden_states(model, signal, RATE, longest_s=10))
    heard.clear()
    pieces = list(embeddings.hidden_states(model, signal, RATE, longest_s=4))
    assert max(heard) <= 4 * RATE + 80 and len(pieces) == 4
    joined = np.concatenate(pieces, axis=1)
    assert joined.shape == whole.shape
    # attention reaches further than a piece, so that the frames are near, not equal
    assert np.corrcoef(joined[1].ravel(), whole[1].ravel())[0, 1] > 0.95
    with pytest.raises(ValueError, match="listens at 16000 Hz. Received: sample_rate=8000"):
        next(embeddings.hidden_states(model, signal, 8000))
    with pytest.raises(ValueError, match="at least 400 samples"):
        next(embeddings.hidden_states(model, signal[:100], RATE))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["pooled", "layer_weighting", "cnn", "rnn"])
def test_heads_learn_what_cannot_be_missed(embedded, folds, head, tmp_path):
    eager = OPTIONS | {"dropout": 0.0, "learning_rate": 1e-2, "epochs": 40, "patience": 40}
    predictions = train_head(embedded, head, folds, eager, tmp_path)["predictions"]
    assert (predictions["prediction"] == predictions["emotion"]).mean() > 0.8
    assert predictions.filter(regex="^p_").sum(axis=1).to_numpy() == pytest.approx(np.ones(6), abs=1e-5)
    assert set(predictions["speaker"]) == {"3"}


@pytest.mark.parametrize("head", HEADS)
def test_no_head_hears_padding_and_each_survives_saving(embedded, head, tmp_path):
    clips = embedded.clips(head)[:3]
    model = embeddings.network(head, 3, clips[0].shape[1], embedded.encoder, OPTIONS)
    together = predict_clips(model, ClipBatches(clips, batch_size=3))
    alone = np.concatenate([predict_clips(model, ClipBatches([clip], batch_size=1)) for clip in clips])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    model.save(tmp_path / "head.keras")
    again = keras.saving.load_model(tmp_path / "head.keras", safe_mode=True)
    np.testing.assert_allclose(predict_clips(again, ClipBatches(clips, batch_size=3)), together, atol=1e-6)


def test_fine_tuning_changes_exactly_the_layers_it_says(corpus, encoder, embedded, folds, tmp_path):
    before = arrays(encoder.model)
    tuning = OPTIONS | {"epochs": OPTIONS["tuning_epochs"], "patience": OPTIONS["tuning_patience"]}
    top = embeddings.tuned_layers(train_head(embedded, "fine_tuned", folds, tuning, tmp_path)["path"])
    tuned = load_encoder(f"nobody/{encoder.model.architecture.model_type}").model
    copy_weights(top, tuned)
    changed = {name for name, array in arrays(tuned).items() if not np.array_equal(array, before[name])}
    said = {"encoder.layers.2", "encoder.layers.3"}
    if encoder.model.architecture.do_stable_layer_norm:
        said.add("encoder.layer_norm")
    parts = {
        name.rsplit(".attention")[0].rsplit(".feed_forward")[0].removesuffix(".weight").removesuffix(".bias")
        for name in changed
    }
    assert {part.removesuffix(".layer_norm").removesuffix(".final_layer_norm") for part in parts} - said <= {"encoder"}
    assert said - {"encoder.layer_norm"} <= {
        part.removesuffix(".layer_norm").removesuffix(".final_layer_norm") for part in parts
    }
    assert all(any(name.startswith(part + ".") for part in said) for name in changed)
    # and they do in the whole encoder what they did above its cached states
    clip = embedded.clips("fine_tuned")[0]
    waveform = encoder.model.preprocessing.pad([wavfile.read(corpus["path"].iloc[0])[1] / 32768])[0]
    whole = tuned.last_hidden_state(tuned(waveform)[-1])
    np.testing.assert_allclose(
        np.asarray(whole), np.asarray(top(clip[None], np.array([len(clip)], np.int32))), atol=1e-4
    )


def test_what_was_frozen_is_shown(encoder):
    a = encoder.model.architecture
    rates = rates_by_layer(a, 2, learning_rate=1e-3, top_learning_rate=1e-4, decay=0.5)
    assert rates["encoder.layers.3"] == 1e-4 and rates["encoder.layers.2"] == 5e-5
    assert rates["encoder.layers.1"] == rates["feature_extractor"] == 0
    head = embeddings.network("fine_tuned", 3, 32, encoder, OPTIONS)
    top = head.get_layer("top")
    weight = checkpoint_names(top)["encoder.layers.3.attention.q_proj.weight"]
    weight.assign(weight + 0.25)
    shown = changes_by_part(encoder.model, top, rates).set_index("part")
    assert shown["parameters"].sum() == encoder.model.count_params()
    moved = shown.index[shown["largest_change"] > 0]
    assert list(moved) == ["encoder.layers.3"] and shown["largest_change"].max() == pytest.approx(0.25)


def test_each_layer_moves_at_its_own_rate(encoder):
    head = embeddings.network("fine_tuned", 3, 32, encoder, OPTIONS)
    rates = {"encoder.layers.3": 1e-3, "encoder.layers.2": 1e-4, "classes": 0.0}
    eager = keras.backend.backend() == "tensorflow"  # a single step is done sooner than traced
    head.compile(LayerwiseAdam(1e-2, rates), "categorical_crossentropy", jit_compile=False, run_eagerly=eager)
    before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in head.trainable_variables}
    x = np.random.default_rng(0).standard_normal((2, 9, 32)).astype("float32")
    head.train_on_batch([x, np.array([9, 5], np.int32)], np.eye(3, dtype="float32")[:2])
    steps = {}
    for weight in head.trainable_variables:
        step = abs(keras.ops.convert_to_numpy(weight) - before[weight.path])
        for part in rates:
            if part in weight.path.split("/") and "k_proj/bias" not in weight.path:  # its slope is zero
                steps.setdefault(part, []).append(float(np.median(step)))
    # Adam's first step is the learning rate, whatever the slope
    assert np.median(steps["encoder.layers.3"]) == pytest.approx(1e-3, rel=0.05)
    assert np.median(steps["encoder.layers.2"]) == pytest.approx(1e-4, rel=0.05)
    assert max(steps["classes"]) == 0
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(head.optimizer))
    assert again.rates == rates


def test_layers_are_mixed_evenly_before_training():
    x = np.random.default_rng(0).standard_normal((2, 5, 7)).astype("float32")
    layer = LayerWeighting()
    np.testing.assert_allclose(np.asarray(layer(x)), x.mean(axis=1), atol=1e-6)
    assert layer.weights_of_layers.sum() == pytest.approx(1)


def test_probing_knows_a_layer_that_knows(embedded, folds):
    probed = embeddings.probe_layers(embedded, folds)
    assert len(probed) == embedded.n_states and probed["uar"].max() > 0.8


def test_variance_between_emotions_by_hand():
    z = np.array([[0.0, 1.0], [0.0, -1.0], [2.0, 1.0], [2.0, -1.0]])
    np.testing.assert_allclose(embeddings.explained_by_emotion(z, list("aabb")), [1, 0])


def test_own_voice_takes_the_speaker_out(embedded):
    z = embeddings.against_own_voice(embedded)
    speaker = embedded.store.table["speaker"]
    for _, places in speaker.groupby(speaker).indices.items():
        np.testing.assert_allclose(z[places].mean(axis=0), 0, atol=1e-3)
