"""Log-mel spectrograms as the publishers of pre-trained networks make them: `[batch, time] -> [batch, mels, frames]`.

Windows are centred, and the ends are continued by reflection, as `torch.stft` does it. So there is one frame for each
hop, and one more: `1 + time // hop`. A waveform has at least `least_samples`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Mel:
    """Power spectrum, then a bank of filters; the logarithm is the caller's.

    Attributes:
        size: samples in a Fourier transform.
        hop: samples from frame to frame.
        window: `[width]`, at most `size`.
        bank: `[mels, size // 2 + 1]`.
    """

    size: int
    hop: int
    window: Tensor
    bank: Tensor

    @property
    def least_samples(self) -> int:
        """The shortest waveform that can be continued by reflection."""
        return self.size // 2 + 1

    def to(self, device: str) -> "Mel":
        """The same on another device."""
        self.window, self.bank = self.window.to(device), self.bank.to(device)
        return self

    def power(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, mels, 1 + time // hop]`, mel energies."""
        spectrum = torch.stft(batch, self.size, self.hop, len(self.window), self.window, return_complex=True)
        return torch.matmul(self.bank, spectrum.real.square() + spectrum.imag.square())


def mel(sample_rate_hz: int, size: int, hop: int, mels: int, band_hz: tuple[float, float], slaney: bool,
        width: int | None = None) -> Mel:
    """The spectrogram of torchaudio: a periodic Hann window, triangles on the mel scale.

    Args:
        band_hz: lowest and highest frequency.
        width: of the window, in samples; `None`: `size`.
        slaney: mel scale and area normalisation of Slaney's toolbox; otherwise HTK's scale without normalisation.
    """
    from torchaudio.functional import melscale_fbanks

    scale, norm = ("slaney", "slaney") if slaney else ("htk", None)
    bank = melscale_fbanks(size // 2 + 1, *band_hz, mels, sample_rate_hz, norm=norm, mel_scale=scale)
    return Mel(size, hop, torch.hann_window(width or size), bank.T.contiguous())
