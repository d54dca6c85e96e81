"""Trunks: the part of a pre-trained encoder that learns on, what it takes `[batch, frames, dim] -> [batch, width]`.

What a trunk takes are the frames of its encoder's layer `input`: a spectrogram, or the samples of a waveform. What it
gives is the mean over time of the encoder's own frames, bands one after the other. The head `finetune` puts a
classifier on it. One file for each kind of encoder that has a layer `input`; a new one is one file and one name here.
"""

import abc
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from heartml.core.system import family
from heartml.core.system.errors import HeartMLError
from heartml.models.encoders import Encoder

_DEVIATION = 0.02      # of tokens and tables that are drawn anew


class TrunkError(HeartMLError):
    """An encoder cannot be trained, or not in this way; the message says why."""


class Trunk(nn.Module, abc.ABC):
    """A copy of an encoder's network, whose weights may change.

    Attributes:
        network: of the encoder, without what gives nothing here.
        width: values of a vector.
        ADAPTED: names of the linear layers in `network` beside which adapters stand (LoRA), as a regular expression;
            empty for none.
    """

    ADAPTED: ClassVar[str] = ""
    network: Any
    width: int

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, dim] -> [batch, width]`."""

    @abc.abstractmethod
    def parts(self) -> list[list[nn.Module | nn.Parameter]]:
        """What it is made of, from input to output: what embeds the input, each block, what follows the last one."""

    def layers(self) -> list[list[nn.Parameter]]:
        """The weights of each of the `parts`."""
        return [list(itertools.chain.from_iterable(
            [one] if isinstance(one, nn.Parameter) else one.parameters() for one in part)) for part in self.parts()]

    def redraw(self) -> None:
        """Draw all weights anew from torch's generator; tables that are not learnt stay.

        Linear layers and convolutions as Glorot and Bengio (2010) do, with biases of zero; single tokens and learnt
        tables from a narrow normal distribution.
        """
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                    _draw(module)
                elif hasattr(module, "reset_parameters"):
                    cast(Any, module).reset_parameters()
                elif not isinstance(module, parametrize.ParametrizationList):
                    for weight in module.parameters(recurse=False):
                        if weight.requires_grad:
                            nn.init.normal_(weight, std=_DEVIATION)


def _draw(module: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
    drawn = torch.empty_like(module.weight)
    nn.init.xavier_uniform_(drawn.flatten(1))
    if parametrize.is_parametrized(module, "weight"):
        cast(Any, module).weight = drawn      # divided into what it is made of
    else:
        module.weight.copy_(drawn)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class TrunkModule(Protocol):
    """What the module of a trunk holds."""

    def make(self, encoder: Encoder) -> Trunk:
        """The trunk of an encoder of this kind.

        Raises:
            TrunkError: its network cannot be trained.
        """
        ...


TRUNKS: dict[str, Callable[[], TrunkModule]] = family.members(__name__, ["m2d", "heart", "transformers"])


def of(kind: str, encoder: Encoder) -> Trunk:
    """The trunk of an encoder of a kind.

    Raises:
        TrunkError: this kind has none.
    """
    if kind not in TRUNKS:
        raise TrunkError(f"an encoder of kind {kind} cannot be fine-tuned; those of kind {', '.join(TRUNKS)} can")
    return TRUNKS[kind]().make(encoder)


def freeze(layers: Sequence[Sequence[nn.Parameter]]) -> None:
    """Let these weights stay as they are."""
    for layer in layers:
        for weight in layer:
            weight.requires_grad_(False)
