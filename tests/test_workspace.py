import json
import os
import time

import numpy as np
import pandas as pd
import pytest

from ser_utils import profiles, workspace
from ser_utils.workspace import MissingResult, Workspace, WorkspaceError, atomic_path, content_key, read_json, sealed


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "table.txt"
    target.write_text("finished")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "finished"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "store"
    for content in ("old", "new"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert [path.name for path in target.iterdir()] == ["new"]


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch, made):
    target, rename = tmp_path / "store", os.replace
    target.mkdir()
    (target / "old").touch()

    def refuse_new(source, place):
        if place == target and source.name == target.name:
            raise OSError("no space left")
        rename(source, place)

    monkeypatch.setattr(os, "replace", refuse_new)
    with pytest.raises(OSError, match="no space left"), atomic_path(target) as temporary:
        if made:
            temporary.mkdir()
    assert list(tmp_path.rglob("*")) == [target, target / "old"]


def test_a_folder_that_a_killed_run_moved_aside_is_put_back(tmp_path):
    moved = tmp_path / ".writing-x" / ".old-store"
    moved.mkdir(parents=True)
    (moved / "old").touch()
    workspace.remove_unfinished(tmp_path)
    assert (tmp_path / "store" / "old").exists() and not moved.exists()


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "scores.csv").mkdir()
    (tmp_path / "scores.csv" / "mine").touch()
    with pytest.raises(WorkspaceError, match="scores.csv must be a file .* but is a folder"):
        workspace.write_json(tmp_path / "scores.csv", {})
    assert [path.name for path in tmp_path.rglob("*")] == ["scores.csv", "mine"]


def test_a_damaged_table_is_not_taken_for_a_whole_one(tmp_path):
    space = Workspace(root=tmp_path, profile="smoke")
    path = space.save_table(pd.DataFrame({"a": [1, 2]}), "utterances")
    pd.testing.assert_frame_equal(space.load_table("utterances"), pd.DataFrame({"a": [1, 2]}))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MissingResult, match=r"is damaged: run notebook 00 first \(make 00 DATASET=demo"):
        space.load_table("utterances")


def test_a_missing_table_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(MissingResult, match="run notebook 02 first"):
        Workspace(root=tmp_path).load_table("predictions/x", made_by="02")


def test_content_keys_follow_content(tmp_path):
    array = np.arange(6.0)
    assert content_key(array, {"b": 1, "a": 2}) == content_key(array.copy(), {"a": 2, "b": 1})
    different = [
        array,
        array.astype("float32"),
        array.reshape(2, 3),
        array + 1,
        "x",
        ["x"],
        None,
        1,
        1.0,
        True,
        {"x": 1},
    ]
    assert len({content_key(part) for part in different}) == len(different)
    with pytest.raises(TypeError, match="No content key for a set"):
        content_key({1, 2})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"profile": "fast"}, "profile must be one of smoke, quick, paper. Received: profile='fast'"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"seed": 2**32}, "seed must be an integer of at least 0 and below"),
        ({"dataset": ""}, "dataset must be a name or a path"),
        ({"dataset": "a\0.csv"}, r"dataset must be a name or a path. Received: dataset='a\\x00.csv'"),
        ({"root": __file__}, "root must be a folder, not a file. Received: root="),
    ],
)
def test_unknown_parameters_list_what_is_accepted(given, words):
    with pytest.raises(ValueError, match=words):
        Workspace(**given)


def test_an_unknown_system_lists_the_known_ones():
    with pytest.raises(ValueError, match="system must be one of .*prototype"):
        profiles.settings("prototypes", "quick")


def test_what_a_killed_run_left_is_removed_after_a_day(tmp_path):
    for name, age_s in (("old", 2 * workspace.A_DAY), ("young", 60)):
        left = tmp_path / "models" / f".writing-{name}"
        left.mkdir(parents=True)
        (left / "m.keras").write_bytes(b"half")
        os.utime(left, (time.time() - age_s,) * 2)
    workspace.remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".writing-young"]


def test_settings_of_joined_corpora_hold_for_several_corpora_alone():
    of_joined = profiles.settings("cnn_n_gru", "quick", "emodb+aesdd")
    assert of_joined == profiles.settings("cnn_n_gru", "quick", "emodb+aesdd+all") and of_joined["protocols"] == [
        "speaker"
    ]
    assert profiles.settings("cnn_n_gru", "quick", "emodb") == profiles.settings("cnn_n_gru", "quick")


