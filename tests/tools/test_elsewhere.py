"""What an accelerator brings back becomes files in results/ that are held by checksums and made again."""

import io
import json
import os
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ser_utils.evaluation.splits import make_folds
from ser_utils.features.audio import save_audio
from ser_utils.profiles import settings
from ser_utils.systems.sigwavnet.accelerator import (
    BESIDE,
    TABLE,
    TABLES,
    baseline_path,
    read_decisions,
    read_histories,
    summarise_published_sizes,
)
from ser_utils.workspace import REPOSITORY, read_json
from tools.beside_draws import published_draws
from tools.elsewhere import _save, main, write_clips
from tools.verify import altered_files

SPEAKERS, CLASSES = ("03", "08", "09", "10"), ("anger", "neutral")
UTTERANCES = pd.DataFrame(
    [(f"{s}{e[0]}{t}", s, e) for s in SPEAKERS for e in CLASSES for t in range(3)],
    columns=["utterance_id", "speaker", "emotion"],
)


def unit_of(n, epochs):
    """A unit of two draws and two folds, as `pack` writes it; planned are 4 epochs."""
    trainings = [
        {"protocol": protocol, "seed": seed, "fold": fold, "rate": 1.0, "rows": {"test": rows}}
        for protocol, seed, fold, rows in [
            ("speaker", 0, 0, list(range(12))),
            ("speaker", 0, 1, list(range(12, 24))),
            ("paper", 0, 0, [0, 3, 12, 15]),
            ("paper", 1, 0, [1, 4, 13, 16]),
        ]
    ]
    unit = {"name": f"emodb-cnn_n_gru-n_{n}", "corpus": "emodb", "system": "cnn_n_gru", "model": f"n_{n}"}
    settings = {"n": n, "epochs": 4, "sample_rate_hz": 16000}
    return unit | {"settings": settings, "trainings": trainings, "kept": [0]}, epochs


def trained(unit, labels, epochs, *, right):
    """Outcomes that are right about the first `right` clips of each test part and wrong about the others."""
    for training in unit["trainings"]:
        truth = labels[training["rows"]["test"]]
        said = np.where(np.arange(len(truth)) < right, truth, 1 - truth)
        history = {name: list(np.linspace(1, 2, epochs)) for name in ("loss", "val_loss", "seconds")}
        yield SimpleNamespace(
            history=history, probabilities=np.eye(2)[said], mean=0.0, std=1.0, weights=[np.ones((2, 3))]
        )


@pytest.fixture
def unpacked(tmp_path):
    pack, back, results = tmp_path / "pack", tmp_path / "back", tmp_path / "results" / "emodb"
    for folder in (pack, back, results / "decisions"):
        folder.mkdir(parents=True)
    labels = UTTERANCES["emotion"].map(CLASSES.index).to_numpy()
    np.savez(
        pack / "emodb_16000.npz", labels=labels, classes=CLASSES, utterance_id=UTTERANCES["utterance_id"].to_numpy(str)
    )
    units = [unit_of(18, 3), unit_of(3, 4), unit_of(11, 0)]
    (pack / "units.json").write_text(json.dumps([unit for unit, _ in units]))
    for unit, epochs in units[:2]:
        _save(back, unit, list(trained(unit, labels, epochs, right=3)), "a card")
    UTTERANCES.to_parquet(results / "decisions" / "utterances.parquet")
    baselines = [("baseline", name, "speaker", uar) for name, uar in (("loudness", 0.6), ("mfcc", 0.8))]
    scores = pd.DataFrame(baselines, columns=["system", "model", "protocol", "uar"])
    scores.to_csv(results / "scores.csv", index=False)
    facts = json.dumps({"commit": "abc"})
    main(["unpack", str(pack), str(back / "results.zip"), "--root", str(tmp_path), "--facts", facts])
    return results


def test_decisions_have_the_project_s_columns_and_the_draw_as_fold(unpacked):
    table = pd.read_parquet(unpacked / "accelerator" / "cnn_n_gru-n_18-paper-2_draws.parquet")
    assert list(table) == (
        ["utterance_id", "start_ms", "speaker", "emotion", "prediction", "p_anger", "p_neutral", "fold"]
    )
    assert list(table["fold"]) == [0] * 4 + [1] * 4
    assert table.groupby("fold").apply(lambda t: (t["emotion"] == t["prediction"]).sum()).tolist() == [3, 3]
    assert list(table["speaker"]) == ["03", "03", "09", "09"] * 2
    folds = pd.read_parquet(unpacked / "accelerator" / "cnn_n_gru-n_3-speaker-2_folds.parquet")
    assert sorted(folds["utterance_id"]) == sorted(UTTERANCES["utterance_id"])


