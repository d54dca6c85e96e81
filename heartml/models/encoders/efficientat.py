"""EfficientAT's MobileNets (mn04 to mn40), trained on AudioSet: `[batch, time] -> [batch, frames, bands x channels]`.

Schmid et al., Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation, 2023 (arXiv
2211.04772). A MobileNetV3 (Howard et al., 2019, table 1) on 128 Kaldi mel bands at 32 kHz. Widths and kernels are read
from the checkpoint, activations are those of the paper. Batch norms are merged into the convolutions. There are also
networks with another hop, other mel bands or strides; only the file's name says so (`mn10_as_hop_5`,
`mn10_as_mels_64`, `mn10_as_fc_s2211`).

Layer `last` is the map before the classifier, 4 bands, 3.1 frames a second. Layers `0` to `15` are the first
convolution and the 15 blocks; layers that are used together must have one resolution.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from heartml.core.config import AudioParams, Count, Positive
from heartml.models.encoders.mel import Mel
from heartml.models.encoders.pretrained import PretrainedEncoder, at_least, build, pinned, stacked
from heartml.models.encoders.pretrained_params import Layer, PretrainedParams

RATE_HZ = 32000
_PRE_EMPHASIS = (-0.97, 1.0)
_TOP_HZ = 15000.0
_NORM_EPS = 1e-3                                                  # of the batch norms
_LAST = 16                                                         # the first convolution, 15 blocks, the last
_STRIDED = (2, 4, 7, 13)                                           # blocks that may have a stride, as the first has
_USUAL: dict[str, Any] = {"hop_ms": 10.0, "mels": 128, "strides": (2, 2, 2, 2)}
_NAMED = {"hop_ms": re.compile(r"_hop_(\d+)"), "mels": re.compile(r"_mels_(\d+)"),
          "strides": re.compile(r"_s([12]{4})(?![0-9])")}
_FIRST_HARD_SWISH = 7                                              # blocks below it have ReLU


class EfficientatParams(PretrainedParams):
    """The section of an encoder of kind `efficientat`.

    Attributes:
        hop_ms, mels, strides: of the spectrogram, and of four blocks; `None`: as the file's name says, or as usual.
    """

    KIND: ClassVar[str] = "efficientat"
    LICENCE: ClassVar[str] = "MIT"
    CITATION: ClassVar[str] = "Schmid et al., Efficient large-scale audio tagging, 2023, arXiv 2211.04772"
    REDISTRIBUTABLE: ClassVar[bool] = True

    hop_ms: Positive | None = None
    mels: Count | None = None
    strides: tuple[Count, Count, Count, Count] | None = None

    def rate_hz(self) -> int:
        """32 kHz, for every network of this kind."""
        return RATE_HZ

    def shape(self) -> dict[str, Any]:
        """Hop, mel bands and strides."""
        return self.model_dump(mode="json", include=set(_USUAL))

    def resolved(self, stated: Mapping[str, Any]) -> Self:
        """See `PretrainedParams.resolved`; the shape is that of the section, or else of the file's name."""
        return super().resolved({**stated, "shape": {**shape_of(self.path.name), **stated.get("shape", {})}})


PARAMS = EfficientatParams
NEEDS: tuple[str, ...] = ()


def shape_of(name: str) -> dict[str, Any]:
    """Hop, mel bands and strides of a network with this file name.

    >>> shape_of("mn10_as_hop_5_mAP_475.pt")
    {'hop_ms': 5, 'mels': 128, 'strides': (2, 2, 2, 2)}
    >>> shape_of("mn10_as_fc_s2211_mAP_466.pt")["strides"]
    (2, 2, 1, 1)
    """
    found = {key: match[1] for key, pattern in _NAMED.items() if (match := pattern.search(name))}
    return {**_USUAL, **{key: tuple(map(int, digits)) if key == "strides" else int(digits)
                         for key, digits in found.items()}}


@dataclass
class _Convolution:
    """A convolution with its batch norm merged into it."""

    weight: Tensor
    bias: Tensor
    stride: int
    activation: str

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], name: str, stride: int, activation: str) -> "_Convolution":
        weight = tensors[f"{name}.0.weight"].double()
        scale = tensors[f"{name}.1.weight"].double() / (tensors[f"{name}.1.running_var"].double() + _NORM_EPS).sqrt()
        bias = tensors[f"{name}.1.bias"].double() - tensors[f"{name}.1.running_mean"].double() * scale
        return cls((weight * scale[:, None, None, None]).float(), bias.float(), stride, activation)

    def __call__(self, x: Tensor) -> Tensor:
        groups = x.shape[1] // self.weight.shape[1]
        x = functional.conv2d(x, self.weight, self.bias, self.stride, self.weight.shape[-1] // 2, groups=groups)
        if self.activation == "linear":
            return x
        return functional.relu_(x) if self.activation == "relu" else functional.hardswish(x)

    def to(self, device: str) -> None:
        self.weight, self.bias = self.weight.to(device), self.bias.to(device)


@dataclass
class _Excitation:
    """Squeeze and excitation: each channel is scaled by what the channels' means say."""

    arrays: list[Tensor]

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], name: str) -> "_Excitation":
        layer = f"{name}.conc_se_layers.0"
        return cls([tensors[f"{layer}.{key}"].float() for key in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")])

    def __call__(self, x: Tensor) -> Tensor:
        first, first_bias, second, second_bias = self.arrays
        hidden = functional.relu(functional.linear(x.mean((2, 3)), first, first_bias))
        return x * functional.linear(hidden, second, second_bias).sigmoid()[:, :, None, None]

    def to(self, device: str) -> None:
        self.arrays = [array.to(device) for array in self.arrays]


@dataclass
class _Block:
    """An inverted residual block: expand, filter each channel, perhaps excite, project."""

    steps: Sequence[_Convolution | _Excitation]
    residual: bool

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], name: str, stride: int, activation: str) -> "_Block":
        last = max(int(key.split(".")[3]) for key in tensors if key.startswith(f"{name}.block."))
        steps: list[_Convolution | _Excitation] = []
        for number in range(last + 1):
            step = f"{name}.block.{number}"
            if f"{step}.0.weight" not in tensors:
                steps.append(_Excitation.read(tensors, step))
                continue
            alone = tensors[f"{step}.0.weight"].shape[1] == 1      # one input channel: the step that filters
            steps.append(_Convolution.read(tensors, step, stride if alone else 1,
                                           "linear" if number == last else activation))
        into, out = tensors[f"{name}.block.0.0.weight"], tensors[f"{name}.block.{last}.0.weight"]
        channels_in = into.shape[0] if into.shape[1] == 1 else into.shape[1]
        return cls(steps, stride == 1 and channels_in == out.shape[0])

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for step in self.steps:
            y = step(y)
        return x + y if self.residual else y

    def to(self, device: str) -> None:
        for step in self.steps:
            step.to(device)


