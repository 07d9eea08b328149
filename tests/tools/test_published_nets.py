"""One published training of the spectrogram CNNs, in several draws, becomes rows and files of what ships."""

import shutil

import numpy as np
import pandas as pd
import pytest

from ser_utils.corpora.demo import make_demo_corpus
from ser_utils.corpora.loading import load_corpus
from ser_utils.features.frames import artificial_frames, clip_frames
from ser_utils.systems.spectrogram_cnn import PUBLISHED
from ser_utils.systems.spectrogram_published import read_answers
from ser_utils.training.folds import run_folds
from ser_utils.workspace import REPOSITORY, Workspace, read_json
from tools.published_nets import DRAWS, MASKS, main, masked_at_the_floor, refuse_other_draws, ship, training_tasks
from tools.verify import altered_files

NET = ("clip_3_layers", 1e-3)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The net under `speaker` and in two draws of `utterance`, on the demo corpus with the settings of profile smoke."""
    root = tmp_path_factory.mktemp("published_nets")
    make_demo_corpus(root / "demo")
    table = load_corpus("demo", root).sort_values("utterance_id", ignore_index=True)
    spaces = [Workspace("demo", "smoke", draw, root) for draw in (0, 1)]
    results = root / "results" / "demo"
    folder = results / "accelerator"
    folder.mkdir(parents=True)
    for name in ("04_histories.csv", "04_histories_changes.csv", "04_histories_validated.csv", "04_provenance.json"):
        shutil.copy(REPOSITORY / "results" / "aesdd" / "accelerator" / name, folder)
    trained = {}
    for protocol, used in (("speaker", spaces[:1]), ("utterance", spaces)):
        tasks = training_tasks(used, table, *NET, protocol, epochs=2)
        trained[protocol] = list(run_folds(tasks, jobs=1).values())
        ship(results, *NET, protocol, trained[protocol])
    return results, trained


@pytest.mark.slow
def test_answers_of_all_folds_and_draws_come_back_under_their_numbers(shipped):
    results, trained = shipped
    answers = read_answers(results / "accelerator")
    assert set(answers) == {(*NET, "speaker"), (*NET, "utterance")}
    assert set(answers[*NET, "utterance"]["fold"]) == {0, 1}
    assert set(answers[*NET, "speaker"]["fold"]) == set(range(len(trained["speaker"][0]["histories"])))
    drawn = answers[*NET, "utterance"].groupby("fold")["utterance_id"].agg(set)
    assert drawn[0] != drawn[1]
    said = answers[*NET, "speaker"]
    np.testing.assert_array_equal(said["prediction"], trained["speaker"][0]["predictions"]["prediction"])


@pytest.mark.slow
def test_histories_replace_those_of_the_same_training_and_leave_all_others(shipped):
    results, trained = shipped
    path = results / "accelerator" / "04_histories_validated.csv"
    before, after = pd.read_csv(REPOSITORY / "results" / "aesdd" / "accelerator" / path.name), pd.read_csv(path)
    is_ours = (after["net"] == NET[0]) & (after["rate"] == NET[1])
    others = before[(before["net"] != NET[0]) | (before["rate"] != NET[1])]
    pd.testing.assert_frame_equal(after[~is_ours].reset_index(drop=True), others.reset_index(drop=True))
    places = [list(table.groupby(["protocol", "net", "rate"], sort=False).groups) for table in (before, after)]
    assert places[0] == places[1]
    ours = after[is_ours & (after["protocol"] == "utterance")]
    assert list(ours["draw"]) == [0, 0, 1, 1] and list(ours["epoch"]) == [1, 2, 1, 2]
    # the epoch that validation chose, and no other, has an accuracy on test: that of the answers
    answers = read_answers(results / "accelerator")[*NET, "utterance"]
    right = (answers["prediction"] == answers["emotion"]).groupby(answers["fold"]).mean()
    chosen = ours.loc[ours.groupby("draw")["val_accuracy"].idxmax()].set_index("draw")
    np.testing.assert_allclose(chosen["test_accuracy"], right, atol=1e-4)
    assert ours["test_accuracy"].notna().sum() == 2
    assert [trained["utterance"][draw]["kept"][0] for draw in (0, 1)] == list(chosen["epoch"])


@pytest.mark.slow
def test_the_record_says_what_trained_it_and_every_file_has_its_checksum(shipped):
    results, trained = shipped
    told = read_json(results / "accelerator" / "04_provenance.json")["trainings"]
    (ours,) = (each for each in told if (each["net"], each["rate"], each["protocol"]) == (*NET, "utterance"))
    assert (ours["draws"], ours["epochs"], ours["epochs_planned"]) == (2, 2, PUBLISHED[NET][0])
    assert {"commit", "machine", "packages"} <= ours["made_by"].keys()
    before = read_json(REPOSITORY / "results" / "aesdd" / "accelerator" / "04_provenance.json")["trainings"]
    names = [(each["net"], each["rate"], each["protocol"]) for each in told]
    others = {(each["net"], each["rate"], each["protocol"]) for each in before}
    assert len(names) == len(set(names)) and set(names) == others | {(*NET, "utterance"), (*NET, "speaker")}
    assert altered_files(results) == []
    assert (results / "04_published_splits.csv").exists()


def test_masks_at_the_floor_are_those_of_the_source_but_silent():
    rate = 16_000
    rng = np.random.default_rng(0)
    signal = (rng.normal(size=2 * rate) * np.linspace(0.01, 1, 2 * rate)).astype(np.float32)
    frames = {"kind": "log_mel", "n_mels": 64, "n_fft": 1024, "hop_length": 512, "denoise": ""}
    clip = clip_frames(signal, rate, **frames)
    n_masked = 0
    for copy in range(8):
        options = {"frames": frames, "copy": copy, "seed": 3}
        loud = artificial_frames(signal, rate, changes=MASKS, published=True, **options)
        silent = masked_at_the_floor(signal, rate, changes=MASKS, **options)
        assert silent.dtype == np.float32 and silent.shape == clip.shape
        masked = loud != clip
        np.testing.assert_allclose(silent[masked], clip.min(), atol=1e-4)
        # a point of 0 dB is 0 dB under the source's mask, too
        elsewhere = ~masked & (clip < 0)
        np.testing.assert_allclose(silent[elsewhere], clip[elsewhere], atol=1e-4)
        n_masked += masked.any()
    assert n_masked > 4


@pytest.mark.slow
def test_a_single_change_trains_on_copies_of_its_own_and_joins_the_other_changes(shipped, monkeypatch):
    monkeypatch.setenv("SER_JOBS", "1")  # few clips: quicker than to start processes
    results, _ = shipped
    root = results.parents[1]
    table = load_corpus("demo", root).sort_values("utterance_id", ignore_index=True)
    before = pd.read_csv(results / "accelerator" / "04_histories_changes.csv")
    tasks = {
        net: training_tasks([Workspace("demo", "smoke", 0, root)], table, net, 1e-3, "paper", epochs=1)
        for net in ("image_masks", "image_masks_at_the_floor")
    }
    stores = [task.copies for by_draw in tasks.values() for task in by_draw[0]]
    assert len(set(stores)) == len(tasks) and all(stores)
    assert all(task.settings["learning_rate"] == 1e-3 for by_draw in tasks.values() for task in by_draw[0])
    net = "image_masks_at_the_floor"
    ship(results, net, 1e-3, "paper", list(run_folds(tasks[net], jobs=1).values()))
    after = pd.read_csv(results / "accelerator" / "04_histories_changes.csv")
    pd.testing.assert_frame_equal(
        before[before["net"] != net].reset_index(drop=True), after[after["net"] != net].reset_index(drop=True)
    )
    assert list(after.loc[after["net"] == net, "epoch"]) == [1]


@pytest.mark.parametrize(("protocol", "wanted"), [("paper", 5), ("utterance", 4)])
def test_other_draws_than_those_of_the_nets_that_ship_are_refused_before_training(protocol, wanted):
    results = REPOSITORY / "results" / "aesdd"
    refuse_other_draws(results, protocol, wanted)
    refuse_other_draws(results, "speaker", 1)  # its folds are numbered instead
    assert DRAWS[protocol] == wanted
    with pytest.raises(SystemExit, match=f"--draws must be {wanted}, .* under {protocol}. Received: 1"):
        refuse_other_draws(results, protocol, 1)


def test_a_rate_that_the_study_does_not_have_is_refused_before_anything_is_read(capsys):
    with pytest.raises(SystemExit):
        main(["clip_3_layers", "0.5", "speaker"])
    assert "RATE of clip_3_layers must be one of 0.01, 0.001, 0.0001. Received: 0.5" in capsys.readouterr().err