def test_provenance_tells_what_was_not_reached_and_which_stopped_early(unpacked):
    made = read_json(unpacked / "accelerator" / "provenance.json")
    assert (made["device"], made["commit"], made["not_reached"]) == ("a card", "abc", ["n_11"])
    assert made["packages"].keys() == {"jax", "keras"}
    stopped = {name: (m["epochs"], m["stopped_at_time_limit"]) for name, m in made["models"].items()}
    assert stopped == {"n_18": (3, True), "n_3": (4, False)}


def test_every_epoch_of_every_training_is_in_the_histories(unpacked):
    histories = read_histories(unpacked / "accelerator")
    counted = histories.groupby(["model", "protocol", "fold"])["epoch"].max().unstack("model")
    assert (counted["n_18"] == 3).all() and (counted["n_3"] == 4).all() and len(counted) == 4


def test_the_table_has_accuracy_over_draws_pooled_recall_and_the_baselines(unpacked):
    table = pd.read_csv(unpacked / f"{TABLE}.csv").set_index(["protocol", "n"])
    assert list(table.index) == [("paper", 18), ("paper", 3), ("speaker", 18), ("speaker", 3)]
    of_paper, of_speaker = table.loc[("paper", 18)], table.loc[("speaker", 18)]
    assert (of_paper["trainings"], of_paper["epochs"], of_paper["parameters"]) == (2, 3, 6)
    assert (of_paper["accuracy_mean"], of_paper["accuracy_sd"]) == (0.75, 0)
    assert of_speaker["accuracy_mean"] == of_speaker["uar"] == 0.25
    assert (of_speaker["loudness"], of_speaker["mfcc"]) == (0.6, 0.8)
    assert pd.isna(of_paper["loudness"])  # not run under that protocol


def test_decisions_are_read_by_size_and_protocol_the_largest_network_first(unpacked):
    decided = read_decisions(unpacked / "accelerator")
    assert list(decided) == [(18, "paper"), (3, "paper"), (18, "speaker"), (3, "speaker")]
    assert len(decided[18, "paper"]) == 8 and len(decided[3, "speaker"]) == 24


@pytest.mark.slow
@pytest.mark.parametrize("system", ["cnn_n_gru", "sigwavnet"])
def test_the_accelerators_script_trains_a_network_on_a_cpu_and_its_answers_come_back(tmp_path, system):
    """Packed as `pack` writes it, trained for one epoch of two planned, on JAX, as whoever has a GPU runs it."""
    pack, back, results = tmp_path / "pack", tmp_path / "back", tmp_path / "results" / "emodb"
    (results / "decisions").mkdir(parents=True)
    pack.mkdir()
    rate, rng, paths = 4000, np.random.default_rng(0), []
    for number, emotion in enumerate(UTTERANCES["emotion"]):
        tone = np.sin(np.arange(1800 + 30 * number) * (0.9 if emotion == "anger" else 0.2))
        paths.append(save_audio(tmp_path / f"{number}.wav", 0.5 * tone + rng.normal(0, 0.05, len(tone)), rate))
    write_clips(pack, "emodb", UTTERANCES.assign(path=paths), rate)
    chosen = settings(system, "smoke") | {"epochs": 2, "channels": 2, "gru_units": 3}
    size, model = ({"n": 3}, "n_3") if system == "cnn_n_gru" else ({}, "network")
    rows = {"train": list(range(12)), "validation": list(range(12, 18)), "test": list(range(18, 24))}
    about = {"name": "tried", "system": system, "model": model, "settings": chosen | size, "kept": [0]}
    unit = unit_of(3, 1)[0] | about
    unit["trainings"] = [{"protocol": "paper", "seed": 0, "fold": 0, "rate": 1.0, "rows": rows}]
    (pack / "units.json").write_text(json.dumps([unit]))
    UTTERANCES.to_parquet(results / "decisions" / "utterances.parquet")
    command = [
        sys.executable,
        "-m",
        "tools.elsewhere",
        "run",
        str(pack),
        str(back),
        "--names",
        "tried",
        "--epochs",
        "1",
    ]
    run = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(back / "results.zip") as archive, archive.open("tried.npz") as file:
        arrays = dict(np.load(io.BytesIO(file.read()), allow_pickle=False))
    assert arrays["0/probabilities"].shape == (6, 2) and len(arrays["0/history/val_loss"]) == 1
    np.testing.assert_allclose(arrays["0/probabilities"].sum(axis=1), 1, atol=1e-5)
    with zipfile.ZipFile(back / "weights_01.zip") as archive:
        assert any(name.startswith("tried/0/") for name in archive.namelist())
    pd.DataFrame(columns=["system", "model", "protocol", "uar"]).to_csv(results / "scores.csv", index=False)
    main(["unpack", str(pack), str(back / "results.zip"), "--root", str(tmp_path)])
    (answers,) = (results / "accelerator").glob("*.parquet")
    assert answers.name == f"{system}-{model}-paper-1_folds.parquet"
    assert list(pd.read_parquet(answers)["utterance_id"]) == list(UTTERANCES["utterance_id"][18:])
    summary = pd.read_csv(results / f"{TABLES[system]}.csv")
    assert (summary["system"].item(), summary["trainings"].item(), summary["epochs"].item()) == (system, 1, 1)
    assert not any((results / f"{other}.csv").exists() for name, other in TABLES.items() if name != system)


