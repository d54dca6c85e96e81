"""What pre-training of the transformer leaves: checkpoints in M2D's format, and what is said of them.

A folder whose name says the shape holds `checkpoint.pth`, as M2D writes it, and the same tensors as
`checkpoint.safetensors`, which this project uses. Both have what was heard too. Readers of M2D leave such tensors out.
The same training gives the same bytes.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heartml.core.system import files
from heartml.models.encoders import m2d
from heartml.models.encoders.m2d import LogMel, Transformer
from heartml.training.pretraining.outputs import CURVES, FACTS, curves_text
from heartml.training.pretraining.vit.start import Stats
from heartml.training.pretraining.vit.train import Trained

KIND = "m2d"                     # of the encoder that reads it
CHECKPOINT, WEIGHTS = "checkpoint.pth", "checkpoint.safetensors"
SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class Facts:
    """What is stored with the weights.

    Attributes:
        shape: as the section of kind `m2d` has it.
        heard: as `heard.arrays` gives it.
    """

    shape: Mapping[str, Any]
    heard: Mapping[str, NDArray[np.uint8]]


def write(folder: Path, trained: Trained, facts: Facts, words: Mapping[str, Any]) -> Path:
    """Write the checkpoints, the curves and `words` into `folder`; the file of weights."""
    place = folder_of(folder, trained.transformer, facts)
    tensors = _tensors(trained.transformer, trained.stats, facts)
    write_weights(place / WEIGHTS, trained.transformer, trained.stats, facts)
    buffer = io.BytesIO()      # a path would be written into the file
    front_end = LogMel(int(facts.shape["sample_rate_hz"]), int(facts.shape["input_size"][0])).describe()
    torch.save({"model": tensors, "args": {"model": place.name.split("-")[0], **front_end}}, buffer)
    with files.replacing(place / CHECKPOINT) as temporary:
        temporary.write_bytes(buffer.getvalue())
    with files.replacing(folder / CURVES) as temporary:
        temporary.write_text(curves_text(trained.curves), encoding="utf-8")
    files.write_json(folder / FACTS, words)
    return place / WEIGHTS


def folder_of(folder: Path, transformer: Transformer, facts: Facts) -> Path:
    """The folder below `folder` whose name says the shape."""
    return folder / m2d.name_of(facts.shape, transformer.cls_token.shape[-1])


def write_weights(file: Path, transformer: Transformer, stats: Stats, facts: Facts) -> None:
    """Write one encoder as safetensors."""
    from safetensors.torch import save

    file.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(file) as temporary:
        temporary.write_bytes(save(_tensors(transformer, stats, facts)))


def _tensors(transformer: Transformer, stats: Stats, facts: Facts) -> dict[str, Tensor]:
    found = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in transformer.state_dict().items()}
    return {**found, m2d.NORM_STATS: torch.tensor(stats, dtype=torch.float32),
            **{name: torch.from_numpy(hashes) for name, hashes in facts.heard.items()}}
