import os
import struct

import numpy as np
import pytest
import soundfile

from ser_utils.corpora.recordings import read_recording
from ser_utils.features.audio import (
    AudioError,
    heard_seconds,
    load_audio,
    read_samples,
    reduce_noise,
    resample,
    save_audio,
)

RATE = 16_000


def tone(frequency_hz=440.0, seconds=0.5, rate=RATE, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate)) / rate)).astype("float32")


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
    soundfile.write(tmp_path / "two.wav", tone(1000, rate=48_000) + tone(15_000, rate=48_000, amplitude=0.4), 48_000)
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
        ("pointer", "not audio, or damaged.*pointer of git-lfs.*git lfs pull"),
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


# what a network hears -----------------------------------------------------------------------------------------


def stereo(folder, left, right, **options):
    soundfile.write(folder / "stereo.wav", np.stack([left, right], 1), RATE, **options)
    return folder / "stereo.wav"


@pytest.mark.parametrize(
    "residue", [0.0, 1 / 32768, 1e-3], ids=["nothing is left", "a step of 16 bits is left", "noise is left"]
)
def test_channels_that_cancel_each_other_are_refused(tmp_path, residue):
    noise = residue * np.random.default_rng(0).uniform(-1, 1, RATE // 2).astype("float32")
    path = stereo(tmp_path, tone(), noise - tone(), subtype="FLOAT")
    with pytest.raises(AudioError, match="silent after its 2 channels are averaged.*Keep one"):
        load_audio(path)


def test_one_dead_channel_of_two_is_no_silence(tmp_path):
    path = stereo(tmp_path, tone(), 0 * tone())
    np.testing.assert_allclose(load_audio(path)[0], tone() / 2, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-4])
def test_a_tiny_scale_is_silence(tmp_path, scale):
    soundfile.write(tmp_path / "a.wav", scale * tone(), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="silent: its loudest sample.*scale it up"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("scale", [32768, 2**31, 100])
def test_whole_numbers_written_as_fractions_are_named(tmp_path, scale):
    soundfile.write(tmp_path / "a.wav", scale * tone(), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=f"reach {scale // 2:.0f}, where 1.0 is full scale.*Divide them"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("level", [0.3, -0.9, 0.002])
@pytest.mark.parametrize("noise", [0.0, 3e-5])
def test_a_constant_is_refused_wherever_it_lies(tmp_path, level, noise):
    samples = level + noise * np.random.default_rng(0).uniform(-1, 1, RATE)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="constant: all 16000 samples lie at"):
        load_audio(tmp_path / "a.wav")


def test_an_offset_larger_than_the_voice_is_told_and_a_small_one_is_not(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.6 + 0.1 * tone(), RATE)
    assert "zero line lies at +0.60" in read_samples(tmp_path / "a.wav").remark
    soundfile.write(tmp_path / "b.wav", 0.02 + 0.5 * tone(), RATE)
    assert read_samples(tmp_path / "b.wav").remark == ""


def test_sound_that_the_new_rate_cannot_hold_is_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(15_000, rate=48_000, seconds=2), 48_000)
    assert len(load_audio(tmp_path / "a.wav")[0]) == 96_000
    with pytest.raises(AudioError, match="silent at 16000 Hz: all its sound lies above 8000 Hz"):
        load_audio(tmp_path / "a.wav", RATE)


def test_silence_around_the_voice_is_not_heard():
    silence = 1e-4 * np.random.default_rng(0).standard_normal(RATE).astype("float32")
    for offset in (0.0, 0.5):
        signal = offset + np.concatenate([silence, tone(seconds=0.5), silence])
        assert heard_seconds(signal, RATE) == pytest.approx(0.5, abs=0.03)
    click = silence.copy()
    click[RATE // 2] = 0.5
    assert heard_seconds(click, RATE) <= 0.02


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_no_recording_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="no file, but a pipe or a device"):
        read_samples(tmp_path / "pipe.wav")
    assert "pipe or a device" in read_recording(tmp_path / "pipe.wav")["reason"]
