import librosa
import numpy as np
import pytest

from ser_utils.features import augmentation as change

RATE = 16_000


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def tone():
    return (0.3 * np.sin(2 * np.pi * 400 * np.arange(RATE) / RATE)).astype("float32")


def pitch_of(signal):
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal))))
    return spectrum.argmax() * RATE / len(signal)


def test_noise_has_the_wanted_ratio(tone):
    noisy = change.add_noise(tone, rng(), snr_db=(12, 12))
    ratio = 10 * np.log10(np.mean(tone**2) / np.mean((noisy - tone) ** 2))
    assert ratio == pytest.approx(12, abs=0.01)


def test_pitch_moves_by_semitones_and_time_does_not(tone):
    higher = change.shift_pitch(tone, RATE, rng(), semitones=(4, 4))
    assert len(higher) == len(tone)
    assert pitch_of(higher) == pytest.approx(400 * 2 ** (4 / 12), rel=0.01)


def test_time_stretches_and_pitch_does_not(tone):
    faster = change.stretch_time(tone, rng(), rate=(1.25, 1.25))
    assert len(faster) == pytest.approx(len(tone) / 1.25, rel=0.01)
    assert pitch_of(faster) == pytest.approx(400, rel=0.01)


@pytest.mark.parametrize("seconds", [0.25, -0.25, 2.0, -2.0, 0.0])
def test_a_shifted_clip_enters_late_or_leaves_early_without_wrapping(tone, seconds):
    moved = change.shift_time(tone, RATE, rng(), seconds=(seconds, seconds))
    n = round(abs(seconds) * RATE)
    expected = np.concatenate([np.zeros(n), tone]) if seconds >= 0 else np.concatenate([tone, np.zeros(n)])
    expected = expected[: len(tone)] if seconds >= 0 else expected[n:]
    np.testing.assert_array_equal(moved, expected.astype("float32"))


def test_gain_is_in_decibels(tone):
    louder = change.change_gain(tone, rng(), gain_db=(6, 6))
    np.testing.assert_allclose(louder, tone * 10 ** (6 / 20), rtol=1e-6)


@pytest.mark.parametrize(("mask", "axis"), [(change.mask_bands, 1), (change.mask_frames, 0)])
def test_a_mask_silences_one_run_and_leaves_the_rest(mask, axis):
    spectrogram = rng().uniform(-80, 0, (60, 40))
    masked = mask(spectrogram, rng(1), width=(5, 5))
    silent = (masked != spectrogram).any(axis=1 - axis)
    where = np.flatnonzero(silent)
    assert len(where) == 5 and (np.diff(where) == 1).all()
    assert (np.take(masked, where, axis=axis) == spectrogram.min()).all()
    assert spectrogram.max() <= 0 and (masked[~silent] == spectrogram[~silent]).all() if axis == 0 else True


def test_a_mask_never_swallows_more_than_there_is():
    assert change.mask_bands(np.ones((9, 4)), rng(), width=(30, 30)).shape == (9, 4)
    short = rng().normal(size=(8, 4))
    masked = change.mask_frames(short, rng(), width=(50, 50))
    assert (masked != short).any(axis=1).sum() <= 2


def log_mel():
    return np.clip(rng(3).normal(-40, 15, (120, 128)), -80, 0).astype("float32")


@pytest.mark.parametrize(
    ("mask", "axis", "widest"),
    [(change.published_frequency_mask, 1, (10, 30)), (change.published_time_mask, 0, (10, 50))],
)
def test_published_masks_are_as_wide_and_as_loud_as_the_sources(mask, axis, widest):
    spectrogram, draws = np.full((120, 128), -40.0), rng(7)
    widths, firsts = [], []
    for seed in range(3000):
        masked = mask(spectrogram, rng(seed))
        touched = np.flatnonzero((masked == 0).any(axis=1 - axis))
        assert (masked[masked != -40] == 0).all() and (not len(touched) or np.ptp(touched) == len(touched) - 1)
        widths.append(len(touched))
        firsts += list(touched[:1])
    # the source, literally: width = randint(0, randint(10, widest)), first = randint(0, size - width)
    literal = [draws.integers(0, draws.integers(widest[0], widest[1] + 1) + 1) for _ in range(3000)]
    assert max(widths) == widest[1] and min(widths) == 0
    assert np.mean(widths) == pytest.approx(np.mean(literal), abs=0.6)
    assert np.std(widths) == pytest.approx(np.std(literal), abs=0.6)
    assert min(firsts) == 0 and max(firsts) >= spectrogram.shape[axis] - 3


