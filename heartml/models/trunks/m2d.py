"""The trunk of encoders of kind `m2d`: a vision transformer on a spectrogram `[batch, frames, mels] -> [batch, width]`.

Patches are averaged over time, and the bands of patches stand one after the other (Niizumi et al., 2024). A longer
input is divided as by the encoder. The table of positions is not learnt, as in M2D.
"""

import copy
from typing import ClassVar, cast

from torch import Tensor, nn

from heartml.models.encoders import Encoder
from heartml.models.encoders.m2d import M2d
from heartml.models.trunks import Trunk


class M2dTrunk(Trunk):
    """See the module."""

    ADAPTED: ClassVar[str] = r"blocks\.\d+\.attn\.(qkv|proj)"

    def __init__(self, encoder: M2d) -> None:
        super().__init__()
        self.network = copy.deepcopy(encoder.network).requires_grad_(True)
        self.network.pos_embed.requires_grad_(False)
        self._encoder = copy.copy(encoder)
        self._encoder.network = self.network
        self.width = encoder.rows * int(self.network.cls_token.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """See `Trunk.forward`."""
        return self._encoder.of_picture(x.transpose(1, 2)).mean(1)

    def parts(self) -> list[list[nn.Module | nn.Parameter]]:
        """Patches and the token of the class; blocks; the final norm."""
        net = self.network
        return [[net.patch_embed, net.cls_token, net.pos_embed], *([block] for block in net.blocks), [net.norm]]


def make(encoder: Encoder) -> M2dTrunk:
    """See `TrunkModule.make`."""
    return M2dTrunk(cast(M2d, encoder))
