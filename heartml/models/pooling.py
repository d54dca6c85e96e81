"""Pooling: frames of one recording `[frames, dim]` in, one vector `[features]` out. Each band has its own features.

Averaging over bands, or over time alone, loses what distinguishes heart sounds: mean, deviation and maximum of each
band are better than the mean alone by about .02 AUC on PASCAL. A vector must not depend on a recording's length, so
every feature is an average, a quantile or a power spectral density.

`average` is the control: it averages over everything, bands too. So it tells what keeping frequency is worth.

`states` averages under each heart state, for encoders whose frames end with the probabilities of the four states
(kind `heart`). Of the frames of other encoders nothing is known, and every frame counts as much for each state.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Frames = NDArray[np.float32]

_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_MODULATION_EDGES_HZ = (0.5, 1.0, 1.5, 2.2, 3.2, 4.6, 6.6, 9.5, 13.5, 19.5)
_MODULATION_WINDOW_S = 4.0
STATES = 4                # S1, systole, S2, diastole
_LEAST_WEIGHT = 1e-3      # of a frame under a state, so that a state that is never found has a mean too
_RHYTHM_LAGS_S = (0.1, 2.0)
_RHYTHM_STEP_S = 0.05


@dataclass(frozen=True)
class Grid:
    """How the columns of a frame are bands and channels.

    Attributes:
        bands, channels: their product is the number of columns.
        bands_first: the columns are band after band; otherwise channel after channel.
        states: how many of the last columns are probabilities of heart states: four or none.
    """

    bands: int
    channels: int
    bands_first: bool = True
    states: int = 0

    @classmethod
    def of(cls, encoder: Mapping[str, Any]) -> "Grid":
        """The grid of an encoder's frames.

        Args:
            encoder: what `encoder.json` says. Only pre-trained encoders state their bands there.
        """
        dim, kind = int(encoder["dim"]), str(encoder.get("kind", encoder["name"]))
        if "bands" in encoder:
            bands = int(encoder["bands"])
            has_states = kind == "heart" and bands == 1      # its layer `input` has the bands of a spectrogram
            return cls(bands, dim // bands, states=STATES if has_states else 0)
        if kind == "random_conv":
            channels = int(encoder["sections"][kind]["channels"])
            return cls(dim // channels, channels, bands_first=False)
        return cls(dim, 1) if kind == "logspec" else cls(1, dim)

    def averaged(self, frames: Frames) -> Frames:
        """The mean over bands: `[frames, dim] -> [frames, channels]`.

        >>> frames = np.array([[1, 10, 3, 30]], np.float32)
        >>> Grid(2, 2).averaged(frames).tolist(), Grid(2, 2, bands_first=False).averaged(frames).tolist()
        ([[2.0, 20.0]], [[5.5, 16.5]])
        """
        shape = (self.bands, self.channels) if self.bands_first else (self.channels, self.bands)
        cells = frames.reshape(len(frames), *shape)
        return np.asarray(cells.mean(axis=1 if self.bands_first else 2), np.float32)


    def with_states(self, frames: Frames) -> Frames:
        """Frames whose last four columns are probabilities of heart states: those that they have, or equal ones.

        >>> Grid(1, 2).with_states(np.array([[7, 8]], np.float32)).tolist()
        [[7.0, 8.0, 0.25, 0.25, 0.25, 0.25]]
        """
        if self.states:
            return frames
        return np.concatenate([frames, np.full((len(frames), STATES), 1 / STATES, np.float32)], axis=1)


def mean(frames: Frames, frame_rate_hz: float) -> Vector:
    """Mean of every band over time: `[frames, dim] -> [dim]`.

    >>> mean(np.array([[1, 10], [3, 10]], np.float32), 50.0).tolist()
    [2.0, 10.0]
    """
    return np.asarray(frames.mean(0, dtype=np.float64))


def moments(frames: Frames, frame_rate_hz: float) -> Vector:
    """Mean, standard deviation and maximum of every band over time: `[frames, dim] -> [3 * dim]`.

    >>> frames = np.array([[1, 10], [3, 10]], np.float32)      # two frames of two bands
    >>> moments(frames, 50.0).tolist()                         # means, deviations, maxima
    [2.0, 10.0, 1.0, 0.0, 3.0, 10.0]
    """
    wide = frames.astype(np.float64)
    return np.concatenate([wide.mean(0), wide.std(0), wide.max(0)])


def under_states(frames: Frames, frame_rate_hz: float) -> Vector:
    """Mean under each heart state: `[frames, dim + 4] -> [4 * dim]`, weighted by the probability of the state.

    >>> frames = np.array([[1, 1, 0, 0, 0], [3, 0, 1, 0, 0], [5, 0, 0, 1, 0], [7, 0, 0, 0, 1]], np.float32)
    >>> under_states(frames, 25.0).round(1).tolist()       # of S1, systole, S2, diastole
    [1.0, 3.0, 5.0, 7.0]
    """
    wide = frames.astype(np.float64)
    values, weights = wide[:, :-STATES], wide[:, -STATES:] + _LEAST_WEIGHT
    return np.asarray((weights.T @ values) / weights.sum(0)[:, None]).ravel()


def statistics(frames: Frames, frame_rate_hz: float) -> Vector:
    """Moments, five quantiles, mean absolute step between frames of every band: `[frames, dim] -> [9 * dim]`.

    >>> frames = np.array([[0], [1], [2], [3], [4]], np.float32)
    >>> statistics(frames, 50.0).round(2).tolist()     # mean, deviation, maximum; 10, 25, 50, 75, 90 %; mean step
    [2.0, 1.41, 4.0, 0.4, 1.0, 2.0, 3.0, 3.6, 1.0]
    """
    wide = frames.astype(np.float64)
    steps = np.abs(np.diff(wide, axis=0)).mean(0) if len(wide) > 1 else np.zeros(wide.shape[1])
    return np.concatenate([moments(frames, frame_rate_hz), np.quantile(wide, _QUANTILES, axis=0).ravel(), steps])


def modulation(frames: Frames, frame_rate_hz: float) -> Vector:
    """Log power of every band's changes over time, in nine modulation bands: `[frames, dim] -> [9 * dim]`.

    The modulation bands lie between 0.5 and 19.5 Hz. Those above half the frame rate are left out. Power is estimated
    by Welch's method with windows of 4 s.

    >>> seconds = np.arange(600) / 50.0
    >>> frames = np.sin(2 * np.pi * 4.0 * seconds)[:, None].astype(np.float32)      # one band that changes at 4 Hz
    >>> power = modulation(frames, 50.0)
    >>> power.shape, int(power.argmax())       # number 4 is the band from 3.2 to 4.6 Hz
    ((9,), 4)
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
    """Autocorrelation of the loudness at lags from 0.1 to 2 s in steps of 0.05 s: `[frames, dim] -> [3 * 39]`.

    First of all bands together, then of the lower half of the bands, then of the upper half.

    >>> beats = np.zeros((500, 2), np.float32)
    >>> beats[::40] = 1                                   # a beat every 0.8 s
    >>> vector = rhythm(beats, 50.0)
    >>> vector.shape, round(0.1 + 0.05 * int(vector[:39].argmax()), 2)
    ((117,), 0.8)
    """
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
    """A pooling that concatenates the vectors of several poolings.

    >>> join(moments, moments)(np.ones((5, 2), np.float32), 50.0).shape
    (12,)
    """
    return lambda frames, frame_rate_hz: np.concatenate([part(frames, frame_rate_hz) for part in parts])


