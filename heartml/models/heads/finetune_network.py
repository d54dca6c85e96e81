"""The network of the head `finetune`: an encoder's trunk, batch norm and one layer, `[batch, dim, frames] -> logits`.

Batch norm has no weights of its own (Niizumi et al., 2024). Here is also which weights learn, at which share of the
learning rate, and which of them have to be stored.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heartml.models import encoders, trunks
from heartml.models.encoders import EncoderSpec
from heartml.models.trunks import Trunk, TrunkError


class FinetuneNetwork(nn.Module):
    """`[batch, dim, frames] -> [batch, classes]`, logits; frames are not classified."""

    def __init__(self, trunk: Trunk, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.norm = nn.BatchNorm1d(trunk.width, affine=False)
        self.classify = nn.Linear(trunk.width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.classify(self.norm(self.trunk(x.transpose(1, 2)))), None


def build(shape: Mapping[str, Any]) -> FinetuneNetwork:
    """The network before it is trained.

    Args:
        shape: `encoder` (its spec as JSON), `classes`, `frozen_layers`, `lora_rank`, `lora_alpha`, `from_scratch`.

    Raises:
        TrunkError: the encoder cannot be trained in this way.
        WeightsError: its weights are not here.
    """
    spec = EncoderSpec.from_json(shape["encoder"])
    with torch.random.fork_rng(devices=[]):      # an encoder that this process has already draws nothing
        encoder = encoders.load_once(spec)
    trunk = trunks.of(spec.kind, encoder)
    if shape["from_scratch"]:
        trunk.redraw()
    if shape["lora_rank"]:
        _adapt(trunk, spec, int(shape["lora_rank"]), int(shape["lora_alpha"]))
    layers, frozen = trunk.layers(), int(shape["frozen_layers"])
    if frozen > len(layers):
        raise TrunkError(f"frozen_layers: {spec.name} has {len(layers)} layers, {frozen} cannot be frozen")
    trunks.freeze(layers[:frozen])
    return FinetuneNetwork(trunk, int(shape["classes"]))


def check_adapters() -> None:
    """Check that the library of adapters is installed.

    Raises:
        TrunkError: it is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise TrunkError("search.network_parameters.finetune.lora_rank: adapters need the package peft, which is not "
                         "installed: `pip install '.[encoders]'`, or set lora_rank to 0")


def _adapt(trunk: Trunk, spec: EncoderSpec, rank: int, alpha: int) -> None:
    """Put adapters beside linear layers of the blocks; nothing else of the trunk learns."""
    check_adapters()
    if not trunk.ADAPTED:
        raise TrunkError(f"lora_rank: an encoder of kind {spec.kind} has no linear layers for adapters; set it to 0")
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=trunk.ADAPTED), trunk.network)


def groups(network: nn.Module, layer_decay: float) -> list[tuple[Sequence[nn.Parameter], float]]:
    """The weights that learn, layer by layer from the input, with their share of the rate; the head is last."""
    assert isinstance(network, FinetuneNetwork)
    layers = [*network.trunk.layers(), list(network.classify.parameters())]
    shares = [layer_decay ** (len(layers) - 1 - number) for number in range(len(layers))]
    learnt = [([one for one in layer if one.requires_grad], share)
              for layer, share in zip(layers, shares, strict=True)]
    return [(layer, share) for layer, share in learnt if layer]


def stored(network: FinetuneNetwork, *, whole: bool) -> dict[str, Tensor]:
    """What a model keeps, by name: everything, or all that can differ from the encoder's file of weights."""
    kept = {name for name, weight in network.named_parameters() if whole or weight.requires_grad}
    kept |= {name for name, _ in network.named_buffers()}
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items() if name in kept}


def restore(network: FinetuneNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `stored` gave.

    Raises:
        TrunkError: it is of another network.
    """
    told = network.load_state_dict(dict(tensors), strict=False)
    learnt = {name for name, weight in network.named_parameters() if weight.requires_grad}
    if told.unexpected_keys or learnt & set(told.missing_keys):
        raise TrunkError("a fine-tuned network does not fit its encoder; train it again")


def logits_of(network: FinetuneNetwork, x: Tensor, batch: int) -> Tensor:
    """Logits `[cases, classes]` of chunks `[cases, frames, dim]`, some at a time."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        return torch.cat([network(part.to(device).transpose(1, 2))[0].float().cpu() for part in torch.split(x, batch)])
