"""Fixed random convolutions over the log-spectrogram: [batch, time] -> [batch, frames, groups of bands x channels].

The control for pre-trained encoders: a convolutional encoder that has not learnt anything. Its filters depend on the
seed alone. Frequencies are not mixed: every group of neighbouring bands has its own outputs.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from heartml.core.config import AudioParams, Count, Section
from heartml.models.encoders import logspec
from heartml.models.encoders.logspec import Logspec, LogspecParams

BANDS_HIGH = 8        # bands that one filter sees: 130 Hz of 775
FRAMES_LONG = 25      # half a second, S1 to S2: on PASCAL .88 AUC with pooled LR against .87 with 9 and .85 with 5
STRIDE = 4            # 12.5 frames a second


class RandomConvParams(Section):
    """`channels` filters, drawn at random from `seed`."""

    channels: Count
    seed: int


PARAMS = RandomConvParams
NEEDS = ("logspec",)


class RandomConv:
    """The encoder `random_conv`, see the module; `dim` is `bands / BANDS_HIGH * channels`."""

    name = "random_conv"

    def __init__(self, audio: AudioParams, spectrogram: LogspecParams, params: RandomConvParams) -> None:
        self.spectrogram = Logspec(audio, spectrogram)
        self.sample_rate_hz = audio.sample_rate_hz
        self.frame_rate_hz = self.spectrogram.frame_rate_hz / STRIDE
        self.dim = spectrogram.bands // BANDS_HIGH * params.channels
        generator = torch.Generator().manual_seed(params.seed)
        filters = torch.randn(params.channels, 1, BANDS_HIGH, FRAMES_LONG, generator=generator)
        self.filters = (filters - filters.mean((2, 3), keepdim=True)) / (BANDS_HIGH * FRAMES_LONG) ** 0.5

    def frames_in(self, samples: int) -> int:
        """Every fourth frame of the spectrogram; at least one."""
        return 1 + (self.spectrogram.frames_in(samples) - 1) // STRIDE

    def to(self, device: str) -> "RandomConv":
        """The same encoder on another device."""
        self.spectrogram.to(device)
        self.filters = self.filters.to(device)
        return self

    def encode(self, batch: Tensor, lengths: Tensor | None = None) -> Tensor:
        """float32 [batch, time] -> float32 [batch, frames, dim]; the spectrogram is padded with its mean."""
        bands = self.spectrogram.encode(batch)
        samples = [batch.shape[1]] * len(batch) if lengths is None else lengths.tolist()
        frames = torch.tensor([self.spectrogram.frames_in(n) for n in samples], device=bands.device)[:, None, None]
        inside = torch.arange(bands.shape[1], device=bands.device)[None, :, None] < frames
        mean = (bands * inside).sum((1, 2), keepdim=True) / (frames * bands.shape[2])
        picture = ((bands - mean) * inside).transpose(1, 2)[:, None]
        maps = torch.nn.functional.conv2d(
            picture, self.filters, stride=(BANDS_HIGH, STRIDE), padding=(0, FRAMES_LONG // 2)
        )
        return torch.relu(maps).flatten(1, 2).transpose(1, 2)


def make(audio: AudioParams, sections: Mapping[str, Any]) -> RandomConv:
    """The encoder, see `EncoderModule.make`."""
    logspec.make(audio, sections)     # raises where the spectrogram does not fit the sample rate
    return RandomConv(audio, sections["logspec"], sections["random_conv"])
