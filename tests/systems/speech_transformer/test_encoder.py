import json
import shutil
import struct

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ser_utils.systems.speech_transformer.encoder import (
    Architecture,
    CheckpointError,
    Preprocessing,
    SpeechTransformer,
    TopLayers,
    checkpoint_names,
    copy_weights,
    load_speech_transformer,
    weight_files,
)

# From the fourth on they hold what the project's own checks add (random weights; Transformers 5.23 and 5.24 on PyTorch):
# batch norm before the position convolution with an odd kernel and no norm before the projection; MMS adapters; WavLM's
# gated relative positions, with norms after and before, and distances beyond the furthest kind; data2vec-audio's stacked
# position convolutions.
FOLDERS = (
    "wav2vec2_group",
    "wav2vec2_layer_stable",
    "hubert_group",
    "hubert_batch_norm",
    "wav2vec2_adapters",
    "wavlm_group",
    "wavlm_layer_stable",
    "data2vec_audio",
)


@pytest.fixture(scope="module")
def encoders(golden):
    return {name: load_speech_transformer(golden / name) for name in FOLDERS}


def reference(golden, name):
    values = np.load(golden / name / "reference.npz")
    mask = np.arange(values["waveform"].shape[1]) < values["lengths"][:, None]
    return values, mask


def numpy(states):
    return np.stack([keras.ops.convert_to_numpy(state) for state in states])