def test_published_noise_is_next_to_nothing():
    noise = change.published_noise(log_mel(), rng()) - log_mel()
    assert noise.std() == pytest.approx(0.01, rel=0.05) and np.abs(noise).max() < 0.1


def test_published_pitch_shift_is_the_sources_on_the_power_of_each_band():
    steps = rng(4).uniform(-4, 4)
    power = librosa.db_to_power(log_mel().T)
    with pytest.warns(UserWarning, match="n_fft"):
        rows = [librosa.effects.pitch_shift(row, sr=44_100, n_steps=steps) for row in power[:3]]
    whole = np.concatenate([rows, np.ones_like(power[3:])])
    shifted = change.published_pitch_shift(log_mel(), rng(4))
    assert shifted.shape == (120, 128) and shifted.min() >= shifted.max() - 80.001
    # compared above the floor, which hangs on the maximum over all bands
    expected = librosa.power_to_db(whole)[:3].T
    heard = expected > -30
    np.testing.assert_allclose(shifted[:, :3][heard], expected[heard], atol=1e-3)


def test_a_published_copy_is_changed_with_probability_six_tenths_in_the_sources_order():
    mixed = [change.published_clip(log_mel(), seed=seed, changes=("noise",)) for seed in range(400)]
    changed = np.mean([(copy != log_mel()).any() for copy in mixed])
    assert changed == pytest.approx(0.6, abs=0.08)
    assert list(change.PUBLISHED_CHANGES) == ["noise", "pitch shift", "frequency mask", "time mask"]


def literal_copy(log_mel, draw):
    """One copy as the source's loop makes it, on (n_mels, n_frames); its `randint` includes both ends."""

    def randint(low, high):
        return int(draw.integers(low, high + 1))

    mel = log_mel.T.astype("float64")
    if draw.random() < 0.6:
        mel = mel + draw.normal(0, 0.01, log_mel.shape).T
    if draw.random() < 0.6:
        power = librosa.db_to_power(mel.astype("float32"))
        mel = librosa.power_to_db(librosa.effects.pitch_shift(power, sr=44_100, n_steps=draw.uniform(-4, 4)))
    for axis, widest in ((0, 30), (1, 50)):
        if draw.random() < 0.6:
            width = randint(0, randint(10, widest))
            first = randint(0, mel.shape[axis] - width)
            mel = mel.copy()
            mel[(slice(None),) * axis + (slice(first, first + width),)] = 0
    return mel.T


@pytest.mark.filterwarnings("ignore:n_fft")
def test_a_published_copy_is_the_sources_loop():
    for seed in range(12):
        np.testing.assert_allclose(
            change.published_clip(log_mel(), seed=seed), literal_copy(log_mel(), rng(seed)), atol=1e-3
        )


def test_the_same_seed_gives_the_same_copy_and_another_another(tone):
    def spectrogram_of(signal, rate):
        return np.abs(np.fft.rfft(signal[: len(signal) // 400 * 400].reshape(-1, 400)))

    names = [*change.WAVEFORM_CHANGES, *change.SPECTROGRAM_CHANGES]
    one, same, other = (
        change.artificial_clip(tone, RATE, spectrogram_of, names, seed=seed) for seed in ((1, 2), (1, 2), (1, 3))
    )
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or (one != other).any()
    untouched = change.artificial_clip(tone, RATE, spectrogram_of, names, seed=0, probability=0)
    np.testing.assert_array_equal(untouched, spectrogram_of(tone, RATE))
    np.testing.assert_array_equal(change.published_clip(log_mel(), seed=1), change.published_clip(log_mel(), seed=1))


def test_an_unknown_change_is_refused(tone):
    with pytest.raises(ValueError, match="noise, pitch shift.* Received: reverb"):
        change.artificial_clip(tone, RATE, None, ["reverb"], seed=0)
