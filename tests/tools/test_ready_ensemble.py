import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_utils.corpora.loading import load_corpus
from ser_utils.evaluation.metrics import score_predictions
from ser_utils.features.fisher import FisherVectors
from ser_utils.systems import baselines, ensemble
from ser_utils.systems.adaptation import centre_by_speaker, rank_by_speaker, scale_by_speaker
from ser_utils.workspace import MissingResult, Workspace
from tools import answer, ready_ensemble

RATE_HZ = 16_000
EMOTIONS = ("calm", "fear")


def voice(pitch_hz, seed, level=0.3):
    t = np.arange(RATE_HZ) / RATE_HZ
    noise = 0.005 * np.random.default_rng(seed).standard_normal(len(t))
    return (level * np.sign(np.sin(2 * np.pi * pitch_hz * t)) + noise).astype(np.float32)


def guess(table, skill, seed):
    """Stored answers of a member that hears the truth through noise of its own."""
    heard = np.random.default_rng(seed).standard_normal((len(table), 2))
    heard += skill * np.eye(2)[table["emotion"].map(EMOTIONS.index)]
    p = np.exp(heard) / np.exp(heard).sum(axis=1, keepdims=True)
    about = table[["utterance_id", "speaker", "emotion"]].assign(start_ms=np.nan, fold=table["speaker"].astype(int))
    return about.assign(prediction=np.array(EMOTIONS)[p.argmax(axis=1)], p_calm=p[:, 0], p_fear=p[:, 1])


