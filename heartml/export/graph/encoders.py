"""Encoders as ONNX graphs: a prepared waveform `[time]` in, frames `[frames, dim]` in single precision out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op
import torch
from spox import Var, inline

from heartml.export.graph import ops, signal
from heartml.export.graph.networks import by_torch
from heartml.export.graph.ops import count, i64, length, part, single
from heartml.models import encoders
from heartml.models.encoders import EncoderSpec, heart, random_conv
from heartml.models.encoders.logspec import FLOOR, Logspec
from heartml.models.encoders.random_conv import RandomConv


def _logspec(waveform: Var, encoder: Logspec, memory: "Memory") -> Var:
    """See `heartml.models.encoders.logspec`; the Fourier transform of a window is one product of matrices."""
    key = ("logspec", id(waveform), encoder.sample_rate_hz, encoder.width, encoder.hop, encoder.bands.numpy().tobytes())
    if key not in memory:
        memory[key] = _spectrogram(waveform, encoder)
    return memory[key]


def _spectrogram(waveform: Var, encoder: Logspec) -> Var:
    bins = len(encoder.bands)
    angle = 2 * np.pi * np.outer(np.arange(encoder.width), np.arange(bins)) / encoder.size
    window = encoder.window.numpy().astype(np.float64)[:, None]
    padded = ops.end_padded(waveform, i64(encoder.width))
    frames = (length(padded) - i64(encoder.width)) // i64(encoder.hop) + i64(1)
    at = ops.column(ops.numbers(frames) * i64(encoder.hop)) + ops.row(i64(np.arange(encoder.width)))
    windows = single(op.gather(padded, at))
    real = op.matmul(windows, op.const((np.cos(angle) * window).astype(np.float32)))
    imaginary = op.matmul(windows, op.const((np.sin(angle) * window).astype(np.float32)))
    power = real * real + imaginary * imaginary
    return op.log(op.matmul(power, op.const(encoder.bands.numpy())) + op.const(np.float32(FLOOR)))


def _random_conv(waveform: Var, encoder: RandomConv, memory: "Memory") -> Var:
    """See `heartml.models.encoders.random_conv`."""
    bands = _logspec(waveform, encoder.spectrogram, memory)
    picture = bands - op.reduce_mean(bands, keepdims=1)
    image = op.unsqueeze(op.transpose(picture), i64([0, 1]))
    side = random_conv.FRAMES_LONG // 2
    maps = op.conv(image, op.const(encoder.filters.numpy()), strides=[random_conv.BANDS_HIGH, random_conv.STRIDE],
                   pads=[0, side, 0, side])
    flat = op.reshape(op.relu(maps), count(encoder.dim, -1))
    return op.transpose(flat)


class _HeartFrames(torch.nn.Module):
    """The layers of the encoder `heart`: `[1, bands, frames] -> [1, dim, frames / 2]`."""

    def __init__(self, trunk: heart.HeartTrunk, layers: tuple[Any, ...]) -> None:
        super().__init__()
        self.trunk, self.layers = trunk, layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blocks, hidden = self.trunk.hidden(x)
        chosen = [hidden if layer == "last" else blocks[int(layer)] for layer in self.layers]
        return torch.cat([*chosen, heart.state_probabilities(self.trunk.frame(hidden))], dim=1)


def _heart(waveform: Var, encoder: Any, memory: "Memory") -> Var:
    """See `heartml.models.encoders.heart`."""
    bands = _logspec(waveform, encoder.spectrogram, memory)
    own = (length(bands) + i64(1)) // i64(2)
    times = (i64(heart.SHORTEST_FRAMES - 1) + length(bands)) // length(bands)
    repeated = op.tile(bands - op.reduce_mean(bands, keepdims=1), count(times, 1))
    network = _HeartFrames(encoder.trunk, tuple(encoder.layers)).eval()
    made = inline(by_torch(network, encoder.spectrogram.dim, ["found"]))
    found = made(frames=op.unsqueeze(op.transpose(repeated), i64([0])))["found"]
    return part(op.transpose(op.squeeze(found, i64([0]))), 0, own)


GRAPHS: dict[str, Callable[[Var, Any, "Memory"], Var]] = {"logspec": _logspec, "random_conv": _random_conv,
                                                         "heart": _heart}
Memory = dict[tuple[Any, ...], Var]      # what encoders share: prepared waveforms, spectrograms


def can(spec: EncoderSpec) -> bool:
    """Whether this encoder can be written as a graph."""
    return spec.kind in GRAPHS and not (spec.pretrained and spec.pretrained.takes_input)


def frames(samples: Var, rate_hz: Var, spec: EncoderSpec, memory: Memory) -> Var:
    """The frames of one encoder: samples `[time]` and their rate -> `[frames, dim]`.

    They are rounded to half precision, as they are when they are stored.
    """
    key = ("prepared", spec.audio)
    if key not in memory:
        memory[key] = signal.prepared(samples, rate_hz, spec.audio)
    level = spec.pretrained.level if spec.pretrained else 1.0
    waveform = memory[key] if level == 1.0 else memory[key] * level
    exact = GRAPHS[spec.kind](waveform, encoders.load_once(spec), memory)
    return single(op.cast(exact, to=np.float16))