def test_all_emotions_of_joined_corpora_have_a_folder_of_their_own(tmp_path):
    names = [Workspace(name, root=tmp_path).name for name in ("emodb+aesdd", "emodb+aesdd+all")]
    assert names == ["emodb+aesdd", "emodb+aesdd+all"]
    (tmp_path / "a.csv").touch()
    own = [Workspace(f"{tmp_path}/a.csv+emodb{end}", root=tmp_path) for end in ("", "+all")]
    assert own[0].name != own[1].name and own[1].dataset == f"{tmp_path}/a.csv+emodb+all"
    (tmp_path / "mine+all").mkdir()  # a folder is called so: it is meant
    assert Workspace(f"{tmp_path}/mine+all", root=tmp_path).dataset == f"{tmp_path}/mine+all"


def test_names_of_datasets_stay_in_their_folder(tmp_path):
    assert workspace.dataset_name("ravdess+emodb") == "ravdess+emodb"
    for hostile in ("../../etc/passwd", "/abs/My table.csv", "a\nb", "<script>"):
        name = workspace.dataset_name(hostile)
        assert "/" not in name and "." not in name and "<" not in name
    assert workspace.dataset_name("one/table.csv") != workspace.dataset_name("two/table.csv")


def test_a_shorter_profile_does_not_replace_a_longer_one(tmp_path, monkeypatch):
    monkeypatch.delenv("FORCE", raising=False)
    record = tmp_path / "results" / "demo" / "provenance.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"profile": "paper"}))
    with pytest.raises(WorkspaceError, match="holds results of profile paper.*FORCE=1.*ROOT="):
        _ = Workspace(root=tmp_path).figures
    monkeypatch.setenv("FORCE", "1")
    assert Workspace(root=tmp_path).figures == tmp_path / "figures" / "demo"


def test_provenance_claims_no_profile_that_the_scores_do_not_have(tmp_path):
    recordings = pd.DataFrame({"pcm_sha256": ["0"]})

    def record(number, profile):
        made = read_json(Workspace(root=tmp_path, profile=profile).record(number, recordings, {}))
        return made["profile"], {number: one["profile"] for number, one in made["notebooks"].items()}

    assert record("00", "quick") == ("quick", {"00": "quick"})
    assert record("11", "quick") == ("quick", {"00": "quick", "11": "quick"})
    assert record("00", "paper") == ("quick", {"00": "paper", "11": "quick"})
    with pytest.raises(WorkspaceError, match="holds results of profile paper"):
        record("00", "quick")
    assert record("11", "paper") == ("paper", {"00": "paper", "11": "paper"})


def test_the_commit_is_that_of_the_beginning(tmp_path, monkeypatch):
    workspace.made_by.cache_clear()
    monkeypatch.setattr(workspace, "_git", lambda *command: "first" if command[0] == "rev-parse" else "")
    space = Workspace(root=tmp_path)
    monkeypatch.setattr(workspace, "_git", lambda *_: "committed meanwhile")
    entry = read_json(space.record("00", pd.DataFrame({"pcm_sha256": ["0"]}), {}))["notebooks"]["00"]
    workspace.made_by.cache_clear()
    assert entry["commit"] == "first" and entry["uncommitted_changes"] is False
    assert entry["packages"]["numpy"] == np.__version__ and "cores" in entry["machine"]


def test_a_notebook_lists_how_the_models_it_used_were_made(tmp_path):
    space = Workspace(root=tmp_path)
    made = {"commit": "earlier", "uncommitted_changes": False}
    for name, facts in [
        ("vae-a-0", {"made_by": made}),
        ("vae-a-1", {"made_by": made}),
        ("vae-b-0", {}),
        ("prototype_classifier-x", {"made_by": made}),
        ("sigwavnet-a-0", {"made_by": made}),
    ]:
        path = space.folder("models") / f"{name}.keras"
        path.touch()
        workspace.seal(path, seconds=2.0, **facts)
    space.saved.update({"vae-a-speaker-holdout", "prototype-x-paper-holdout"})
    entry = read_json(space.record("06", pd.DataFrame({"pcm_sha256": ["0"]}), {}))["notebooks"]["06"]
    assert entry["models"] == [made | {"models": 3, "seconds": 6.0}, {"commit": "unknown", "models": 1, "seconds": 2.0}]


