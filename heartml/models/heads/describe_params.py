"""Parameters of the head `describe`, under `search.network_parameters.describe`."""

import importlib.util
from typing import Self

from pydantic import model_validator

from heartml.core.config import Count, Positive
from heartml.core.system.errors import HeartMLError
from heartml.models.heads.network_params import SteppedParams


class DescribeError(HeartMLError):
    """A language model cannot be asked, or not in this way; the message says why."""


class DescribeParams(SteppedParams):
    """How a language model that hears is taught to answer.

    Attributes:
        rate: learning rate of the adapters. `None`: the search draws it.
        lora_rank: rank of the adapters (Hu et al., 2021); the weights themselves stay.
        lora_alpha: their scale is `lora_alpha / lora_rank`.
        adapt_audio: whether the layers that hear have adapters too; otherwise only the language model has.
        cycles: whole heart cycles of a recording that are heard, the ones whose states are surest.
        segmenter_steps, segmenter_channels, segmenter_batch, segmenter_rate: of the network that tells heart states,
            which is trained first; not used where no recording has annotated states.
        check_memory: whether a training is refused that needs more memory than is free.
    """

    rate: Positive | None = None
    lora_rank: Count
    lora_alpha: Count
    adapt_audio: bool
    cycles: Count
    segmenter_steps: Count
    segmenter_channels: Count
    segmenter_batch: Count
    segmenter_rate: Positive
    check_memory: bool

    @model_validator(mode="after")
    def _sounds_are_not_mixed(self) -> Self:
        if self.training.get("mixup"):
            raise ValueError("training.mixup: two answers cannot be mixed; set it to 0")
        return self

    def check(self) -> None:
        """See `NetworkParams.check`: the libraries are optional."""
        check_libraries()


def check_libraries() -> None:
    """Check that the libraries are installed.

    Raises:
        DescribeError: one is not.
    """
    for name in ("transformers", "peft"):
        if importlib.util.find_spec(name) is None:
            raise DescribeError(f"the head describe needs the package {name}, which is not installed: "
                                "`pip install '.[encoders]'`, or take describe out of search.heads")
