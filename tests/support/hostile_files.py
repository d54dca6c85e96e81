"""Hostile bytes: what a broken disk, a wrong export or an enemy makes of sound files, tables and descriptions.

Every function draws from the `random.Random` that it is given and from nothing else: a case is its number.
"""

import io
import random
import struct
from collections.abc import Callable
from functools import cache

import numpy as np
import soundfile
from support.publisher_files import RATE_HZ, beating_noise, list_chunk, wav_bytes

EXTREMES = {1: (0, 1, 0x7F, 0x80, 0xFF), 2: (0, 1, 2, 3, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF),
            4: (0, 1, 12, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF), 8: (0, 1, 2**63 - 1, 2**63, 2**64 - 1)}
FORMS = (("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"),
         ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAVEX", "PCM_16"),
         ("WAVEX", "FLOAT"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"),
         ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "PCM_16"),
         ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("NIST", "PCM_16"), ("VOC", "PCM_16"), ("SVX", "PCM_16"))


def encode_sound(samples: np.ndarray, form: str, subtype: str, rate_hz: int = RATE_HZ) -> bytes:
    """Samples [time] or [time, channels] as a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=form, subtype=subtype)
    return file.getvalue()


@cache
def valid_sound_files() -> tuple[bytes, ...]:
    """One small file of every form, one with two channels, one with chunks around the samples."""
    pcm = beating_noise(1, 0.6)
    rates = {"OPUS": 8000, "MPEG_LAYER_III": 8000}
    plain = [encode_sound(pcm, form, subtype, rates.get(subtype, RATE_HZ)) for form, subtype in FORMS]
    two = encode_sound(np.stack([pcm, pcm], 1), "WAV", "PCM_16")
    return (*plain, two, wav_bytes(pcm, before=list_chunk(), behind=list_chunk()))


def flip_bits(rng: random.Random, data: bytearray) -> None:
    """Some bits, half of the time in the header."""
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[rng.randrange(min(len(data), 80 if rng.random() < 0.5 else len(data)))] ^= 1 << rng.randrange(8)


def write_extreme_number(rng: random.Random, data: bytearray) -> None:
    """A number of one to eight bytes, in either order, at its limits."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        width = rng.choice((1, 2, 4, 4, 8))
        at = rng.randrange(max(1, min(len(data), 120) - width))
        data[at : at + width] = rng.choice(EXTREMES[width]).to_bytes(width, rng.choice(("little", "big")))


def cut_short(rng: random.Random, data: bytearray) -> None:
    """The end is missing."""
    del data[rng.randrange(len(data) + 1) if rng.random() < 0.7 else min(len(data), rng.randrange(100)) :]


def repeat_part(rng: random.Random, data: bytearray) -> None:
    """A piece stands there several times."""
    start = rng.randrange(len(data))
    piece = bytes(data[start : start + rng.choice((1, 8, 64, 2000))])
    data[start:start] = piece * rng.choice((1, 2, 50))


def leave_out_part(rng: random.Random, data: bytearray) -> None:
    """A piece is missing."""
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 8, 100, 1000))]


def overwrite_with_noise(rng: random.Random, data: bytearray) -> None:
    """A piece is something else."""
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 32, 512))
    data[start : start + length] = rng.randbytes(length)


