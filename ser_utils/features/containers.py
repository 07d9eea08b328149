"""Headers of sound files: how much sound they promise, and how much is there.

libsndfile decodes what it finds and does not say what a header promised beyond that. Here a header is held against its
file before anything is decoded. Where a size is wrong but the sound is there, the header is written anew, in memory.
"""

import math
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

FEW_BYTES = 64  # writers who count a header, or a pad byte, along are off by less
STREAM = 0x7FFFF000  # a writer to a pipe cannot know the length: it leaves the largest number, or nearly
PLACEHOLDER = 100  # a promise of so many times what is there was never meant
TAGS = (b"TAG", b"ID3", b"APET", b"LYRI")  # of music players, after the sound
PAGE = (
    "it is a web page or a server's message, saved under this name: download the file again, from a browser if the "
    "site asks for a login"
)
CONVERT = "which libsndfile does not read: convert it, e.g. ffmpeg -i FILE FILE.wav"
OTHERS = {
    b"version https://git-lfs": "it is a pointer of git-lfs, not the recording: git lfs pull fetches it",
    b"/annex/objects/": "it is a pointer of git-annex, not the recording: git annex get fetches it",
    b"<": PAGE,
    b"{": PAGE,
    b"PK\3\4": "it is a zip archive: unpack it",
    b"ftyp": f"it is MP4 or M4A (AAC), {CONVERT}",
    b"\x1aE\xdf\xa3": f"it is WebM or Matroska, {CONVERT}",
    b"#!AMR": f"it is AMR, {CONVERT}",
    b"0&\xb2u\x8ef\xcf\x11": f"it is WMA, {CONVERT}",
    b"\xff\xf1": f"it is raw AAC, {CONVERT}",
    b"\xff\xf9": f"it is raw AAC, {CONVERT}",
}
# kbit/s of MPEG layer III, by version
KBPS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBPS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


class Layout(NamedTuple):
    """How a container lays out its chunks.

    Parameters
    ----------
    chunk : struct format of a chunk's name and size
    sound : name of the chunk that holds the samples
    first : bytes before the first chunk
    pad : sizes are filled up to a multiple of it
    counted : bytes of a chunk's header that its size counts along
    """

    chunk: str
    sound: bytes = b"data"
    first: int = 12
    pad: int = 2
    counted: int = 0


LAYOUTS = {
    b"RIFF": Layout("<4sI"),
    b"RIFX": Layout(">4sI"),
    b"RF64": Layout("<4sI"),
    b"FORM": Layout(">4sI", sound=b"SSND"),
    b"caff": Layout(">4sq", first=8, pad=1),
    b"riff": Layout("<16sq", first=40, pad=8, counted=24),  # W64
}


@dataclass
class Chunk:
    """One chunk: `name`, where its content starts, and how many bytes its header promises."""

    name: bytes
    start: int
    length: int


def examine(stream: BinaryIO, size: int) -> tuple[str, bytes | None]:
    """Hold the header of a sound file against what the file holds.

    Parameters
    ----------
    stream : the file, open for reading
    size : its bytes

    Returns
    -------
    remark : how header and content differ, in words; "" if they agree
    content : the file under a header that tells the truth, or None where its own does for libsndfile

    Raises
    ------
    ValueError : if the file is truncated, or something else than sound; says which, and what to do
    """
    head = _read_at(stream, 0, 1024)
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    for signature, meaning in OTHERS.items():
        if text.startswith(signature) or head[4:8] == signature:
            raise ValueError(f"not audio, or damaged ({size} bytes): {meaning}")
    start = 0
    if head[:3] == b"ID3":
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    magic = _read_at(stream, start, 4)
    if magic in LAYOUTS:
        return _examine_chunks(stream, start, size, magic)
    if magic in (b".snd", b"dns."):
        return _examine_au(stream, start, size, ">" if magic == b".snd" else "<")
    if magic == b"OggS":
        return _examine_ogg(stream, start, size), None
    if magic == b"NIST":
        return _examine_nist(head, size), None
    return "", _examine_mp3(stream, start, size) if _mp3_frame(magic) else None


