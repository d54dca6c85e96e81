"""Pooling as an ONNX graph: frames `[frames, dim]` of one recording in, one vector `[features]` out.

It is `heartml.models.pooling` once more; a test compares each of its poolings with the one here.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from heartml.export.graph import ops
from heartml.export.graph.ops import count, double, f64, i64, length, numbers, part
from heartml.models import pooling
from heartml.models.pooling import Grid

Pooling = Callable[[Var, float, int], Var]      # frames in double precision, frames a second, dim


def _mean(frames: Var, rate_hz: float, dim: int) -> Var:
    return ops.mean(frames, 0)


def moments(frames: Var, rate_hz: float, dim: int) -> Var:
    """Mean, deviation and maximum of every band: `[frames, dim] -> [3 * dim]`."""
    return op.concat([ops.mean(frames, 0), ops.deviation(frames, 0), ops.greatest(frames, 0)], axis=0)


def _statistics(frames: Var, rate_hz: float, dim: int) -> Var:
    quantiles = op.reshape(ops.quantiles(frames, pooling._QUANTILES), i64([-1]))
    last = length(frames)
    steps = op.abs(part(frames, 1, last) - part(frames, 0, last - i64(1)))
    mean_step = ops.total(steps, 0) / double(op.max([last - i64(1), i64(1)]))
    return op.concat([moments(frames, rate_hz, dim), quantiles, mean_step], axis=0)


def _modulation(frames: Var, rate_hz: float, dim: int) -> Var:
    size = round(pooling._MODULATION_WINDOW_S * rate_hz)
    bin_hz = np.fft.rfftfreq(size, 1 / rate_hz)
    edges = np.searchsorted(bin_hz, [e for e in pooling._MODULATION_EDGES_HZ if e <= rate_hz / 2])
    bands = [(int(low), max(int(high), int(low) + 1)) for low, high in pairwise(edges)]
    first, last = bands[0][0], bands[-1][1]
    window = np.hanning(size)
    angle = 2 * np.pi * np.outer(np.arange(first, last), np.arange(size)) / size
    centred = ops.end_padded(frames - ops.row(ops.mean(frames, 0)), i64(size))
    windows = (length(centred) - i64(size)) // i64(size // 2) + i64(1)
    at = ops.column(numbers(windows) * i64(size // 2)) + ops.row(i64(np.arange(size)))
    cut = op.gather(centred, at)                                                    # [windows, size, dim]
    real = op.matmul(ops.stored(np.cos(angle) * window), cut)                        # [windows, bins, dim]
    imaginary = op.matmul(ops.stored(np.sin(angle) * window), cut)
    power = ops.mean(real * real + imaginary * imaginary, 0) / float((window**2).sum())
    of_bands = [ops.mean(part(power, low - first, high - first), 0) for low, high in bands]
    return op.log(op.concat(of_bands, axis=0) + 1e-3)


def _rhythm(frames: Var, rate_hz: float, dim: int) -> Var:
    half = dim // 2
    envelopes = [ops.mean(frames, 1), ops.mean(part(frames, 0, half, 1), 1), ops.mean(part(frames, half, dim, 1), 1)]
    low, high = pooling._RHYTHM_LAGS_S
    lags = np.arange(low, high + 1e-9, pooling._RHYTHM_STEP_S) * rate_hz
    return op.concat([_autocorrelation(one, lags) for one in envelopes], axis=0)


def _autocorrelation(envelope: Var, lags: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Var:
    centred = envelope - ops.mean(envelope, 0)
    raw = autocorrelation(ops.row(centred), math.ceil(lags.max()) + 1)
    raw = op.squeeze(raw, i64([0]))
    raw = raw / op.max([op.gather(raw, i64(0)), f64(1e-9)])
    low = np.floor(lags).astype(np.int64)
    below, above = op.gather(raw, i64(low)), op.gather(raw, i64(low + 1))
    found = below + (above - below) * f64(lags - low)
    return op.where(op.less_or_equal(f64(lags), double(length(envelope) - i64(1))), found, f64(0.0))


def autocorrelation(centred: Var, lags: int) -> Var:
    """Sums of products at the lags 0 to `lags - 1`: `[n, frames] -> [n, lags]`."""
    frames = length(centred, 1)
    padded = op.pad(centred, count(0, 0, 0, lags))
    at = ops.column(i64(np.arange(lags))) + ops.row(numbers(frames))                 # [lags, frames]
    shifted = op.gather(padded, at, axis=1)                                          # [n, lags, frames]
    return op.squeeze(op.matmul(shifted, op.unsqueeze(centred, i64([2]))), i64([2]))


def _states(frames: Var, rate_hz: float, dim: int) -> Var:
    """See `heartml.models.pooling.under_states`; the last four columns are the states."""
    last = dim - pooling.STATES
    values = part(frames, 0, last, 1)
    weights = op.transpose(part(frames, last, dim, 1) + pooling._LEAST_WEIGHT)
    means = op.matmul(weights, values) / ops.column(ops.total(weights, 1))
    return op.concat([moments(values, rate_hz, last), op.reshape(means, i64([-1]))], axis=0)


def _join(*parts: Pooling) -> Pooling:
    return lambda frames, rate_hz, dim: op.concat([one(frames, rate_hz, dim) for one in parts], axis=0)


GRAPHS: dict[str, Pooling] = {
    "average": _mean,
    "mean": _mean,
    "moments": moments,
    "states": _states,
    "statistics": _statistics,
    "modulation": _join(moments, _modulation),
    "everything": _join(_statistics, _modulation, _rhythm),
}


def pooled(name: str, frames: Var, rate_hz: float, grid: Grid) -> Var:
    """One vector `[features]` of frames `[frames, dim]` in single precision; see `heartml.models.pooling.pool`."""
    dim = grid.bands * grid.channels
    if name in pooling._WITHOUT_BANDS:
        shape = (grid.bands, grid.channels) if grid.bands_first else (grid.channels, grid.bands)
        cells = op.reshape(frames, i64([-1, *shape]))
        frames, dim = ops.mean(cells, 1 if grid.bands_first else 2), grid.channels
    exact = double(frames)
    if name in pooling._WITH_STATES and not grid.states:
        equal = op.expand(f64(1 / pooling.STATES), count(length(frames), pooling.STATES))
        exact, dim = op.concat([exact, equal], axis=1), dim + pooling.STATES
    return GRAPHS[name](exact, rate_hz, dim)
