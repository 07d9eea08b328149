import hashlib
import http.server
import json
import shutil
import threading

import numpy as np
import pytest

from ser_utils.corpora import download
from ser_utils.systems.speech_transformer import pretrained
from ser_utils.systems.speech_transformer.encoder import CheckpointError, checkpoint_names
from ser_utils.systems.speech_transformer.pretrained import PretrainedError, fetch, load_encoder, main

COMMIT = "c0ffee" + "0" * 34
FILES = ("config.json", "model.safetensors")


@pytest.fixture(autouse=True)
def weights_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(download, "WAIT_S", 0)
    return tmp_path / "weights"


@pytest.fixture
def hub(golden, tmp_path, monkeypatch):
    """A hub on this machine with one checkpoint, `someone/tiny-wav2vec2`; yields the folder it serves."""
    served = tmp_path / "served"
    shutil.copytree(golden / "wav2vec2_group", served)

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            listing = self.path.startswith("/api/models/someone/tiny-wav2vec2/revision/")
            name = self.path.rsplit("/", 1)[-1]
            if listing:
                body = json.dumps({"sha": COMMIT, "siblings": [entry(file) for file in served.iterdir()]}).encode()
            elif self.path.startswith(f"/someone/tiny-wav2vec2/resolve/{COMMIT}/") and (served / name).exists():
                body = (served / name).read_bytes()
            else:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    def entry(file):
        large = file.suffix in (".safetensors", ".bin")
        return {"rfilename": file.name, "lfs": {"sha256": digest(file)} if large else None}

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield served
    server.shutdown()
    server.server_close()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkpoint_is_fetched_pinned_and_opened(hub, weights_dir, capsys):
    main(["someone/tiny-wav2vec2"])
    folder = weights_dir / "someone--tiny-wav2vec2"
    assert {file.name for file in folder.iterdir()} == {*FILES, "source.json"}
    source = json.loads((folder / "source.json").read_text())
    assert source["revision"] == COMMIT
    assert source["sha256"] == {name: digest(hub / name) for name in FILES}
    assert "wav2vec2, 3 layers, 32 wide" in capsys.readouterr().out
    encoder = load_encoder("someone/tiny-wav2vec2")
    assert encoder.name == "tiny_wav2vec2" and not encoder.is_random
    assert encoder.caption("Seen.") == "Seen."


def test_altered_weights_are_told_before_they_are_used(hub, weights_dir):
    file = fetch("someone/tiny-wav2vec2") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    for use in (fetch, load_encoder):
        with pytest.raises(PretrainedError, match="is not the pinned file: sha256 .*Delete the folder"):
            use("someone/tiny-wav2vec2")


def test_a_download_that_is_not_the_pinned_file_leaves_nothing(hub, weights_dir, monkeypatch):
    pin = {"config.json": digest(hub / "config.json"), "model.safetensors": "0" * 64}
    monkeypatch.setitem(pretrained.PINNED, "someone/tiny-wav2vec2", (COMMIT, pin))
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
    with pytest.raises(PretrainedError, match="hubert-base-ls960 at dba3bb02.*only pickled weights"):
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
    with pytest.raises(PretrainedError, match="answers 404: is 'someone/nobody' spelled right"):
        fetch("someone/nobody")
    with pytest.raises(PretrainedError, match="called owner/name, or by a folder that exists"):
        fetch("hubert")


def test_a_folder_the_reader_has_is_used_as_it_is(golden, tmp_path):
    encoder = load_encoder(str(golden / "hubert_group"))
    assert encoder.name == "hubert_group" and encoder.model.architecture.model_type == "hubert"
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
