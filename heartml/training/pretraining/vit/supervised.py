"""Labels teach the transformer: heart states of frames and labels of recordings, as for the heart encoder."""

from typing import cast

import torch
from torch import Tensor, nn

from heartml.core.config import PretrainParams
from heartml.models.encoders.heart import FRAME_CLASSES
from heartml.models.encoders.m2d import Transformer
from heartml.models.heads.augmentation import Crops
from heartml.training.pretraining import fit
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.draw import Pools
from heartml.training.pretraining.network import PretrainingNetwork
from heartml.training.pretraining.vit.start import Scale, Start, Stats

_FRAMES_A_CLASS = 4              # of the spectrogram: a class every 40 ms, as of the heart encoder
_KEY = 4                         # of its random numbers


class VitTrunk(nn.Module):
    """`[batch, mels, frames] -> [batch, rows x width, columns], [batch, 6, n]`: stacked tokens, logits of frames."""

    def __init__(self, start: Start, stats: Stats) -> None:
        super().__init__()
        self.scale, self.encoder, self.grid = Scale(stats), start.transformer, start.grid
        self.channels = start.grid.rows * start.width
        self.frame = nn.Conv1d(self.channels, FRAME_CLASSES * max(1, start.grid.wide // _FRAMES_A_CLASS), 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder(self.scale(picture), self.grid.columns)[-1]
        hidden = tokens.unflatten(1, (self.grid.rows, -1)).transpose(2, 3).flatten(1, 2)
        logits = self.frame(hidden).unflatten(1, (FRAME_CLASSES, -1))
        return hidden, cast(Tensor, logits.transpose(2, 3).flatten(2))


class SupervisedLearner:
    """The losses of `fit.Teacher`, with the transformer as the trunk."""

    def __init__(self, start: Start, corpus: Corpus, stats: Stats, params: PretrainParams, pools: Pools) -> None:
        crops = Crops.of(corpus.frames, corpus.targets, 1.0, start.grid.frames / corpus.frame_rate_hz, fit.NOISE)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(params.seed)
            trunk = VitTrunk(start, stats)
            self.network = PretrainingNetwork(trunk, trunk.channels, params.dropout, fit.classes_of(corpus))
        self._teacher = fit.Teacher(self.network, crops, corpus.labels, fit.class_weights(corpus), pools, params, _KEY)
        self._trunk = trunk

    @property
    def names(self) -> tuple[str, ...]:
        """Of the frames, and of each target."""
        return self._teacher.names

    @property
    def encoder(self) -> Transformer:
        """The encoder, without the outputs."""
        return self._trunk.encoder

    def losses_of(self, step: int) -> dict[str, Tensor]:
        """See `Learner`."""
        return self._teacher.losses_of(step)

    def after(self, steps: int) -> None:
        """Nothing."""
