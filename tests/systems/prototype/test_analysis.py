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
    assert table.to_numpy().tolist() == [[5, "anger", 1, 99.0], [0, "anger", 2, 90.0], [2, "sadness", 1, 95.0]]


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


def estimate_pitch(signal, rate, *range_hz):
    return analysis.summarise_track(analysis.prototype_pitch(signal, rate, *range_hz))


@pytest.mark.parametrize("f0_hz", [110.0, 220.0])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_pitch_of_a_harmonic_tone(f0_hz, rate):
    found, share = estimate_pitch(harmonic(f0_hz, rate=rate), rate)
    assert found == pytest.approx(f0_hz, rel=0.03) and share > 0.5


def test_noise_has_no_pitch():
    noise = 0.1 * np.random.default_rng(0).standard_normal(1600).astype(np.float32)
    found, share = estimate_pitch(noise, RATE)
    assert np.isnan(found) or share < 0.5
    assert analysis.nearest_note(float("nan")) == ""


def test_a_rumble_below_the_range_has_no_pitch_in_it():
    rumble = np.sin(2 * np.pi * 40 * np.arange(1600) / RATE).astype(np.float32)
    found, share = estimate_pitch(rumble, RATE)
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
    assert estimate_pitch(sounds[0], RATE)[0] == pytest.approx(200, rel=0.05)


def test_an_undetected_pitch_is_left_out_of_the_mean():
    index = pd.DataFrame({"speaker": "03", "emotion": "anger", "f0_hz": [200.0, 240.0, np.nan, np.nan]})
    row = analysis.pitch_by_emotion(index).iloc[0]
    assert (row["n"], row["detected"], row["f0_mean_hz"], row["note"]) == (4, 0.5, 220.0, "A3")


def pictures(*kinds, seed=0):
    """Random pictures (n, 128, 7); equal kinds are the same picture with a little noise."""
    rng = np.random.default_rng(seed)
    of_kind = {kind: rng.normal(-40, 15, (128, 7)) for kind in dict.fromkeys(kinds)}
    return np.stack([of_kind[kind] + rng.normal(0, 1, (128, 7)) for kind in kinds])


def ranked(recordings, emotion="anger"):
    n = len(recordings)
    table = pd.DataFrame({"speaker": "03", "emotion": emotion, "rank": range(1, n + 1), "prototype": range(n)})
    return table.assign(score=100.0 - table["rank"], nearest_utterance_id=list(recordings))


def test_twins_are_nearly_the_same_picture_of_one_voice_and_emotion():
    log_mels = pictures("a", "b", "a", "b")
    assert analysis.twins(log_mels, ["x"] * 4).all()
    assert analysis.twins(log_mels, ["x", "x", "x", "y"]).tolist() == [True, False, True, False]
    assert not analysis.twins(log_mels[:1], ["x"]).any()


def test_what_is_shown_first_repeats_neither_a_picture_nor_a_recording():
    table, log_mels = ranked("rsrtr"), pictures("a", "a", "b", "c", "d")
    shown = analysis.select_distinct(table, log_mels, top=3)
    # the first; not the second, which looks like it; not the third, of the first one's recording; the fourth;
    # then, as recordings may come again, the third
    assert shown.loc[shown["distinct"], "prototype"].tolist() == [0, 2, 3]
    assert shown["rank"].tolist() == [1, 2, 3, 4]
    assert shown["published_rank"].tolist() == [1, 3, 4, 2]
    assert shown["twin_of"].tolist() == [0, 0, 0, 1]
    assert not analysis.twins(log_mels[shown.index[shown["distinct"]]], ["x"] * 3).any()


def test_near_duplicates_are_not_shown_to_fill_a_row():
    shown = analysis.select_distinct(ranked("rst"), pictures("a", "a", "a"), top=3)
    assert shown["distinct"].tolist() == [True, False, False]
    assert shown["twin_of"].tolist() == [0, 1, 1]


