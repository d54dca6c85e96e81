"""A recording to see and to hear in a page: a spectrogram as PNG and an excerpt as FLAC, both as data addresses.

Waveforms are float32 [time] in [-1, 1]. The same samples give the same bytes.
"""

import base64
import io
import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
EXCERPT_S = 8.0
RATE_HZ = 4000          # heart sounds end far below half of it
WIDE_RATE_HZ = 8000     # of organs with sounds above a quarter of that, as lungs have
PLAYED_RATE_HZ = 8000   # the lowest rate that every browser plays
HIGHEST_HZ = 800
WINDOW_S, HOP_S = 0.05, 0.016
FFT_SIZE = 512
DYNAMIC_RANGE_DB = 45.0
SHADES = 48
# From black over violet, red and orange to pale yellow in even steps of brightness, readable without colour too.
_ANCHORS = ((4, 3, 18), (56, 15, 93), (120, 28, 109), (180, 54, 85), (229, 92, 48), (249, 158, 32), (252, 240, 160))


def rate_for(highest_hz: float) -> int:
    """The rate at which an organ with sounds up to this frequency is shown and played.

    >>> rate_for(800), rate_for(2500)
    (4000, 8000)
    """
    return RATE_HZ if highest_hz <= RATE_HZ / 4 else WIDE_RATE_HZ


def excerpt(waveform: Waveform, sample_rate_hz: int, shown_rate_hz: int = RATE_HZ) -> Waveform:
    """The first `EXCERPT_S` seconds at `shown_rate_hz`, without DC, with its peak at 0.9; silence stays silence."""
    from scipy.signal import resample_poly

    short = waveform[: int(EXCERPT_S * sample_rate_hz)].astype(np.float64)
    short = short - short.mean() if len(short) else short
    common = math.gcd(shown_rate_hz, sample_rate_hz)
    if sample_rate_hz != shown_rate_hz and len(short):
        short = resample_poly(short, shown_rate_hz // common, sample_rate_hz // common)
    peak = np.abs(short).max(initial=0)
    return (short * (0.9 / peak) if peak > 0 else short).astype(np.float32)


def spectrogram_png(waveform: Waveform, highest_hz: int = HIGHEST_HZ) -> bytes:
    """Spectrogram of samples [time] at `rate_for(highest_hz)` as a PNG file: low frequencies at the bottom."""
    rate_hz = rate_for(highest_hz)
    window, size = int(WINDOW_S * rate_hz), FFT_SIZE * rate_hz // RATE_HZ
    padded = np.pad(waveform, (0, max(0, window - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: int(HOP_S * rate_hz)]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), size)) ** 2
    bands = power[:, 1 : highest_hz * size // rate_hz + 1].T[::-1]
    level_db = 10 * np.log10(np.maximum(bands, 1e-12))
    loudest = np.percentile(level_db, 99.8)
    shade = np.clip(1 - (loudest - level_db) / DYNAMIC_RANGE_DB, 0, 1)
    return _png((shade * (SHADES - 1)).round().astype(np.uint8))


def flac(waveform: Waveform, rate_hz: int = RATE_HZ) -> bytes:
    """Samples [time] as a FLAC file that browsers play."""
    import soundfile
    from scipy.signal import resample_poly

    file = io.BytesIO()
    played = np.clip(resample_poly(waveform.astype(np.float64), PLAYED_RATE_HZ // rate_hz, 1), -1, 1)
    soundfile.write(file, (played * 32767).round().astype(np.int16), PLAYED_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def data_address(kind: str, content: bytes) -> str:
    """`data:image/png;base64,...`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _palette() -> bytes:
    anchors = np.array(_ANCHORS, float)
    at = np.linspace(0, len(anchors) - 1, SHADES)
    colours = [np.interp(at, np.arange(len(anchors)), channel) for channel in anchors.T]
    return np.stack(colours, axis=1).round().astype(np.uint8).tobytes()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Palette image [height, width] as PNG (ISO/IEC 15948), every row unfiltered."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape
    rows = np.hstack([np.zeros((height, 1), np.uint8), pixels]).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"PLTE", _palette()),
                     chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")])
