"""Whoever adds a system touches one folder and one toml: folds, training, audit, scores and tables know it then."""

import importlib
import shutil
import textwrap

import numpy as np
import pandas as pd
import pytest

import ser_utils.systems
from ser_utils import profiles
from ser_utils.evaluation import figures, results
from ser_utils.features.store import build_store
from ser_utils.systems import study
from ser_utils.training.folds import FoldTask
from ser_utils.workspace import Workspace

TOML = """
    [system.humming]
    notebook = "12"
    models = ["mean"]
    split = { train = 0.8, test = 0.2 }

    [humming.smoke]
    protocols = ["paper", "speaker"]
    scale = "training"
    batch_size = 4
    epochs = 1
    patience = 1
    learning_rate = 0.01
    one_cycle = false
    weight_decay = 0.0
    label_smoothing = 0.0
    mask_bands = 0
    mask_frames = 0
    resized_frames = 0
"""
NETWORK = '''
    """A network that hears the mean over time."""

    import keras

    from ser_utils.systems.spectrogram_cnn import clip_inputs


    def mean_network(n_classes, n_features):
        features, n_frames = clip_inputs(n_features)
        mean = keras.layers.GlobalAveragePooling1D()(features)
        return keras.Model([features, n_frames], keras.layers.Dense(n_classes, "softmax")(mean))
'''


@pytest.fixture
def humming(tmp_path, monkeypatch):
    """The made-up system's network; its folder stands beside those of the package, its toml among theirs."""
    tomls, folder = tmp_path / "profiles", tmp_path / "systems" / "humming"
    shutil.copytree(profiles.FOLDER, tomls, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (tomls / "humming.toml").write_text(textwrap.dedent(TOML))
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "network.py").write_text(textwrap.dedent(NETWORK))
    monkeypatch.setattr(profiles, "FOLDER", tomls)
    monkeypatch.setattr(ser_utils.systems, "__path__", [*ser_utils.systems.__path__, str(folder.parent)])
    caches = (profiles._tables, profiles.systems)
    for cached in caches:
        cached.cache_clear()
    importlib.reload(figures)
    yield importlib.import_module("ser_utils.systems.humming.network").mean_network
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()
    importlib.reload(figures)


@pytest.fixture
def utterances(tmp_path):
    """Three speakers hum two emotions, four times each; their recordings are never read."""
    rows = [
        {"utterance_id": f"{speaker}{emotion[0]}{take}", "speaker": str(speaker), "emotion": emotion}
        for speaker in range(3)
        for emotion in ("anger", "calm")
        for take in range(4)
    ]
    table = pd.DataFrame(rows).assign(corpus="made_up", sentence="", gender="")
    paths = [str(tmp_path / f"{name}.wav") for name in table["utterance_id"]]
    return table.assign(pcm_sha256=table["utterance_id"], path=paths)


def test_a_made_up_system_is_one_folder_and_one_toml(humming, utterances, tmp_path, monkeypatch):
    workspace, rng = Workspace("demo", "smoke", 0, tmp_path / "root"), np.random.default_rng(0)
    assert "humming (12)" in results.missing_systems(pd.DataFrame({"system": ["vae"]}))
    monkeypatch.setattr("ser_utils.features.store.load_audio", lambda path, rate: (rng.random(40), 16_000))
    frames = build_store(tmp_path / "frames", utterances, lambda signal, _: signal.reshape(-1, 4), key="hum", jobs=1)

    chosen = profiles.settings("humming", "smoke")
    folds = study.make_system_folds(workspace, utterances, "humming", chosen)
    assert {name: split.attrs["folds"] for name, split in folds.items()} == {
        "paper": "holdout",
        "speaker": "leave_one_speaker_out",
    }
    task = FoldTask("humming-mean", humming, frames.folder, None, chosen, workspace.folder("models"))
    trained = study.train_models(workspace, utterances, folds, {"mean": task}, jobs=1)
    assert list(study.score_results(trained)["protocol"]) == ["paper", "speaker"]

    scores = results.gather_scores(workspace)
    assert scores[["system", "model", "protocol"]].to_numpy().tolist() == [
        ["humming", "mean", "paper"],
        ["humming", "mean", "speaker"],
    ]
    # the split it declares keeps nobody apart, and has no validation part to choose the epoch on
    assert scores["leaks"].tolist() == ["speakers; selection on test", ""]
    assert results.stands_for_its_system("humming", "mean")
    assert "humming (12)" not in results.missing_systems(scores)
    speakers = results.score_speakers(results.load_decisions(workspace))
    assert len(figures.leaderboard(scores, speakers).axes) == 2
