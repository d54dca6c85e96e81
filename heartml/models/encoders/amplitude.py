"""Frequency and amplitude of the strongest tone, frame by frame: [batch, time] -> [batch, frames, 2].

This is the input of the published fully connected baseline (github.com/akshaldhal/heartbeat-sound,
`preprocessor1.py`): the frequency (here in kHz) and the amplitude of the strongest bin of a short Fourier transform.
Frames lie wholly inside the sound. A waveform shorter than one window is padded with zeros.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from heartml.core.config import AudioParams, Positive, Section
from heartml.models.encoders.logspec import check_window


class AmplitudeParams(Section):
    """Windows of `window_s` seconds every `hop_s` seconds."""

    window_s: Positive
    hop_s: Positive


PARAMS = AmplitudeParams
NEEDS: tuple[str, ...] = ()


class Amplitude:
    """The encoder `amplitude`, see the module; `dim` is 2."""

    name = "amplitude"
    dim = 2

    def __init__(self, audio: AudioParams, params: AmplitudeParams) -> None:
        self.sample_rate_hz = audio.sample_rate_hz
        self.hop = round(params.hop_s * audio.sample_rate_hz)
        self.width = round(params.window_s * audio.sample_rate_hz)
        self.frame_rate_hz = audio.sample_rate_hz / self.hop
        self.window = torch.hann_window(self.width)

    def frames_in(self, samples: int) -> int:
        """One frame for each hop that still leaves a whole window; at least one."""
        return 1 + max(0, samples - self.width) // self.hop

    def to(self, device: str) -> "Amplitude":
        """The same encoder on another device."""
        self.window = self.window.to(device)
        return self

    def encode(self, batch: Tensor, lengths: Tensor | None = None) -> Tensor:
        """float32 [batch, time] -> float32 [batch, frames, (kHz, amplitude)]; a sine of amplitude one gives one."""
        short = max(0, self.width - batch.shape[1])
        windows = torch.nn.functional.pad(batch, (0, short)).unfold(1, self.width, self.hop) * self.window
        amplitude, loudest = torch.fft.rfft(windows).abs().max(dim=-1)
        khz = loudest * (self.sample_rate_hz / self.width / 1000)
        return torch.stack([khz, amplitude * 2 / self.window.sum()], dim=-1)


def make(audio: AudioParams, sections: Mapping[str, Any]) -> Amplitude:
    """The encoder, see `EncoderModule.make`."""
    params: AmplitudeParams = sections["amplitude"]
    check_window("amplitude", params.window_s, params.hop_s, audio)
    return Amplitude(audio, params)
