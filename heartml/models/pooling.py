"""From frames to one vector: `[frames, dim] -> [features]`, each band kept apart.

Averaging over bands, or the plain mean over time, loses what tells heart feature_set apart: mean, deviation and maximum
of each band beat the mean alone by about .02 AUC on PASCAL. What a vector says must not depend on a recording's length:
every figure is an average, a quantile or a spectrum per hertz.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Frames = NDArray[np.float32]

_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_MODULATION_EDGES_HZ = (0.5, 1.0, 1.5, 2.2, 3.2, 4.6, 6.6, 9.5, 13.5, 19.5)
_MODULATION_WINDOW_S = 4.0
_RHYTHM_LAGS_S = (0.1, 2.0)
_RHYTHM_STEP_S = 0.05


def moments(frames: Frames, frame_rate_hz: float) -> Vector:
    """Mean, deviation and maximum of every band: `[3 * dim]`."""
    wide = frames.astype(np.float64)
    return np.concatenate([wide.mean(0), wide.std(0), wide.max(0)])


def statistics(frames: Frames, frame_rate_hz: float) -> Vector:
    """Moments, five quantiles and the mean step from frame to frame of every band: `[9 * dim]`."""
    wide = frames.astype(np.float64)
    steps = np.abs(np.diff(wide, axis=0)).mean(0) if len(wide) > 1 else np.zeros(wide.shape[1])
    return np.concatenate([moments(frames, frame_rate_hz), np.quantile(wide, _QUANTILES, axis=0).ravel(), steps])


def modulation(frames: Frames, frame_rate_hz: float) -> Vector:
    """Log power of every band's slow changes in up to nine modulation bands from 0.5 to 19.5 Hz: `[9 * dim]`.

    Bands above half the frame rate are left out.
    """
    size = round(_MODULATION_WINDOW_S * frame_rate_hz)
    power = _welch(frames.astype(np.float64) - frames.mean(0), size)
    rate_hz = np.fft.rfftfreq(size, 1 / frame_rate_hz)
    edges = np.searchsorted(rate_hz, [e for e in _MODULATION_EDGES_HZ if e <= frame_rate_hz / 2])
    bands = [power[low : max(high, low + 1)].mean(0) for low, high in pairwise(edges)]
    return np.asarray(np.log(np.concatenate(bands) + 1e-3))


def _welch(centred: Vector, size: int) -> Vector:
    """Mean power spectrum of half-overlapping Hann windows of `size` frames: `[size // 2 + 1, dim]`."""
    if len(centred) < size:
        centred = np.pad(centred, ((0, size - len(centred)), (0, 0)))
    starts = range(0, len(centred) - size + 1, size // 2)
    window = np.hanning(size)[:, None]
    spectra = [np.abs(np.fft.rfft(centred[s : s + size] * window, axis=0)) ** 2 for s in starts]
    return np.asarray(np.mean(spectra, axis=0)) / float((window**2).sum())


def rhythm(frames: Frames, frame_rate_hz: float) -> Vector:
    """Autocorrelation of the loudness over 0.1 to 2 s, of its low and of its high half of bands: `[3 * 39]`."""
    half = frames.shape[1] // 2
    envelopes = [frames.mean(1), frames[:, :half].mean(1), frames[:, half:].mean(1)]
    lags_s = np.arange(_RHYTHM_LAGS_S[0], _RHYTHM_LAGS_S[1] + 1e-9, _RHYTHM_STEP_S)
    return np.concatenate([_autocorrelation(e.astype(np.float64), lags_s * frame_rate_hz) for e in envelopes])


def _autocorrelation(envelope: Vector, lags: Vector) -> Vector:
    """Normalised autocorrelation at fractional `lags`, zero beyond the envelope's end: `[lags]`."""
    centred = envelope - envelope.mean()
    size = 1 << int(np.ceil(np.log2(2 * len(centred) + 1)))
    raw = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2)[: len(centred)]
    return np.asarray(np.interp(lags, np.arange(len(raw)), raw / max(raw[0], 1e-9), right=0.0))


def join(*parts: Callable[[Frames, float], Vector]) -> Callable[[Frames, float], Vector]:
    """A pooling that sets the vectors of several behind each other."""
    return lambda frames, frame_rate_hz: np.concatenate([part(frames, frame_rate_hz) for part in parts])


POOLINGS: dict[str, Callable[[Frames, float], Vector]] = {
    "moments": moments,
    "statistics": statistics,
    "modulation": join(moments, modulation),
    "everything": join(statistics, modulation, rhythm),
}


def pool(name: str, frames: Sequence[Frames], frame_rate_hz: float) -> NDArray[np.float64]:
    """One vector for each array of frames: `[recordings, features]`."""
    return np.stack([POOLINGS[name](one, frame_rate_hz) for one in frames])


def per_unit(vectors: NDArray[np.float64], unit: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean, maximum and minimum over the rows of each unit: `[rows, f], [rows] in 0 .. u-1 -> [u, 3 f]`."""
    found = (vectors[rows] for rows in rows_of(unit))
    return np.stack([np.concatenate([r.mean(0), r.max(0), r.min(0)]) for r in found])


def rows_of(unit: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each unit 0 .. u-1, in their order: `[rows] -> u arrays`. Sorted once, not looked through u times."""
    order = np.argsort(unit, kind="stable")
    return np.split(order, np.searchsorted(unit[order], np.arange(1, int(unit.max()) + 1)))
