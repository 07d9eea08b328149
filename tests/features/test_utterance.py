import numpy as np
import pytest

from ser_utils.features.utterance import RATE_HZ, describe_utterance, utterance_statistics


def voice(pitch_hz, seconds=1.0, syllables_hz=4.0, seed=0):
    """A buzz of that pitch, loud and soft so many times a second, between two silences of 0.2 s."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch_hz, t.shape)) / RATE_HZ
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20)) * (0.55 + 0.45 * np.sin(2 * np.pi * syllables_hz * t))
    noise = 1e-4 * np.random.default_rng(seed).standard_normal(len(t) + int(0.4 * RATE_HZ))
    noise[int(0.2 * RATE_HZ) : int(0.2 * RATE_HZ) + len(t)] += 0.2 * buzz
    return noise.astype(np.float32)


def test_a_vector_of_one_length_without_gaps():
    lengths = set()
    for signal in (voice(150), voice(220, 3.0), np.random.default_rng(0).normal(0, 0.1, 8000), voice(100, 0.1)):
        statistics = utterance_statistics(signal, RATE_HZ)
        assert statistics.dtype == np.float32 and np.isfinite(statistics).all()
        lengths.add(statistics.shape)
    assert lengths == {(1, len(describe_utterance(voice(150), RATE_HZ)))}


def test_known_signals():
    low, high = describe_utterance(voice(110), RATE_HZ), describe_utterance(voice(220), RATE_HZ)
    assert low["pitch_st mean"] == pytest.approx(12, abs=0.3) and high["pitch_st mean"] == pytest.approx(24, abs=0.3)
    assert low["seconds"] == pytest.approx(1.0, abs=0.1)  # the silence around it does not count
    rising = describe_utterance(voice(np.linspace(100, 300, RATE_HZ)), RATE_HZ)
    assert rising["pitch_st cosine 1"] < -1 < abs(low["pitch_st cosine 1"]) + -0.9
    assert rising["pitch_st spread"] > 10 * low["pitch_st spread"]
    hiss = describe_utterance(np.random.default_rng(0).normal(0, 0.1, RATE_HZ), RATE_HZ)
    assert hiss["harmonicity mean"] < low["harmonicity mean"] and hiss["flatness_db mean"] > low["flatness_db mean"]


def test_rhythm_is_heard_at_its_speed():
    slow, fast = (describe_utterance(voice(150, 2.0, syllables), RATE_HZ) for syllables in (3.0, 11.0))
    assert slow["modulation 2-4 Hz level"] > fast["modulation 2-4 Hz level"]
    assert fast["modulation 8-16 Hz level"] > slow["modulation 8-16 Hz level"]
    assert fast["level peaks a second"] > slow["level peaks a second"]


def test_loudness_moves_levels_alone():
    quiet, loud = (describe_utterance(gain * voice(150), RATE_HZ) for gain in (1, 2))
    assert loud["level_db mean"] - quiet["level_db mean"] == pytest.approx(20 * np.log10(2), abs=0.01)
    for name in ("pitch_st mean", "mfcc_1 mean", "centroid_hz mean", "seconds", "modulation 2-4 Hz level"):
        assert loud[name] == pytest.approx(quiet[name], rel=0.01)


def test_another_rate_is_refused():
    with pytest.raises(ValueError, match="16000 Hz. Received: sample_rate=8000"):
        utterance_statistics(voice(150), 8000)
