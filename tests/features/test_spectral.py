"""Features against librosa one by one, published values and closed forms."""

import librosa
import numpy as np
import pytest

from ser_utils.features.spectral import (
    MEL,
    band_energy_ratio,
    log_mel,
    log_mel_segments,
    mel_to_audio,
    mfcc,
    pitch_track,
    spectral_centroid,
    split_segments,
    sustained_voice,
    voice_feature_names,
    voice_features,
    voice_statistic_names,
    voice_statistics,
)
from tests.conftest import GOLDEN_DIR

GOLDEN = np.load(GOLDEN_DIR / "prototype_paper.npz")
RATES = (16000, 48000)


def sine(frequency_hz, sample_rate, seconds=1.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * sample_rate)) / sample_rate)).astype(
        np.float32
    )


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def one_by_one(segments, sample_rate):
    mel = [librosa.feature.melspectrogram(y=s, sr=sample_rate, n_mels=128, **MEL.stft) for s in np.array(segments)]
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
        (lambda: split_segments(np.zeros(1599), 16000, segment_ms=100, hop_ms=20), r"1600 samples.*\(1599,\)"),
        (lambda: split_segments(np.zeros((2, 1600)), 16000, segment_ms=100, hop_ms=20), "mono"),
        (lambda: split_segments(np.zeros(1600), 16000, segment_ms=100, hop_ms=0), "hop_ms=0"),
        (lambda: log_mel_segments(np.zeros(1600), 16000), r"\(n_segments, length\)"),
        (lambda: mel_to_audio(np.zeros((64, 7)), 16000), r"\(64, 7\)"),
        (lambda: pitch_track(noise(4000), 16000, fmin=50, fmax=500, method="best"), "highest, pyin.*'best'"),
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


# whole utterances ------------------------------------------------------------------------------------------

inner = slice(6, -6)  # frames that the ends do not reach


def test_log_mel_of_an_utterance_is_librosas():
    signal = noise(16000)
    power = librosa.feature.melspectrogram(y=signal, sr=16000, n_fft=2048, hop_length=512, fmax=8000)
    np.testing.assert_allclose(log_mel(signal, 16000), librosa.power_to_db(power, ref=np.max), atol=1e-4)
    assert log_mel(signal, 8000, n_mels=64).shape == (64, 32)  # fmax is at most half the rate


