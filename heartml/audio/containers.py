"""What the container of a sound file says before anything is decoded: which kind it is, and whether its end is there.

libsndfile quietly shortens what was cut off, so the promise is read here. Sources: Microsoft's RIFF (1994), EBU Tech
3306 (RF64), Sony's Wave64, Apple's AIFF and CAF, NeXT's .snd, RFC 3533 (Ogg).
"""

import os
import struct
from collections.abc import Callable
from io import FileIO

FORMS = "WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64"
_UNKNOWN = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)     # what a recorder writes that streams and cannot know the length yet
_MOST_CHUNKS = 10_000
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_OGG_PAGE_BYTES, _OGG_LAST = 65_307, 4


class NotSound(Exception):  # noqa: N818 - says what it is
    """The first bytes are those of no form that is read here."""


def end_is_missing(file: FileIO) -> bool:
    """Whether the file ends before the samples that its container promises.

    FLAC and MP3 promise samples, not bytes, and are held to that by whoever decodes them.

    Raises:
        NotSound: it is none of `FORMS`.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(16)
    file.seek(0)
    return _reader(start)(file, size)


def _reader(start: bytes) -> Callable[[FileIO, int], bool]:
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:12] == b"WAVE":
        return _wave
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return lambda file, size: _short(file, size, 12, ">4sI", b"SSND", 2)
    if start[:4] == b"caff":
        return lambda file, size: _short(file, size, 8, ">4sQ", b"data", 1)
    if start == _W64_RIFF:
        return lambda file, size: _short(file, size, 40, "<4s12xQ", b"data", 8)
    found = {b".snd": _au, b"OggS": _ogg, b"fLaC": _cannot_tell}.get(start[:4])
    if found:
        return found
    if start[:3] == b"ID3" or (len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0):     # MPEG's sync word
        return _cannot_tell
    raise NotSound


def _cannot_tell(_file: FileIO, _size: int) -> bool:
    return False


def _short(file: FileIO, size: int, start: int, head: str, sound: bytes, even: int, unknown: int = 0) -> bool:
    """Walk the chunks to the one with the samples; whether whole samples of it are beyond the end of the file.

    Args:
        start: where the first chunk lies.
        head: of a chunk: its name and its length, which in Wave64 counts the head itself.
        even: chunks begin at multiples of this.
        unknown: a length that the head cannot hold and another chunk states (RF64).
    """
    head_bytes, block_bytes = struct.calcsize(head), 1
    counted = head_bytes if even == 8 else 0
    file.seek(start)
    for _ in range(_MOST_CHUNKS):
        if len(read := file.read(head_bytes)) < head_bytes:
            return False
        name, length = struct.unpack(head, read)
        begin, length = file.tell(), unknown if length in _UNKNOWN else length - counted
        if name == sound:
            return bool(length // block_bytes > (size - begin) // block_bytes)
        if name == b"fmt ":
            block_bytes = max(1, int.from_bytes(file.read(14)[12:], "big" if head[0] == ">" else "little"))
        after = begin + max(0, length)
        after += -after % even
        if after >= size:
            return False
        file.seek(after)
    return False


def _wave(file: FileIO, size: int) -> bool:
    start = file.read(36)
    order = ">" if start[:4] == b"RIFX" else "<"
    unknown = int.from_bytes(start[28:36], "little") if start[:4] == b"RF64" and start[12:16] == b"ds64" else 0
    return _short(file, size, 12, f"{order}4sI", b"data", 2, unknown)


def _au(file: FileIO, size: int) -> bool:
    head = file.read(12)
    if len(head) < 12:
        return True
    start, length = struct.unpack(">4xII", head)
    return length not in _UNKNOWN and start + length > size


def _ogg(file: FileIO, size: int) -> bool:
    """The last page of a stream says that it is the last."""
    file.seek(max(0, size - _OGG_PAGE_BYTES))
    tail = file.read()
    at = tail.rfind(b"OggS")
    return len(tail) < at + 6 or at < 0 or not tail[at + 5] & _OGG_LAST