def test_every_file_has_a_checksum_and_a_changed_decision_changes_the_table(unpacked):
    apart = {"scores.csv has no checksum"}  # notebook 11 writes it
    assert set(altered_files(unpacked)) == apart
    file = unpacked / "accelerator" / "cnn_n_gru-n_18-paper-2_draws.parquet"
    pd.read_parquet(file).assign(prediction="anger").to_parquet(file)
    scores, shipped = pd.read_csv(unpacked / "scores.csv"), pd.read_csv(unpacked / f"{TABLE}.csv")
    assert f"accelerator/{file.name} was altered since its notebook wrote it" in altered_files(unpacked)
    again = summarise_published_sizes(unpacked / "accelerator", scores)
    assert list(np.flatnonzero(again["uar"] != shipped["uar"])) == [0]


@pytest.mark.parametrize("corpus", ["emodb", "ravdess"])
def test_baselines_and_networks_stand_on_the_same_clips_of_each_draw(corpus):
    results = REPOSITORY / "results" / corpus
    scores = pd.read_csv(results / "scores.csv")
    for system, name in TABLES.items():
        for path in sorted((results / "accelerator").glob(f"{system}-*-paper-*.parquet")):
            tested = pd.read_parquet(path).groupby("fold")["utterance_id"].agg(set)
            for model in BESIDE:
                answered = pd.read_parquet(baseline_path(path.parent, model, system))
                assert answered.groupby("fold")["utterance_id"].agg(set).equals(tested), path.name
        made = summarise_published_sizes(results / "accelerator", scores, system)
        if (results / f"{name}.csv").exists():
            shipped = pd.read_csv(results / f"{name}.csv").query("protocol == 'paper'")
            rows = made.query("protocol == 'paper'")
            np.testing.assert_allclose(shipped[list(BESIDE)], rows[list(BESIDE)].astype(float), atol=1e-6)
            assert shipped[list(BESIDE)].notna().all(axis=None)


def test_answers_to_other_clips_than_todays_draws_are_refused():
    rows = [(f"{s}{e[0]}{t}", s, e, str(t)) for s in SPEAKERS for e in CLASSES for t in range(10)]
    table = pd.DataFrame(rows, columns=["utterance_id", "speaker", "emotion", "sentence"])
    folds = [make_folds(table, "paper", system="cnn_n_gru", seed=seed) for seed in (0, 1)]
    answers = pd.concat([fold[fold["role"] == "test"].assign(fold=seed) for seed, fold in enumerate(folds)])
    drawn = published_draws(table, "cnn_n_gru", answers, "2_draws")
    for draw, fold in zip(drawn, folds, strict=True):
        pd.testing.assert_series_equal(draw["role"], fold["role"])
    assert [set(draw["fold"]) for draw in drawn] == [{0}, {1}]
    with pytest.raises(ValueError, match="draw 0 of today tests other clips"):
        published_draws(table, "cnn_n_gru", answers.assign(fold=1 - answers["fold"]), "2_draws")
