"""Noise added to log-spectrograms as a worse ear adds it to the waveform: powers meet, not their logarithms.

What a band of the encoder `logspec` makes of Gaussian noise is nearly the mean of two neighbouring complex normals,
each half its neighbour: the powers of white noise have a deviation of 1.0 in natural logarithm and a correlation of .66
with the next band, .19 with the one after it and .1 with the next frame; here .9, .6, .1 and none. Level and place of
the ratio are those of `heartml.evaluation.perturbations`: the median of half-second windows, between 25 and 800 Hz.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.core.system.lazy import LazySequence

Floats = NDArray[np.float32]

_WINDOW_S = 0.5
_SLOPES = (-1.0, 2.0)     # of power over frequency, below zero white: a third is white, a room falls with about 1.7


@dataclass(frozen=True)
class Noise:
    """How often, and how loud: the signal-to-noise ratio is drawn evenly between two, in dB."""

    share: float
    low_db: float
    high_db: float

    def add(self, crops: Floats, loudness: Floats, rng: np.random.Generator) -> None:
        """Into a share of the crops `[batch, frames, dim]`, in place; a crop's mean stays, as if centred after it."""
        rows = np.flatnonzero(rng.random(len(crops)) < self.share)
        snr_db = rng.uniform(self.low_db, self.high_db, len(rows))
        power = loudness[rows, None] * 10 ** (-snr_db[:, None] / 10) * spectra(len(rows), crops.shape[2], rng)
        noisy = meeting(crops[rows], power.astype(np.float32), rng)
        crops[rows] = noisy - (noisy - crops[rows]).mean((1, 2), keepdims=True)


def in_noise(
    frames: Sequence[Floats], recording_ids: Sequence[str], unit_ids: Sequence[str], noise: Noise, frame_rate_hz: float,
) -> LazySequence[Floats]:
    """Recordings `[frames, dim]` with noise added: one signal-to-noise ratio and one colour a unit, drawn from its id.

    The same recording always gets the same noise, so that networks whose predictions are averaged see one input.
    """
    def noisy(row: int) -> Floats:
        clean, of_unit = np.asarray(frames[row], np.float32), _drawn_from(unit_ids[row])
        snr_db = of_unit.uniform(noise.low_db, noise.high_db)
        power = loudness(clean, frame_rate_hz) * 10 ** (-snr_db / 10) * spectra(1, clean.shape[1], of_unit)
        return np.asarray(meeting(clean[None], power.astype(np.float32), _drawn_from(recording_ids[row]))[0],
                          np.float32)

    return LazySequence(noisy, len(frames))


def _drawn_from(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def loudness(frames: NDArray[np.floating], frame_rate_hz: float) -> float:
    """Median power of half-second windows of log powers `[frames, dim]`; of everything where no window is whole."""
    power = np.exp(frames.astype(np.float64)).mean(1)
    window = max(1, round(_WINDOW_S * frame_rate_hz))
    whole = len(power) // window
    return float(np.median(power[: whole * window].reshape(whole, window).mean(1)) if whole else power.mean())


def spectra(count: int, dim: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Power of each band, `[count, dim]`, of mean one: white, or falling with a power of the frequency.

    Bands are evenly spaced and begin at one and a half times their distance, as those from 25 to 800 Hz do.
    """
    slope = np.maximum(rng.uniform(*_SLOPES, (count, 1)), 0)
    falling = (np.arange(dim) + 1.5) ** -slope
    return np.asarray(falling / falling.mean(1, keepdims=True))


def meeting(crops: Floats, power: Floats, rng: np.random.Generator) -> Floats:
    """Log powers `[n, frames, dim]` and noise of mean power `[n, dim]` -> log powers of both, phases at random."""
    n, size, dim = crops.shape
    normal = rng.standard_normal((2, n, size, dim + 2), dtype=np.float32)
    tones = (normal[..., 1:] + normal[..., :-1]) / 2     # unit power, real and imaginary part together
    signal, noise = np.exp(crops / 2), np.sqrt(power)[:, None]
    met = [(signal + noise * re) ** 2 + (noise * im) ** 2 for re, im in
           ((tones[0, ..., :-1], tones[1, ..., :-1]), (tones[0, ..., 1:], tones[1, ..., 1:]))]
    return np.asarray(np.log((met[0] + met[1]) / 2 + 1e-8), np.float32)
