"""The trunk of the encoder `heart`: convolutions on a log-spectrogram `[batch, frames, bands] -> [batch, channels]`."""

import copy
from typing import cast

from torch import Tensor, nn

from heartml.models.encoders import Encoder
from heartml.models.encoders.heart import SHORTEST_FRAMES, Heart
from heartml.models.trunks import Trunk


class HeartTrunk(Trunk):
    """Its last hidden layer, averaged over time; the layer that classifies frames is left out."""

    def __init__(self, encoder: Heart) -> None:
        super().__init__()
        self.network = copy.deepcopy(encoder.trunk).requires_grad_(True)
        self.width = self.network.frame.in_channels
        del self.network.frame

    def forward(self, x: Tensor) -> Tensor:
        """See `Trunk.forward`."""
        x = (x - x.mean((1, 2), keepdim=True)).repeat(1, -(-SHORTEST_FRAMES // x.shape[1]), 1)
        _, hidden = self.network.hidden(x.transpose(1, 2))
        return cast(Tensor, hidden.mean(2))

    def parts(self) -> list[list[nn.Module | nn.Parameter]]:
        """Norm and first convolution; blocks; the last norm."""
        net = self.network
        return [[net.norm, net.stem], *([block] for block in net.blocks), [net.last]]


def make(encoder: Encoder) -> HeartTrunk:
    """See `TrunkModule.make`."""
    return HeartTrunk(cast(Heart, encoder))
