import dataclasses
import io
import json
import shutil

import numpy as np
import pytest

from ser_utils.systems.speech_transformer.pretrained import PretrainedError, load_encoder
from tests.systems.speech_transformer.hub import CONVERTED, MAIN, Hub, digest, say_preprocessing, split_into_parts
from tools import download, weights
from tools.weights import fetch, main

COMMIT = MAIN
FILES = ("config.json", "model.safetensors")


@pytest.fixture(autouse=True)
def weights_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(download, "WAIT_S", 0)
    return tmp_path / "weights"


TINY = "someone/tiny-wav2vec2"


@pytest.fixture
def whole_hub(tmp_path, monkeypatch):
    """A hub on this machine that serves nothing yet."""
    hub = Hub(tmp_path / "served")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.close()


@pytest.fixture
def hub(whole_hub, golden):
    """The folder that a hub serves as `someone/tiny-wav2vec2`."""
    return whole_hub.serve(TINY, golden / "wav2vec2_group")


def test_a_checkpoint_is_fetched_pinned_and_opened(hub, weights_dir, capsys):
    main(["someone/tiny-wav2vec2"])
    folder = weights_dir / "someone--tiny-wav2vec2"
    assert {file.name for file in folder.iterdir()} == {*FILES, "source.json"}
    source = json.loads((folder / "source.json").read_text())
    assert source["revision"] == COMMIT
    assert source["sha256"] == {name: digest(hub / name) for name in FILES}
    assert "wav2vec2, 3 layers, 32 wide" in capsys.readouterr().out
    encoder = load_encoder("someone/tiny-wav2vec2")
    assert encoder.name == "fixture_tiny_wav2vec2" and encoder.published == TINY and not encoder.is_random
    assert not encoder.is_trained and encoder.caption("Seen.") == "Encoder of a test: carries no meaning. Seen."
    real = dataclasses.replace(encoder, name="wav2vec2_base_960h")
    assert real.is_trained and real.caption("Seen.") == "Seen."


def test_altered_weights_are_told_before_they_are_used(hub, weights_dir):
    file = fetch("someone/tiny-wav2vec2") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    for use in (fetch, load_encoder):
        with pytest.raises(PretrainedError, match="is not the pinned file: sha256 .*Delete the folder"):
            use("someone/tiny-wav2vec2")


def test_a_download_that_is_not_the_pinned_file_leaves_nothing(hub, weights_dir, monkeypatch):
    pin = {"config.json": digest(hub / "config.json"), "model.safetensors": "0" * 64}
    monkeypatch.setattr(weights, "pinned", lambda _: (COMMIT, pin))
    with pytest.raises(PretrainedError, match="wrong checksum"):
        fetch("someone/tiny-wav2vec2")
    assert not (weights_dir / "someone--tiny-wav2vec2").exists()


def test_pickled_revisions_are_refused_with_the_command_that_converts(hub, weights_dir):
    (hub / "model.safetensors").rename(hub / "pytorch_model.bin")
    with pytest.raises(PretrainedError, match=rf"only pickled.*uv run.*revision='{COMMIT}'.*save_pretrained"):
        fetch("someone/tiny-wav2vec2")
    assert not weights_dir.exists()


