"""The header of a sound file, read before decoding: which container it is, and whether its length is the file's.

libsndfile reads what the header states and says nothing where the file holds less or more. So the length in the header
is held against the bytes that are there. Sources: Microsoft's RIFF (1994), EBU Tech 3306 (RF64), Sony's Wave64, Apple's
AIFF and CAF, NeXT's .snd, RFC 3533 (Ogg); for FLAC and MP3 see `flac` and `mpeg`.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO

from heartml.audio import phone_formats
from heartml.audio.containers import flac, mpeg
from heartml.audio.containers.extent import Correction, Extent

FORMS = "WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64"
# Endings of sound files' names. A folder is searched for all of them, so that no file is left out without a word. The
# last ones are not read but refused by name. What a file is, its content says.
SUFFIXES = (".wav", ".wave", ".bwf", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mpga", ".mp2", ".aif",
            ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", *phone_formats.SUFFIXES,
            ".ac3", ".ape", ".ds2", ".dss", ".dvf", ".msv", ".qcp", ".ra", ".sph", ".tta", ".voc", ".wma", ".wv")
# Written by a recorder that streams and does not know the length yet: RF64 and most programs; SoX; Android's Oboe;
# arecord; browsers. Some take the 36 bytes of the header off.
_OPEN = (0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF,
         0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_MOST_CHUNKS = 10_000
_AT_ONCE = 1 << 20
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_OGG_PAGE_BYTES, _OGG_LAST, _OGG_HEAD_BYTES = 65_307, 4, 27
_TAGS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"_PMX", b"JUNK", b"junk", b"FLLR", b"PAD ")
_RAW_TAGS = (b"TAG", b"ID3", b"APETAGEX")      # what taggers of music append, as no chunk
_WHOLE = Extent()

Reader = Callable[[FileIO, int, int], Extent]     # file, position of the container, bytes of the file


class UnknownContainerError(Exception):
    """The first bytes are not those of a container in `FORMS`."""


@dataclass(frozen=True)
class _Chunks:
    """How a container writes its chunks.

    Attributes:
        head: `struct` format of a chunk's head: its name and its length. In Wave64 the length includes the head.
        sound: name of the chunk with the samples.
        align: chunks begin at multiples of this.
    """

    head: str
    sound: bytes
    align: int

    @property
    def head_bytes(self) -> int:
        """Length of a chunk's head."""
        return struct.calcsize(self.head)

    @property
    def counted(self) -> int:
        """How many bytes of the head its length includes."""
        return self.head_bytes if self.align == 8 else 0

    def padded(self, position: int, origin: int) -> int:
        """The first position from `position` on where a chunk may begin."""
        return position + (origin - position) % self.align

    def length_field(self, begin: int, length: int) -> Correction:
        """The correction of the length of the chunk whose content begins at `begin`."""
        number = struct.pack(self.head.replace("4s", "").replace("12x", ""), length + self.counted)
        return Correction(begin - len(number), len(number), number)


def extent(file: FileIO) -> Extent:
    """How the length of the samples that the header states differs from the bytes that are there.

    Raises:
        UnknownContainerError: the container is none of `FORMS`.
    """
    size = os.fstat(file.fileno()).st_size
    base = _behind_id3(file)
    file.seek(base)
    reader = _reader(file.read(16), base > 0)
    file.seek(base)
    return reader(file, base, size)


def _behind_id3(file: FileIO) -> int:
    """Position of what follows an ID3 tag at the start; 0 where there is none."""
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    a, b, c, d = head[6:]      # seven bits each
    return 10 + (a << 21 | b << 14 | c << 7 | d)


def _reader(start: bytes, tagged: bool) -> Reader:
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:12] == b"WAVE":
        return _wave
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return lambda file, base, size: _chunks(file, base, size, 12, _Chunks(">4sI", b"SSND", 2))
    if start[:4] == b"caff":
        return lambda file, base, size: _chunks(file, base, size, 8, _Chunks(">4sQ", b"data", 1))
    if start == _W64_RIFF:
        return lambda file, base, size: _chunks(file, base, size, 40, _Chunks("<4s12xQ", b"data", 8))
    found: Reader | None = {b".snd": _au, b"OggS": _ogg, b"fLaC": flac.extent}.get(start[:4])
    if found:
        return found
    if tagged or (len(start) > 1 and start[0] == 0xFF and start[1] & 0xE6 in (0xE2, 0xE4, 0xE6)):   # MPEG's sync word
        return mpeg.extent
    raise UnknownContainerError


