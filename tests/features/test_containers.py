"""Sound files whose headers do not tell the truth: what is there is read and told, or refused with the reason."""

import io
import re
import struct

import numpy as np
import pytest
import soundfile

from ser_utils.features.audio import AudioError, read_samples

RATE_HZ = 16_000


def voice(n_samples=RATE_HZ, seed=0):
    """Noise, so that no byte at the end is zero."""
    return np.random.default_rng(seed).uniform(-0.3, 0.3, n_samples).astype(np.float32)


def encode(form, subtype="PCM_16", *, samples=None, rate_hz=RATE_HZ, **options):
    stream = io.BytesIO()
    soundfile.write(stream, voice() if samples is None else samples, rate_hz, format=form, subtype=subtype, **options)
    return stream.getvalue()


def decode(content):
    return soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0]


def read(folder, content, name="a.wav"):
    (folder / name).write_bytes(content)
    return read_samples(folder / name)


# where each container keeps the size of its sound: struct format, and the place in the file
SIZES = {
    "RIFF": (encode("WAV"), "<I", b"data", 4),
    "RIFX": (encode("WAV", endian="BIG"), ">I", b"data", 4),
    "RF64": (encode("RF64"), "<Q", b"ds64", 16),
    "W64": (encode("W64"), "<Q", b"data", 16),
    "AIFF": (encode("AIFF"), ">I", b"SSND", 4),
    "AIFC": (encode("AIFF", "FLOAT"), ">I", b"SSND", 4),
    "CAF": (encode("CAF"), ">Q", b"data", 4),
    "AU": (encode("AU"), ">I", b".snd", 8),
    "AU_little": (encode("AU", endian="LITTLE"), "<I", b"dns.", 8),
}
LARGEST = {"I": 0xFFFFFFFF, "Q": 0xFFFFFFFFFFFFFFFF}


def with_size(container, change):
    """The container's bytes with another size of the sound: `change` of the true one and of the largest number."""
    content, form, name, further = SIZES[container]
    place, changed = content.index(name) + further, bytearray(content)
    true = struct.unpack_from(form, content, place)[0]
    struct.pack_into(form, changed, place, change(true, LARGEST[form[1]]))
    return bytes(changed)


@pytest.mark.parametrize("container", SIZES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda true, largest: 0, "promises 0 bytes|does not tell its length"),
        (lambda true, largest: largest, "does not tell its length"),
        (lambda true, largest: largest >> 1, "does not tell its length"),
        (lambda true, largest: 0x10000000, "does not tell its length"),
        (lambda true, largest: true + 1, r"promises 1 byte\(s\) more"),
        (lambda true, largest: true + 8, r"promises 8 byte\(s\) more"),
        (lambda true, largest: true + 36, r"promises 36 byte\(s\) more"),
        (lambda true, largest: true // 2, "promises .* are read"),
        (lambda true, largest: true - 1000, "promises .* are read"),
    ],
    ids=["zero", "largest", "half of the largest", "256 MB", "1 more", "8 more", "36 more", "half", "1000 less"],
)
def test_sound_behind_a_wrong_size_is_read_and_told(tmp_path, container, change, words):
    recording = read(tmp_path, with_size(container, change))
    np.testing.assert_array_equal(recording.samples, decode(SIZES[container][0]))
    assert recording.sample_rate_hz == RATE_HZ
    assert re.search(words, recording.remark)


@pytest.mark.parametrize("container", SIZES)
@pytest.mark.parametrize("share", [0.3, 0.67, 0.95])
def test_a_truncated_file_is_refused_with_the_bytes_that_are_missing(tmp_path, container, share):
    content = SIZES[container][0]
    kept = int(share * len(content))
    with pytest.raises(AudioError, match=f"truncated: {len(content) - kept} of {len(content)} bytes are missing"):
        read(tmp_path, content[:kept])