def test_known_pickles_are_refused_without_network(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    asked = "Whether the hub has converted facebook/hubert-base-ls960 could not be asked: .*cannot be reached"
    with pytest.raises(PretrainedError, match=rf"{asked}.*\n.*hubert-base-ls960 at dba3bb02.*only pickled weights"):
        fetch("facebook/hubert-base-ls960")


def test_offline_it_says_what_is_missing(monkeypatch, weights_dir):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for model in ("someone/else", "facebook/wav2vec2-base-960h"):
        with pytest.raises(PretrainedError, match="Offline, copy config.json.*tiny random encoder"):
            fetch(model)
    with pytest.raises(SystemExit, match="cannot be reached.*Offline"):
        main(["someone/else"])


def test_an_unknown_model_is_told(hub):
    with pytest.raises(PretrainedError, match="answers 401: is 'someone/nobody' spelled right, and public"):
        fetch("someone/nobody")
    with pytest.raises(PretrainedError, match="called owner/name, or by a folder that exists"):
        fetch("hubert")


def test_numbered_parts_with_index_and_preprocessor_come_through_redirects(whole_hub, golden, weights_dir):
    served = whole_hub.serve("someone/large-wav2vec2", golden / "wav2vec2_layer_stable")
    split_into_parts(served, n=3)
    say_preprocessing(served)
    folder = fetch("someone/large-wav2vec2")
    assert {file.name for file in folder.iterdir()} == {file.name for file in served.iterdir()} | {"source.json"}
    assert len([path for path, _ in whole_hub.seen if path.startswith("/large/")]) == 3
    encoder = load_encoder("someone/large-wav2vec2")
    assert not encoder.model.preprocessing.use_mask  # as its preprocessor says, though its norms are of layers
    values = np.load(golden / "wav2vec2_layer_stable" / "reference.npz")
    states = np.stack([np.asarray(state) for state in encoder.model(values["waveform"][:1])])
    np.testing.assert_allclose(states, values["hidden_states_single"], atol=1e-4)


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(hub, whole_hub, weights_dir):
    whole_hub.cut = [50_000]
    folder = fetch(TINY)
    assert digest(folder / "model.safetensors") == digest(hub / "model.safetensors")
    ranges = [asked for path, asked in whole_hub.seen if path.endswith("/model.safetensors") and "/large/" in path]
    assert ranges == [None, "bytes=50000-"]


def test_a_file_that_is_not_what_the_hub_lists_leaves_nothing(hub, whole_hub, weights_dir):
    listing = whole_hub._list

    def lie(request, model, revision):
        listing(request, model, revision)
        (hub / "model.safetensors").write_bytes(b"another file")

    whole_hub._list = lie
    with pytest.raises(PretrainedError, match="wrong checksum. Expected sha256 .*, received .*run again"):
        fetch(TINY)
    assert not (weights_dir / "someone--tiny-wav2vec2").exists()


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def test_the_hubs_own_conversion_stands_in_for_pickles(whole_hub, golden, weights_dir):
    pickled(whole_hub.serve("facebook/hubert-base-ls960", golden / "hubert_group"))
    whole_hub.serve("facebook/hubert-base-ls960", golden / "hubert_group", commit=CONVERTED)
    whole_hub.conversions["facebook/hubert-base-ls960"] = [(3, "somebody"), (7, "SFconvertbot")]
    source = json.loads((fetch("facebook/hubert-base-ls960") / "source.json").read_text())
    assert source["revision"] == CONVERTED
    encoder = load_encoder("facebook/hubert-base-ls960")
    assert "at decade00 (refs/pr/7, the hub's own conversion of its pickled weights)" in encoder.source


def test_nobody_elses_conversion_is_taken(hub, whole_hub, golden, weights_dir):
    pickled(hub)
    whole_hub.serve(TINY, golden / "wav2vec2_group", commit=CONVERTED)
    whole_hub.conversions[TINY] = [(7, "somebody")]
    with pytest.raises(PretrainedError, match="only pickled weights.*uv run"):
        fetch(TINY)
    whole_hub.conversions[TINY] = [(7, "SFconvertbot")]
    with pytest.raises(PretrainedError, match="only pickled weights"):  # whoever names a revision means that one
        fetch(TINY, revision="main")


def test_a_gated_model_says_how_to_go_on(hub, whole_hub, weights_dir):
    whole_hub.gated.add(TINY)
    with pytest.raises(PretrainedError, match=r"is gated: .*Accept the terms at http.*tiny-wav2vec2.*WEIGHTS=folder"):
        fetch(TINY)
    assert not weights_dir.exists()


def test_make_weights_opens_what_a_hub_client_has_cached(golden, tmp_path, capsys):
    snapshot = tmp_path / "cache" / "models--facebook--hubert-base-ls960" / "snapshots" / COMMIT
    shutil.copytree(golden / "hubert_group", snapshot)
    main([str(tmp_path / "cache")])
    assert "hubert, 3 layers, 32 wide" in capsys.readouterr().out


def test_make_weights_alone_gets_what_notebook_08_wants_and_tells_all_that_is_missing(whole_hub, golden, capsys):
    whole_hub.serve("facebook/hubert-base-ls960", golden / "hubert_group", commit=CONVERTED)
    whole_hub.conversions["facebook/hubert-base-ls960"] = [(7, "SFconvertbot")]
    with pytest.raises(SystemExit, match=r"facebook/wav2vec2-base-960h/resolve/.*the server says 404"):
        main([])
    assert "facebook/hubert-base-ls960 at decade00 (refs/pr/7" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [b"<html>login</html>", b"[]", b"{}", b'{"sha": "1", "siblings": null}'])
def test_a_hub_that_answers_something_else_is_named(monkeypatch, answer):
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(answer))
    with pytest.raises(
        SystemExit, match="^https://huggingface.co/api/models/someone/else/.* does not answer as the hub"
    ):
        main(["someone/else"])


def test_an_endpoint_that_is_no_address_is_named(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "foo")
    with pytest.raises(SystemExit, match="^foo/api/models/someone/else.*Is HF_ENDPOINT right"):
        main(["someone/else"])


def test_a_damaged_checkpoint_does_not_stop_those_that_follow(golden, tmp_path, capsys):
    bad = shutil.copytree(golden / "hubert_group", tmp_path / "bad")
    (bad / "config.json").write_text("null")
    (bad / "model.safetensors").unlink()
    (bad / "model.safetensors").mkdir()
    with pytest.raises(SystemExit, match="bad/config.json must hold"):
        main([str(bad), str(golden / "hubert_group")])
    assert "hubert, 3 layers, 32 wide" in capsys.readouterr().out
