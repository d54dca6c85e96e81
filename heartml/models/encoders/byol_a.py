"""BYOL-A of 2020 (`AudioNTT2020`): `[batch, time] -> [batch, frames, d]`, 12.5 frames a second.

Niizumi et al., BYOL for audio, 2021 (arXiv 2103.06695): three convolutions on 64 mel bands at 16 kHz, then two layers
that mix the bands of a frame. So a frame has no bands of its own: the only pooling that keeps frequency is the
network's. The spectrogram is scaled with one mean and deviation, of the data that the network was trained on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from heartml.core.config import AudioParams, Positive
from heartml.models.encoders.mel import mel
from heartml.models.encoders.pretrained import PretrainedEncoder, at_least, build, pinned
from heartml.models.encoders.pretrained_params import Layer, PretrainedParams

RATE_HZ = 16000
HOP = 160
POOLED = 8                       # frames of the spectrogram in a frame, and mel bands in a band: three poolings by two
_MELS = 64
_BAND_HZ = (60.0, 7800.0)
_CONVOLUTIONS = (0, 4, 8)        # places in `features`; each is followed by its batch norm
_LINEAR = (0, 3)                 # places in `fc`
_NORM_EPS = 1e-5


class ByolAParams(PretrainedParams):
    """The section of an encoder of kind `byol_a`.

    Attributes:
        mean, deviation: of the log-mel spectrogram; the defaults are the publisher's for AudioSet.
    """

    KIND: ClassVar[str] = "byol_a"
    LICENCE: ClassVar[str] = "NTT: evaluation only"
    CITATION: ClassVar[str] = "Niizumi et al., BYOL for audio, 2021, arXiv 2103.06695"

    mean: float = -5.4919
    deviation: Positive = 5.0389

    def rate_hz(self) -> int:
        """16 kHz, for every network of this kind."""
        return RATE_HZ


PARAMS = ByolAParams
NEEDS: tuple[str, ...] = ()


class ByolA(PretrainedEncoder):
    """The encoder, see the module; the only layer is `last`.

    Raises:
        KeyError, ValueError: the tensors are those of another network, or there is no such layer.
    """

    name = "byol_a"
    sample_rate_hz = RATE_HZ
    frame_rate_hz = RATE_HZ / HOP / POOLED
    bands = 1

    def __init__(self, tensors: Mapping[str, Tensor], params: ByolAParams) -> None:
        if params.layers != ("last",):
            raise ValueError("layers: there is `last` alone")
        self.params = params
        self.convolutions = [_convolution(tensors, place) for place in _CONVOLUTIONS]
        self.linear = [(tensors[f"fc.{place}.weight"].float(), tensors[f"fc.{place}.bias"].float())
                       for place in _LINEAR]
        self.dim = len(self.linear[-1][1])
        flat = len(self.convolutions[-1][1]) * _MELS // POOLED
        if self.linear[0][0].shape[1] != flat:
            raise ValueError(f"fc.0.weight takes {self.linear[0][0].shape[1]} values, not {flat}")
        self.mel = mel(RATE_HZ, 1024, HOP, _MELS, _BAND_HZ, slaney=False)

    @classmethod
    def from_pretrained(cls, path: Path, sha256: str | None = None, layers: Sequence[Layer] = ("last",)) -> "ByolA":
        """The encoder of a publisher's checkpoint.

        Raises:
            WeightsError: the file is missing, has another hash, or is no checkpoint of this kind.
        """
        section = pinned(ByolAParams, path, sha256, layers)
        return build(section, lambda tensors: cls(tensors, section))

    def to(self, device: str) -> "ByolA":
        """The same encoder on another device."""
        self.convolutions = [(w.to(device), b.to(device)) for w, b in self.convolutions]
        self.linear = [(w.to(device), b.to(device)) for w, b in self.linear]
        self.mel.to(device)
        return self

    def frames_in(self, samples: int) -> int:
        """Every eighth frame of the spectrogram; at least one."""
        return (1 + max(samples, self._least_samples) // HOP) // POOLED

    @property
    def _least_samples(self) -> int:
        return max(self.mel.least_samples, (POOLED - 1) * HOP)

    def forward(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, frames, d]`."""
        logs = (self.mel.power(at_least(batch, self._least_samples)) + torch.finfo(torch.float32).eps).log()
        x = ((logs - self.params.mean) / self.params.deviation)[:, None]
        for weight, bias in self.convolutions:
            x = functional.max_pool2d(functional.relu(functional.conv2d(x, weight, bias, padding=1)), 2)
        x = x.permute(0, 3, 2, 1).flatten(2)      # [batch, frames, bands x channels]
        for weight, bias in self.linear:
            x = functional.relu(functional.linear(x, weight, bias))
        return x


def _convolution(tensors: Mapping[str, Tensor], place: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch norm merged into it."""
    own, norm = f"features.{place}", f"features.{place + 1}"
    scale = tensors[f"{norm}.weight"].double() / (tensors[f"{norm}.running_var"].double() + _NORM_EPS).sqrt()
    bias = (tensors[f"{own}.bias"].double() - tensors[f"{norm}.running_mean"].double()) * scale
    return ((tensors[f"{own}.weight"].double() * scale[:, None, None, None]).float(),
            (bias + tensors[f"{norm}.bias"].double()).float())


def make(audio: AudioParams, sections: Mapping[str, Any]) -> ByolA:
    """The encoder, see `EncoderModule.make`."""
    params: ByolAParams = sections["byol_a"]
    return build(params, lambda tensors: ByolA(tensors, params))