@pytest.mark.parametrize(
    "encoding",
    [
        ("W64", "GSM610"),
        ("AIFF", "GSM610"),
        ("AU", "G721_32"),
        ("CAF", "ALAC_16"),
        ("NIST", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_compressed_sound_that_is_truncated_is_refused(tmp_path, encoding):
    content = encode(*encoding, samples=voice(3 * RATE_HZ))
    with pytest.raises(AudioError, match="truncated"):
        read(tmp_path, content[: len(content) * 2 // 3])


@pytest.mark.parametrize(
    "encoding",
    [
        ("WAV", "GSM610"),
        ("WAV", "G721_32"),
        ("WAV", "NMS_ADPCM_16"),
        ("AU", "G723_24"),
        ("W64", "GSM610"),
        ("AIFF", "GSM610"),
        ("WAV", "IMA_ADPCM"),
        ("WAV", "MS_ADPCM"),
        ("WAV", "ULAW"),
        ("WAVEX", "PCM_24"),
        ("CAF", "ALAC_24"),
        ("WAV", "PCM_32"),
    ],
)
@pytest.mark.parametrize("n_samples", [1601, 1603, 4096])
def test_valid_files_are_read_to_the_last_bit_without_a_remark(tmp_path, encoding, n_samples):
    content = encode(*encoding, samples=voice(n_samples))
    with soundfile.SoundFile(io.BytesIO(content)) as sound:
        expected = sound.read(sound.frames, dtype="float32", always_2d=True)
    recording = read(tmp_path, content)
    np.testing.assert_array_equal(recording.samples, expected)
    assert recording.remark == ""


def riff(*chunks):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content


PCM = (voice() * 32767).astype("<i2").tobytes()


def fmt(rate_hz=RATE_HZ, bits=16, channels=1):
    width = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * width % 2**32, width, bits))


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (riff(fmt(), chunk(b"LIST", b"INFOISFT\3\0\0\0abc"), chunk(b"data", PCM)), ""),  # 15 bytes, no pad byte
        (riff(fmt(), chunk(b"data", PCM), chunk(b"id3 ", b"ID3" + bytes(99))), ""),
        (riff(fmt(), chunk(b"data", PCM)) + b"TAG" + bytes(125), ""),
        (b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + riff(fmt(), chunk(b"data", PCM)), ""),
        (riff(fmt(), chunk(b"data", PCM[:8000]), chunk(b"data", PCM[8000:])), "2 blocks of sound are joined"),
        (riff(fmt(), chunk(b"data", PCM)) + b"\1garbage" * 30, "240 bytes after the end of the sound"),
    ],
    ids=["no pad byte", "a tag after it", "a tag behind it", "a tag before it", "two blocks", "garbage behind it"],
)
def test_what_stands_around_the_sound_does_no_harm(tmp_path, content, remark):
    recording = read(tmp_path, content)
    assert recording.samples.shape == (RATE_HZ, 1) and remark in recording.remark
    np.testing.assert_array_equal(recording.samples[:, 0] * 32768, np.frombuffer(PCM, "<i2"))


def test_a_header_without_sound_is_called_empty(tmp_path):
    with pytest.raises(AudioError, match="empty: it holds no samples"):
        read(tmp_path, riff(fmt(), chunk(b"data", b""), chunk(b"LIST", b"INFO")))


@pytest.mark.parametrize("rate_hz", [1, 100, 2_000_000, 0x0FFFFFFF])
def test_a_rate_that_cannot_be_is_refused(tmp_path, rate_hz):
    with pytest.raises(AudioError, match=f"rate of {rate_hz} Hz, which cannot be.*4000 to 768000 Hz"):
        read(tmp_path, riff(fmt(rate_hz), chunk(b"data", PCM)))


def test_a_rate_of_zero_is_refused(tmp_path):
    with pytest.raises(AudioError, match="no possible rate"):
        read(tmp_path, riff(fmt(0), chunk(b"data", PCM)))


def test_fractions_that_a_header_calls_whole_numbers_are_named(tmp_path):
    with pytest.raises(AudioError, match="holds 32-bit fractions"):
        read(tmp_path, riff(fmt(bits=32), chunk(b"data", voice().tobytes())))


@pytest.mark.parametrize("loudness", [1.0, 0.1, 1e-3])
def test_whole_numbers_of_32_bits_are_not_taken_for_fractions(tmp_path, loudness):
    assert len(read(tmp_path, encode("WAV", "PCM_32", samples=3 * loudness * voice())).samples) == RATE_HZ


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 72862\n",
            "pointer of git-lfs.*git lfs pull",
        ),
        (b"/annex/objects/SHA256E-s72862--00.wav\n", "pointer of git-annex.*git annex get"),
        (b"<!DOCTYPE html><html><title>Quota exceeded</title></html>", "web page.*download the file again"),
        (b"\xef\xbb\xbf\r\n  <html><body>Sign in</body></html>", "web page.*download the file again"),
        (b'{"error": {"code": 403}}', "server's message.*download the file again"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "server's message"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(2000), "M4A.*ffmpeg"),
        (b"#!AMR\n" + bytes(100), "AMR.*ffmpeg"),
        (b"\x1aE\xdf\xa3" + bytes(100), "WebM.*ffmpeg"),
        (b"PK\3\4" + bytes(100), "zip archive"),
        (b"ID3", r"not audio, or damaged \(3 bytes\)"),
    ],
)
def test_what_is_no_sound_is_named_with_what_to_do(tmp_path, content, words):
    with pytest.raises(AudioError, match=words):
        read(tmp_path, content)