def test_mfcc_are_librosas_with_energy_and_differences_below():
    signal = sine(300, 16000)
    rows = mfcc(signal, 16000)
    assert rows.shape == (41, 32)
    wanted = librosa.feature.mfcc(y=signal, sr=16000, n_mfcc=40, fmax=8000)
    np.testing.assert_allclose(rows[:40], wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(rows[40, inner], 10 * np.log10(0.5**2 / 2), atol=0.05)
    both = mfcc(signal, 16000, n_mfcc=13, energy=False, deltas=True)
    assert both.shape == (39, 32)
    np.testing.assert_array_less(abs(both[13:, 8:-8]), 0.1)  # a steady tone does not change


@pytest.mark.parametrize("method", ["highest", "pyin"])
@pytest.mark.parametrize("frequency", [90, 220, 401])
def test_pitch_of_a_sine_is_its_frequency(method, frequency):
    f0 = pitch_track(sine(frequency, 16000), 16000, fmin=50, fmax=500, method=method)
    np.testing.assert_allclose(f0[inner], frequency, rtol=0.012)


def test_highest_candidate_takes_the_harmonic_and_pyin_the_fundamental():
    voice = sine(150, 16000) + sine(300, 16000, amplitude=0.4)
    np.testing.assert_allclose(pitch_track(voice, 16000, fmin=50, fmax=500, method="highest")[inner], 300, rtol=0.012)
    np.testing.assert_allclose(pitch_track(voice, 16000, fmin=50, fmax=500)[inner], 150, rtol=0.012)


def test_silence_and_noise_have_no_pitch():
    for method in ("highest", "pyin"):
        assert np.isnan(pitch_track(np.zeros(8000), 16000, fmin=50, fmax=500, method=method)).all()
    assert np.isnan(pitch_track(noise(16000), 16000, fmin=50, fmax=500)).mean() > 0.8


def test_pitch_of_a_prototype_sound_is_found_within_its_100_ms():
    f0 = pitch_track(sine(140, 48000, 0.1), 48000, fmin=50, fmax=300)
    assert abs(np.nanmedian(f0) - 140) < 3


def test_band_energy_ratio_of_two_tones_and_of_noise():
    tones = sine(1000, 16000, amplitude=0.4) + sine(3000, 16000, amplitude=0.1)
    np.testing.assert_allclose(band_energy_ratio(tones, 16000)[inner], 20 * np.log10(0.4 / 0.1), atol=0.05)
    ratio = band_energy_ratio(noise(160000), 16000, split_hz=2000)
    assert abs(ratio.mean() - 10 * np.log10(2000 / 6000)) < 0.1
    assert (band_energy_ratio(np.zeros(8000), 16000) == 0).all()


def test_spectral_centroid_of_two_tones_and_of_noise():
    tones = sine(1000, 16000, amplitude=0.3) + sine(3000, 16000, amplitude=0.1)
    np.testing.assert_allclose(spectral_centroid(tones, 16000)[inner], (3 * 1000 + 3000) / 4, rtol=0.01)
    assert abs(spectral_centroid(noise(160000), 16000).mean() - 4000) < 40
    assert (spectral_centroid(np.zeros(8000), 16000) == 0).all()


def test_voice_features_share_one_grid_and_are_named():
    signal = sine(200, 16000)
    columns = dict(zip(voice_feature_names(), voice_features(signal, 16000).T, strict=True))
    assert columns["mfcc_0"].shape == (1 + 16000 // 256,)
    for name in ("pitch_highest_hz", "pitch_pyin_hz", "spectral_centroid_hz"):
        np.testing.assert_allclose(columns[name][inner], 200, rtol=0.02)
    assert (columns["band_energy_ratio_db"][inner] > 40).all()


def test_voice_statistics_leave_out_silence_and_missing_pitch():
    frames = np.array([[0, 100, 1], [0, np.nan, 3], [0, 104, 5], [-400, 900, 900]], float)
    names = voice_statistic_names(["mfcc_0", "pitch", "other"])
    got = dict(zip(names, voice_statistics(frames), strict=True))
    assert got["mean mfcc_0"] == got["std mfcc_0"] == 0
    assert (got["mean pitch"], got["std pitch"], got["movement pitch"]) == (102, 2, 0)
    assert (got["mean other"], got["movement other"]) == (3, 0)
    np.testing.assert_allclose(got["std other"], np.std([1, 3, 5]), rtol=1e-6)
    never = frames.copy()
    never[:, 1] = np.nan
    assert dict(zip(names, voice_statistics(never), strict=True))["mean pitch"] == 0


def test_sustained_voice_has_the_pitch_and_envelope_it_was_given():
    tilt = np.array([-300.0, 120.0])  # loud at low frequencies
    tone = sustained_voice(tilt, 200.0, 16000, seconds=1.0)
    assert abs(np.nanmedian(pitch_track(tone, 16000, fmin=50, fmax=500)) - 200) < 3
    assert abs(abs(tone).max() - 0.3) < 1e-6
    spectrum = abs(np.fft.rfft(tone * np.hanning(len(tone))))
    place = np.interp(np.arange(200, 7800, 200), librosa.mel_frequencies(130, fmax=8000)[1:-1], np.arange(128))
    wanted_db = 120 * np.sqrt(2 / 128) * np.cos(np.pi / 128 * (place + 0.5))
    got_db = 20 * np.log10(spectrum[200:7800:200])
    assert abs((got_db - got_db[0]) - (wanted_db - wanted_db[0])).max() < 1