def splice_other_sound(rng: random.Random, data: bytearray) -> None:
    """From somewhere on it is another file."""
    other = rng.choice(valid_sound_files())
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *[flip_bits] * 2, *[write_extreme_number] * 3, cut_short, repeat_part, leave_out_part, overwrite_with_noise,
    splice_other_sound)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """`data` after one to three accidents."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if changed:
            rng.choice(MUTATIONS)(rng, changed)
    return bytes(changed)


def random_riff(rng: random.Random) -> bytes:
    """A WAV file whose fields are each right or absurd, on their own."""
    def field(right: int, width: int) -> int:
        return right if rng.random() < 0.7 else rng.choice(EXTREMES[width])

    channels, bits = rng.choice((1, 1, 2, 64)), rng.choice((8, 16, 24, 32, 64))
    data = rng.randbytes(rng.choice((0, 1, 64, 4000)))
    kind = rng.choice((1, 1, 3, 0xFFFE, 6, 7, 17, 2, 85))
    head = struct.pack("<HHIIHH", field(kind, 2), field(channels, 2), field(RATE_HZ, 4), field(RATE_HZ * 2, 4),
                       field(channels * bits // 8, 2), field(bits, 2))
    if rng.random() < 0.3:
        head += struct.pack("<HHIHHIQ", 22, bits, 0, 1, 0, 0x00100000, rng.choice(EXTREMES[8]))
    chunks = [b"fmt " + struct.pack("<I", field(len(head), 4)) + head]
    for _ in range(rng.choice((0, 0, 1, 3))):
        name = rng.choice((b"LIST", b"cue ", b"smpl", b"bext", b"cart", b"PEAK", b"fact", b"ds64", b"inst", b"JUNK"))
        body = rng.randbytes(rng.choice((0, 4, 28, 300)))
        chunks.insert(rng.randrange(len(chunks) + 1), name + struct.pack("<I", field(len(body), 4)) + body)
    chunks.append(b"data" + struct.pack("<I", field(len(data), 4)) + data)
    body = b"WAVE" + b"".join(chunks)
    return rng.choice((b"RIFF", b"RIFF", b"RF64", b"RIFX")) + struct.pack("<I", field(len(body), 4)) + body


def damaged_sound_file(rng: random.Random) -> bytes:
    """A sound file that something happened to."""
    return random_riff(rng) if rng.random() < 0.25 else mutate(rng, rng.choice(valid_sound_files()))


# Tables and descriptions

CELLS = (
    "", " ", "=cmd|' /C calc'!A0", "@SUM(A1)", "+1", "-1", "\t=1", "../../etc/passwd", "/etc/passwd", "..", ".", "/",
    "C:\\windows", "a\x00b", "\x1b[2J", "[bold]", "<script>alert(1)</script>", "\ufeff", "\u202egpj.wav", "é",
    "e\u0301", "²", "٣", "nan", "inf", "-inf", "1e999", "9" * 400, "9" * 5000, "x" * 300, "x/" * 3000, "\ud7ff",
    "\U0001f600", '"', '""', ";", ",", "\n", "\r", "\u2028", "\x85", "\x0c", "NULL", "true", "0x10", "1_000")


def lines_of(data: bytes) -> list[bytes]:
    """Pieces between line ends, which are kept."""
    return data.splitlines(keepends=True) or [b""]


def change_cell(rng: random.Random, data: bytearray) -> None:
    """Another cell, in any kind of table."""
    lines = lines_of(bytes(data))
    at = rng.randrange(len(lines))
    separator = rng.choice((b",", b"\t", b" ", b":"))
    cells = lines[at].split(separator)
    cells[rng.randrange(len(cells))] = rng.choice(CELLS).encode("utf-8", "surrogatepass")
    lines[at] = separator.join(cells)
    data[:] = b"".join(lines)


def change_column(rng: random.Random, data: bytearray) -> None:
    """A column more, less, or twice, in some line or in all."""
    lines, everywhere = lines_of(bytes(data)), rng.random() < 0.5
    at, which, what = rng.randrange(len(lines)), rng.randrange(6), rng.choice(("more", "less", "twice"))
    for n in range(len(lines)) if everywhere else (at,):
        cells = lines[n].split(b",")
        which_here = which % len(cells)
        cells[which_here : which_here + 1] = {"more": [b"new", cells[which_here]], "less": [],
                                             "twice": [cells[which_here]] * 2}[what]
        lines[n] = b",".join(cells)
    data[:] = b"".join(lines)


def change_line(rng: random.Random, data: bytearray) -> None:
    """A line twice, gone, or elsewhere."""
    lines = lines_of(bytes(data))
    taken = lines[rng.randrange(len(lines))]
    if rng.random() < 0.5:
        lines.remove(taken)
    if rng.random() < 0.7:
        lines.insert(rng.randrange(len(lines) + 1), taken)
    data[:] = b"".join(lines)


def change_encoding(rng: random.Random, data: bytearray) -> None:
    """Another encoding, line end, or mark at the start."""
    text = bytes(data).decode("utf-8", "replace")
    data[:] = rng.choice((
        lambda: text.encode("utf-16"), lambda: text.encode("utf-8-sig"), lambda: text.encode("latin-1", "replace"),
        lambda: text.replace("\n", "\r").encode(), lambda: text.replace("\n", "\r\n").encode(),
        lambda: b"\xff\xfe" + data, lambda: b"\x00" * 20 + data, lambda: text.replace(",", ";").encode()))()


def lengthen(rng: random.Random, data: bytearray) -> None:
    """A very long cell or line, a quote that is never closed."""
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice((b"x" * 140_000, b"," * 5_000, b'"', b'"' + b"y" * 140_000, b"\n" * 3_000, b"[" * 2_000,
                              b"{a: " * 500, b"- " * 900))


YAML = ("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",
        "<<: [{a: b}, {c: d}]\n", "a: !!python/object/apply:os.system ['false']\n", "a: !!int '" + "9" * 5000 + "'\n",
        "a: 2026-13-45\n", "a: !!timestamp nope\n", "a: !!float nope\n", "a: !!binary '\u00e9'\n", "? [a, b]\n: c\n",
        "a: !!set {b}\n", "%YAML 9.9\n---\n", "---\n---\n", "a: *nobody\n", "title: [" * 400, "a: 0b\n", "a: 1:99:99\n")


def insert_yaml(rng: random.Random, data: bytearray) -> None:
    """A line that YAML knows and nobody asked for."""
    lines = lines_of(bytes(data))
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(YAML).encode())
    data[:] = b"".join(lines)


TEXT_MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *[change_cell] * 4, *[change_column] * 2, change_line, change_encoding, lengthen, flip_bits, cut_short,
    overwrite_with_noise, leave_out_part, repeat_part)


def damaged_table(rng: random.Random, data: bytes, *extra: Callable[[random.Random, bytearray], None]) -> bytes:
    """A text file after one to three accidents; `extra` are of its own kind."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if changed:
            rng.choice((*TEXT_MUTATIONS, *extra, *extra, *extra))(rng, changed)
    return bytes(changed)