def mp3_without_length(mode, level):
    """An MP3 as recorders write it: without the first frame, which tells how many follow."""
    samples = np.concatenate([voice(2 * RATE_HZ, seed) * (1 if seed % 2 else 0.01) for seed in range(5)])
    content = encode("MP3", "MPEG_LAYER_III", samples=samples, bitrate_mode=mode, compression_level=level)
    return content[content.index(content[:2], 4) :], len(samples)


@pytest.mark.parametrize(("mode", "level"), [("CONSTANT", 0.5), ("VARIABLE", 0.1), ("AVERAGE", 0.9)])
@pytest.mark.parametrize("before", [b"", b"ID3\3\0\0\0\0\0\x0a" + bytes(10)])
def test_an_mp3_that_does_not_tell_its_length_is_read_whole(tmp_path, mode, level, before):
    content, n_samples = mp3_without_length(mode, level)
    recording = read(tmp_path, before + content, "a.mp3")
    assert n_samples <= len(recording.samples) < n_samples + 2000


@pytest.mark.parametrize(("mode", "level"), [("CONSTANT", 0.5), ("VARIABLE", 0.1), ("AVERAGE", 0.9)])
def test_an_mp3_that_does_not_tell_its_length_is_refused_where_it_breaks_off(tmp_path, mode, level):
    content, _ = mp3_without_length(mode, level)
    with pytest.raises(AudioError, match="truncated"):
        read(tmp_path, content[: len(content) * 2 // 3 + 5], "a.mp3")


def test_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    content = bytearray(encode("FLAC"))
    content[21] &= 0xF0  # the number of samples has 36 bits; zero stands for unknown
    content[22:26] = bytes(4)
    np.testing.assert_array_equal(read(tmp_path, content, "a.flac").samples, decode(encode("FLAC")))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_without_its_last_page_is_read_and_told(tmp_path, subtype):
    content = encode("OGG", subtype, samples=voice(8 * RATE_HZ))
    recording = read(tmp_path, content[: content.rindex(b"OggS")], "a.ogg")
    assert 2 * RATE_HZ < len(recording.samples) < 8 * RATE_HZ
    assert "last page does not end the stream" in recording.remark


@pytest.mark.parametrize("form", ["SVX", "VOC"])
def test_what_libsndfile_notes_of_rarer_containers_is_told(tmp_path, form):
    content = encode(form)
    recording = read(tmp_path, content[: len(content) * 2 // 3])
    assert "libsndfile notes" in recording.remark
