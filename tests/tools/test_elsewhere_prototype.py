"""What is trained elsewhere is finished here: the notebooks find it by its key and train nothing again."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils.evaluation.splits import HOP_MS, SEGMENT_MS
from ser_utils.features.spectral import log_mel_segments, split_segments
from ser_utils.features.store import build_store
from ser_utils.systems.prototype import published, training
from ser_utils.workspace import REPOSITORY, Workspace, sealed
from tools import elsewhere_prototype as elsewhere
from tools.verify import altered_files

RATE = 8000
STAGES = ("autoencoder", "prototype_classifier")


def make_corpus(root):
    """What notebook 00 writes of a voice with two emotions, a high and a low tone in noise."""
    random, rows = np.random.default_rng(0), []
    (root / "wav").mkdir(parents=True)
    for n in range(12):
        emotion, path = ("anger", "sadness")[n % 2], root / "wav" / f"clip{n}.wav"
        signal = 0.3 * np.sin(np.arange(2400) * (0.9, 0.2)[n % 2]) + random.normal(0, 0.02, 2400)
        soundfile.write(path, signal, RATE, subtype="PCM_16")
        facts = {"utterance_id": f"clip{n}", "corpus": "made_up", "path": str(path), "speaker": "01"}
        facts |= {"gender": "female", "sentence": f"t{n // 4}", "emotion": emotion, "duration_s": 0.3}
        rows.append(facts | {"sample_rate_hz": RATE, "pcm_sha256": f"sha{n}"})
    workspace, table = Workspace("demo", "paper", 0, root), pd.DataFrame(rows)
    workspace.save_table(table, "utterances")
    options = {"segment_ms": SEGMENT_MS, "hop_ms": HOP_MS}
    build_store(
        workspace.folder("features") / "segments",
        table,
        lambda signal, rate: log_mel_segments(split_segments(signal, rate, **options), rate),
        key="test",
        jobs=1,
    )


@pytest.fixture(scope="module", autouse=True)
def little_patience():
    """One pass is all that the classifiers make here, and few filters do."""
    opened = elsewhere.open_published

    def open_published(*arguments):
        data = opened(*arguments)
        data.of_classifier["patience"], data.of_coder["filters"] = 1, [4] * 5
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elsewhere, "open_published", open_published)
        yield


@pytest.fixture(scope="module")
def returned(tmp_path_factory):
    """A folder packed, and the archives of one epoch of every stage on JAX."""
    root = tmp_path_factory.mktemp("elsewhere")
    make_corpus(root)
    elsewhere.pack(root / "pack", root, corpora=["demo"])
    command = [sys.executable, "-m", "tools.elsewhere", "--system", "prototype", "run", root / "pack", root / "back"]
    names = ["demo-paper", "demo-utterance", "demo-edges_0"]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([*command, "--epochs", "1", "--names", *names], cwd=REPOSITORY, env=environment, check=True)
    return root, sorted((root / "back").glob("*.zip"))


def test_what_came_back_is_opened_and_not_trained_again(returned):
    root, archives = returned
    elsewhere.unpack(root / "pack", archives, root, device="a card")
    shipped = root / "results" / "demo"
    assert not altered_files(shipped)
    table = pd.read_csv(shipped / f"{published.TABLE}.csv")
    assert list(table["protocol"]) == ["paper", "utterance", "utterance"] and list(table["epochs"]) == [1, 1, 1]
    assert table["classifier_epochs"].notna().tolist() == [True, True, False]
    pd.testing.assert_frame_equal(published.summarise_published(shipped / published.FOLDER), table, atol=1e-6)
    made = json.loads((shipped / published.FOLDER / "provenance.json").read_text())
    assert made["device"] == "a card" and "classifiers" not in made, "both stages were trained there"
    data = elsewhere.open_published("demo", root)
    units = elsewhere.units_of(data)
    for name in ("paper", "utterance"):
        (run,) = units[name]
        files = [root / "build/demo/paper/seed_0/models" / f"{s}-{run.label}.keras" for s in STAGES]
        written = [path.stat().st_mtime_ns for path in files]
        again = training.train_and_predict(data, run)
        assert set(again.predictions["emotion"]) == {"anger", "sadness"}
        assert [again.coder.path, again.fitted.path] == files
        for path, time in zip(files, written, strict=True):
            assert path.stat().st_mtime_ns == time
            made = sealed(path)["made_by"]
            assert (made["device"], made["backend"], made["stopped_at_time_limit"]) == ("a card", "jax", False)


def test_segments_travel_within_a_hundredth_of_a_decibel(returned):
    root, _ = returned
    data, facts = elsewhere.open_published("demo", root), {"corpus": "demo", "rate": RATE}
    there = elsewhere._segments(root / "pack", facts)
    np.testing.assert_allclose(there, data.store.array, atol=0.02)


def test_a_training_of_other_segments_is_refused(returned):
    root, archives = returned
    stages = {name.split("/")[1]: pair for name, pair in elsewhere.read_archives(archives).items()}
    data = elsewhere.open_published("demo", root)
    data.of_coder["learning_rate"] = 0.5
    with pytest.raises(ValueError, match="trained on other segments or settings.*Pack and run again"):
        elsewhere.adopt_all(data, stages, {})
