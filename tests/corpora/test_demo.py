import re

import librosa
import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile
from scipy.signal import lfilter
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_utils.corpora import demo as demo_corpus
from ser_utils.corpora.demo import (
    CUE_BANDS_HZ,
    DECOY_BANDS_HZ,
    EXPRESSIONS,
    SAMPLE_RATE_HZ,
    SENTENCES,
    SPEAKERS,
    make_demo_corpus,
    make_planted_corpus,
    synthesise_utterance,
)
from ser_utils.workspace import WorkspaceError

EMOTION_OF_CODE = {expression.code: emotion for emotion, expression in EXPRESSIONS.items()}


def read_corpus(folder):
    """{file stem: float signal}"""
    signals = {}
    for path in sorted(folder.glob("wav/*.wav")):
        rate, pcm = wavfile.read(path)
        assert rate == 16_000 and pcm.dtype == np.int16 and pcm.ndim == 1
        signals[path.stem] = pcm / 32768
    return signals


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return read_corpus(make_demo_corpus(tmp_path_factory.mktemp("demo") / "corpus"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = make_planted_corpus(tmp_path_factory.mktemp("planted") / "corpus")
    return read_corpus(folder), pd.read_csv(folder / "cues.csv")


@pytest.fixture(scope="module")
def measures(demo):
    return pd.DataFrame([measure(name, signal) for name, signal in demo.items()])


def measure(name, signal):
    """What one hears in an utterance, taken from its samples alone."""
    frames = librosa.util.frame(signal, frame_length=1024, hop_length=256)  # (1024, frames)
    spectrum = np.abs(np.fft.rfft(frames, 2048, axis=0)) ** 2
    correlation = np.fft.irfft(spectrum, axis=0)[:1024]
    # voiced frames are loud and have most of their energy low down
    low = spectrum[: 1000 * 2048 // SAMPLE_RATE_HZ].sum(axis=0) / spectrum.sum(axis=0)
    voiced = (frames.std(axis=0) > 0.3 * frames.std(axis=0).max()) & (low > 0.5)
    lags = slice(SAMPLE_RATE_HZ // 450, SAMPLE_RATE_HZ // 70)
    unbiased = correlation / (1024 - np.arange(1024))[:, None] * 1024 / correlation[0]
    f0_hz = librosa.yin(signal, fmin=70, fmax=450, sr=SAMPLE_RATE_HZ, frame_length=1024, hop_length=256, center=False)
    f0_st = 12 * np.log2(f0_hz[: frames.shape[1]][voiced])
    half = len(f0_st) // 2
    mean = spectrum[:, voiced].mean(axis=1)
    edge = 2000 * 2048 // SAMPLE_RATE_HZ
    return {
        "speaker": name[:2],
        "sentence": name[2:5],
        "emotion": EMOTION_OF_CODE[name[5]],
        "f0_st": np.median(f0_st),
        "f0_range_st": np.subtract(*np.percentile(f0_st, [85, 15])),
        "contour_st": np.median(f0_st[half:]) - np.median(f0_st[:half]),
        "duration_s": len(signal) / SAMPLE_RATE_HZ,
        "level_db": 20 * np.log10(signal.std()),
        "high_db": 10 * np.log10(mean[edge:].sum() / mean[:edge].sum()),
        "periodicity": np.median(unbiased[lags].max(axis=0)[voiced]),
    }


def test_same_seed_same_samples():
    first = synthesise_utterance("51", "anger", "a01", seed=3)
    synthesise_utterance("62", "fear", "b01", seed=3)
    assert first.dtype == np.float32
    assert first.tobytes() == synthesise_utterance("51", "anger", "a01", seed=3).tobytes()
    assert first.tobytes() != synthesise_utterance("51", "anger", "a01", seed=4).tobytes()


@pytest.mark.parametrize(
    "choice, text",
    [
        (("03", "anger", "a01"), "Unknown speaker; accepted: 51, 52, 61, 62. Received: speaker='03'"),
        (("51", "calm", "a01"), "Unknown emotion; accepted: anger, .* Received: emotion='calm'"),
        (("51", "anger", "a03"), "Unknown sentence; accepted: a01, .* Received: sentence='a03'"),
    ],
)
def test_unknown_choice_lists_the_accepted_ones(choice, text):
    with pytest.raises(ValueError, match=text):
        synthesise_utterance(*choice)


def test_corpus_is_complete_and_sounds(demo):
    assert len(demo) == 168
    assert all(re.fullmatch(r"(51|52|61|62)(a0[12457]|b01)[WLEAFTN]a", name) for name in demo)
    for signal in demo.values():
        assert 1 <= len(signal) / SAMPLE_RATE_HZ <= 2
        assert np.abs(signal).max() < 0.98
        assert -40 < 20 * np.log10(signal.std()) < -15
    assert sorted(speaker.gender for speaker in SPEAKERS.values()) == ["female", "female", "male", "male"]


@pytest.mark.parametrize(
    "measure, more, less",
    [
        ("f0_st", "anger", "sadness"),
        ("f0_st", "fear", "neutral"),
        ("f0_st", "happiness", "boredom"),
        ("f0_st", "neutral", "disgust"),
        ("f0_range_st", "happiness", "boredom"),
        ("f0_range_st", "anger", "neutral"),
        ("f0_range_st", "neutral", "sadness"),
        ("contour_st", "happiness", "sadness"),
        ("contour_st", "fear", "disgust"),
        ("duration_s", "sadness", "neutral"),
        ("duration_s", "disgust", "fear"),
        ("level_db", "anger", "sadness"),
        ("high_db", "anger", "happiness"),
        ("high_db", "happiness", "neutral"),
        ("high_db", "neutral", "sadness"),
        ("periodicity", "neutral", "fear"),
        ("periodicity", "neutral", "disgust"),
    ],
)
def test_emotions_move_the_voice_as_published(measures, measure, more, less):
    mean = measures.groupby(["speaker", "emotion"])[measure].mean().unstack()
    assert (mean[more] > mean[less]).all(), mean[[more, less]]


def test_women_speak_higher(measures):
    mean = measures.groupby("speaker")["f0_st"].mean()
    assert mean[["51", "52"]].min() > mean[["61", "62"]].max() + 5


def test_tract_equals_a_cascade_of_resonators():
    source = np.random.default_rng(0).standard_normal(8000)
    tract = demo_corpus._resonate(source, np.tile([500.0, 1500, 2500], (100, 1)), 1.1)
    wanted = source
    for formant_hz, bandwidth_hz in zip(np.arange(500, 7000, 1000), demo_corpus.BANDWIDTHS_HZ, strict=True):
        radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ)
        angle = 2 * np.pi * 1.1 * formant_hz / SAMPLE_RATE_HZ
        section = [1, -2 * radius * np.cos(angle), radius**2]
        wanted = lfilter([sum(section)], section, wanted)
    middle = slice(1000, -1000)
    np.testing.assert_allclose(tract[middle], wanted[middle], atol=1e-4 * wanted.std())


def test_pulses_keep_the_f0_asked_for():
    expression = demo_corpus.Expression("N", 0, 0, 0, 1, 0, 0, 0.2, 0, -80)
    source = demo_corpus._glottal_source(np.full(16_000, 125.0), expression, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(source))
    assert np.argmax(spectrum[:200]) == 125
    assert spectrum[250] > 30 * spectrum[190]


def test_neither_trivial_nor_hopeless(demo, measures):
    def statistics(signal):
        mfcc = librosa.feature.mfcc(y=signal, sr=SAMPLE_RATE_HZ, n_mfcc=20, n_fft=512, hop_length=160)
        return np.r_[mfcc.mean(axis=1), mfcc.std(axis=1), librosa.feature.delta(mfcc).std(axis=1)]

    def speaker_independent_uar(features):
        truth = measures["emotion"].to_numpy()
        model = make_pipeline(StandardScaler(), SVC())
        prediction = cross_val_predict(model, features, truth, groups=measures["speaker"], cv=LeaveOneGroupOut())
        return np.mean(prediction == truth)  # classes are equally frequent

    assert 0.5 < speaker_independent_uar([statistics(signal) for signal in demo.values()]) < 0.85
    assert 0.2 < speaker_independent_uar(measures[["duration_s"]]) < 0.6
    assert 0.2 < speaker_independent_uar(measures[["level_db"]]) < 0.6


def test_cue_alone_tells_the_label(planted):
    signals, cues = planted
    assert sorted(signals) == sorted(cues["utterance"].unique())
    of_label = cues[~cues["is_decoy"]].set_index("utterance")
    assert of_label.index.is_unique and len(of_label) == 168
    for name, cue in of_label.iterrows():
        assert [cue["low_hz"], cue["high_hz"]] == CUE_BANDS_HZ[EMOTION_OF_CODE[name[5]]]


def test_patches_sound_where_the_table_says(planted):
    signals, cues = planted
    contrast = []
    for cue in cues.itertuples():
        spectrum = np.abs(librosa.stft(signals[cue.utterance], n_fft=512, hop_length=80)) ** 2
        times_ms = np.arange(spectrum.shape[1]) * 5
        hertz = np.arange(257) * SAMPLE_RATE_HZ / 512
        band = spectrum[(hertz >= cue.low_hz) & (hertz <= cue.high_hz)].mean(axis=0)
        inside = (times_ms > cue.start_ms + 10) & (times_ms < cue.end_ms - 10)
        contrast.append(10 * np.log10(band[inside].mean() / np.median(band[~inside])))
    contrast = cues.assign(contrast_db=contrast).groupby(["is_decoy"])["contrast_db"]
    assert contrast.median().min() > 20
    assert contrast.quantile(0.05).min() > 3
    assert np.ptp(contrast.median()) < 6


def test_decoys_know_nothing_of_the_label(planted):
    cues = planted[1]
    decoys = cues[cues["is_decoy"]]
    assert (decoys.groupby("utterance").size() == 2).all()
    assert decoys[["low_hz", "high_hz"]].drop_duplicates().isin(np.ravel(DECOY_BANDS_HZ)).all(axis=None)
    every = np.array(sorted([*CUE_BANDS_HZ.values(), *DECOY_BANDS_HZ]))
    assert (every[1:, 0] > every[:-1, 1]).all()
    met = pd.crosstab(decoys["low_hz"], decoys["utterance"].str[5])
    assert met.shape == (7, 7) and met.min(axis=None) > 0
    moments = cues.sort_values(["utterance", "start_ms"])
    following = moments.groupby("utterance")["start_ms"].shift(-1)
    assert not (following < moments["end_ms"]).any()


def brief(speaker, emotion, sentence, *, seed):
    return np.full(16_000, 0.1, np.float32)


def test_planted_labels_do_not_follow_the_voice(monkeypatch):
    voiced = []

    def note(speaker, emotion, sentence, *, seed):
        voiced.append(emotion)
        return brief(speaker, emotion, sentence, seed=seed)

    monkeypatch.setattr(demo_corpus, "synthesise_utterance", note)
    labels = [label for _, _, label, _, _ in demo_corpus._planted_utterances(0, len(demo_corpus.SPEAKERS))]
    met = pd.crosstab(np.array(labels), np.array(voiced))
    assert met.shape == (7, 7) and met.min(axis=None) == 3 and met.max(axis=None) == 4


def test_finished_corpus_is_kept_and_another_seed_replaces_it(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_corpus, "synthesise_utterance", brief)
    folder = make_demo_corpus(tmp_path / "corpus")
    assert (folder / "corpus.json").exists()
    made = (folder / "wav").stat().st_ino
    assert make_demo_corpus(folder) == folder
    assert (folder / "wav").stat().st_ino == made
    make_demo_corpus(folder, seed=1)
    assert (folder / "wav").stat().st_ino != made
    next(folder.glob("wav/*.wav")).unlink()
    make_demo_corpus(folder, seed=1)
    assert len(list(folder.glob("wav/*.wav"))) == 168


def test_interrupted_corpus_leaves_nothing(tmp_path, monkeypatch):
    def break_off(speaker, emotion, sentence, *, seed):
        if sentence == list(SENTENCES)[2]:
            raise KeyboardInterrupt
        return brief(speaker, emotion, sentence, seed=seed)

    monkeypatch.setattr(demo_corpus, "synthesise_utterance", break_off)
    with pytest.raises(KeyboardInterrupt):
        make_demo_corpus(tmp_path / "corpus")
    assert not list(tmp_path.iterdir())


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(WorkspaceError, match="holds something else than a synthetic corpus"):
        make_demo_corpus(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