POOLINGS: dict[str, Callable[[Frames, float], Vector]] = {
    "average": mean,          # of frames without their bands, see `_WITHOUT_BANDS`
    "mean": mean,
    "moments": moments,
    "states": join(lambda frames, rate_hz: moments(frames[:, :-STATES], rate_hz), under_states),
    "statistics": statistics,
    "modulation": join(moments, modulation),
    "everything": join(statistics, modulation, rhythm),
}
_WITHOUT_BANDS = ("average",)
_WITH_STATES = ("states",)


def pool(name: str, frames: Sequence[Frames], frame_rate_hz: float, grid: Grid) -> NDArray[np.float64]:
    """Pool every recording with `POOLINGS[name]`: arrays `[frames, dim]` -> `[recordings, features]`.

    >>> short, long = np.zeros((3, 4), np.float32), np.zeros((300, 4), np.float32)
    >>> {name: pool(name, [short, long], 50.0, Grid(2, 2)).shape[1] for name in POOLINGS}
    {'average': 2, 'mean': 4, 'moments': 12, 'states': 28, 'statistics': 36, 'modulation': 48, 'everything': 189}
    """
    return np.stack(list(each(name, frames, frame_rate_hz, grid)))


def each(name: str, frames: Iterable[Frames], frame_rate_hz: float, grid: Grid) -> Iterator[Vector]:
    """As `pool`, one vector `[features]` at a time."""
    change = grid.averaged if name in _WITHOUT_BANDS else grid.with_states if name in _WITH_STATES else np.asarray
    for one in frames:
        yield POOLINGS[name](change(one), frame_rate_hz)


def per_unit(vectors: NDArray[np.float64], unit: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean, maximum and minimum over the recordings of each unit: `[r, f], [r] -> [u, 3 * f]`.

    >>> per_unit(np.array([[1.0], [7.0], [3.0]]), np.array([0, 1, 0])).tolist()
    [[2.0, 3.0, 1.0], [7.0, 7.0, 7.0]]

    Args:
        vectors: one for each recording.
        unit: unit of each recording, in `0 .. u-1`; each has at least one.
    """
    return np.stack(list(each_unit(vectors, unit)))


def each_unit(vectors: NDArray[np.float64], unit: NDArray[np.int64]) -> Iterator[Vector]:
    """As `per_unit`, one vector `[3 * f]` at a time."""
    for own in (vectors[rows] for rows in rows_of(unit)):
        yield np.concatenate([own.mean(0), own.max(0), own.min(0)])


def rows_of(unit: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each unit `0 .. u-1`, in increasing order: `[rows] -> u` arrays.

    >>> [rows.tolist() for rows in rows_of(np.array([1, 0, 1, 3]))]      # no row belongs to unit 2
    [[1], [0, 2], [], [3]]
    """
    order = np.argsort(unit, kind="stable")     # once, instead of searching all rows for every unit
    return np.split(order, np.searchsorted(unit[order], np.arange(1, int(unit.max()) + 1)))
