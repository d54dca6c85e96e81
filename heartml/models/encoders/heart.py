"""A network that has learnt hearts: `[batch, time] -> [batch, frames, channels + 4]`, 25 frames a second.

It is trained by `heartml pretrain` (`heartml/training/pretraining/`) on recordings whose heart states and murmurs are
known: the temporal convolution network of `heartml.models.heads.sequence` with more outputs. A frame is its hidden
layer, and after that the probabilities of S1, systole, S2 and diastole, under which `pooling` can average the hidden
layer. The hidden layer mixes the bands, so a frame has none.

The file of weights holds all that is needed: the parameters of its log-spectrogram (`spectrogram`), and which
recordings and groups it was trained on (`heard.*`, see `heartml.models.encoders.heard`). Both are tensors, because they
must be there in whatever copy a model or the cache holds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from heartml.core.config import AudioParams, Positive
from heartml.models.encoders.logspec import Logspec, LogspecParams
from heartml.models.encoders.pretrained import PretrainedEncoder, build, pinned
from heartml.models.encoders.pretrained_params import Layer, PretrainedParams
from heartml.models.residual_block import ResidualBlock

RATE_HZ = 4000
STATES = 4                       # the last columns of a frame: probabilities of S1, systole, S2 and diastole
SHORTEST_FRAMES = 100            # of the spectrogram; a shorter sound is repeated, as in training
DILATIONS = (1, 2, 4, 8, 2, 16)
FRAME_CLASSES = 6                # S1, diastole, S2, unannotated, systole without and with a murmur
SPECTROGRAM = "spectrogram"      # float64 [5]: bands, low_hz, high_hz, window_s, hop_s
_STRIDE = 2


class HeartParams(PretrainedParams):
    """The section of an encoder of kind `heart`."""

    KIND: ClassVar[str] = "heart"
    LICENCE: ClassVar[str] = "as the recordings that it was trained on"
    CITATION: ClassVar[str] = "HeartML, heart encoder"
    SHARED: ClassVar[tuple[str, ...]] = ("residual_block",)
    TUNABLE: ClassVar[bool] = True

    level: Positive = 1.0        # as in training, where sounds are prepared as for all encoders

    def rate_hz(self) -> int:
        """4 kHz, for every network of this kind."""
        return RATE_HZ


PARAMS = HeartParams
NEEDS: tuple[str, ...] = ("logspec",)     # the module that makes the spectrogram; of its section nothing is used


class HeartTrunk(nn.Module):
    """`[batch, bands, frames] -> [batch, channels, frames / 2]`: the output of every block, and the last hidden layer.

    Batch norm on bands, a convolution of width 5 with stride 2, residual blocks.
    """

    def __init__(self, bands: int, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(bands)
        self.stem = nn.Conv1d(bands, channels, 5, stride=_STRIDE, padding=2)
        self.blocks = nn.ModuleList([ResidualBlock(channels, dilation, dropout) for dilation in DILATIONS])
        self.last = nn.BatchNorm1d(channels)
        self.frame = nn.Conv1d(channels, FRAME_CLASSES, 1)

    def hidden(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The output of every block, and the last hidden layer."""
        x = functional.relu(self.stem(self.norm(x)))
        blocks = []
        for block in self.blocks:
            x = block(x)
            blocks.append(x)
        return blocks, functional.relu(self.last(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden layer, and logits of the frame classes `[batch, 6, frames / 2]`."""
        _, hidden = self.hidden(x)
        return hidden, cast(Tensor, self.frame(hidden))


class Heart(PretrainedEncoder):
    """The encoder, see the module; its layers are `last`, the numbers of its blocks, and `input`, the spectrogram.

    Raises:
        KeyError, ValueError, RuntimeError: the tensors are those of another network, or there is no such layer.
    """

    name = "heart"
    sample_rate_hz = RATE_HZ

    def __init__(self, tensors: Mapping[str, Tensor], params: HeartParams, audio: AudioParams) -> None:
        unknown = [layer for layer in params.layers if isinstance(layer, int) and layer >= len(DILATIONS)]
        if unknown:
            raise ValueError(f"layers: there are `last` and 0 to {len(DILATIONS) - 1}, not {unknown[0]}")
        self.layers, self.takes_input = params.layers, params.takes_input
        own = audio.model_copy(update={"sample_rate_hz": RATE_HZ})
        self.spectrogram = Logspec(own, spectrogram_of(tensors))
        self.frame_rate_hz = self.spectrogram.frame_rate_hz / (1 if self.takes_input else _STRIDE)
        self.bands = self.spectrogram.dim if self.takes_input else 1
        channels = len(tensors["stem.bias"])
        self.trunk = HeartTrunk(self.spectrogram.dim, channels).eval()
        self.trunk.load_state_dict({name: tensor.to(torch.int64 if name.endswith("tracked") else torch.float32)
                                    for name, tensor in tensors.items() if name in self.trunk.state_dict()})
        self.dim = self.spectrogram.dim if self.takes_input else channels * len(self.layers) + STATES

    @classmethod
    def from_pretrained(cls, path: Path, sha256: str | None = None, layers: Sequence[Layer] = ("last",)) -> "Heart":
        """The encoder of a file that `heartml pretrain` wrote.

        Raises:
            WeightsError: the file is missing, has another hash, or is no network of this kind.
        """
        section = pinned(HeartParams, path, sha256, layers)
        audio = AudioParams(sample_rate_hz=RATE_HZ, highpass_hz=20, resample_filter_width=6)
        return build(section, lambda tensors: cls(tensors, section, audio))

    def to(self, device: str) -> "Heart":
        """The same encoder on another device."""
        self.spectrogram.to(device)
        self.trunk.to(device)
        return self

    def frames_in(self, samples: int) -> int:
        """Every second frame of the spectrogram; at least one. Of layer `input`, its frames."""
        return -(-self.spectrogram.frames_in(samples) // (1 if self.takes_input else _STRIDE))

    def forward(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, frames, dim]`: hidden layers, then probabilities of the heart states."""
        frames = self.spectrogram.encode(batch)
        if self.takes_input:
            return frames
        count = -(-frames.shape[1] // _STRIDE)
        frames = (frames - frames.mean((1, 2), keepdim=True)).repeat(1, -(-SHORTEST_FRAMES // frames.shape[1]), 1)
        with torch.no_grad():
            blocks, hidden = self.trunk.hidden(frames.transpose(1, 2))
            chosen = [hidden if layer == "last" else blocks[int(layer)] for layer in self.layers]
            states = state_probabilities(self.trunk.frame(hidden))
            return torch.cat([*chosen, states], dim=1).transpose(1, 2)[:, :count].contiguous()


def state_probabilities(logits: Tensor) -> Tensor:
    """Logits of the frame classes `[batch, 6, t]` -> probabilities of S1, systole, S2, diastole `[batch, 4, t]`.

    Frames that publishers leave unannotated have heart states too: their share is left out, and the four sum to one.
    """
    p = torch.softmax(logits, dim=1)
    four = torch.stack([p[:, 0], p[:, 4:].sum(1), p[:, 2], p[:, 1]], dim=1) + 1e-6
    return four / four.sum(1, keepdim=True)


def spectrogram_of(tensors: Mapping[str, Tensor]) -> LogspecParams:
    """The parameters of the log-spectrogram that a network was trained on.

    Raises:
        KeyError, ValueError: the tensors have none.
    """
    values = tensors[SPECTROGRAM].tolist()
    names = ("bands", "low_hz", "high_hz", "window_s", "hop_s")
    return LogspecParams.model_validate(dict(zip(names, [int(values[0]), *values[1:]], strict=True)))


def spectrogram_tensor(params: LogspecParams) -> Tensor:
    """What `spectrogram_of` reads: float64 [5]."""
    return torch.from_numpy(np.array([params.bands, params.low_hz, params.high_hz, params.window_s, params.hop_s]))


def make(audio: AudioParams, sections: Mapping[str, Any]) -> Heart:
    """The encoder, see `EncoderModule.make`."""
    params: HeartParams = sections["heart"]
    return build(params, lambda tensors: Heart(tensors, params, audio))
