"""The control of a pre-trained encoder: the same network with random weights.

In: the spec of an encoder. Out: one of the same kind and shape whose weights are drawn from a seed, as a file of
weights in the cache. Convolutions and linear layers are drawn as He et al. (2015) do, norms do nothing, biases are
zero. What is no weight of single precision (parameters of a spectrogram, what was heard) stays, or is left out. So does
what is not learnt: a table of positions, and the mean and deviation of a spectrogram.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from heartml.core import paths
from heartml.core.system.files import replacing
from heartml.core.system.hashing import sha256, sha256_file
from heartml.models import heard
from heartml.models.encoders import EncoderSpec, weight_files

SUFFIX = "_random"
NOT_LEARNT = ("pos_embed", "norm_stats")
WITHOUT = ("transformers", "onnx")      # read whole folders or graphs, whose weights cannot be exchanged here


def random_weights(spec: EncoderSpec, seed: int) -> EncoderSpec | None:
    """The control of `spec`, named `NAME_random`; `None` where the encoder has no weights that can be exchanged."""
    own = spec.pretrained
    if own is None or spec.kind in WITHOUT:
        return None
    name = sha256(f"{own.sha256} {seed}".encode())
    file = paths.cache() / "random-weights" / f"{name}.safetensors"
    if not file.exists():
        _write(file, weight_files.read(own.path, own.sha256), seed)
    section = own.model_copy(update={"weights": str(file), "sha256": sha256_file(file)})
    return replace(spec, name=spec.name + SUFFIX, own_kind=spec.kind, sections={**spec.sections, spec.kind: section})


def _write(file: Path, tensors: dict[str, Tensor], seed: int) -> None:
    from safetensors.torch import save

    generator = torch.Generator().manual_seed(seed)
    drawn = {name: _drawn(name, tensor, generator) for name, tensor in sorted(tensors.items())
             if not name.startswith(heard.PREFIX)}
    with replacing(file) as temporary:
        temporary.write_bytes(save(drawn))


def _drawn(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16) or name.endswith(NOT_LEARNT):
        return tensor.clone()
    if tensor.ndim < 2:
        return torch.ones_like(tensor) if name.endswith(("weight", "running_var")) else torch.zeros_like(tensor)
    fan_in = tensor[0].numel()
    return torch.randn(tensor.shape, generator=generator).mul_((2 / fan_in) ** 0.5).to(tensor.dtype)
