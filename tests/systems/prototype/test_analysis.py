"""Selection, pitch, notes and bands of sounds and spectrograms that are known."""

import numpy as np
import pandas as pd
import pytest

from ser_utils.features.spectral import log_mel_segments
from ser_utils.systems.prototype import analysis

RATE = 16_000
SCORES = np.array([[90, 10.0], [60, 40], [5, 95], [50, 50], [0, 0], [99, 1]])


def harmonic(f0_hz, seconds=0.1, rate=RATE):
    t = np.arange(round(seconds * rate)) / rate
    return sum(np.sin(2 * np.pi * k * f0_hz * t) / k for k in range(1, 12)).astype(np.float32) / 3


def test_the_best_of_each_emotion_are_ranked_by_score():
    table = analysis.select_prototypes(SCORES, ["anger", "sadness"], top=2)
    assert table.to_numpy().tolist() == [
        [5, "anger", 1, 99.0],
        [0, "anger", 2, 90.0],
        [2, "sadness", 1, 95.0],
    ]


def test_a_threshold_keeps_all_that_reach_it():
    table = analysis.select_prototypes(SCORES, ["anger", "sadness"], threshold=60)
    assert table["prototype"].tolist() == [5, 0, 1, 2]
    assert analysis.select_prototypes(SCORES, ["anger", "sadness"], threshold=99.5).empty
    with pytest.raises(ValueError, match="top=.*threshold="):
        analysis.select_prototypes(SCORES, ["anger", "sadness"])


def test_scorings_side_by_side():
    weights = np.array([[3.0, -1.0, 0.0], [0.1, 2.0, -2.0], [-1.0, -1.0, 5.0]])
    table = analysis.compare_scorings(
        weights, ["anger", "fear", "sadness"], ("positive", "min_max", "softmax"), top=1, threshold=50
    )
    assert table["in the top 1 of softmax"].tolist() == [1, 1, 1]
    assert table["mean score"].between(0, 100).all()


@pytest.mark.parametrize("f0_hz", [110.0, 220.0])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_pitch_of_a_harmonic_tone(f0_hz, rate):
    found, share = analysis.estimate_pitch(harmonic(f0_hz, rate=rate), rate)
    assert found == pytest.approx(f0_hz, rel=0.03) and share > 0.5


def test_noise_has_no_pitch():
    noise = 0.1 * np.random.default_rng(0).standard_normal(1600).astype(np.float32)
    found, share = analysis.estimate_pitch(noise, RATE)
    assert np.isnan(found) or share < 0.5
    assert analysis.nearest_note(float("nan")) == ""


def test_a_rumble_below_the_range_has_no_pitch_in_it():
    rumble = np.sin(2 * np.pi * 40 * np.arange(1600) / RATE).astype(np.float32)
    found, share = analysis.estimate_pitch(rumble, RATE)
    assert np.isnan(found) and share == 0


def test_notes_and_tones():
    assert analysis.nearest_note(220.0) == "A3" and analysis.nearest_note(262.0) == "C4"
    tone = analysis.make_tone(220.0, RATE)
    spectrum = np.abs(np.fft.rfft(tone))
    assert np.argmax(spectrum) * RATE / len(tone) == pytest.approx(220, abs=2)
    assert abs(tone).max() <= 0.3 and tone[0] == 0


@pytest.mark.parametrize("tone_hz", [500.0, 1800.0, 5000.0])
def test_the_strongest_band_is_where_the_tone_is(tone_hz):
    t = np.arange(1600) / RATE
    log_mel = log_mel_segments(np.sin(2 * np.pi * tone_hz * t)[None].astype(np.float32), RATE)
    strongest = analysis.strongest_bands(log_mel, RATE, n=3)
    assert strongest.shape == (1, 3)
    assert strongest[0, 0] == pytest.approx(tone_hz, rel=0.05)


def test_a_prototype_becomes_a_sound_of_its_length_and_pitch():
    log_mel = log_mel_segments(harmonic(200.0)[None], RATE)
    sounds = analysis.prototype_sounds(log_mel, RATE, length=1600)
    assert sounds.shape == (1, 1600) and 0.1 < abs(sounds).max() <= 1
    assert analysis.estimate_pitch(sounds[0], RATE)[0] == pytest.approx(200, rel=0.05)


def test_an_undetected_pitch_is_left_out_of_the_mean():
    index = pd.DataFrame({"speaker": "03", "emotion": "anger", "f0_hz": [200.0, 240.0, np.nan, np.nan]})
    row = analysis.pitch_by_emotion(index).iloc[0]
    assert (row["n"], row["detected"], row["f0_mean_hz"], row["note"]) == (4, 0.5, 220.0, "A3")


def test_bands_as_a_long_table():
    index = pd.DataFrame(
        {"speaker": ["03", "08"], "gender": ["male", "female"], "emotion": "anger", "rank": 1}, index=[7, 9]
    )
    long = analysis.long_bands(index, np.array([[100.0, 200.0], [300.0, 400.0]]))
    assert long["band_hz"].tolist() == [100, 200, 300, 400]
    assert long["speaker"].tolist() == ["03", "03", "08", "08"]