class Efficientat(PretrainedEncoder):
    """The encoder, see the module.

    Args:
        tensors: of the publisher's checkpoint.
        params: resolved.

    Raises:
        KeyError, ValueError: the tensors are those of another network, or the layers differ in resolution.
    """

    name = "efficientat"
    sample_rate_hz = RATE_HZ

    def __init__(self, tensors: Mapping[str, Tensor], params: EfficientatParams) -> None:
        assert params.hop_ms is not None and params.mels is not None and params.strides is not None
        self.layers = [layer if isinstance(layer, int) else _LAST for layer in params.layers]
        if max(self.layers) > _LAST:
            raise ValueError(f"layers: there are 0 to {_LAST - 1} and last")
        strides = {0: 2, **dict(zip(_STRIDED, params.strides, strict=True))}
        self.steps: list[_Convolution | _Block] = [_Convolution.read(tensors, "features.0", strides[0], "hardswish")]
        for number in range(1, _LAST):
            activation = "relu" if number < _FIRST_HARD_SWISH else "hardswish"
            self.steps.append(_Block.read(tensors, f"features.{number}", strides.get(number, 1), activation))
        self.steps.append(_Convolution.read(tensors, f"features.{_LAST}", 1, "hardswish"))
        reached = {math.prod(stride for at, stride in strides.items() if at <= number) for number in self.layers}
        if len(reached) > 1:
            raise ValueError(f"layers {list(params.layers)} differ in resolution; name each in an encoder of its own")
        self.stride = reached.pop()
        self.mel = _mel(params.mels, round(params.hop_ms * RATE_HZ / 1000))
        self.emphasis = torch.tensor(_PRE_EMPHASIS)[None, None]
        self.bands = -(-params.mels // self.stride)
        self.frame_rate_hz = RATE_HZ / self.mel.hop / self.stride
        self.dim = self.bands * sum(self._channels(number) for number in self.layers)

    @classmethod
    def from_pretrained(
        cls, path: Path, sha256: str | None = None, layers: Sequence[Layer] = ("last",)
    ) -> "Efficientat":
        """The encoder of a publisher's checkpoint.

        Raises:
            WeightsError: the file is missing, has another hash, or is no checkpoint of this kind.
        """
        section = pinned(EfficientatParams, path, sha256, layers).resolved({})
        return build(section, lambda tensors: cls(tensors, section))

    def _channels(self, number: int) -> int:
        step = self.steps[number]
        final = step if isinstance(step, _Convolution) else step.steps[-1]
        assert isinstance(final, _Convolution)
        return len(final.bias)

    def to(self, device: str) -> "Efficientat":
        """The same encoder on another device."""
        for step in self.steps:
            step.to(device)
        self.mel.to(device)
        self.emphasis = self.emphasis.to(device)
        return self

    def frames_in(self, samples: int) -> int:
        """Every `stride`-th frame of the spectrogram; at least one."""
        of_mel = 1 + (max(samples, self.mel.least_samples + 1) - 1) // self.mel.hop
        return -(-of_mel // self.stride)

    def forward(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, frames, bands x channels]`."""
        x, found = self.spectrogram(batch)[:, None], []
        for number, step in enumerate(self.steps[: max(self.layers) + 1]):
            x = step(x)
            found += [(number, x)] if number in self.layers else []
        maps = dict(found)
        return stacked(torch.cat([maps[number] for number in self.layers], dim=1))

    def spectrogram(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, mels, frames]`: log mel energies after pre-emphasis, as in training."""
        emphasised = functional.conv1d(at_least(batch, self.mel.least_samples + 1)[:, None], self.emphasis)[:, 0]
        return ((self.mel.power(emphasised) + 1e-5).log() + 4.5) / 5


def _mel(mels: int, hop: int) -> Mel:
    """Kaldi's mel bands from 0 to 15 kHz, on windows of 25 ms."""
    from torchaudio.compliance.kaldi import get_mel_banks

    bank = get_mel_banks(mels, 1024, RATE_HZ, 0.0, _TOP_HZ, 100.0, -500.0, 1.0)[0]
    return Mel(1024, hop, torch.hann_window(800, periodic=False), functional.pad(bank, (0, 1)))


def make(audio: AudioParams, sections: Mapping[str, Any]) -> Efficientat:
    """The encoder, see `EncoderModule.make`."""
    params: EfficientatParams = sections["efficientat"]
    return build(params, lambda tensors: Efficientat(tensors, params))
