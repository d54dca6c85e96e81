"""Which recordings a step of pre-training draws: real ones, simulated ones and general sound by their shares. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.training.pretraining.corpus import Corpus

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pools:
    """Rows of a corpus `[n]`, and the shares of a batch; the rest of a batch is real."""

    real: Ints
    simulated: Ints
    general: Ints
    simulated_share: float
    general_share: float = 0.0

    @classmethod
    def of(cls, corpus: Corpus, simulated_share: float, general_share: float = 0.0) -> "Pools":
        """The pools of a corpus."""
        real = ~corpus.simulated & ~corpus.general
        return cls(np.flatnonzero(real), np.flatnonzero(corpus.simulated), np.flatnonzero(corpus.general),
                   simulated_share, general_share)

    def draw(self, batch: int, rng: np.random.Generator) -> Ints:
        """Rows of one batch `[batch]`, with replacement. Where a kind has no recordings, the others have its share.

        >>> pools = Pools(np.arange(5), np.arange(5, 9), np.arange(9, 20), 0.25, 0.5)
        >>> rows = pools.draw(8, np.random.default_rng(0))
        >>> [int((rows < 5).sum()), int(((rows >= 5) & (rows < 9)).sum()), int((rows >= 9).sum())]
        [2, 2, 4]
        """
        general = round(batch * self.general_share) if len(self.general) else 0
        hearts = batch - general
        share = self.simulated_share if len(self.real) and len(self.simulated) else float(len(self.simulated) > 0)
        made = min(hearts, round(batch * share))
        wanted = ((self.real, hearts - made), (self.simulated, made), (self.general, general))
        return np.concatenate([rng.choice(of, size) for of, size in wanted if size])
