"""Parameters of network heads: what all of them have, and how they are read from `params.yaml`.

The module of a network head declares its own subclass as `PARAMS`. A user writes the values in `params.yaml` under
`search.network_parameters.NAME`. Keys of `search.training` that this network replaces are under `training` there.
"""

from typing import Annotated, Any, Protocol, cast

from pydantic import Field

from heartml.core import config
from heartml.core.config import Count, ParamsError, SearchParams, Section, TrainingParams
from heartml.models.heads import HEADS

NOISE_ENCODER = "logspec"      # noise is added to log powers, which other encoders do not give


class NetworkParams(Section):
    """What every network is trained on.

    Attributes:
        encoders: those whose frames it can be trained on.
        batch: recordings in each step of the optimiser.
        training: keys of `search.training` that this network replaces.
    """

    encoders: Annotated[tuple[str, ...], Field(min_length=1)]
    batch: Annotated[int, Field(ge=2)]     # batch norm needs two recordings
    training: dict[str, Any] = Field(default_factory=dict)

    def check(self) -> None:
        """Check values that refer to something outside `params.yaml`: a file, a model of a library.

        Raises:
            HeartMLError: a value cannot be used; the message names the key.
        """


class SteppedParams(NetworkParams):
    """A network that is trained for a number of `steps` of the optimiser."""

    steps: Count


class NetworkModule(Protocol):
    """What the module of a network head holds in addition to `Head`."""

    @property
    def PARAMS(self) -> type[NetworkParams]: ...  # noqa: N802 - a module's constant


def network_params(head: str, search: SearchParams) -> NetworkParams:
    """The checked section `search.network_parameters` of the network head `head`.

    Raises:
        ParamsError: there is no such section, a key in it is unknown, missing or out of range, or noise is asked for
            where it cannot be added.
    """
    where = f"search.network_parameters.{head}"
    if head not in search.network_parameters:
        raise ParamsError(f"params.yaml: head {head} needs a section `{where}`")
    kind = cast(NetworkModule, HEADS[head]()).PARAMS
    params = config.validate_section(kind, search.network_parameters[head], where)
    training = training_params(params, search, where)
    if training.noise_share and set(params.encoders) != {NOISE_ENCODER}:
        raise ParamsError(f"params.yaml: {where}: noise can be added to frames of {NOISE_ENCODER} alone, and {head} is "
                          f"trained on {', '.join(params.encoders)}. Set its training to {{noise_share: 0.0}}")
    return params


def training_params(params: NetworkParams, search: SearchParams, where: str = "search.network_parameters"
                    ) -> TrainingParams:
    """`search.training`, with the keys replaced that the network sets itself.

    Raises:
        ParamsError: a key is unknown or out of range.
    """
    values = {**search.training.model_dump(), **params.training}
    return config.validate_section(TrainingParams, values, f"{where}.training")
