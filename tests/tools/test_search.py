"""The search: what is searched is what is used, and its best is what notebook 07 reads."""

import keras
import numpy as np
import pandas as pd
import pytest

from ser_utils.profiles import PROFILES, settings
from ser_utils.systems.sigwavnet import figures
from ser_utils.systems.sigwavnet.search import read_trials, searched_model, trials_path
from ser_utils.systems.sigwavnet.training import WaveformTask, build_network
from ser_utils.workspace import Workspace
from tools.search import SPACE, main, search_space


@pytest.mark.parametrize("system", sorted(SPACE))
@pytest.mark.parametrize("profile", PROFILES)
def test_every_searched_setting_is_one_of_the_profile(system, profile):
    assert set(search_space(system, profile)) <= set(settings(system, profile))


def test_only_sigwavnet_has_a_smaller_space_outside_paper():
    assert search_space("sigwavnet", "paper")["gru_layers"] == ("choice", [3, 6, 9])
    assert search_space("sigwavnet", "quick")["gru_layers"] == ("choice", [1])
    assert search_space("cnn_n_gru", "quick") == SPACE["cnn_n_gru"], "its GRU reads one step, so sizes cost nothing"


@pytest.mark.parametrize("system", sorted(SPACE))
def test_the_learning_rate_and_weight_decay_searched_are_those_used(system):
    chosen = settings(system, "smoke") | {"learning_rate": 0.0123, "weight_decay": 0.045, "schedule": "constant"}
    optimizer = build_network(system, 3, chosen).optimizer
    assert np.isclose(float(optimizer.learning_rate.numpy()), 0.0123)
    assert optimizer.weight_decay == 0.045


def test_sizes_searched_are_those_built():
    chosen = settings("sigwavnet", "smoke") | {"levels": 4, "constraint": "PerFilter", "sharpness": 13.0}
    model = build_network("sigwavnet", 3, chosen)
    assert len(model.transform.trainable_weights) == 8 and len(model.branches) == 5
    assert float(model.thresholds[0].alpha.numpy()) == 13.0
    chosen = settings("cnn_n_gru", "smoke") | {"optimizer": "sgd", "dropout": 0.3, "gru_layers": 2}
    model = build_network("cnn_n_gru", 3, chosen)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.drop.rate == 0.3 and len(model.grus) == 2


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule must be one of step, cosine, constant"):
        build_network("cnn_n_gru", 3, settings("cnn_n_gru", "smoke") | {"schedule": "linear"})


@pytest.mark.parametrize(("profile", "seed"), [("smoke", 0), ("quick", 0), ("quick", 1)])
def test_the_best_trial_is_trained_beside_the_network_as_it_is(tmp_path, profile, seed):
    workspace = Workspace("demo", profile, seed, tmp_path)
    network = WaveformTask("sigwavnet-network", "sigwavnet", tmp_path, None, settings("sigwavnet", profile), tmp_path)
    assert searched_model(workspace, "sigwavnet", network) == {}
    best = {"levels": 4, "constraint": "CQF", "learnable_kernels": False, "weight_decay": 1.234e-06}
    trials = pd.DataFrame([best | {"val_uar": 0.5, "epochs": 9}, best | {"levels": 5, "val_uar": 0.4, "epochs": 2}])
    trials.to_csv(trials_path(workspace.results, "sigwavnet", profile), index=False)
    pd.testing.assert_frame_equal(read_trials(workspace, "sigwavnet"), trials)
    task = searched_model(workspace, "sigwavnet", network)["searched"]
    assert task.settings == network.settings | best and task.name == "sigwavnet-searched"
    assert {type(task.settings[name]) for name in best} == {int, str, bool, float}, "as they would be in a profile"
    other = Workspace("demo", "paper" if profile == "smoke" else "smoke", seed, tmp_path)
    assert read_trials(other, "sigwavnet").empty, "other profiles search other settings"


@pytest.mark.parametrize(
    ("given", "words"),
    [([], r"run notebook 00 first \(make 00 DATASET=demo"), (["--profile", "fast"], "profile must be one of")],
)
def test_the_command_says_in_a_line_what_is_missing(tmp_path, given, words):
    with pytest.raises(SystemExit, match=words):
        main(["--root", str(tmp_path), *given])


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    Workspace(root=tmp_path).save_table(pd.DataFrame({"utterance_id": ["a"]}), "utterances")
    monkeypatch.setattr("tools.search.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="make setup-extras"):
        main(["--root", str(tmp_path)])


def test_a_search_is_drawn_with_a_line_a_trial_and_an_axis_a_setting():
    rng, n = np.random.default_rng(0), 12
    trials = pd.DataFrame(
        {
            "levels": rng.integers(4, 8, n),
            "constraint": rng.choice(["CQF", "PerLayer", "PerFilter"], n),
            "learnable_kernels": rng.random(n) < 0.5,
            "learning_rate": 10.0 ** np.linspace(-4, -1, n),
            "weight_decay": 1e-5,
            "val_uar": np.linspace(0.5, 0.1, n),
            "epochs": 9,
        }
    )
    axes = figures.search_trials(trials).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["levels", "constraint", "learnable_kernels", "learning_rate", "weight_decay", "val_uar"]
    curves = [line for line in axes.lines if len(line.get_ydata()) == len(names)]
    assert len(curves) == n and all(0 <= line.get_ydata().min() and line.get_ydata().max() <= 1 for line in curves)
    best = max(curves, key=lambda line: line.get_ydata()[-1])
    assert best.get_linewidth() > 2 and best.get_ydata()[3] == 0, "the lowest rate is at the foot of a logarithmic axis"
    heights = sorted(line.get_ydata()[3] for line in curves)
    np.testing.assert_allclose(np.diff(heights), 1 / 11)
    assert {"CQF", "PerLayer", "0.0001", "0.1", "True"} <= {text.get_text() for text in axes.texts}
