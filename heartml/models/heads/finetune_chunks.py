"""Chunks of recordings `[frames, dim]` to fine-tune on: drawn at random and perhaps masked, or from the middle.

A recording that is shorter than a chunk is repeated. Nothing else of the sound is changed, unlike in
`heartml.models.heads.augmentation`: an encoder that is fine-tuned has heard its publisher's sounds as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads.augmentation import mask

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Chunks:
    """Frames of all recordings in one array.

    Attributes:
        frames: `[all frames, dim]`, in half precision, as they are stored.
        first, length: first row and number of frames of each recording.
        size: frames of a chunk.
        mask_bands, mask_frames: widest mask; 0 for none.
    """

    frames: NDArray[np.float16]
    first: Ints
    length: Ints
    size: int
    mask_bands: int = 0
    mask_frames: int = 0

    @classmethod
    def of(cls, frames: Sequence[NDArray[np.float32]], size: int, mask_bands: int = 0, mask_frames: int = 0) -> Self:
        """Collect recordings `[frames, dim]`."""
        length = np.array([len(one) for one in frames], np.int64)
        together = np.concatenate([one.astype(np.float16, copy=False) for one in frames])
        return cls(together, np.cumsum(length) - length, length, size, mask_bands, mask_frames)

    def draw(self, rows: Ints, rng: np.random.Generator) -> tuple[NDArray[np.float32], None]:
        """A random chunk of each recording in `rows`: `[rows, size, dim]`; heart states are not used."""
        spare = np.maximum(self.length[rows] - self.size, 0)
        found = self._at(rows, rng.integers(0, spare + 1))
        for one in found if self.mask_bands or self.mask_frames else ():
            value = one.mean()
            mask(one, value, len(one), min(self.mask_frames, len(one)), rng)
            mask(one.T, value, one.shape[1], min(self.mask_bands, one.shape[1]), rng)
        return found, None

    def middle(self, rows: Ints) -> NDArray[np.float32]:
        """The chunk in the middle of each recording in `rows`: `[rows, size, dim]`."""
        return self._at(rows, np.maximum(self.length[rows] - self.size, 0) // 2)

    def _at(self, rows: Ints, start: Ints) -> NDArray[np.float32]:
        place = (start[:, None] + np.arange(self.size)) % self.length[rows][:, None]
        return self.frames[self.first[rows][:, None] + place].astype(np.float32)
