"""The section of `params.yaml` that names a pre-trained encoder: its weights, their hash, the layers, the licence.

    encoder_parameters:
      mn04: {kind: efficientat, weights: weights/mn04.pt, sha256: 899a8c62..., layers: [last]}
"""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from heartml.core.config import Positive, Section
from heartml.models.encoders import weight_files

Layer = Literal["last", "input"] | Annotated[int, Field(ge=0)]
INPUT: tuple[Layer, ...] = ("input",)      # the layers of an encoder whose frames are what its network takes
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_NOT_IN_FRAMES = {"weights", "hold", "licence", "redistribute", "citation"}


class PretrainedParams(Section, abc.ABC):
    """The section of a pre-trained encoder.

    Attributes:
        weights: the publisher's file (of kind `transformers`: folder), relative to the project.
        sha256: its hash, as `heartml weights add` prints it.
        layers: whose outputs are a frame's values, one after the other; `last` is the network's own output. `input`,
            alone, is what the network takes: the head `finetune` is trained on that.
        level: the waveform's level before it is encoded, as `preprocessing.prepare` measures it. The sounds that such
            networks were trained on lie at about a tenth of full scale.
        hold: whether a registered model holds the weights. Otherwise it names them, and needs the file to be loaded.
        licence, citation, redistribute: of the weights; `None`: what `heartml weights add` was told, or else what the
            publisher of this kind says. Weights that must not be passed on are never held.
    """

    KIND: ClassVar[str]
    LICENCE: ClassVar[str] = "not stated"
    CITATION: ClassVar[str] = "not stated"
    REDISTRIBUTABLE: ClassVar[bool] = False
    LIBRARIES: ClassVar[tuple[str, ...]] = ()      # whose versions decide the frames, besides those of every encoder
    SHARED: ClassVar[tuple[str, ...]] = ()         # modules of `heartml/models/` whose code decides the frames too
    TUNABLE: ClassVar[bool] = False                # whether the layer `input` is there, see `heartml.models.trunks`

    weights: str
    sha256: Sha256
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] = ("last",)
    level: Positive = 0.1
    hold: bool = True
    licence: str | None = None
    citation: str | None = None
    redistribute: bool | None = None

    @model_validator(mode="after")
    def _input_is_there_and_alone(self) -> Self:
        if "input" in self.layers and not self.TUNABLE:
            raise ValueError(f"layers: an encoder of kind {self.KIND} has no layer `input`")
        if "input" in self.layers and self.layers != INPUT:
            raise ValueError("layers: `input` stands alone")
        return self

    @property
    def takes_input(self) -> bool:
        """Whether a frame is what the network takes."""
        return self.layers == INPUT

    @property
    def path(self) -> Path:
        """Where the weights lie."""
        return Path(self.weights)

    @abc.abstractmethod
    def rate_hz(self) -> int:
        """The sample rate that the network takes."""

    def resolved(self, stated: Mapping[str, Any]) -> Self:
        """The section with everything filled in that can be left out, so that it can be used without the file's name.

        Args:
            stated: what was said when the weights were added, see `weight_files.notes`.

        Raises:
            ValueError: something is missing that neither the section nor the file's name says.
        """
        redistribute = stated.get("redistribute", self.REDISTRIBUTABLE)
        said = {key: value for key, value in stated.get("shape", {}).items() if getattr(self, key, 0) is None}
        return type(self).model_validate({
            **self.model_dump(), **said, "licence": self.licence or stated.get("licence") or self.LICENCE,
            "citation": self.citation or stated.get("citation") or self.CITATION,
            "redistribute": redistribute if self.redistribute is None else self.redistribute,
        })

    def at_hand(self) -> Self:
        """The section resolved, once its file is found to be the named one.

        Raises:
            WeightsError: the file is not there, or is another one.
            ValueError: see `resolved`.
        """
        weight_files.check(self.path, self.sha256)
        return self.resolved(weight_files.notes(self.path))

    def shape(self) -> dict[str, Any]:
        """What has to be known of the network and its file does not hold; `resolved` takes it as `shape`."""
        return {}

    @property
    def held(self) -> bool:
        """Whether a model with this encoder holds the weights: by the setting, and where the licence allows it."""
        return self.hold and bool(self.redistribute)

    def identity(self) -> dict[str, Any]:
        """What the frames depend on: without the file's place, its licence, and whether models hold it."""
        return self.model_dump(mode="json", exclude=_NOT_IN_FRAMES)