def _read_at(stream, position, n_bytes):
    stream.seek(position)
    return stream.read(n_bytes)


def _judge(promised, there, size):
    """How many bytes of sound to read, and a remark; raises ValueError for what is truncated."""
    missing = promised - there
    if promised < 0 or (there and missing > 0 and promised >= min(STREAM, PLACEHOLDER * there)):
        return there, f"its header does not tell its length: the {there} bytes of sound that are there are read"
    if missing > FEW_BYTES:
        raise ValueError(f"truncated: {missing} of {size + missing} bytes are missing")
    if missing > 0:
        return there, f"its header promises {missing} byte(s) more than are there"
    return promised, ""


def _read_all(promised, there):
    return f"its header promises {promised} bytes of sound; all {there} that are there are read"


def _chunk_at(stream, layout, position):
    """The Chunk that starts at `position`, or None where none does."""
    width = struct.calcsize(layout.chunk)
    header = _read_at(stream, position, width)
    if len(header) < width:
        return None
    name, length = struct.unpack(layout.chunk, header)
    # the chunks of W64 are named by GUIDs: those that are no text end alike
    is_name = all(32 <= byte < 127 for byte in name[:4]) or name[14:] == b"\xdb\x8a"
    return Chunk(name, position + width, length - layout.counted) if is_name else None


def _list_chunks(stream, layout, position, size):
    """The chunks, to the end of the file or to where none begins, and whether all are padded as they should be."""
    chunks, is_padded = [], True
    while chunk := _chunk_at(stream, layout, position):
        chunks.append(chunk)
        end = chunk.start + chunk.length
        if chunk.length < 0 or end >= size:
            break
        position = end + -chunk.length % layout.pad
        if not _chunk_at(stream, layout, position) and _chunk_at(stream, layout, end):
            position, is_padded = end, False
    return chunks, is_padded


def _examine_chunks(stream, start, size, magic):
    layout = LAYOUTS[magic]
    chunks, is_padded = _list_chunks(stream, layout, start + layout.first, size)
    sounds = [chunk for chunk in chunks if chunk.name[:4] == layout.sound]
    if not sounds:
        return "", None  # libsndfile says what is wrong
    last = sounds[-1]
    container, long_size = _long_sizes(stream, start, chunks, magic)
    promised = long_size if long_size is not None and last.length == 0xFFFFFFFF else last.length
    last.length, remark = _judge(promised, size - last.start, size)
    if last is chunks[-1] and last.length == promised:
        last.length, remark = _judge_rest(stream, last, container or size, size, layout.pad)
    if len(sounds) > 1:
        remark = "; ".join(filter(None, [f"its {len(sounds)} blocks of sound are joined", remark]))
    is_true = is_padded and len(sounds) == 1 and last.length == promised
    if is_true or size >= 2**32:  # a RIFF does not hold more; libsndfile then reads what it takes for the sound
        return remark, None
    return remark, _rewrite(stream, start, magic, chunks, sounds)


def _long_sizes(stream, start, chunks, magic):
    """Where the container says it ends, None where it does not, and the size of the sound if it stands elsewhere."""
    if magic == b"caff":
        return None, None
    if magic == b"riff":
        return struct.unpack("<q", _read_at(stream, start + 16, 8).ljust(8, b"\0"))[0], None
    if magic == b"RF64" and chunks[0].name == b"ds64":
        return struct.unpack("<qq", _read_at(stream, chunks[0].start, 16).ljust(16, b"\0"))
    return struct.unpack(LAYOUTS[magic].chunk, _read_at(stream, start, 8))[1] + 8, None


def _judge_rest(stream, sound, container, size, pad):
    """As `_judge`, for a sound chunk after which no other chunk begins."""
    end = sound.start + sound.length
    rest = size - end
    if rest > 0 and (sound.length == 0 or container <= 8 or container > end + pad):
        return sound.length + rest, _read_all(sound.length, sound.length + rest)
    beginning = _read_at(stream, end, 4096).lstrip(b"\0")
    if not beginning or beginning.startswith(TAGS):
        return sound.length, ""
    return sound.length, f"{rest} bytes after the end of the sound that its header gives are not read"


