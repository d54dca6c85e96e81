"""Where a transformer starts: fresh weights of the shape in params.yaml, or those of a file; and its pictures.

Positions of fresh weights are sines and cosines of row and column, which are not trained, as in M2D and in masked
autoencoders (He et al., 2022). Linear layers are drawn as Glorot and Bengio (2010) do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heartml.audio import preprocessing
from heartml.core.config import AudioParams, VitParams
from heartml.models import heard
from heartml.models.encoders import m2d, weight_files
from heartml.models.encoders.m2d import FRAMES_A_SECOND, LogMel, M2dParams, Transformer
from heartml.models.encoders.pretrained import build, pinned

RATE_HZ = 4000                   # of fresh weights
_LEVEL = float(M2dParams.model_fields["level"].default)
_DEVIATION = 0.02
_RATIO = 4.0
_LONGEST_PERIOD = 10000.0

Stats = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """The shape of the input: mel bands and frames, the height and width of a patch."""

    mels: int
    frames: int
    high: int
    wide: int

    @property
    def rows(self) -> int:
        """Patches one above the other."""
        return self.mels // self.high

    @property
    def columns(self) -> int:
        """Patches in time."""
        return self.frames // self.wide


@dataclass(frozen=True)
class Start:
    """A transformer before the first step.

    Attributes:
        shape: `input_size`, `patch_size`, `sample_rate_hz`, `heads`, as the section of kind `m2d` has them.
        stats: mean and deviation of its pictures; `None`: those of the corpus.
        heard: what its weights were trained on, as `heard.arrays` gives it.
        sha256: of the file; empty for fresh weights.
    """

    transformer: Transformer
    shape: Mapping[str, Any]
    stats: Stats | None = None
    heard: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    sha256: str = ""

    @property
    def grid(self) -> Grid:
        """See `Grid`."""
        return Grid(*self.shape["input_size"], *self.shape["patch_size"])

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.transformer.cls_token.shape[-1])


def fresh(params: VitParams, seed: int) -> Start:
    """Random weights of the shape in params.yaml; nothing else of torch's random numbers changes."""
    shape = {"input_size": params.input_size, "patch_size": params.patch_size, "sample_rate_hz": RATE_HZ,
             "heads": params.heads}
    grid = Grid(*params.input_size, *params.patch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Transformer(params.width, params.depth, params.heads, params.patch_size, grid.rows * grid.columns,
                           _RATIO)
        initialise(made)
        for parameter in made.patch_embed.parameters():
            nn.init.zeros_(parameter) if parameter.ndim == 1 else nn.init.xavier_uniform_(parameter.flatten(1))
        nn.init.normal_(made.cls_token, std=_DEVIATION)
    table = torch.from_numpy(positions(grid.rows, grid.columns, params.width)).float()
    made.pos_embed = nn.Parameter(torch.cat([torch.zeros(1, params.width), table])[None], requires_grad=False)
    return Start(made, shape)


def initialise(network: nn.Module) -> None:
    """Draw the weights of linear layers; their biases become zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def positions(rows: int, columns: int, width: int) -> NDArray[np.float64]:
    """Sines and cosines: `[rows x columns, width]`, the first half of the row, the second of the column.

    >>> positions(2, 3, 8)[4].round(2).tolist()
    [0.84, 0.01, 0.54, 1.0, 0.84, 0.01, 0.54, 1.0]
    """
    speed = _LONGEST_PERIOD ** -(np.arange(width // 4) / (width // 4))
    found = []
    for place in np.indices((rows, columns)).reshape(2, -1):
        angle = place[:, None] * speed
        found += [np.sin(angle), np.cos(angle)]
    return np.concatenate(found, axis=1)


def of_file(path: Path) -> Start:
    """The weights of a checkpoint in M2D's format. The folder's name says the shape, or the notes of its DVC file do.

    Raises:
        WeightsError: the file is missing, or is no checkpoint of this kind.
        ValueError: nothing says the shape.
    """
    section = pinned(M2dParams, path, None, ("last",)).resolved(weight_files.notes(path))
    encoder = build(section, lambda tensors: m2d.M2d(tensors, section))
    network = encoder.network.requires_grad_(True)
    network.pos_embed.requires_grad_(False)
    return Start(network, {**section.shape(), "heads": network.heads}, (encoder.mean, encoder.deviation),
                 heard.arrays_of(section.model_dump()), section.sha256)


class LogMelPicture:
    """The pictures of M2D before they are scaled: raw waveform `[time] -> float16 [frames, mels]`.

    Waveforms are prepared as for the encoder, so that it sees the same when it is used.
    """

    frame_rate_hz = float(FRAMES_A_SECOND)

    def __init__(self, start: Start, audio: AudioParams) -> None:
        rate = int(start.shape["sample_rate_hz"])
        self._audio = audio.model_copy(update={"sample_rate_hz": rate})
        self._log_mel = LogMel(rate, start.grid.mels)

    def __call__(self, waveform: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float16]:
        ready = preprocessing.prepare(waveform, sample_rate_hz, self._audio) * np.float32(_LEVEL)
        with torch.inference_mode():
            return self._log_mel(torch.from_numpy(ready)[None])[0].T.numpy().astype(np.float16)


def stats_of(frames: Iterable[NDArray[np.floating[Any]]]) -> Stats:
    """Mean and deviation of all values of pictures `[frames, mels]`.

    >>> stats_of([np.array([[1.0, 3.0]]), np.array([[1.0, 3.0]])])
    (2.0, 1.0)
    """
    sums = np.zeros(3)
    for one in frames:
        values = one.astype(np.float64)
        sums += values.size, values.sum(), np.square(values).sum()
    mean = sums[1] / sums[0]
    return float(mean), float(np.sqrt(sums[2] / sums[0] - mean**2))


class Scale(nn.Module):
    """Scales pictures as the encoder does: `[batch, mels, frames] -> [batch, 1, mels, frames]`."""

    def __init__(self, stats: Stats) -> None:
        super().__init__()
        self.mean, self.deviation = stats

    def forward(self, picture: Tensor) -> Tensor:
        return (picture[:, None] - self.mean) / self.deviation
