"""Noise added to log-spectrograms `[batch, frames, dim]`, as if it had been added to the waveform: powers are added.

For Gaussian noise, a band of the encoder `logspec` is close to the mean of the powers of two neighbouring complex
normal variables that neighbouring bands share. The logarithm of white noise's power has a standard deviation of 1.0, a
correlation of .66 with the next band, of .19 with the one after it, and of .1 with the next frame. The noise made here
has .9, .6, .1 and none. Signal-to-noise ratios are those of `heartml.evaluation.perturbations`: against the median
power of half-second windows, in the band of the spectrogram, which is that of the organ.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.core.system.lazy import LazySequence

Floats = NDArray[np.float32]

_WINDOW_S = 0.5
_SLOPES = (-1.0, 2.0)     # power falls with frequency to this power; below 0 white (a third); a room has about 1.7


@dataclass(frozen=True)
class Noise:
    """Share of crops that get noise, and the range of the signal-to-noise ratio in dB, drawn uniformly."""

    share: float
    low_db: float
    high_db: float

    def add(self, crops: Floats, loudness: Floats, rng: np.random.Generator) -> None:
        """Add noise to a share of the crops `[batch, frames, dim]`, in place; each crop keeps its mean.

        Args:
            loudness: power of each crop's recording `[batch]`, see `loudness`.
        """
        rows = np.flatnonzero(rng.random(len(crops)) < self.share)
        snr_db = rng.uniform(self.low_db, self.high_db, len(rows))
        power = loudness[rows, None] * 10 ** (-snr_db[:, None] / 10) * noise_spectra(len(rows), crops.shape[2], rng)
        noisy = add_noise_power(crops[rows], power.astype(np.float32), rng)
        crops[rows] = noisy - (noisy - crops[rows]).mean((1, 2), keepdims=True)


def with_noise(
    frames: Sequence[Floats], recording_ids: Sequence[str], unit_ids: Sequence[str], noise: Noise, frame_rate_hz: float,
) -> LazySequence[Floats]:
    """Recordings `[frames, dim]` with noise added; `recording_ids` and `unit_ids` are those of each recording.

    All recordings of a unit get one signal-to-noise ratio and one spectrum, drawn from the unit's id. The same
    recording always gets the same noise, so that networks whose predictions are averaged have one input.
    """
    def noisy(row: int) -> Floats:
        clean, of_unit = np.asarray(frames[row], np.float32), _drawn_from(unit_ids[row])
        snr_db = of_unit.uniform(noise.low_db, noise.high_db)
        power = loudness(clean, frame_rate_hz) * 10 ** (-snr_db / 10) * noise_spectra(1, clean.shape[1], of_unit)
        return np.asarray(add_noise_power(clean[None], power.astype(np.float32), _drawn_from(recording_ids[row]))[0],
                          np.float32)

    return LazySequence(noisy, len(frames))


def _drawn_from(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def loudness(frames: NDArray[np.floating], frame_rate_hz: float) -> float:
    """Median power of half-second windows of log powers `[frames, dim]`; of all frames of a shorter recording."""
    power = np.exp(frames.astype(np.float64)).mean(1)
    window = max(1, round(_WINDOW_S * frame_rate_hz))
    whole = len(power) // window
    return float(np.median(power[: whole * window].reshape(whole, window).mean(1)) if whole else power.mean())


def noise_spectra(count: int, dim: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random noise spectra `[count, dim]` with mean power one: white, or falling with a power of the frequency.

    Bands are evenly spaced. The first lies at one and a half times their distance, as it does from 25 to 800 Hz in 48
    bands, and from 60 to 2500 Hz in 64.
    """
    slope = np.maximum(rng.uniform(*_SLOPES, (count, 1)), 0)
    falling = (np.arange(dim) + 1.5) ** -slope
    return np.asarray(falling / falling.mean(1, keepdims=True))


def add_noise_power(crops: Floats, power: Floats, rng: np.random.Generator) -> Floats:
    """Log powers `[n, frames, dim]`, mean noise powers `[n, dim]` -> log powers of the sum, with random phases."""
    n, size, dim = crops.shape
    normal = rng.standard_normal((2, n, size, dim + 2), dtype=np.float32)
    tones = (normal[..., 1:] + normal[..., :-1]) / 2     # unit power, real and imaginary part together
    signal, noise = np.exp(crops / 2), np.sqrt(power)[:, None]
    sums = [(signal + noise * re) ** 2 + (noise * im) ** 2 for re, im in
            ((tones[0, ..., :-1], tones[1, ..., :-1]), (tones[0, ..., 1:], tones[1, ..., 1:]))]
    return np.asarray(np.log((sums[0] + sums[1]) / 2 + 1e-8), np.float32)
