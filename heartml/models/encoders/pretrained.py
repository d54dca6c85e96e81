"""The base of all pre-trained encoders: waveforms at the network's own rate in, frames with their bands stacked out.

An encoder of this kind has the weights of a file that is pinned by its hash, and frames in which the frequency bands
stand one after the other, `[frames, bands x channels]`. Waveforms of a batch that differ in length are encoded one by
one: such networks look at the whole sound, so padding would be heard, and what stands beside a recording must not show
in its bytes.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from heartml.models.encoders import weight_files
from heartml.models.encoders.pretrained_params import Layer, PretrainedParams
from heartml.models.encoders.weight_files import WeightsError


class PretrainedEncoder(ABC):
    """Base of the pre-trained encoders, see `heartml.models.encoders.Encoder` for the attributes.

    Attributes:
        bands: frequency bands in a frame; its columns are `bands` times `dim / bands` channels, band after band.
    """

    name: str
    sample_rate_hz: int
    frame_rate_hz: float
    dim: int
    bands: int

    @abstractmethod
    def frames_in(self, samples: int) -> int:
        """Number of frames of a waveform of `samples` samples; at least one."""

    @abstractmethod
    def to(self, device: str) -> Self:
        """The same encoder on another device."""

    @abstractmethod
    def forward(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, frames, bands x channels]`, waveforms of one length."""

    def encode(self, batch: Tensor, lengths: Tensor | None = None) -> Tensor:
        """float32 `[batch, time] -> [batch, frames, dim]`, see `heartml.models.encoders.Encoder.encode`."""
        if lengths is None:
            return self.forward(batch)
        frames = batch.new_zeros(len(batch), self.frames_in(batch.shape[1]), self.dim)
        for row, length in enumerate(lengths.tolist()):
            if length:
                frames[row, : self.frames_in(length)] = self.forward(batch[row : row + 1, :length])[0]
        return frames


AnyEncoder = TypeVar("AnyEncoder")
AnyParams = TypeVar("AnyParams", bound=PretrainedParams)


def library(name: str) -> Any:
    """The module of an optional library.

    Raises:
        WeightsError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise WeightsError(f"this kind of encoder needs the package {error.name}, which is not installed: "
                           "`pip install '.[encoders]'`") from None


def pinned(
    kind: type[AnyParams], path: Path, sha256: str | None, layers: Sequence[Layer], **section: Any
) -> AnyParams:
    """The section of a file that is at hand, its hash checked; without `sha256` the one that it has.

    Raises:
        WeightsError: the file is missing, or has another hash.
    """
    known = sha256 or weight_files.hash_of(path)
    weight_files.check(path, known)
    return kind.model_validate({"weights": str(path), "sha256": known, "layers": tuple(layers), **section})


def build(params: PretrainedParams, make: Callable[[dict[str, Tensor]], AnyEncoder]) -> AnyEncoder:
    """Make an encoder of the tensors that a section names, and keep them as safetensors once that has succeeded.

    Raises:
        WeightsError: the file cannot be read, or its tensors are not of this kind.
    """
    tensors = weight_files.read(params.path, params.sha256)
    try:
        encoder = make(tensors)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        what = f"no tensor {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise WeightsError(f"{params.weights}: does not fit an encoder of kind {params.KIND}: {what}") from None
    if weight_files.place_of(params.path, params.sha256) == params.path:
        weight_files.keep(params.sha256, tensors)
    return encoder


def at_least(batch: Tensor, samples: int) -> Tensor:
    """`[batch, time]`, waveforms that are too short padded with zeros to `samples`."""
    return torch.nn.functional.pad(batch, (0, max(0, samples - batch.shape[1])))


def stacked(maps: Tensor) -> Tensor:
    """Frequency is kept: `[batch, channels, bands, frames] -> [batch, frames, bands x channels]`, band after band."""
    return maps.permute(0, 3, 2, 1).flatten(2)
