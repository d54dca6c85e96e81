"""The header of a sound file, read before decoding: which container it is, and whether the file is truncated.

libsndfile decodes a truncated file without an error, so the length in the header is checked here. Sources: Microsoft's
RIFF (1994), EBU Tech 3306 (RF64), Sony's Wave64, Apple's AIFF and CAF, NeXT's .snd, RFC 3533 (Ogg).
"""

import os
import struct
from collections.abc import Callable
from io import FileIO

FORMS = "WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64"
_UNKNOWN = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)     # written by a recorder that streams and does not know the length yet
_MOST_CHUNKS = 10_000
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_OGG_PAGE_BYTES, _OGG_LAST = 65_307, 4


class UnknownContainerError(Exception):
    """The first bytes are not those of a container in `FORMS`."""


def is_truncated(file: FileIO) -> bool:
    """Whether the file ends before the last byte of samples that its header states.

    The headers of FLAC and MP3 state samples, not bytes. They are counted after decoding; the result here is false.

    Raises:
        UnknownContainerError: the container is none of `FORMS`.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(16)
    file.seek(0)
    return _reader(start)(file, size)


def _reader(start: bytes) -> Callable[[FileIO, int], bool]:
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:12] == b"WAVE":
        return _wave
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return lambda file, size: _chunk_is_cut(file, size, 12, ">4sI", b"SSND", 2)
    if start[:4] == b"caff":
        return lambda file, size: _chunk_is_cut(file, size, 8, ">4sQ", b"data", 1)
    if start == _W64_RIFF:
        return lambda file, size: _chunk_is_cut(file, size, 40, "<4s12xQ", b"data", 8)
    found = {b".snd": _au, b"OggS": _ogg, b"fLaC": _cannot_tell}.get(start[:4])
    if found:
        return found
    if start[:3] == b"ID3" or (len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0):     # MPEG's sync word
        return _cannot_tell
    raise UnknownContainerError


def _cannot_tell(_file: FileIO, _size: int) -> bool:
    return False


def _chunk_is_cut(file: FileIO, size: int, start: int, head: str, sound: bytes, align: int, unknown: int = 0) -> bool:
    """Go through the chunks to the one with the samples. Whether the file ends before its last whole sample.

    Args:
        size: bytes of the file.
        start: position of the first chunk.
        head: `struct` format of a chunk's head: its name and its length. In Wave64 the length includes the head.
        sound: name of the chunk with the samples.
        align: chunks begin at multiples of this.
        unknown: the length, where another chunk states it because the head has too few bits (RF64).
    """
    head_bytes, block_bytes = struct.calcsize(head), 1
    counted = head_bytes if align == 8 else 0
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
        after += -after % align
        if after >= size:
            return False
        file.seek(after)
    return False


def _wave(file: FileIO, size: int) -> bool:
    start = file.read(36)
    order = ">" if start[:4] == b"RIFX" else "<"
    unknown = int.from_bytes(start[28:36], "little") if start[:4] == b"RF64" and start[12:16] == b"ds64" else 0
    return _chunk_is_cut(file, size, 12, f"{order}4sI", b"data", 2, unknown)


def _au(file: FileIO, size: int) -> bool:
    head = file.read(12)
    if len(head) < 12:
        return True
    start, length = struct.unpack(">4xII", head)
    return length not in _UNKNOWN and start + length > size


def _ogg(file: FileIO, size: int) -> bool:
    """A stream is whole if its last page has the flag of the last page."""
    file.seek(max(0, size - _OGG_PAGE_BYTES))
    tail = file.read()
    at = tail.rfind(b"OggS")
    return len(tail) < at + 6 or at < 0 or not tail[at + 5] & _OGG_LAST
