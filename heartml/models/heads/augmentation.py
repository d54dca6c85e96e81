"""Augmentation: recordings `[frames, dim]` in, batches of random crops `[batch, frames, dim]` out, changed at random.

Where the recipe asks for it, noise is added as in a noisy room. All crops are changed in tempo, spectral tilt, position
of the bands (by one) and gain, get Gaussian noise on every value, and masks in time and frequency (SpecAugment, Park et
al. 2019).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads import Targets
from heartml.models.heads.noise import Noise, loudness

_TEMPO = 0.13
_TILT = 0.5            # standard deviation of the change from lowest to highest band, natural logarithm of power
_GAIN = 0.3
_NOISE = 0.2
_MASK_S = 0.4
_MASK_BANDS = 6


@dataclass(frozen=True)
class Crops:
    """Frames of all recordings in one array, to draw crops from.

    Attributes:
        frames: `[all frames, dim]` in half precision: a rounding step is a hundredth of the noise that is added.
        states: heart states, int8 `[all frames]`, or `None`.
        first, length: first row and number of frames of each recording.
        loudness: power of each recording, from which a signal-to-noise ratio is measured; `None` without noise.
        size: frames of a crop.
        mask: largest width of a mask in time, in frames.
        strength: scales every change but the noise.
        noise: what is added; `None` for nothing.
    """

    frames: NDArray[np.float16]
    states: NDArray[np.int8] | None
    first: NDArray[np.int64]
    length: NDArray[np.int64]
    loudness: NDArray[np.float32] | None
    size: int
    mask: int
    strength: float
    noise: Noise | None

    @classmethod
    def of(
        cls, frames: Iterable[NDArray[np.float32]], targets: Targets, strength: float, chunk_s: float,
        noise: Noise | None = None,
    ) -> Self:
        """Collect recordings `[frames, dim]` and, where there are any, their heart states; crops last `chunk_s`."""
        halves = [one.astype(np.float16, copy=False) for one in frames]
        length = np.array([len(f) for f in halves])
        states = None if targets.states is None else np.concatenate(list(targets.states))
        rate = targets.frame_rate_hz
        loud = None if noise is None else np.array([loudness(one, rate) for one in halves], np.float32)
        return cls(np.concatenate(halves), states, np.cumsum(length) - length, length, loud,
                   max(1, round(chunk_s * rate)), max(1, round(_MASK_S * rate)), strength, noise)

    def draw(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int8] | None]:
        """One random crop of each recording in `rows`, changed: `[rows, size, dim]` and states `[rows, size]`."""
        crops, states = self.place(rows, rng)
        return self.changed(crops, rows, rng), states

    def place(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int8] | None]:
        """One random crop of each recording in `rows`, changed in tempo alone, see `draw`.

        A recording that is shorter than a crop is repeated.
        """
        length = self.length[rows][:, None]
        tempo = np.exp(rng.uniform(-1, 1, (len(rows), 1)) * _TEMPO * self.strength)
        spare = np.maximum(length - self.size * tempo - 1, 0)
        start = np.where(spare > 0, rng.uniform(0, 1, spare.shape) * spare, rng.uniform(0, 1, spare.shape) * length)
        position = start + np.arange(self.size) * tempo
        whole = position.astype(np.int64)
        share = (position - whole).astype(np.float32)[..., None]
        here = self.first[rows][:, None] + whole % length
        there = self.first[rows][:, None] + (whole + 1) % length
        crops = self.frames[here].astype(np.float32) * (1 - share) + self.frames[there].astype(np.float32) * share
        return crops, None if self.states is None else self.states[here]

    def changed(
        self, crops: NDArray[np.float32], rows: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Crops `[rows, any size, dim]` of these recordings with everything changed but their tempo."""
        if self.noise is not None and self.loudness is not None:
            self.noise.add(crops, self.loudness[rows], rng)
        batch, size, dim = crops.shape
        bands = np.clip(np.arange(dim)[None] + rng.integers(-1, 2, (batch, 1)), 0, dim - 1)
        crops = np.take_along_axis(crops, bands[:, None, :], axis=2)
        tilt = rng.normal(0, _TILT * self.strength, (batch, 1, 1)) * np.linspace(-0.5, 0.5, dim)
        gain = rng.normal(0, _GAIN * self.strength, (batch, 1, 1))
        crops += (tilt + gain).astype(np.float32)
        crops += rng.standard_normal(crops.shape, dtype=np.float32) * np.float32(_NOISE * self.strength)
        mean = crops.mean(axis=(1, 2))
        for row in range(batch):
            for _ in range(2):
                mask(crops[row], mean[row], size, round(self.mask * self.strength), rng)
                mask(crops[row].T, mean[row], dim, round(_MASK_BANDS * self.strength), rng)
        return crops


def mask(values: NDArray[np.float32], value: np.float32, size: int, widest: int, rng: np.random.Generator) -> None:
    """Overwrite up to `widest` neighbouring rows of `values` in place."""
    width = int(rng.integers(0, widest + 1))
    first = int(rng.integers(0, max(1, size - width)))
    values[first : first + width] = value
