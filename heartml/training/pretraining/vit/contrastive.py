"""Contrastive learning in the manner of SimCLR (Chen et al., 2020), as it was tried on heart sounds.

Two crops of one window of a recording are changed at random (noise as of a room, spectral tilt, gain, masks). From one
of them the network has to find the other among those of all recordings of the batch. The loss is the cross-entropy of
that choice, by cosine and temperature. Window, crop, temperature and batch are those of the study of heart sounds
listen2yourheart (5 s, 2 s, 0.1, 128); its network was a convolution on waveforms.
"""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heartml.core.config import VitParams
from heartml.models.encoders.m2d import Transformer
from heartml.models.heads.augmentation import Crops
from heartml.training.pretraining import loop
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.draw import Pools
from heartml.training.pretraining.fit import NOISE
from heartml.training.pretraining.vit import start as starts
from heartml.training.pretraining.vit.start import Scale, Start, Stats

LOSS = "contrastive"
_KEY = 3                         # of its random numbers


class ContrastiveNetwork(nn.Module):
    """`[batch, mels, frames] -> [batch, projection]`: the mean of all tokens through a perceptron, at unit length."""

    def __init__(self, start: Start, stats: Stats, projection: int) -> None:
        super().__init__()
        self.scale, self.columns, self.encoder = Scale(stats), start.grid.columns, start.transformer
        self.project = nn.Sequential(nn.Linear(start.width, start.width), nn.ReLU(), nn.Linear(start.width, projection))
        starts.initialise(self.project)

    def forward(self, pictures: Tensor) -> Tensor:
        tokens = self.encoder(self.scale(pictures), self.columns)[-1]
        return functional.normalize(self.project(tokens.mean(1)).float(), dim=1)


def choice_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each row's partner among all other rows; `[batch, d]` twice, at unit length.

    >>> a = torch.eye(2)
    >>> round(float(choice_loss(a, a, 0.1)), 4), round(float(choice_loss(a, a.flip(0), 0.1)), 1)
    (0.0001, 10.0)
    """
    both = torch.cat([first, second])
    alike = both @ both.T / temperature
    alike = alike.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), float("-inf"))
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return functional.cross_entropy(alike, partner)


class ContrastiveLearner:
    """Draws a window of each recording and two changed crops of it."""

    def __init__(self, start: Start, corpus: Corpus, stats: Stats, params: VitParams, pools: Pools, seed: int) -> None:
        own = self._own = params.contrastive
        self._pools, self._seed = pools, seed
        self._windows = Crops.of(corpus.frames, corpus.targets, 0.0, own.window_s, NOISE)
        wide, limit = start.grid.wide, start.grid.columns
        columns = min(limit, max(1, round(own.crop_s * corpus.frame_rate_hz) // wide))
        self._views = dataclasses.replace(self._windows, size=columns * wide, strength=1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = ContrastiveNetwork(start, stats, own.projection)

    @property
    def names(self) -> tuple[str, ...]:
        """One loss."""
        return (LOSS,)

    @property
    def encoder(self) -> Transformer:
        """The encoder, without what projects its tokens."""
        return self.network.encoder

    def losses_of(self, step: int) -> dict[str, Tensor]:
        """See `Learner`."""
        rng, device = np.random.default_rng([self._seed, _KEY, step]), loop.device_of(self.network)
        rows = self._pools.draw(self._own.batch, rng)
        windows = self._windows.place(rows, rng)[0]
        views = [torch.from_numpy(self._view(windows, rows, rng)).transpose(1, 2).to(device) for _ in range(2)]
        return {LOSS: choice_loss(self.network(views[0]), self.network(views[1]), self._own.temperature)}

    def after(self, steps: int) -> None:
        """Nothing."""

    def _view(self, windows: NDArray[np.float32], rows: NDArray[np.int64], rng: np.random.Generator
              ) -> NDArray[np.float32]:
        """A changed crop of each window: `[batch, window, mels] -> [batch, crop, mels]`."""
        first = rng.integers(0, windows.shape[1] - self._views.size + 1, len(windows))
        crops = windows[np.arange(len(windows))[:, None], first[:, None] + np.arange(self._views.size)]
        return self._views.changed(crops, rows, rng)