def _rewrite(stream, start, magic, chunks, sounds):
    """The container's bytes anew: true sizes, one chunk of sound, pad bytes, and no counts that were not true either."""
    layout, head = LAYOUTS[magic], _read_at(stream, start, LAYOUTS[magic].first)
    body = b""
    for chunk in chunks:
        if chunk.name in (b"ds64", b"fact") or chunk in sounds[1:]:
            continue
        joined = sounds if chunk is sounds[0] else [chunk]
        content = b"".join(_read_at(stream, block.start, block.length) for block in joined)
        body += bytes(-len(body) % layout.pad)
        body += struct.pack(layout.chunk, chunk.name, len(content) + layout.counted) + content
    if magic == b"caff":
        return head + body
    if magic == b"riff":
        return head[:16] + struct.pack("<q", len(body) + layout.first) + head[24:] + body
    return struct.pack(layout.chunk, magic.replace(b"RF64", b"RIFF"), len(body) + 4) + head[8:] + body


def _examine_au(stream, start, size, order):
    head = _read_at(stream, start, 24).ljust(24, b"\0")
    first, promised = struct.unpack(order + "II", head[4:12])
    there = max(0, size - start - first)
    remark = _judge(promised, there, size)[1]
    if promised == there:
        return "", None
    content = head[:8] + struct.pack(order + "I", there) + _read_at(stream, start + 12, size)
    return remark or _read_all(promised, there), content


def _examine_nist(head, size):
    sizes = dict(re.findall(rb"(sample_count|channel_count|sample_n_bytes) -i (\d+)", head))
    if len(sizes) < 3 or b"shorten" in head:
        return ""
    return _judge(math.prod(map(int, sizes.values())), max(0, size - 1024), size)[1]


def _examine_ogg(stream, position, size):
    flags = 0
    while (page := _read_at(stream, position, 27 + 255))[:4] == b"OggS" and len(page) > 27:
        flags, n_segments = page[5], page[26]
        position += 27 + n_segments + sum(page[27 : 27 + n_segments])
    if position > size or page[:4] == b"OggS":
        raise ValueError("truncated: its last page is not whole")
    return "" if flags & 4 else "its last page does not end the stream: something may be missing"


def _mp3_frame(header):
    """Bytes of the MPEG layer III frame that begins with these four, and where its table begins; None if none does."""
    word = int.from_bytes(header, "big")
    version, bits, rate = word >> 19 & 3, word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or word >> 17 & 3 != 1 or bits in (0, 15) or rate == 3:
        return None
    is_first, is_mono = version == 3, word >> 6 & 3 == 3
    hertz = (44100, 48000, 32000)[rate] >> (0 if is_first else 1 if version == 2 else 2)
    length = (144 if is_first else 72) * 1000 * (KBPS_1 if is_first else KBPS_2)[bits - 1] // hertz
    return length + (word >> 9 & 1), {(1, 0): 36, (1, 1): 21, (0, 0): 21, (0, 1): 13}[is_first, is_mono]


def _examine_mp3(stream, start, size):
    """None, or the file with its number of frames before it, where libsndfile would only estimate that."""
    first = _read_at(stream, start, 1024)
    length, table = _mp3_frame(first[:4])
    if first[table : table + 4] in (b"Xing", b"Info") or first[36:40] == b"VBRI":
        return None
    position, lengths = start, []
    while frame := _mp3_frame(_read_at(stream, position, 4)):
        lengths.append(frame[0])
        position += frame[0]
    if position > size:
        raise ValueError(f"truncated: {position - size} of {position} bytes are missing, at least")
    if max(lengths) - min(lengths) <= 1:
        # of one bit rate: the estimate is exact, unless it counts a tag at the start along
        return _read_at(stream, start, size) if start else None
    count = first[:4].ljust(table, b"\0") + b"Xing" + struct.pack(">II", 1, len(lengths))
    return count.ljust(length, b"\0") + _read_at(stream, start, size)
