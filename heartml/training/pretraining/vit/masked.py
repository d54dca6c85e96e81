"""Masked modelling in the manner of M2D (Niizumi et al., Masked Modeling Duo, 2023, arXiv 2210.14648).

The online encoder sees the visible patches of a spectrogram, the target encoder the masked ones alone. From what the
first has made of the visible patches a predictor tells what the second makes of the masked ones. The loss is the
squared distance of both at unit length. The target encoder is a moving mean of the online one and is not trained.
"""

import copy
import functools
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heartml.core.config import MaskedParams, VitParams
from heartml.models.encoders.m2d import Transformer
from heartml.models.heads.augmentation import Crops
from heartml.training.pretraining import loop
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.draw import Pools
from heartml.training.pretraining.vit import start as starts
from heartml.training.pretraining.vit.start import Grid, Scale, Start, Stats

LOSS = "masked"
_KEY = 2                         # of its random numbers
_DEVIATION = 0.02


class MaskedNetwork(nn.Module):
    """Both encoders and the predictor, which is as wide as they are and keeps the number of heads."""

    def __init__(self, start: Start, stats: Stats, depth: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.scale, self.grid = Scale(stats), start.grid
        self.online = start.transformer
        self.target = copy.deepcopy(start.transformer).requires_grad_(False)
        width, heads = start.width, int(start.shape["heads"])
        norm: Any = functools.partial(nn.LayerNorm, eps=1e-6)
        self.enter, self.leave = nn.Linear(width, width), nn.Linear(width, width)
        self.mask = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, 4.0, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.norm = norm(width)
        for module in (self.enter, self.leave, self.blocks):
            starts.initialise(module)
        nn.init.normal_(self.mask, std=_DEVIATION)

    def forward(self, pictures: Tensor, order: Tensor, visible: int) -> Tensor:
        """The loss.

        Args:
            pictures: `[batch, mels, frames]`, not scaled.
            order: int64 `[batch, patches]`, a permutation; the first `visible` patches of it are seen.
        """
        image = self.scale(pictures)
        seen, hidden = order[:, :visible], order[:, visible:]
        columns = self.grid.columns
        context = self.online.encode(taken(self.online.tokens(image, columns), seen))[-1]
        with torch.no_grad():
            wanted = self.target.encode(taken(self.target.tokens(image, columns), hidden))[-1]
        return distance(self._predict(context, order), wanted)

    def _predict(self, context: Tensor, order: Tensor) -> Tensor:
        """What the target encoder makes of the masked patches: `[batch, masked, width]`."""
        visible, masked = context.shape[1], order.shape[1] - context.shape[1]
        mask = self.mask.expand(len(context), masked, -1)
        table = self.online.pos_embed[:, 1:].expand(len(context), -1, -1)
        x = torch.cat([self.enter(context), mask], dim=1) + taken(table, order)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.leave(self.norm(x[:, visible:])))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the target encoder towards the online one; `momentum` 1 leaves it as it is."""
        for target, online in zip(self.target.parameters(), self.online.parameters(), strict=True):
            target.lerp_(online, 1 - momentum)


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """Some tokens of each row: `[batch, n, width]`, `[batch, k] -> [batch, k, width]`."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def distance(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared distance of `[batch, n, width]` at unit length, between 0 and 4.

    What is wanted has mean 0 and deviation 1 in each token first, as in M2D.

    >>> a = torch.tensor([[[1.0, -1.0]]])
    >>> float(distance(3 * a, a + 5)), float(distance(-a, a))
    (0.0, 4.0)
    """
    standard = functional.layer_norm(wanted.float(), wanted.shape[-1:])
    cosine = functional.cosine_similarity(predicted.float(), standard, dim=-1)
    return (2 - 2 * cosine).mean()


class MaskedLearner:
    """Draws crops without any change but their place, masks patches at random, and moves the target encoder."""

    def __init__(self, start: Start, corpus: Corpus, stats: Stats, params: VitParams, pools: Pools, seed: int) -> None:
        self._own, self._pools, self._seed, self._batch = params.masked, pools, seed, params.batch
        self._crops = plain_crops(corpus, start.grid)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = MaskedNetwork(start, stats, params.masked.predictor_depth)
        self._patches = start.grid.rows * start.grid.columns
        self._visible = visible_patches(self._patches, params.masked)

    @property
    def names(self) -> tuple[str, ...]:
        """One loss."""
        return (LOSS,)

    @property
    def encoder(self) -> Transformer:
        """The online encoder, as in M2D."""
        return self.network.online

    def losses_of(self, step: int) -> dict[str, Tensor]:
        """See `Learner`."""
        rng, device = np.random.default_rng([self._seed, _KEY, step]), loop.device_of(self.network)
        crops, _ = self._crops.place(self._pools.draw(self._batch, rng), rng)
        order = permutations(len(crops), self._patches, rng)
        pictures = torch.from_numpy(crops).transpose(1, 2).to(device)
        return {LOSS: self.network(pictures, torch.from_numpy(order).to(device), self._visible)}

    def after(self, steps: int) -> None:
        """The target encoder follows more slowly from step to step, and at the end not at all."""
        slower = self._own.momentum + (1 - self._own.momentum) * min(1.0, steps / self._own.steps)
        self.network.follow(slower)


def visible_patches(patches: int, params: MaskedParams) -> int:
    """How many patches are seen; one at least, and one is masked at least."""
    return min(patches - 1, max(1, round(patches * (1 - params.share))))


def permutations(batch: int, patches: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order of the patches for each row `[batch, patches]`."""
    return rng.random((batch, patches)).argsort(axis=1)


def plain_crops(corpus: Corpus, grid: Grid) -> Crops:
    """Crops of the input's length that are changed in nothing but their place."""
    return Crops.of(corpus.frames, corpus.targets, 0.0, grid.frames / corpus.frame_rate_hz)
