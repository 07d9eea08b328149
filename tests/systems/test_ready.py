import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from ser_utils.corpora import CORPORA
from ser_utils.names import corpora_of
from ser_utils.systems import ready
from ser_utils.systems.adaptation import adapt
from ser_utils.workspace import REPOSITORY, MissingResult, Workspace, WorkspaceError, write_checksums

NAMES = ["pitch_st mean", "level_db mean", "mfcc_1 mean", "modulation 2-4 Hz level"]
EMOTIONS = ("anger", "calm", "neutral")


@pytest.fixture(scope="module")
def learned():
    rows = [(f"{s}{e}{t}", f"{s}", e) for s in range(6) for e in EMOTIONS for t in range(8)]
    table = pd.DataFrame(rows, columns=["utterance_id", "speaker", "emotion"])
    table = table.assign(corpus="emodb", gender="", language="de", pcm_sha256=table["utterance_id"])
    random = np.random.default_rng(0)
    cue = 3 * np.eye(3, 4)[table["emotion"].map(EMOTIONS.index)]
    of_speaker = 2 * random.standard_normal((6, 4))[table["speaker"].astype(int)]
    features = cue + of_speaker + 0.5 * random.standard_normal((len(table), 4))
    return table, features, ready.learn_model(table, features, NAMES, "emodb")


def test_a_model_answers_the_same_after_the_disk_and_holds_no_pickles(learned, tmp_path):
    table, features, model = learned
    path = ready.save_model(model, tmp_path)
    assert path.name == "emodb_cc0-1.0_seed_0.json" and path.with_suffix(".npz").stat().st_size < 5_000_000
    again = ready.load_model(path)
    for n_known in (0, 3, 24):
        own = features[:24]
        expected, found = (each.probabilities(own, own[:n_known]) for each in (model, again))
        assert found == pytest.approx(expected, abs=1e-4)
        assert found.sum(axis=1) == pytest.approx(1)
    assert again.facts["tested"] == json.loads(path.read_text())["tested"]


@pytest.mark.parametrize("fault", ["cut", "gone", "NaN", "facts", "altered"])
def test_a_damaged_model_is_refused_in_words(learned, tmp_path, fault):
    path = ready.save_model(learned[2], tmp_path / "model")
    arrays = path.with_suffix(".npz")
    if fault == "cut":
        arrays.write_bytes(arrays.read_bytes()[:500])
    elif fault == "gone":
        arrays.unlink()
    elif fault == "facts":
        path.write_text("[]")
    else:
        with np.load(arrays) as stored:
            changed = {key: stored[key] for key in stored.files}
        changed["weights_0"] = changed["weights_0"] * (np.nan if fault == "NaN" else -1)
        np.savez_compressed(arrays, **changed)
    if fault not in ("gone", "altered"):  # saved as it is
        write_checksums(path.parent, "*.npz", "*.json")
    with pytest.raises(WorkspaceError, match="was altered since" if fault == "altered" else "is damaged"):
        ready.load_model(path)


@pytest.mark.parametrize(
    "name", ["title", "language", "licence", "n_clips", "n_speakers", "features", "tested", "emotions"]
)
def test_a_model_without_a_fact_that_an_answer_tells_is_refused(learned, tmp_path, name):
    model = learned[2]
    path = ready.save_model(model, tmp_path)
    path.write_text(json.dumps({key: value for key, value in model.facts.items() if key != name}))
    write_checksums(tmp_path, "*.json")
    with pytest.raises(WorkspaceError, match=f"is damaged .*missing or of another type: {name}"):
        ready.load_model(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"emotions": ["anger", "anger", "calm"]}, "emotions must be different words"),
        ({"emotions": "abc"}, "missing or of another type: emotions"),
        ({"emotions": ["anger", "calm"]}, r"weights_0 must be finite numbers \(2, 5\). Received: float32 \(3, 5\)"),
        ({"features": NAMES[:3]}, r"mean must be finite numbers \(3,\). Received: float32 \(4,\)"),
        ({"tested": []}, "`tested` must say what share it recognises where no clip is known"),
    ],
)
def test_facts_that_do_not_fit_a_model_are_refused(learned, tmp_path, changes, words):
    model = learned[2]
    path = ready.save_model(replace(model, facts=model.facts | changes), tmp_path)
    with pytest.raises(WorkspaceError, match=words):
        ready.load_model(path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"within": np.zeros(4)}, "variances must be above 0"),
        ({"between": np.zeros((4, 4))}, r"between must be finite numbers \(4,\)"),
    ],
)
def test_arrays_that_do_not_fit_a_model_are_refused(learned, tmp_path, changed, words):
    model = learned[2]
    path = ready.save_model(replace(model, population=replace(model.population, **changed)), tmp_path)
    with pytest.raises(WorkspaceError, match=words):
        ready.load_model(path)