def _chunks(file: FileIO, base: int, size: int, start: int, how: _Chunks, long: int | None = None) -> Extent:
    """Go through the chunks to the one with the samples, and compare its length with the file's.

    Args:
        base: position of the container in the file.
        size: bytes of the file.
        start: position of the first chunk in the container.
        how: how chunks are written.
        long: the length, where another chunk states it because the head has too few bits (RF64).
    """
    block_bytes = 1
    file.seek(base + start)
    for _ in range(_MOST_CHUNKS):
        if len(read := file.read(how.head_bytes)) < how.head_bytes:
            return _WHOLE
        name, length = struct.unpack(how.head, read)
        begin = file.tell()
        if name == how.sound:
            stated = length if length in _OPEN else length - how.counted
            if long is not None and length == 0xFFFFFFFF:
                return _compared(file, base, begin, long, size, block_bytes, how)
            if stated in _OPEN:
                return _open_end(file, base, begin, size, block_bytes, how, stated)
            return _compared(file, base, begin, stated, size, block_bytes, how)
        if name == b"fmt ":
            block_bytes = max(1, int.from_bytes(file.read(14)[12:], "big" if how.head[0] == ">" else "little"))
        after = how.padded(begin + max(0, length - how.counted), base)
        if after >= size:
            return _WHOLE
        file.seek(after)
    return _WHOLE


def _compared(file: FileIO, base: int, begin: int, stated: int, size: int, block_bytes: int, how: _Chunks) -> Extent:
    """The extent of samples of a known length; a part of the last sample may lack."""
    there = size - begin
    if stated // block_bytes > there // block_bytes:
        return Extent(missing=stated - there)
    ends = {begin + stated, how.padded(begin + stated, base)}     # some programs do not pad
    return Extent(unstated=min(size - _end_of_chunks(file, end, base, size, how) for end in ends if end <= size)
                  if begin + stated < size else 0)


def _open_end(file: FileIO, base: int, begin: int, size: int, block_bytes: int, how: _Chunks, stated: int) -> Extent:
    """The extent of samples whose recorder left the length open: up to the end of the file.

    A length of 0 with nothing but other chunks behind it is no open end, but a file without samples.
    """
    if stated == 0:
        end = _end_of_chunks(file, begin, base, size, how)
        file.seek(begin)
        if end != begin or file.read(4) == how.sound:
            return Extent(unstated=size - end)
    whole = (size - begin) // block_bytes * block_bytes
    return Extent(correction=how.length_field(begin, whole))


def _end_of_chunks(file: FileIO, start: int, base: int, size: int, how: _Chunks) -> int:
    """Go through what follows the samples: position of the first byte that is in no chunk; `size` where all are.

    Zeros up to the end, a tag that a music program appended, and less than a chunk's head are as good as a chunk. A
    second chunk with samples is not, because no decoder reads it.
    """
    position = start
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        read = file.read(how.head_bytes)
        if len(read) < how.head_bytes or read.startswith(_RAW_TAGS):
            return size
        name, length = struct.unpack(how.head, read)
        after = position + how.head_bytes + max(0, length - how.counted)
        is_chunk = all(0x20 <= byte < 0x7F for byte in name) and (after <= size or name in _TAGS)
        if name == how.sound or not is_chunk:
            return size if _is_zero(file, position) else position
        position = how.padded(after, base)
    return size


def _is_zero(file: FileIO, position: int) -> bool:
    file.seek(position)
    return not any(any(block) for block in iter(lambda: file.read(_AT_ONCE), b""))


def _wave(file: FileIO, base: int, size: int) -> Extent:
    start = file.read(36)
    order = ">" if start[:4] == b"RIFX" else "<"
    long = int.from_bytes(start[28:36], "little") if start[:4] == b"RF64" and start[12:16] == b"ds64" else None
    return _chunks(file, base, size, 12, _Chunks(f"{order}4sI", b"data", 2), long)


def _au(file: FileIO, base: int, size: int) -> Extent:
    head = file.read(12)
    if len(head) < 12:
        return Extent(missing=12 - len(head))
    start, length = struct.unpack(">4xII", head)
    there = size - base - start
    if length in _OPEN:
        return Extent(correction=Correction(base + 8, 4, struct.pack(">I", max(0, there))))
    return Extent(missing=max(0, length - there), unstated=max(0, there - length))


def _ogg(file: FileIO, _base: int, size: int) -> Extent:
    """A stream is whole if its last page has the flag of the last page, and all its bytes."""
    start = max(0, size - _OGG_PAGE_BYTES)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    if len(page) < _OGG_HEAD_BYTES or len(page) < _OGG_HEAD_BYTES + page[26] or not page[5] & _OGG_LAST:
        return Extent(missing=1)
    lengths = page[_OGG_HEAD_BYTES : _OGG_HEAD_BYTES + page[26]]
    return Extent(missing=max(0, _OGG_HEAD_BYTES + len(lengths) + sum(lengths) - len(page)))
