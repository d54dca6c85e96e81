"""The block of temporal convolution networks: `[batch, channels, frames] -> [batch, channels, frames]`.

The sequence head and the heart encoder are made of it. It lies beside both, so that encoders need no head.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Dilated convolution of width 3, norm, convolution of width 1, added to the input.

    After Bai et al., An empirical evaluation of generic convolutional and recurrent networks, 2018. Dropout is of whole
    channels, which is a fifth faster than of single values.
    """

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, channels, 3, dilation=dilation, padding=dilation, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        self.second = nn.Conv1d(channels, channels, 1)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.dropout(self.second(functional.relu(self.norm(self.first(x))))))