def test_a_record_renews_the_checksums_of_its_own_files_alone(tmp_path):
    space, recordings = Workspace(root=tmp_path), pd.DataFrame({"pcm_sha256": ["0"]})
    for name in ("06_scores.csv", "08_scores.csv"):
        (space.results / name).write_text("as written")
    for number in ("06", "08"):
        space.record(number, recordings, {})
    before = workspace.read_checksums(space.results)
    assert set(before) == {"06_scores.csv", "08_scores.csv", "provenance.json"}
    for name in ("06_scores.csv", "08_scores.csv"):
        (space.results / name).write_text("altered")
    space.record("06", recordings, {})
    after = workspace.read_checksums(space.results)
    assert after["06_scores.csv"] != before["06_scores.csv"] and after["08_scores.csv"] == before["08_scores.csv"]


def test_entries_of_earlier_versions_keep_the_profile_the_file_told(tmp_path):
    path = tmp_path / "results" / "demo" / "provenance.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"profile": "quick", "seed": 0, "notebooks": {"11": {"n_utterances": 1}}}))
    made = read_json(Workspace(root=tmp_path, profile="paper").record("00", pd.DataFrame({"pcm_sha256": ["0"]}), {}))
    assert (made["profile"], made["seed"]) == ("quick", 0)
    assert made["notebooks"]["11"] == {"n_utterances": 1, "profile": "quick", "seed": 0}


@pytest.mark.parametrize("content", ["[]", "[1]", '"x"', "7", "null", "{}", "{", ""])
def test_a_seal_that_is_none_is_no_seal(tmp_path, content):
    (tmp_path / "file").touch()
    (tmp_path / ".file.seal").write_text(content)
    assert sealed(tmp_path / "file") is None


def test_smoke_and_other_seeds_stay_under_build(tmp_path):
    for space in (Workspace(root=tmp_path, profile="smoke"), Workspace(root=tmp_path, seed=3)):
        assert space.build in space.results.parents


def test_predictions_need_their_columns(tmp_path):
    with pytest.raises(ValueError, match=r"Missing: \['prediction', 'fold'\]"):
        Workspace(root=tmp_path).save_predictions(
            pd.DataFrame(columns=["utterance_id", "start_ms", "speaker", "emotion"]),
            system="prototype",
            model="per_speaker",
            protocol="utterance",
            folds="holdout",
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_read_only_folder_is_an_error_at_once(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        Workspace(root=tmp_path).folder("features")


def test_results_of_earlier_settings_are_deleted_when_a_notebook_is_recorded(tmp_path):
    row = {"utterance_id": "a", "start_ms": 0.0, "speaker": "s", "emotion": "fear", "prediction": "fear", "fold": 0}
    table = pd.DataFrame([row | {"p_fear": 1.0}])

    def save(space, system, *models):
        for model in models:
            name = {"system": system, "model": model, "protocol": "speaker", "folds": "all"}
            space.save_predictions(table, **name)
            space.save_audit(table, **name)
            space.save_costs({"parameters": 1}, **name)

    earlier, now = Workspace(root=tmp_path, profile="smoke"), Workspace(root=tmp_path, profile="smoke")
    save(earlier, "vae", "wide", "narrow")
    save(earlier, "sigwavnet", "network")
    save(now, "vae", "narrow")
    now.record("06", pd.DataFrame({"pcm_sha256": ["0"]}), {})
    for kind in ("predictions", "audits", "costs"):
        left = sorted(path.stem for path in (now.build / kind).glob("[!.]*"))
        assert left == ["sigwavnet-network-speaker-all", "vae-narrow-speaker-all"]


def test_what_a_dataset_has_of_its_own_goes_before_the_rest():
    quick, demo = profiles.settings("sigwavnet", "quick"), profiles.settings("sigwavnet", "quick", "demo")
    assert (quick["least_updates"], demo["least_updates"]) == (300, 0)
    assert list(quick) == list(demo) and profiles.settings("sigwavnet", "quick", "emodb") == quick
    assert profiles.settings_table("sigwavnet").loc["least_updates", "quick, demo"] == 0


@pytest.mark.parametrize("table", ["prototype", "prototype_classifier"])
def test_the_brief_table_of_make_demo_changes_settings_that_quick_has(table):
    quick, brief = profiles.settings(table, "quick", "demo"), profiles.settings(table, "quick", "brief")
    assert list(brief) == list(quick) and brief != quick
