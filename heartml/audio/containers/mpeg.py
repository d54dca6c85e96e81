"""The number of frames of an MP3 file: what its first frame states, held against the frames that are there.

Without that statement (Xing, also called Info) libsndfile guesses the length from the size of the first frames and
stops there: of a recording that begins loud and ends quietly the end is lost. Then a first frame that states the number
is put in front. Source: ISO/IEC 11172-3, 2.4.2.3 (header), and the tag as LAME writes it.
"""

from io import FileIO
from typing import NamedTuple

from heartml.audio.containers.extent import Correction, Extent

_KBIT_S = {     # (MPEG-1, layer) -> bit rates by index
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44100, 48000, 32000)      # of MPEG-1; MPEG-2 has half, MPEG-2.5 a quarter
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")      # what taggers of music append
_MOST_BYTES = 1 << 28                  # an hour at 320 kbit/s is 144 MB
_MOST_FRAMES = 450_000                 # an hour of the shortest ones; a longer file is refused whatever it holds
_SMALL = 4096                          # what follows the frames and may be anything
_FRAMES_FLAG = 1


class _Frame(NamedTuple):
    """What the header of a frame says."""

    mpeg1: bool
    layer: int
    size: int
    kind: bytes      # what is the same in all frames of a stream: version and layer, rate, whether mono

    @property
    def tag_at(self) -> int:
        """Where a frame without samples has its tag: behind the header and the side information."""
        mono = self.kind[2]
        return 4 + ((17 if mono else 32) if self.mpeg1 else (9 if mono else 17))


def extent(file: FileIO, base: int, size: int) -> Extent:
    """Compare the number of frames in the tag, if there is one, with the frames from `base` to the end of the file.

    Nothing is said of a file whose first frame is not at `base`, and of bit rates that headers do not tell.
    """
    file.seek(base)
    content = file.read(max(0, min(size, _MOST_BYTES) - base))
    first = _frame(content)
    if first is None or size > _MOST_BYTES:
        return Extent()
    count, end = _walk(content, first)
    rest = content[end:]
    stated, last = _stated(content, first), _frame(rest)
    if last is not None and last.kind == first.kind and last.size > len(rest):
        return Extent(missing=last.size - len(rest))
    is_end = count == _MOST_FRAMES or rest.startswith(_TAGS) or not rest.strip(b"\0") or len(rest) < _SMALL
    if stated is None:
        tag = Correction(base, 0, _tag(content, first, count))
        return Extent(correction=tag) if is_end else Extent(unstated=len(rest))
    return Extent(missing=max(0, stated - count), unstated=max(0, count - 1 - stated), unit="frames") if is_end else (
        Extent())      # the decoder goes on behind the gap, and has to come to the stated number


def _frame(content: bytes, at: int = 0) -> _Frame | None:
    """The header at `at`; `None` where there is none, or its bit rate is none of the list."""
    head = content[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, rate, bits = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer == 4 or rate == 3 or bits in (0, 15):
        return None
    kind = bytes((head[1] | 1, rate, head[3] >> 6 == 3))
    return _Frame(version == 3, layer, _frame_bytes(version, layer, rate, bits, head[2] >> 1 & 1), kind)


def _frame_bytes(version: int, layer: int, rate: int, bits: int, padding: int) -> int:
    rate_hz = _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bit_s = 1000 * _KBIT_S[version == 3, layer][bits - 1]
    if layer == 1:
        return (12 * bit_s // rate_hz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bit_s // rate_hz + padding


def _walk(content: bytes, first: _Frame) -> tuple[int, int]:
    """The number of whole frames without a gap, and where they end."""
    at, count = 0, 0
    frame: _Frame | None = first
    while frame is not None and frame.kind == first.kind and at + frame.size <= len(content) and count < _MOST_FRAMES:
        at, count = at + frame.size, count + 1
        frame = _frame(content, at)
    return count, at


def _stated(content: bytes, first: _Frame) -> int | None:
    """The number of frames in the tag of the first frame; `None` where it has none."""
    tag = content[first.tag_at : first.tag_at + 12]
    if tag[:4] not in (b"Xing", b"Info") or len(tag) < 12 or not tag[7] & _FRAMES_FLAG:
        return None
    return int.from_bytes(tag[8:], "big")


def _tag(content: bytes, first: _Frame, count: int) -> bytes:
    """A frame of the same kind without samples whose tag states the number of frames."""
    version, rate = content[1] >> 3 & 3, content[2] >> 2 & 3
    sizes = {bits: _frame_bytes(version, 3, rate, bits, 0) for bits in range(1, 15)}
    bits = next(bits for bits, size in sizes.items() if size >= first.tag_at + 12)
    head = bytes((0xFF, content[1] | 1, bits << 4 | rate << 2, content[3]))
    body = b"Xing" + _FRAMES_FLAG.to_bytes(4, "big") + count.to_bytes(4, "big")
    return (head.ljust(first.tag_at, b"\0") + body).ljust(sizes[bits], b"\0")
