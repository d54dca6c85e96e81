"""How much memory a fine-tuning needs, told before it starts: weights, gradients, optimiser, and activations, in GB.

The activations of one chunk are measured: what torch keeps for the way back, in single precision. So the sum is an
upper limit with mixed precision.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heartml.core.system.errors import HeartMLError

_GB = 1e9
_NUMBER_BYTES = 4


class MemoryRefused(HeartMLError):  # noqa: N818 - names what is the case
    """A training needs more memory than is free; the message says how to need less."""


@dataclass(frozen=True)
class Memory:
    """In GB.

    Attributes:
        weights: of the network, and the copy of the best epoch.
        learning: gradients and what the optimiser remembers.
        activations: of one batch.
    """

    weights: float
    learning: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.learning + self.activations

    @property
    def words(self) -> str:
        """`2.1 GB of memory (weights 0.3, gradients and optimiser 0.7, activations of a batch 1.1)`."""
        return (f"{self.total:.1f} GB of memory (weights {self.weights:.1f}, gradients and optimiser "
                f"{self.learning:.1f}, activations of a batch {self.activations:.1f})")


def needed(network: nn.Module, frames: int, dim: int, batch: int, optimiser: str) -> Memory:
    """What a training of `network` on batches `[batch, dim, frames]` needs."""
    every = sum(weight.numel() for weight in network.parameters())
    learnt = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    kept = 1 if optimiser == "sgd" else 2      # momentum; or first and second moment
    return Memory((every + learnt) * _NUMBER_BYTES / _GB, learnt * (1 + kept) * _NUMBER_BYTES / _GB,
                  batch * _kept_bytes(network, frames, dim) / _GB)


def _kept_bytes(network: nn.Module, frames: int, dim: int) -> int:
    """Bytes that torch keeps for the way back of one case; weights are not counted."""
    sizes: dict[int, int] = {}
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    device, training = next(network.parameters()).device, network.training
    with torch.autograd.graph.saved_tensors_hooks(keep, _same):
        network.eval()(torch.zeros(1, dim, frames, device=device))
    network.train(training)
    return sum(sizes.values())


def _same(tensor: Any) -> Any:
    return tensor


def free() -> float:
    """GB that are free on the GPU, or on the machine where there is none."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0] / _GB)
    import psutil

    return float(psutil.virtual_memory().available / _GB)


def check(memory: Memory, at_once: int, available: float) -> None:
    """Check that so many trainings fit at once.

    Raises:
        MemoryRefused: they do not.
    """
    if memory.total * at_once > available:
        raise MemoryRefused(
            f"finetune: {at_once} trainings at once need {memory.words} each, and {available:.1f} GB are free. Lower "
            "`batch` and raise `training: {accumulation: ...}`, freeze layers (`frozen_layers`), use adapters "
            "(`lora_rank`), lower `search.workers`, or set `check_memory: false`")
