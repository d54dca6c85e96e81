"""What a method of pre-training is: something with a network, its losses and the encoder in it."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from heartml.models.encoders.m2d import Transformer


class Learner(Protocol):
    """One method, with the corpus that it draws from.

    Attributes:
        network: all that is trained or kept in a checkpoint.
        names: of the losses.
        encoder: what is wanted of the network in the end.
    """

    @property
    def network(self) -> nn.Module: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def encoder(self) -> Transformer: ...

    def losses_of(self, step: int) -> Mapping[str, Tensor]:
        """Name of a loss -> its value, for a batch that depends on the seed and the step alone."""
        ...

    def after(self, steps: int) -> None:
        """Called with the number of steps done, after each."""
        ...
