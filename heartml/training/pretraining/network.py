"""The network that is trained: the encoder's trunk, and one output for each target.

`[batch, bands, frames]` in; logits of each target `[batch, classes]` and of the frame's classes out. Outputs are linear
in the mean of the hidden layer and in two attention-weighted means of it, one pair of weights for all targets.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

_ATTENTIONS = 2


class PretrainingNetwork(nn.Module):
    """The trunk and its outputs.

    Args:
        trunk: `[batch, bands, frames] -> [batch, channels, n], [batch, 6, m]`: a hidden layer, logits of frames.
        classes: target -> number of classes.
    """

    def __init__(self, trunk: nn.Module, channels: int, dropout: float, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.attention = nn.Conv1d(channels, _ATTENTIONS, 1)
        self.dropout = nn.Dropout(dropout)
        width = (1 + _ATTENTIONS) * channels
        self.outputs = nn.ModuleDict({name: nn.Linear(width, count) for name, count in classes.items()})

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits of each target, and of the frame's classes `[batch, 6, m]`."""
        hidden, frames = self.trunk(x)
        weights = torch.softmax(self.attention(hidden), dim=-1)
        attended = torch.einsum("bht,bct->bhc", weights, hidden).flatten(1)
        pooled = self.dropout(torch.cat([attended, hidden.mean(-1)], dim=1))
        return {name: cast(Tensor, output(pooled)) for name, output in self.outputs.items()}, frames
