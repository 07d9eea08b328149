import os
import struct

import numpy as np
import pytest
import soundfile

from ser_utils.features.audio import AudioError, load_audio, read_samples, reduce_noise, resample, save_audio

RATE = 16_000


def tone(frequency_hz=440.0, seconds=0.5, rate=RATE, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate)) / rate)).astype(
        "float32"
    )


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".aiff", ".mp3"])
def test_reads_what_libsndfile_reads(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, tone(), RATE)
    signal, rate = load_audio(path)
    assert rate == RATE and signal.dtype == np.float32 and signal.ndim == 1
    peak = np.argmax(np.abs(np.fft.rfft(signal))) * RATE / len(signal)
    assert peak == pytest.approx(440, abs=5)


def test_channels_are_averaged(tmp_path):
    left, right = tone(200), tone(300)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    signal, _ = load_audio(tmp_path / "stereo.wav")
    np.testing.assert_allclose(signal, (left + right) / 2, atol=1e-7)


def test_resampling_keeps_a_tone_and_removes_what_the_new_rate_cannot_hold(tmp_path):
    soundfile.write(
        tmp_path / "two.wav", tone(1000, rate=48_000) + tone(15_000, rate=48_000, amplitude=0.4), 48_000
    )
    signal, rate = load_audio(tmp_path / "two.wav", RATE)
    assert rate == RATE and len(signal) == RATE // 2
    middle = slice(1000, -1000)
    np.testing.assert_allclose(signal[middle], tone(1000)[middle], atol=2e-3)


def test_resampled_length_is_rounded_up():
    assert len(resample(tone(seconds=0.1)[:1001], RATE, 44_100)) == -(-1001 * 44_100 // RATE)


def test_sixteen_bits_survive_a_round_trip(tmp_path):
    whole = np.random.default_rng(0).integers(-32768, 32768, 4000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", whole, RATE)
    save_audio(tmp_path / "b.wav", *load_audio(tmp_path / "a.wav"))
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], whole)


def test_saving_scales_down_instead_of_clipping(tmp_path):
    signal, _ = load_audio(save_audio(tmp_path / "loud.wav", 4 * tone(), RATE))
    assert np.abs(signal).max() <= 1
    np.testing.assert_allclose(signal, tone(amplitude=1.0), atol=1e-4)


@pytest.mark.parametrize("signal", [np.zeros(0), np.array([0.1, np.nan]), np.zeros((4, 2))])
def test_saving_refuses_what_is_no_signal(tmp_path, signal):
    with pytest.raises(ValueError, match="finite signal"):
        save_audio(tmp_path / "x.wav", signal, RATE)
    assert not list(tmp_path.iterdir())


def broken(folder, kind):
    path = folder / f"{kind}.wav"
    soundfile.write(path, tone(), RATE)
    content = path.read_bytes()
    if kind == "flac":
        path = folder / "cut.flac"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 72862\n")
    elif kind in ("silent", "nan", "no_samples"):
        samples = {"silent": np.zeros(RATE), "nan": np.full(RATE, np.nan), "no_samples": np.zeros(0)}[kind]
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    else:
        path.write_bytes({"empty": b"", "truncated": content[:5000], "header": content[:36]}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "empty file"),
        ("truncated", r"truncated: \d+ of 16044 bytes are missing"),
        ("flac", "truncated|damaged"),
        ("header", "not audio, or damaged"),
        ("pointer", "not audio, or damaged"),
        ("silent", "silent: all 16000 samples are zero"),
        ("nan", "16000 samples are NaN"),
        ("no_samples", "holds no samples"),
    ],
)
def test_a_broken_file_is_named_with_its_reason(tmp_path, kind, words):
    path = broken(tmp_path, kind)
    with pytest.raises(AudioError, match=words) as caught:
        load_audio(path)
    assert caught.value.path == path and str(path) in str(caught.value)


def test_a_header_that_promises_too_much_is_an_audio_error(tmp_path):
    path = tmp_path / "huge.flac"
    soundfile.write(path, np.stack([tone()] * 8, 1), RATE)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the number of samples has 36 bits
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(AudioError, match="promises 68719476735 samples of 8 channels, more than memory"):
        read_samples(path)


def test_an_absent_file_is_an_audio_error(tmp_path):
    with pytest.raises(AudioError, match="No such file"):
        load_audio(tmp_path / "nowhere.wav")


def test_a_wav_written_to_a_pipe_is_not_called_truncated(tmp_path):
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)  # the length that a pipe's writer could not know
    path.write_bytes(content)
    assert len(load_audio(path)[0]) == RATE // 2


def test_names_that_are_not_utf8_are_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav")
    save_audio(tmp_path / "plain.wav", tone(), RATE)
    os.rename(tmp_path / "plain.wav", path)
    assert len(read_samples(path)[0]) == RATE // 2


def test_noise_is_reduced_and_the_voice_stays():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, RATE).astype("float32")
    voice = np.zeros(RATE, "float32")
    voice[RATE // 2 :] = rng.normal(0, 0.2, RATE // 2)  # the gate lowers single lines too: it is smoothed
    cleaned = reduce_noise(voice + noise, RATE, noise_s=0.4)
    assert cleaned.shape == voice.shape and cleaned.dtype == np.float32
    assert cleaned[: RATE // 3].std() < 0.2 * noise.std()
    assert cleaned[-RATE // 4 :].std() == pytest.approx(voice[-RATE // 4 :].std(), rel=0.1)