@pytest.fixture(autouse=True)
def without_opensmile(monkeypatch):
    monkeypatch.setenv("SER_JOBS", "1")
    monkeypatch.setattr(baselines, "has_opensmile", lambda: False)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A corpus of low calm and high fearful voices, and what members of both ensembles answered about it."""
    root, rows = tmp_path_factory.mktemp("root"), []
    for speaker in range(5):
        for emotion, pitch_hz in zip(EMOTIONS, (100, 200), strict=True):
            for take in range(3):
                path = root / f"{speaker}{emotion}{take}.wav"
                soundfile.write(path, voice(pitch_hz * (1 + 0.1 * speaker + 0.02 * take), take), RATE_HZ)
                rows.append((path.name, speaker, emotion))
    pd.DataFrame(rows, columns=["path", "speaker", "emotion"]).to_csv(root / "voices.csv", index=False)
    workspace = Workspace(str(root / "voices.csv"), "quick", 0, root)
    table, folder = load_corpus(workspace.dataset, root), workspace.results / "decisions" / "predictions"
    folder.mkdir(parents=True)
    stored = {"baseline-voice": 1.0, "baseline-voice_lda": 2.0, "ensemble-new_speaker": 3.0}
    stored |= {"baseline-voice_adapted": 1.0, "baseline-voice_lda_adapted": 2.0, "ensemble-adapted": 3.0}
    for seed, (name, skill) in enumerate(stored.items()):
        guess(table, skill, seed).to_parquet(folder / f"{name}-speaker-leave_one_speaker_out.parquet")
    return workspace


@pytest.fixture(scope="module")
def table(workspace):
    return load_corpus(workspace.dataset, workspace.root)


def stored_of(workspace, *names):
    folder = workspace.results / "decisions" / "predictions"
    return {name: pd.read_parquet(folder / f"{name}-speaker-leave_one_speaker_out.parquet") for name in names}


def test_the_answer_is_the_product_of_its_members_each_to_its_weight(workspace, table):
    fitted = ready_ensemble.fit_ready_ensemble(workspace, table, "new_speaker")
    x = ready_ensemble.extract(voice(215, 9), RATE_HZ)
    said = np.exp(fitted.shares(x).sum(axis=0))[0]
    product, corpus = np.ones(2), baselines.load_features(workspace.folder("features"), table, "voice")
    for name, weight in fitted.weights.items():
        classifier = baselines.build_classifier(name.split("-")[1]).fit(corpus, table["emotion"])
        product *= classifier.predict_proba(x[0, :1].tolist())[0] ** weight
    np.testing.assert_allclose(said / said.sum(), product / product.sum(), atol=1e-6)
    assert fitted.emotions[said.argmax()] == "fear"


def test_weights_and_scores_follow_from_the_stored_answers(workspace, table):
    fitted = ready_ensemble.fit_ready_ensemble(workspace, table, "new_speaker")
    members = stored_of(workspace, "baseline-voice", "baseline-voice_lda")
    assert fitted.weights.equals(ensemble.weigh(members))
    folds = members["baseline-voice"].assign(role="test")
    assert fitted.tested == score_predictions(ensemble.pool(members, folds)[0])["uar"]
    [whole] = stored_of(workspace, "ensemble-new_speaker").values()
    assert fitted.whole == score_predictions(whole)["uar"]
    missing = fitted.missing.to_dict()
    assert missing["opensmile-egemaps_lda"] == ready_ensemble.NOT_INSTALLED
    assert missing["spectrogram_cnn-clip_4_layers"] == ready_ensemble.NETWORK
    assert missing["opensmile-lld"] == ready_ensemble.NOT_INSTALLED
    assert len(missing) == 8


def test_weights_for_a_new_voice_are_fitted_on_every_clip(table):
    members = {"vae-good": guess(table, 3, 1), "vae-deaf": guess(table, 0, 2)}
    weights = ensemble.weigh(members)
    _, by_fold, _ = ensemble.pool(
        members, members["vae-good"].assign(role="test"), lambda folds, fold: table["utterance_id"]
    )
    assert (by_fold == weights).all(axis=None)
    assert weights["vae-good"] > weights["vae-deaf"]


def test_the_adapted_ensemble_sees_ranks_among_the_speakers_clips(workspace, table):
    fitted = ready_ensemble.fit_ready_ensemble(workspace, table, "adapted")
    x = np.concatenate(
        [ready_ensemble.extract(voice(pitch, i), RATE_HZ) for i, pitch in enumerate((300, 310, 600, 620))]
    )
    ranks = rank_by_speaker(np.stack(list(x[:, 0])), ["me"] * 4)
    corpus = baselines.load_features(workspace.folder("features"), table, "voice")
    corpus = rank_by_speaker(corpus, table["corpus"] + "/" + table["speaker"])
    classifier = baselines.build_classifier("voice_lda_adapted").fit(corpus, table["emotion"])
    p = np.maximum(classifier.predict_proba(ranks), ensemble.LEAST)
    wanted = fitted.weights["baseline-voice_lda_adapted"] * np.log(p)
    np.testing.assert_allclose(fitted.shares(x)[1], wanted, rtol=1e-5, atol=1e-6)
    # 300 Hz is above everything the corpus has; beside 600 Hz of the same voice it is low
    assert [fitted.emotions[i] for i in fitted.shares(x).sum(axis=0).argmax(axis=1)] == ["calm", "calm", "fear", "fear"]


def loud_and_bright(signal, sample_rate):
    """Two descriptors of each hundredth of a second, in place of openSMILE's 65."""
    frames = signal[: len(signal) // 160 * 160].reshape(-1, 160)
    return np.stack([frames.std(axis=1), np.abs(np.diff(np.sign(frames), axis=1)).mean(axis=1)], axis=1)


@pytest.mark.parametrize("model", ["new_speaker", "adapted"])
def test_frames_become_the_fisher_vectors_that_the_member_learned(workspace, table, tmp_path, monkeypatch, model):
    monkeypatch.setattr(baselines, "has_opensmile", lambda: True)
    monkeypatch.setattr(baselines, "OPENSMILE_SETS", ())
    monkeypatch.setitem(baselines.EXTRACTORS, "lld", (loud_and_bright, None))
    ending = "_adapted" if model == "adapted" else ""
    here = Workspace(workspace.dataset, "quick", 0, tmp_path)
    folder = here.results / "decisions" / "predictions"
    folder.mkdir(parents=True)
    for name, answers in stored_of(workspace, f"baseline-voice{ending}", f"ensemble-{model}").items():
        answers.to_parquet(folder / f"{name}-speaker-leave_one_speaker_out.parquet")
    other = "baseline-voice_lda" + ending
    stored_of(workspace, other)[other].to_parquet(folder / f"{other}-speaker-leave_one_speaker_out.parquet")
    mine = [voice(pitch, i) for i, pitch in enumerate((150, 160, 300, 320))]
    without = ready_ensemble.fit_ready_ensemble(here, table, model)
    assert without.missing[f"opensmile-lld{ending}"] == ready_ensemble.NOT_STORED
    assert len(without.shares(np.concatenate([ready_ensemble.extract(signal, RATE_HZ) for signal in mine]))) == 2
    guess(table, 2.0, 7).to_parquet(folder / f"opensmile-lld{ending}-speaker-leave_one_speaker_out.parquet")
    fitted = ready_ensemble.fit_ready_ensemble(here, table, model)
    said = fitted.shares(np.concatenate([ready_ensemble.extract(signal, RATE_HZ) for signal in mine]))

    corpus, speakers = (
        baselines.load_features(here.folder("features"), table, "lld"),
        table["corpus"] + "/" + table["speaker"],
    )
    asked = np.empty(4, object)
    asked[:] = [loud_and_bright(signal, RATE_HZ) for signal in mine]
    if model == "adapted":
        corpus, asked = scale_by_speaker(corpus, speakers), scale_by_speaker(asked, ["me"] * 4)
    encoder = FisherVectors().fit(corpus)
    corpus, asked = encoder.transform(corpus), encoder.transform(asked)
    if model == "adapted":
        corpus, asked = centre_by_speaker(corpus, speakers), asked - asked.mean(axis=0)
    name = f"opensmile-lld{ending}"
    p = baselines.build_classifier(f"lld{ending}").fit(corpus, table["emotion"]).predict_proba(asked)
    wanted = fitted.weights[name] * np.log(np.maximum(p, ensemble.LEAST))
    np.testing.assert_allclose(said[list(fitted.classifiers).index(name)], wanted, atol=1e-5)
    assert not fitted.missing.index.str.endswith(name).any()


def test_an_ensemble_with_too_few_stored_answers_says_which_command_stores_them(workspace, table, tmp_path):
    empty = Workspace(workspace.dataset, "quick", 0, tmp_path)
    words = "needs the stored answers of at least 2 members that are no networks. make 11 DATASET=.* stores them in"
    with pytest.raises(MissingResult, match=words):
        ready_ensemble.fit_ready_ensemble(empty, table, "adapted")
    folder = empty.results / "decisions" / "predictions"
    folder.mkdir(parents=True)
    for name, answers in stored_of(workspace, "ensemble-adapted", "baseline-voice_adapted").items():
        answers.to_parquet(folder / f"{name}-speaker-leave_one_speaker_out.parquet")
    with pytest.raises(MissingResult, match=words):
        ready_ensemble.fit_ready_ensemble(empty, table, "adapted")


def ask(workspace, monkeypatch, *given):
    monkeypatch.setenv("SER_DATA_DIR", str(workspace.root))
    answer.main(
        [*map(str, given), "--model", "ensemble", "--dataset", workspace.dataset, "--root", str(workspace.root)]
    )


def test_a_recording_is_answered_by_the_members_that_can_be_had(workspace, tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "mine.wav", np.tile(voice(215, 9)[:, None], (1, 2)), RATE_HZ)
    ask(workspace, monkeypatch, tmp_path / "mine.wav")
    said = " ".join(capsys.readouterr().out.split())
    assert said.split()[3] == "fear"
    for words in (
        "ensemble new_speaker of notebook 11, fitted to 30 recordings of",
        "2 of its 10 members answer",
        "What speaks for fear, in log-odds: baseline-voice",
        "openSMILE is not installed (make setup-extras)",
        "guessing gives 50%",
        "do not say what this person feels",
    ):
        assert words in said


@pytest.mark.parametrize(("n_clips", "model"), [(9, "new_speaker"), (10, "adapted")])
def test_enough_recordings_of_one_speaker_adapt_it(workspace, tmp_path, monkeypatch, capsys, n_clips, model):
    for take in range(n_clips):
        soundfile.write(tmp_path / f"{take}.wav", voice((300, 600)[take % 2] + take, take), RATE_HZ)
    ask(workspace, monkeypatch, "--files", tmp_path)
    said = capsys.readouterr().out
    lines = [line.split()[:2] for line in said.splitlines() if ".wav" in line]
    assert f"the ensemble {model} of" in said and len(lines) == n_clips
    if model == "adapted":
        assert lines == [[f"{take}.wav", EMOTIONS[take % 2]] for take in range(n_clips)]
        assert "all recordings of each speaker were known, about 6. Here 10 are known." in said
        assert "2 of its 7 members answer" in said and "all 7 together recognised" in said
    else:
        assert "9 recordings of a speaker are too few to adapt to: at least 10 are needed." in said
    ask(workspace, monkeypatch, tmp_path / "1.wav", "--files", tmp_path)  # the folder holds the file: it counts once
    assert f"the ensemble {model} of" in capsys.readouterr().out


def test_another_model_is_refused_with_the_one_there_is(tmp_path):
    with pytest.raises(SystemExit, match="MODEL must be ensemble, or .* Received: MODEL=ensembel"):
        answer.main(["mine.wav", "--model", "ensembel", "--root", str(tmp_path)])
