"""M4A, MP4 and 3GP: a file of boxes, each with its length. A file that was cut ends inside a box.

A recording in fragments (`moof`) that was cut there is decoded up to the fragment before, without a word. Where it was
cut between two fragments nothing tells, since not every recorder writes an index at the end. Source: ISO/IEC 14496-12.
"""

import os
import struct
from io import FileIO

from heartml.audio.containers.extent import Extent

_HEAD_BYTES, _LONG, _TO_THE_END = 8, 1, 0
_MOST_BOXES = 1_000_000


def extent(file: FileIO) -> Extent:
    """How many bytes the last box lacks."""
    size, position = os.fstat(file.fileno()).st_size, 0
    for _ in range(_MOST_BOXES):
        file.seek(position)
        head = file.read(2 * _HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            return Extent(missing=_HEAD_BYTES - len(head) if head else 0)
        length, name = struct.unpack(">I4s", head[:_HEAD_BYTES])
        if length == _LONG:
            length = int.from_bytes(head[_HEAD_BYTES:], "big")
        if length == _TO_THE_END or length < _HEAD_BYTES or not all(0x20 <= byte < 0x7F for byte in name):
            return Extent()      # up to the end, or no box: something that a program appended
        if position + length > size:
            return Extent(missing=position + length - size)
        position += length
    return Extent()
