"""The number of samples of a FLAC file: what its header states, held against its last frame.

libsndfile stops at the number in the header. A program that streams leaves it 0, and libsndfile then fails. Source: RFC
9639, sections 8.2 (STREAMINFO) and 9 (frames).
"""

import re
from functools import cache
from io import FileIO

from heartml.audio.containers.extent import Correction, Extent

_STREAMINFO_BYTES = 34
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_TAIL_BYTES = (1 << 14, 1 << 18)     # of the file that are searched: first few; then more than an encoder's frame has
_MOST_CHECKSUMS = 4
_BLOCK_SIZES = {1: 192, **{n: 576 << (n - 2) for n in range(2, 6)}, **{n: 256 << (n - 8) for n in range(8, 16)}}
_LONGEST_HEAD = 16
_TOTAL_BITS = 36


def extent(file: FileIO, base: int, size: int) -> Extent:
    """Compare STREAMINFO with the last frame of the FLAC stream that begins at `base` of a file of `size` bytes.

    A file that ends inside a frame is not judged here: the decoder does not get the samples that the header states.
    """
    file.seek(base + 8)
    info = file.read(_STREAMINFO_BYTES)
    if len(info) < _STREAMINFO_BYTES:
        return Extent()
    fields = int.from_bytes(info[10:18], "big")
    stated = fields & ((1 << _TOTAL_BITS) - 1)
    found = _samples_up_to_the_end(file, size, stated, int.from_bytes(info[:2], "big"))
    if stated:
        return Extent(unstated=found - stated, unit="samples") if found is not None and found > stated else Extent()
    if found is None:
        return Extent(missing=1)
    return Extent(correction=Correction(base + 18, 8, (fields | found).to_bytes(8, "big")))


def _samples_up_to_the_end(file: FileIO, size: int, stated: int, block: int) -> int | None:
    """Samples up to the end of the last frame; `None` where no frame ends with the file.

    What looks like a frame and ends at or before `stated` is believed. Otherwise its checksum has to be right, because
    two bytes of samples look like the start of a frame once in 32,768.

    Args:
        stated: number of samples in the header.
        block: samples of each frame but the last, where they are of one size.
    """
    for tail_bytes in _TAIL_BYTES:
        file.seek(max(0, size - tail_bytes))
        tail = _without_tag(file.read())
        ends = ((match.start(), _end_of_frame(tail[match.start() : match.start() + _LONGEST_HEAD], block))
                for match in reversed(list(_SYNC.finditer(tail))))
        frames = [(at, end) for at, end in ends if end is not None][:_MOST_CHECKSUMS]
        for at, end in frames:
            if end <= stated or _crc(tail[at:], 16, 0x8005) == 0:
                return end
    return None


def _without_tag(tail: bytes) -> bytes:
    """The end of the file without the tag of 128 bytes that taggers of music append (ID3v1)."""
    return tail[:-128] if tail[-128:-125] == b"TAG" else tail


def _end_of_frame(head: bytes, block: int) -> int | None:
    """The number of the sample after the frame that begins with these bytes; `None` where they are no frame's head."""
    if len(head) < 6 or head[3] & 1 or head[2] >> 4 == 0 or head[2] & 15 == 15:
        return None
    number_bytes = max(1, 8 - (head[4] ^ 0xFF).bit_length())
    if number_bytes == 8 or (head[4] >= 0x80 and number_bytes == 1):
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    size_at = 4 + number_bytes
    rate_at = size_at + {6: 1, 7: 2}.get(size_code, 0)
    check_at = rate_at + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if check_at >= len(head) or _crc(head[: check_at + 1], 8, 0x07):
        return None
    number = head[4] & (0x7F if number_bytes == 1 else 0x7F >> number_bytes)
    for byte in head[5:size_at]:
        number = number << 6 | byte & 0x3F
    samples = _BLOCK_SIZES.get(size_code) or int.from_bytes(head[size_at:rate_at], "big") + 1
    return (number if head[1] & 1 else number * block) + samples


def _crc(content: bytes, bits: int, polynomial: int) -> int:
    """Cyclic redundancy check; 0 over a content that ends with its own.

    >>> _crc(b"123456789", 16, 0x8005), _crc(b"123456789", 8, 0x07)
    (65256, 244)
    """
    table, value, mask = _crc_table(bits, polynomial), 0, (1 << bits) - 1
    for byte in content:
        value = (value << 8 & mask) ^ table[value >> (bits - 8) ^ byte]
    return value


@cache
def _crc_table(bits: int, polynomial: int) -> tuple[int, ...]:
    table = []
    for value in range(256):
        remainder = value << (bits - 8)
        for _ in range(8):
            remainder = remainder << 1 ^ (polynomial if remainder >> (bits - 1) else 0)
            remainder &= (1 << bits) - 1
        table.append(remainder)
    return tuple(table)