@pytest.mark.parametrize("name", FOLDERS)
def test_all_hidden_states_agree_with_the_published_implementation(encoders, golden, name):
    values, mask = reference(golden, name)
    encoder, waveform = encoders[name], values["waveform"]
    wanted = {
        "hidden_states_single": encoder(waveform[:1]),
        "hidden_states_batch_no_mask": encoder(waveform),
        "hidden_states_batch_masked": encoder(waveform, mask=mask.astype("int64")),
    }
    for key, states in wanted.items():
        np.testing.assert_allclose(numpy(states), values[key], atol=1e-4, err_msg=key)
    last = encoder.last_hidden_state(encoder(waveform[:1])[-1])
    np.testing.assert_allclose(numpy([last])[0], values["last_hidden_state_single"], atol=1e-4)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_last_layers_alone_go_on_as_the_whole_encoder_does(encoders, golden, name):
    values, mask = reference(golden, name)
    encoder, architecture = encoders[name], encoders[name].architecture
    states = encoder(values["waveform"], mask=mask)
    top = TopLayers(architecture, 2, name="top")
    n_frames = architecture.n_frames(values["lengths"]).astype("int32")
    top(states[-3], n_frames)
    copy_weights(encoder, top)
    seen = np.arange(states[-1].shape[1]) < n_frames[:, None]
    wanted = keras.ops.convert_to_numpy(encoder.last_hidden_state(states[-1]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(top(states[-3], n_frames))[seen], wanted[seen], atol=1e-4)
    assert not [weight.path for weight in top.trainable_weights if "rel_attn_embed" in weight.path]


def test_frames_before_a_clips_end_do_not_hear_its_padding(encoders, golden):
    values, mask = reference(golden, "wav2vec2_layer_stable")
    encoder, length = encoders["wav2vec2_layer_stable"], int(values["lengths"][1])
    alone = numpy(encoder(values["waveform"][1:, :length]))[:, 0]
    padded = numpy(encoder(values["waveform"], mask=mask))[:, 1, : alone.shape[1]]
    np.testing.assert_allclose(padded, alone, atol=1e-4)


@pytest.mark.parametrize("name", ["hubert_group", "wavlm_group", "data2vec_audio"])
def test_save_and_load_give_equal_states(encoders, golden, tmp_path, name):
    waveform = reference(golden, name)[0]["waveform"][:1]
    encoders[name].save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    np.testing.assert_array_equal(numpy(again(waveform)), numpy(encoders[name](waveform)))
    assert again.preprocessing == encoders[name].preprocessing


# --- checkpoints as they are published ----------------------------------------------------------------------


@pytest.fixture
def checkpoint(golden, tmp_path):
    """A copy of a checkpoint, and a function that rewrites its tensors."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(golden / "wav2vec2_group", folder)

    def rewrite(change):
        tensors = load_file(folder / "model.safetensors")
        save_file(change(tensors), folder / "model.safetensors")

    return folder, rewrite


def same_as(folder, golden):
    values, _ = reference(golden, "wav2vec2_group")
    encoder = load_speech_transformer(folder)
    np.testing.assert_allclose(numpy(encoder(values["waveform"][:1])), values["hidden_states_single"], atol=1e-4)
    return encoder


def test_prefix_older_weight_norm_names_and_heads_are_read(checkpoint, golden):
    folder, rewrite = checkpoint

    def as_published(tensors):
        renamed = {
            "wav2vec2."
            + name.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): array
            for name, array in tensors.items()
        }
        extra = {"lm_head.weight": np.zeros((3, 32), np.float32), "quantizer.codevectors": np.zeros((1, 2))}
        return renamed | extra | {"feature_extractor.bias": np.zeros(3, np.float32)}

    rewrite(as_published)
    encoder = same_as(folder, golden)
    assert sorted(encoder.ignored) == [
        "feature_extractor.bias",
        "lm_head.weight",
        "quantizer.codevectors",
        "wav2vec2.masked_spec_embed",
    ]


def test_numbered_parts_are_read(checkpoint, golden):
    folder, _ = checkpoint
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    index = {}
    for i, (name, array) in enumerate(tensors.items()):
        part = list(parts)[i % 2]
        parts[part][name], index[name] = array, part
    for part, held in parts.items():
        save_file(held, folder / part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    same_as(folder, golden)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks model-00002-of-00002.safetensors"):
        load_speech_transformer(folder)


def test_half_precision_is_read(checkpoint, golden):
    folder, _ = checkpoint
    tensors = load_file(folder / "model.safetensors")
    header, data = {}, b""
    for name, array in tensors.items():  # bfloat16 by hand: NumPy has none
        half = (array.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        offsets = [len(data), len(data) + len(half)]
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": offsets}
        data += half
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    kernel = checkpoint_names(load_speech_transformer(folder))["feature_projection.projection.weight"]
    wanted = tensors["feature_projection.projection.weight"].T
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), wanted, rtol=2**-7)


def without(name):
    return lambda tensors: {key: array for key, array in tensors.items() if key != name}


@pytest.mark.parametrize(
    "change, words",
    [
        (without("encoder.layers.1.attention.q_proj.bias"), r"1 missing: encoder\.layers\.1\.attention\.q_proj\.bias"),
        (without("encoder.pos_conv_embed.conv.parametrizations.weight.original0"), r"missing: encoder\.pos_conv_embed"),
        (lambda t: t | {"encoder.layers.7.surprise": np.zeros(1)}, r"1 unexpected: encoder\.layers\.7\.surprise"),
        (
            lambda t: t | {"feature_projection.projection.bias": np.zeros(7, np.float32)},
            r"mis-shaped: feature_projection\.projection\.bias \(7,\), wanted \(32,\)",
        ),
    ],
)
def test_wrong_tensors_are_named(checkpoint, change, words):
    folder, rewrite = checkpoint
    rewrite(change)
    with pytest.raises(CheckpointError, match=words):
        load_speech_transformer(folder)


def test_pickled_weights_are_refused_with_what_to_do(checkpoint):
    folder, _ = checkpoint
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*runs whatever code.*uv run .*save_pretrained"):
        load_speech_transformer(folder)


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "sew"}'), "wavlm, data2vec-audio.*'sew'"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "no readable safetensors"),
    ],
)
def test_damaged_folders_are_told(checkpoint, damage, words):
    folder, _ = checkpoint
    damage(folder)
    with pytest.raises(CheckpointError, match=words):
        load_speech_transformer(folder)


@pytest.mark.parametrize(
    "size, parameters",
    [  # of the published checkpoints, less the mask vector and weight norm's lengths
        ({}, 94_371_712 - 768 - 128),
        (
            {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
                "feat_extract_norm": "layer",
                "conv_bias": True,
                "do_stable_layer_norm": True,
            },
            315_438_720 - 1024 - 128,
        ),
    ],
    ids=["base", "large"],
)
@pytest.mark.slow
def test_sizes_are_the_published_ones(size, parameters):
    model = SpeechTransformer(Architecture(**size))
    model.build()
    assert model.count_params() == parameters


# --- input -------------------------------------------------------------------------------------------------


def test_input_is_prepared_as_the_preprocessor_says(checkpoint):
    folder, _ = checkpoint
    assert load_speech_transformer(folder).preprocessing == Preprocessing(16_000, True, False)
    said = {"do_normalize": False, "return_attention_mask": True, "sampling_rate": 8000}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    assert load_speech_transformer(folder).preprocessing == Preprocessing(8000, False, True)


def test_clips_are_normalised_alone_and_padded_with_zeros():
    rng = np.random.default_rng(0)
    clips = [rng.normal(3, 5, 900), rng.normal(-1, 0.1, 500)]
    waveform, mask = Preprocessing(use_mask=True).pad(clips)
    for row, seen in zip(waveform, mask, strict=True):
        assert abs(row[seen].mean()) < 1e-5 and row[seen].std() == pytest.approx(1, abs=1e-3)
        assert not row[~seen].any()
    assert mask.sum(axis=1).tolist() == [900, 500]
    assert Preprocessing().pad(clips)[1] is None


def test_a_frame_is_25_ms_every_20_ms(encoders):
    architecture = encoders["hubert_group"].architecture
    assert (architecture.receptive_field, architecture.hop) == (400, 320)
    for n_samples in (400, 719, 720, 16_000):
        assert architecture.n_frames(n_samples) == (n_samples - 400) // 320 + 1
    with pytest.raises(ValueError, match="at least 400 samples"):
        encoders["hubert_group"](np.zeros((1, 399), np.float32))


def test_unknown_settings_list_the_accepted_ones():
    with pytest.raises(CheckpointError, match="feat_extract_norm must be one of group, layer"):
        Architecture(feat_extract_norm="batch")
    with pytest.raises(CheckpointError, match="hidden_size must be a multiple of num_attention_heads"):
        Architecture(hidden_size=100, num_attention_heads=12)


def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path):
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "out.safetensors")
    folder = tmp_path / "encoder"
    folder.mkdir()
    for name in ("../out.safetensors", str(tmp_path / "out.safetensors")):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match="names a file outside its folder"):
            weight_files(folder)
