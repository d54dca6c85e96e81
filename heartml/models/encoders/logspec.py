"""Log-spectrogram: [batch, time] -> [batch, frames, bands], natural logarithms of band energies.

Bands are triangles, evenly spaced in Hz (below 800 Hz the mel scale is nearly even, too). Each is at least as wide as
the window can resolve. Frames lie wholly inside the sound. A waveform shorter than one window is padded with zeros.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from heartml.core.config import AudioParams, Positive, Section

FLOOR = 1e-4      # of the mean power of a recording at level one: digital silence stays finite, noise is not stretched


class LogspecParams(Section):
    """`bands` triangles evenly spaced from `low_hz` to `high_hz`; windows of `window_s` every `hop_s` seconds."""

    bands: Annotated[int, Field(ge=2)]
    low_hz: Positive
    high_hz: Positive
    window_s: Positive
    hop_s: Positive

    @model_validator(mode="after")
    def _bands_are_in_order(self) -> Self:
        if self.low_hz >= self.high_hz:
            raise ValueError("low_hz does not lie below high_hz")
        return self


PARAMS = LogspecParams
NEEDS: tuple[str, ...] = ()


class Logspec:
    """The encoder `logspec`, see the module; `dim` is the number of bands."""

    name = "logspec"

    def __init__(self, audio: AudioParams, params: LogspecParams) -> None:
        self.sample_rate_hz = audio.sample_rate_hz
        self.hop = round(params.hop_s * audio.sample_rate_hz)
        self.width = round(params.window_s * audio.sample_rate_hz)
        self.frame_rate_hz = audio.sample_rate_hz / self.hop
        self.dim = params.bands
        self.size = 1 << (self.width - 1).bit_length()
        self.window = torch.hann_window(self.width)
        bands = _bands(params, self.size, audio.sample_rate_hz) / float(self.window.square().sum())
        self.bands = bands[: int(bands.any(1).nonzero().max()) + 1].contiguous()     # no bins above the last band

    def frames_in(self, samples: int) -> int:
        """One frame for each hop that still leaves a whole window; at least one."""
        return 1 + max(0, samples - self.width) // self.hop

    def to(self, device: str) -> "Logspec":
        """The same encoder on another device."""
        self.window, self.bands = self.window.to(device), self.bands.to(device)
        return self

    def encode(self, batch: Tensor, lengths: Tensor | None = None) -> Tensor:
        """float32 [batch, time] -> float32 [batch, frames, bands]; frames of the sound never see the padding."""
        short = max(0, self.width - batch.shape[1])
        windows = torch.nn.functional.pad(batch, (0, short)).unfold(1, self.width, self.hop) * self.window
        spectrum = torch.fft.rfft(windows, self.size)[..., : len(self.bands)]
        power = spectrum.real.square() + spectrum.imag.square()     # five times as fast as abs().square()
        return torch.matmul(power, self.bands).add_(FLOOR).log_()


def make(audio: AudioParams, sections: Mapping[str, Any]) -> Logspec:
    """The encoder, see `EncoderModule.make`."""
    params: LogspecParams = sections["logspec"]
    if 2 * params.high_hz > audio.sample_rate_hz:
        raise ValueError(f"logspec.high_hz: {params.high_hz:g} lies above half of audio.sample_rate_hz")
    check_window("logspec", params.window_s, params.hop_s, audio)
    return Logspec(audio, params)


def check_window(name: str, window_s: float, hop_s: float, audio: AudioParams) -> None:
    """Check that window and hop hold at least one sample each.

    Raises:
        ValueError: one of them does not.
    """
    if round(hop_s * audio.sample_rate_hz) < 1 or round(window_s * audio.sample_rate_hz) < 1:
        raise ValueError(f"{name}: hop_s or window_s is too short for audio.sample_rate_hz: less than a sample")


def _bands(params: LogspecParams, size: int, sample_rate_hz: int) -> Tensor:
    """Triangles [size // 2 + 1, bands], each summing to one."""
    grid_hz = torch.arange(size // 2 + 1, dtype=torch.float64) * sample_rate_hz / size
    centres_hz = torch.linspace(params.low_hz, params.high_hz, params.bands, dtype=torch.float64)
    half_width_hz = max((params.high_hz - params.low_hz) / (params.bands - 1), sample_rate_hz / size)
    triangles = (1 - (grid_hz[:, None] - centres_hz[None]).abs() / half_width_hz).clamp(min=0)
    return (triangles / triangles.sum(0)).float()