def test_an_empty_file_of_arrays_is_refused(learned, tmp_path):
    path = ready.save_model(learned[2], tmp_path)
    path.with_suffix(".npz").write_bytes(b"")
    write_checksums(tmp_path, "*.npz")
    with pytest.raises(WorkspaceError, match="is damaged"):
        ready.load_model(path)


def test_a_model_without_checksums_or_under_another_name_is_refused(learned, tmp_path):
    path = ready.save_model(learned[2], tmp_path / "model")
    for file in (path, path.with_suffix(".npz")):
        file.rename(file.with_stem("renamed"))
    with pytest.raises(WorkspaceError, match="renamed.json has no checksum"):
        ready.load_model(path.with_stem("renamed"))
    path = ready.save_model(learned[2], tmp_path / "model")
    (path.parent / "SHA256SUMS").unlink()
    with pytest.raises(WorkspaceError, match="has no checksum"):
        ready.load_model(path)
    write_checksums(tmp_path, "model/*")  # those of the results are as good
    assert ready.load_model(path).facts["emotions"] == list(EMOTIONS)


def test_new_arrays_beside_old_facts_are_refused(learned, tmp_path, monkeypatch):
    model = learned[2]
    path = ready.save_model(model, tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ready, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        ready.save_model(replace(model, weights={number: -w for number, w in model.weights.items()}), tmp_path)
    with pytest.raises(WorkspaceError, match="was altered since"):
        ready.load_model(path)


def test_each_number_of_known_clips_has_its_own_regression(learned):
    table, features, model = learned
    assert tuple(model.weights) == ready.COUNTS
    own = features[:24]
    for n_known, used in [(0, 0), (1, 1), (4, 2), (7, 5), (19, 10), (24, 20)]:
        weights = model.weights[used]
        expected = softmax(adapt(own, own[:n_known], model.population) @ weights[:, :-1].T + weights[:, -1], axis=1)
        assert model.probabilities(own, own[:n_known]) == pytest.approx(expected)


def test_known_clips_help_on_new_speakers_and_the_facts_say_how_much(learned):
    tested = pd.DataFrame(learned[2].facts["tested"]).query("known == 'random'").set_index("n_known")["uar"]
    assert tested[20] > tested[0] + 0.05
    assert {"title", "licence", "citation", "seed", "n_speakers", "made_by"} <= learned[2].facts.keys()


def test_reasons_add_up_to_the_score(learned):
    _, features, model = learned
    reasons = model.reasons(features[:1], features[:0], "anger")
    assert set(reasons.index) == {"pitch", "level", "timbre", "rhythm"}
    x, weights = adapt(features[:1], features[:0], model.population)[0], model.weights[0][:, :-1]
    assert reasons.sum() == pytest.approx(x @ (weights[0] - weights.mean(axis=0)))


def test_two_emotions_have_two_rows_of_weights(learned):
    table, features, _ = learned
    two = (table["emotion"] != "calm").to_numpy()
    model = ready.learn_model(table[two].reset_index(drop=True), features[two], NAMES, "emodb")
    p = model.probabilities(features[:16], features[:0])
    assert p.shape == (16, 2) and p[:8, 0].mean() > 0.5


@pytest.mark.parametrize(
    ("licence", "word"),
    [
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("CC BY 4.0 as re-published; cite", "cc-by-4.0"),
        ("ask", "own"),
        ("", "own"),
    ],
)
def test_a_file_is_named_by_its_licence(licence, word):
    assert ready.licence_word(licence) == word


def test_only_what_may_be_shared_ships(tmp_path):
    for dataset, ships in [("emodb", True), ("emodb+aesdd", True), ("iemocap", False), ("emodb+iemocap", False)]:
        folder = ready.model_folder(Workspace(dataset, "quick", 0, tmp_path))
        assert ("results" in folder.parts) == ships
    assert not any(CORPORA[name].models_may_be_shared for name in ("iemocap", "savee", "tess"))


def test_a_model_that_is_not_there_says_which_are(tmp_path):
    workspace = Workspace("aesdd", "quick", 0, tmp_path)
    with pytest.raises(MissingResult, match="no model of aesdd to use at once; there is one of none"):
        ready.find_model(workspace)


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("results/*/model/*.json")), ids=lambda path: path.stem)
def test_models_that_ship_are_whole_and_name_their_licence(path):
    model = ready.load_model(path)
    corpora = [CORPORA[name] for name in corpora_of(model.facts["dataset"])]
    assert all(corpus.models_may_be_shared and corpus.citation for corpus in corpora)
    assert model.facts["licence"] == "; ".join(corpus.licence for corpus in corpora)
    n_features = len(model.facts["features"])
    p = model.probabilities(np.tile(model.population.mean, (2, 1)), np.zeros((0, n_features)))
    assert p.shape == (2, len(model.facts["emotions"])) and np.isfinite(p).all()
