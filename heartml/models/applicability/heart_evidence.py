"""What speaks for a heart in a log-spectrogram: `[frames, bands]` in, one vector out. Pure.

A heart repeats two short sounds some 40 to 220 times a minute, with quiet between them, and most of it below 200 Hz.
So the vector holds, for each of six groups of neighbouring bands: how loud it is beside the others, how it varies, how
strongly and with what period it repeats, at which rates it rises and falls, and how much of the time it is loud.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BAND_GROUPS = 6
PERIODS_S = (0.27, 1.5)                                    # 220 to 40 beats a minute
MODULATION_EDGES_HZ = (0.3, 0.7, 1.4, 2.8, 5.6, 11.2, 25.0)
_LEAST_FRAMES = 8

Vector = NDArray[np.float64]


def evidence(frames: NDArray[np.float32], frame_rate_hz: float) -> Vector:
    """The vector of one recording: `[frames, bands] -> [6 * 17]`, natural-logarithm levels in.

    >>> beats = np.zeros((500, 48), np.float32)
    >>> beats[::40] = 5                                    # every 0.8 s
    >>> vector = evidence(beats, 50.0).reshape(6, -1)
    >>> vector.shape, round(float(vector[0, 6]), 2)        # the period in s
    ((6, 17), 0.8)
    """
    if len(frames) < _LEAST_FRAMES:
        frames = np.pad(frames, ((0, _LEAST_FRAMES - len(frames)), (0, 0)), mode="edge")
    groups = np.array_split(frames.astype(np.float64), BAND_GROUPS, axis=1)
    envelopes = np.stack([group.mean(axis=1) for group in groups])
    overall = envelopes.mean()
    return np.concatenate([_of_envelope(one, overall, frame_rate_hz) for one in envelopes])


def _of_envelope(envelope: Vector, overall: float, frame_rate_hz: float) -> Vector:
    centred = envelope - envelope.mean()
    deviation = max(float(centred.std()), 1e-6)
    z = centred / deviation
    low, high = np.quantile(envelope, [0.1, 0.9])
    block = max(1, round(frame_rate_hz))
    blocks = [centred[start : start + block].mean() for start in range(0, len(centred), block)]
    return np.array([
        envelope.mean() - overall, deviation, float((z**3).mean()), float((z**4).mean()),
        *_repetition(centred, frame_rate_hz),
        high - low, float((envelope > (low + high) / 2).mean()), float(np.std(blocks)) / deviation,
        float(np.abs(np.diff(z)).mean()),
        *_modulation(centred, frame_rate_hz),
    ])


def _repetition(centred: Vector, frame_rate_hz: float) -> tuple[float, float, float]:
    """Height of the highest peak of the autocorrelation, its height over the lowest value before it, its lag in s."""
    size = 1 << int(np.ceil(np.log2(2 * len(centred))))
    raw = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2)[: len(centred)]
    unbiased = raw / max(float(raw[0]), 1e-9) * len(centred) / np.maximum(len(centred) - np.arange(len(centred)), 1)
    first, last = (min(round(s * frame_rate_hz), len(centred) // 2) for s in PERIODS_S)
    if last - first < 2:
        return 0.0, 0.0, 0.0
    peak = first + int(unbiased[first:last].argmax())
    return float(unbiased[peak]), float(unbiased[peak] - unbiased[: peak + 1].min()), peak / frame_rate_hz


def _modulation(centred: Vector, frame_rate_hz: float) -> Vector:
    """Shares of the envelope's power between `MODULATION_EDGES_HZ`: `[6]`."""
    power = np.abs(np.fft.rfft(centred * np.hanning(len(centred)))) ** 2
    rate_hz = np.fft.rfftfreq(len(centred), 1 / frame_rate_hz)
    edges = np.searchsorted(rate_hz, MODULATION_EDGES_HZ)
    shares = np.array([power[low:high].sum() for low, high in pairwise(edges)])
    return np.asarray(shares / max(float(power.sum()), 1e-9))
