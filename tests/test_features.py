"""Features against librosa one by one, published values and closed forms."""

from pathlib import Path

import librosa
import numpy as np
import pytest

from ser_utils.features import MEL, log_mel_segments, mel_to_audio, split_segments

GOLDEN = np.load(Path(__file__).parent / "golden" / "prototype_paper.npz")
RATES = (16000, 48000)


def sine(frequency_hz, sample_rate, seconds=1.0, amplitude=0.5):
    return (
        amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * sample_rate)) / sample_rate)
    ).astype(np.float32)


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def one_by_one(segments, sample_rate):
    mel = [
        librosa.feature.melspectrogram(y=s, sr=sample_rate, n_mels=128, **MEL.stft)
        for s in np.array(segments)
    ]
    return np.stack([librosa.power_to_db(m, ref=np.max) for m in mel])


@pytest.mark.parametrize("rate", RATES)
def test_log_mel_segments_agree_with_the_published_ones(rate):
    segments = split_segments(GOLDEN[f"signal_{rate}"], rate, segment_ms=100, hop_ms=20)
    log_mel = log_mel_segments(segments, rate)
    assert log_mel.dtype == np.float32
    np.testing.assert_allclose(log_mel, GOLDEN[f"log_mel_{rate}"], atol=1e-4)


@pytest.mark.parametrize(
    ("rate", "length", "n"), [(8000, 800, 1), (16000, 1600, 37), (44100, 4410, 7), (16000, 20000, 3)]
)
def test_log_mel_segments_equal_librosa_one_by_one(rate, length, n):
    segments = noise(n * length).reshape(n, length) * np.geomspace(1, 1e-3, length, dtype=np.float32)
    np.testing.assert_allclose(log_mel_segments(segments, rate), one_by_one(segments, rate), atol=1e-4)


def test_silence_has_one_level_and_no_segments_give_no_rows():
    assert (log_mel_segments(np.zeros((2, 1600)), 16000) == 0).all()
    assert log_mel_segments(np.zeros((0, 1600)), 16000).shape == (0, 128, 7)


def test_sine_peaks_in_its_mel_band():
    centres = librosa.mel_frequencies(130, fmax=8000)[1:-1]
    for frequency in (440, 1000, 3000):
        log_mel = log_mel_segments(sine(frequency, 16000, 0.1)[None], 16000)[0]
        assert abs(centres[log_mel[:, 3].argmax()] - frequency) < 70


def test_segments_overlap_and_the_tail_is_dropped():
    signal = np.arange(5000, dtype=np.float32)
    segments = split_segments(signal, 16000, segment_ms=100, hop_ms=20)
    assert segments.shape == (11, 1600)
    np.testing.assert_array_equal(segments[3], signal[960:2560])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: split_segments(np.zeros(1599), 16000, segment_ms=100, hop_ms=20),
            r"1600 samples.*\(1599,\)",
        ),
        (lambda: split_segments(np.zeros((2, 1600)), 16000, segment_ms=100, hop_ms=20), "mono"),
        (lambda: split_segments(np.zeros(1600), 16000, segment_ms=100, hop_ms=0), "hop_ms=0"),
        (lambda: log_mel_segments(np.zeros(1600), 16000), r"\(n_segments, length\)"),
        (lambda: mel_to_audio(np.zeros((64, 7)), 16000), r"\(64, 7\)"),
    ],
)
def test_errors_name_what_was_wanted_and_what_came(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("rate", RATES)
def test_sound_of_a_spectrogram_has_that_spectrogram(rate):
    segments = split_segments(GOLDEN[f"signal_{rate}"], rate, segment_ms=100, hop_ms=20)[::4]
    log_mel = log_mel_segments(segments, rate)
    sounds = mel_to_audio(log_mel, rate, length=segments.shape[1])
    assert sounds.shape == segments.shape
    assert sounds.dtype == np.float32
    np.testing.assert_allclose(abs(sounds).max(axis=1), 0.5, rtol=1e-5)
    assert abs(log_mel_segments(sounds, rate) - log_mel).mean() < 2  # dB


def test_a_sound_depends_on_its_seed_alone():
    log_mel = GOLDEN["log_mel_16000"][:3]
    alone = mel_to_audio(log_mel[1], 16000, seed=4)
    assert alone.shape == (6 * 256,)
    np.testing.assert_array_equal(alone, mel_to_audio(log_mel[1], 16000, seed=4))
    np.testing.assert_allclose(alone, mel_to_audio(log_mel, 16000, seed=4)[1], atol=1e-3)
    assert abs(alone - mel_to_audio(log_mel[1], 16000, seed=5)).max() > 0.01
    padded = np.pad(log_mel[1], ((0, 0), (0, 1)), constant_values=-80)
    np.testing.assert_array_equal(
        mel_to_audio(padded, 16000, length=1600), mel_to_audio(log_mel[1], 16000, length=1600)
    )
