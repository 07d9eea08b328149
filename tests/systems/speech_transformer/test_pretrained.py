import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from ser_utils.corpora.facts import CORPORA
from ser_utils.systems.speech_transformer import pretrained
from ser_utils.systems.speech_transformer.encoder import CheckpointError, checkpoint_names
from ser_utils.systems.speech_transformer.pretrained import (
    Encoder,
    PretrainedError,
    describe_heard,
    encoder_names,
    heard_corpora,
    load_encoder,
    load_heard,
)

COMMIT = "c0ffee" + "0" * 34


@pytest.fixture(autouse=True)
def weights_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_a_folder_the_reader_has_is_used_as_it_is(golden, tmp_path):
    encoder = load_encoder(str(golden / "hubert_group"))
    assert encoder.name == "fixture_hubert_group" and encoder.model.architecture.model_type == "hubert"
    folder = shutil.copytree(golden / "hubert_group", tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only pickled weights"):
        load_encoder(str(folder))


def test_without_weights_a_random_encoder_says_so():
    hubert, again, other = (load_encoder("facebook/hubert-base-ls960", seed=seed) for seed in (0, 0, 1))
    assert hubert.is_random and hubert.name == "random_hubert"
    assert "make weights MODEL=facebook/hubert-base-ls960" in hubert.source
    assert hubert.caption("Seen.") == "Random encoder: carries no meaning. Seen."
    assert hubert.key == again.key != other.key
    names = "encoder.layers.0.attention.q_proj.weight"
    first, second = (np.asarray(checkpoint_names(one.model)[names]) for one in (hubert, again))
    np.testing.assert_array_equal(first, second)


def test_weights_names_what_the_reader_has_already(golden, tmp_path, monkeypatch):
    profile = {"models": ["facebook/hubert-base-ls960"]}
    monkeypatch.delenv("WEIGHTS", raising=False)
    assert encoder_names(profile) == profile["models"]
    monkeypatch.setenv("WEIGHTS", str(golden / "hubert_group"))
    assert encoder_names(profile) == [str(golden / "hubert_group")]
    # the cache of a hub client: models--owner--name/snapshots/commit
    snapshot = tmp_path / "cache" / "models--facebook--hubert-base-ls960" / "snapshots" / COMMIT
    shutil.copytree(golden / "hubert_group", snapshot)
    for place in (tmp_path / "cache", snapshot.parents[1], snapshot):
        monkeypatch.setenv("WEIGHTS", str(place))
        assert encoder_names(profile) == [str(snapshot)]
    encoder = load_encoder(str(snapshot))
    assert (encoder.name, encoder.published) == ("fixture_hubert_base_ls960", "facebook/hubert-base-ls960")
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(PretrainedError, match="WEIGHTS is a folder with config.json and model.safetensors.*nowhere"):
        encoder_names(profile)


WRONG = {
    "config.json": ("hidden_size", ("32", None, 0, 1.0, 10**12)),
    "preprocessor_config.json": ("sampling_rate", ("16k", 0)),
    "model.safetensors.index.json": ("weight_map", (None, {}, {"a": 1})),
    "source.json": ("revision", (None, 1)),
}


@pytest.mark.parametrize("name", WRONG)
def test_odd_values_of_a_checkpoints_files_are_named(golden, tmp_path, name):
    folder = shutil.copytree(golden / "hubert_group", tmp_path / "hubert")
    good = {"model": "a/b", "sha256": {"a": "b"}, "revision": "c"} if name == "source.json" else {}
    good |= json.loads((folder / name).read_text()) if name == "config.json" else {}
    key, values = WRONG[name]
    for value in values:
        (folder / name).write_text(json.dumps(good | {key: value}))
        with pytest.raises(CheckpointError, match=rf"{name}: {key} must be .*Received: {key}={re.escape(repr(value))}"):
            load_encoder(str(folder))
    (folder / name).write_text("[]")
    with pytest.raises(CheckpointError, match=rf"{name} must hold .*Received: \[\]"):
        load_encoder(str(folder))


@pytest.mark.parametrize("alter", [lambda tensor: tensor * np.nan, lambda tensor: tensor.astype("int8")])
def test_weights_that_are_no_finite_fractions_are_refused(golden, tmp_path, alter):
    folder = shutil.copytree(golden / "hubert_group", tmp_path / "hubert")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = "encoder.layers.0.attention.q_proj.weight"
    save_file(tensors | {name: alter(tensors[name])}, file)
    with pytest.raises(CheckpointError, match=f"finite floating-point numbers. 1 tensors are not, such as {name}"):
        load_encoder(str(folder))


def test_weights_that_a_pin_does_not_name_are_not_taken_for_pinned_ones(golden, weights_dir):
    model, index = "facebook/wav2vec2-base-960h", {"weight_map": {"a": "other.safetensors"}}
    folder = shutil.copytree(golden / "wav2vec2_group", weights_dir / "facebook--wav2vec2-base-960h")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PretrainedError, match="other.safetensors is not the pinned file: .*wanted no such file"):
        load_encoder(model)
    folder.rename(weights_dir / "facebook--hubert-base-ls960")  # pinned as pickles, which readers convert themselves
    assert load_encoder("facebook/hubert-base-ls960").published == "facebook/hubert-base-ls960"


def encoder_called(published, name="some_encoder"):
    return Encoder(name, None, "", "", published)


def test_what_an_encoder_heard_is_known_or_said_to_be_unknown():
    assert heard_corpora(encoder_called("facebook/hubert-base-ls960")) == ["LibriSpeech"]
    assert heard_corpora(encoder_called("superb/hubert-base-superb-er")) == ["LibriSpeech", "iemocap"]
    assert heard_corpora(encoder_called("someone/else")) is None
    assert heard_corpora(encoder_called("", name="random_hubert")) == []
    greek = encoder_called("m3hrdadfi/wav2vec2-xlsr-greek-speech-emotion-recognition")
    table = describe_heard([greek, encoder_called("", "mine")], ["ravdess", "aesdd"])
    assert table.loc["some_encoder", "also here"] == "aesdd"
    assert table.loc["mine"].eq("unknown").all()


def test_the_table_of_pretraining_has_a_source_for_every_encoder():
    table, published = load_heard(), pd.read_csv(Path(pretrained.__file__).with_name("pinned.csv"))
    assert all(pretrained.pinned(model)[1] for model in published["model"])
    assert table.index.is_unique and {"LibriSpeech", "iemocap", "ravdess", "aesdd"} <= {
        corpus for column in ("pretrained_on", "tuned_on") for row in table[column] for corpus in row.split("; ")
    }
    assert all(re.search(r"arXiv \d{4}\.\d{5}|^https://", source) for source in table["source"])
    assert (pd.to_numeric(table["hours"]) >= 960).all() and set(published["model"]) <= set(table.index)
    named = {corpus for row in table["tuned_on"] for corpus in row.split("; ") if corpus.islower()}
    assert named <= set(CORPORA)