def test_both_selections_are_set_side_by_side():
    log_mels = pictures("a", "a", "b", "c")
    shown = analysis.select_distinct(ranked("rrst"), log_mels, top=3)
    table = analysis.compare_selections(shown, log_mels[shown.index], 3)
    assert table["have a twin (%)"].round().tolist() == [67, 0]
    assert table["distinct recordings, fewest"].tolist() == [2, 3]


def test_pitch_is_looked_for_where_the_voice_is():
    woman = np.array([[180.0, 320.0], [np.nan, np.nan]])
    low, high = analysis.voice_range(woman)
    assert 120 < low < 180 and 320 < high < 500
    assert analysis.voice_range(woman[1:]) == analysis.F0_RANGE_HZ
    faulty = np.vstack([np.repeat(woman[:1], 20, axis=0), [[60.0, 600.0]]])
    np.testing.assert_allclose(analysis.voice_range(faulty), (low, high), err_msg="one recording with octave faults")
    found, share = estimate_pitch(harmonic(400.0), RATE, (low, high))
    assert found == pytest.approx(400, rel=0.03) and share > 0.5


def test_an_octave_below_its_recording_is_a_fault():
    assert analysis.is_octave_fault(100.0, np.array([200.0, 300.0]))
    assert not analysis.is_octave_fault(180.0, np.array([200.0, 300.0]))
    assert not analysis.is_octave_fault(100.0, np.full(2, np.nan))


def test_the_pitch_of_a_recording_is_where_it_was_sung():
    low, high = analysis.recording_pitch(np.concatenate([harmonic(150.0, 0.5), harmonic(250.0, 0.5)]), RATE)
    assert (low, high) == (pytest.approx(150, rel=0.05), pytest.approx(250, rel=0.05))
    assert np.isnan(analysis.recording_pitch(np.zeros(8000, np.float32), RATE)).all()


def test_strongest_bands_are_listed_with_their_notes():
    bands_hz = np.tile([440.0, 220, 880, 110, 55, 1760, 3520, 262, 330, 392], (2, 1))
    index = pd.DataFrame({"emotion": "anger", "rank": [1, 2]})
    listed = analysis.list_strongest(index, bands_hz)
    assert listed["strongest"].str.startswith("440=A4 220=A3 880=A5 110=A2 55=A1 ").all()
    counts = analysis.frequent_bands(index, bands_hz)
    assert counts.shape == (1, 10) and counts.loc["anger", 1] == "55 Hz A1: 2"


def test_band_statistics_are_those_of_all_levels_of_a_band():
    log_mels = np.random.default_rng(0).normal(-30, 8, (5, 128, 7))
    table = analysis.band_statistics(log_mels, RATE)
    levels = log_mels[:, 17].ravel()
    row = table.iloc[17]
    assert row["mean"] == pytest.approx(levels.mean()) and row["sd"] == pytest.approx(levels.std())
    assert row[["q1", "median", "q3"]].tolist() == pytest.approx(np.percentile(levels, [25, 50, 75]).tolist())
    inside = levels[levels >= row["q1"] - 1.5 * (row["q3"] - row["q1"])]
    assert row["low"] == pytest.approx(inside.min())
    values, counts = np.unique(levels.round(), return_counts=True)
    assert row["mode"] == values[counts.argmax()]


def test_prototypes_that_are_their_class_agree_with_it():
    table = analysis.band_statistics(pictures(*"abcde"), RATE)
    kept = analysis.profile_agreement(table, table)
    assert kept == {"correlation": pytest.approx(1), "difference (dB)": 0, "spread kept": pytest.approx(1)}
    louder = table.assign(mean=table["mean"] + 3)
    assert analysis.profile_agreement(louder, table)["difference (dB)"] == pytest.approx(3)


def test_bands_as_a_long_table():
    index = pd.DataFrame(
        {"speaker": ["03", "08"], "gender": ["male", "female"], "emotion": "anger", "rank": 1}, index=[7, 9]
    )
    long = analysis.long_bands(index, np.array([[100.0, 200.0], [300.0, 400.0]]))
    assert long["band_hz"].tolist() == [100, 200, 300, 400]
    assert long["speaker"].tolist() == ["03", "03", "08", "08"]
