"""Recordings made worse, for a model to learn when it cannot judge: log-spectrograms `[frames, bands]` in and out.

The changes are made to the frames, as if they had been made to the sound: a filter scales the power of each band, and
the level is set again as `heartml.audio.preprocessing` does. So no recording has to be decoded again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.models.encoders.logspec import FLOOR
from heartml.models.heads.noise import add_noise_power, loudness, noise_spectra

NOISE_SNR_DB = (-6.0, 1.0)                 # below what networks are trained on (search.training)
ORDERS = (2, 5)                            # of the filters, Butterworth
TILT_DB = 13.0                             # deviation of a random equaliser at each of its five knots
BURSTS_PER_S, BURST_S = (1.0, 6.0), (0.01, 0.4)
_LOW_PASSES, _BURSTS = 2 / 3, 1 / 2        # shares
_NOTHING = -30.0                           # logarithm of the power where there is no sound

Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Bands:
    """Centres of the bands in Hz `[bands]`, frames per second, and what a sensor may not stop.

    Attributes:
        muffled_hz, thin_hz: between these lies the corner of a low pass, or of a high pass, that makes an organ's
            recording useless (`organs` in `params.yaml`).
    """

    centres_hz: NDArray[np.float64]
    frame_rate_hz: float
    muffled_hz: tuple[float, float]
    thin_hz: tuple[float, float]


def equalised(frames: Frames, rng: np.random.Generator) -> Frames:
    """As another sensor would record it: five random gains, smooth between them. Still as good as before."""
    knots = rng.normal(0, TILT_DB / 10 * np.log(10), 5)
    gains = np.interp(np.linspace(0, 4, frames.shape[1]), np.arange(5), knots)
    return frames + gains.astype(np.float32)


def noisy(frames: Frames, bands: Bands, rng: np.random.Generator) -> Frames:
    """With noise in which everything drowns: white or of a room, steady, or in half in bursts as of rubs and voices."""
    before = loudness(frames, bands.frame_rate_hz)
    power = before * 10 ** (-rng.uniform(*NOISE_SNR_DB) / 10) * noise_spectra(1, frames.shape[1], rng)
    noise = add_noise_power(np.full_like(frames[None], _NOTHING), power.astype(np.float32), rng)[0]
    if rng.random() < _BURSTS:
        noise = noise + np.log(_bursts(len(frames), bands.frame_rate_hz, rng))[:, None].astype(np.float32)
    louder = np.logaddexp(frames, noise)
    return np.asarray(louder - np.log(loudness(louder, bands.frame_rate_hz) / before), np.float32)


def _bursts(count: int, frame_rate_hz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Power of bursts at random times, `[frames]`, one in the mean."""
    at = np.arange(count)
    power = np.full(count, 1e-4)
    for _ in range(1 + rng.poisson(rng.uniform(*BURSTS_PER_S) * count / frame_rate_hz)):
        length = np.exp(rng.uniform(*np.log(BURST_S))) * frame_rate_hz
        power += np.exp(rng.normal(0, 1.2) - 0.5 * ((at - rng.uniform(0, count)) / length) ** 2)
    return np.asarray(power / power.mean())


def narrow(frames: Frames, bands: Bands, rng: np.random.Generator) -> Frames:
    """Through a sensor that stops high frequencies, or, in a third, low ones."""
    power = np.maximum(np.exp(frames.astype(np.float64)) - FLOOR, 1e-12)
    twice_order = 2 * rng.integers(*ORDERS, endpoint=True)
    if rng.random() < _LOW_PASSES:
        ratio = bands.centres_hz / np.exp(rng.uniform(*np.log(bands.muffled_hz)))
    else:
        ratio = np.exp(rng.uniform(*np.log(bands.thin_hz))) / bands.centres_hz
    passed = power / (1 + ratio**twice_order)
    level = loudness(np.log(power), bands.frame_rate_hz) / loudness(np.log(passed), bands.frame_rate_hz)
    return np.asarray(np.log(passed * level + FLOOR), np.float32)
