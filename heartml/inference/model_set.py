"""The models that predict together: the one that was asked for, and the descriptor models of the murmurs that it finds.

Frames are computed once for all of them (`heartml.models.shared_inputs`). Descriptor models are loaded when the first
murmur is found, and predict only for units with a murmur.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from heartml.core.config import PredictParams
from heartml.core.tasks import GROUPS
from heartml.inference import model_lookup, validated_sources
from heartml.inference.model_lookup import LocatedModel
from heartml.inference.murmur_words import MurmurFeature
from heartml.models.applicability import TRAINING
from heartml.models.fitted_model import Model, Predictions
from heartml.models.shared_inputs import SharedInputs
from heartml.registry import version_cautions

MURMUR = "murmur"
# Descriptors of diastolic murmurs are not used. They were trained only on patients with a diastolic murmur, and no
# model here tells who has one (5 of CirCor's 179 murmurs). Nearly every murmur is systolic (178 of 179).
DESCRIPTOR_TASKS = tuple(name for name in GROUPS["descriptors"] if name.startswith("systolic_"))


@dataclass(frozen=True)
class Descriptor:
    """The model of one descriptor, for instance the timing of a murmur."""

    located: LocatedModel

    @cached_property
    def model(self) -> Model:
        """The fitted model, read from disk on first use."""
        return Model.load(self.located.folder)


@dataclass(frozen=True)
class ModelSet:
    """The model that predicts, and the descriptors of murmurs; none where the model's task is another one.

    `cautions` are about sources that are not accepted, see `validated_sources.accept`.
    """

    model: Model
    descriptors: tuple[Descriptor, ...]
    cautions: tuple[str, ...] = ()

    @property
    def accepted_sources(self) -> tuple[str, ...]:
        """Sources that were validated since the training, whose recordings the model accepts."""
        checks = self.model.applicability
        return tuple(one.name for one in checks.references if one.name != TRAINING) if checks else ()

    @property
    def finds_murmurs(self) -> bool:
        """Whether the model's task is to find murmurs."""
        return self.model.task.name == MURMUR

    def murmur_rows(self, predictions: Predictions) -> list[int]:
        """Rows of the units for which a murmur was predicted."""
        if not self.finds_murmurs:
            return []
        present = predictions.classes.index(str(self.model.task.positive))
        return [int(row) for row in np.flatnonzero(predictions.decisions == present)]

    def murmur_features(
        self, shared: SharedInputs, predictions: Predictions
    ) -> Mapping[int, tuple[MurmurFeature, ...]]:
        """Row of each unit with a murmur -> what the descriptors predict for it, in the order of the tasks."""
        rows = self.murmur_rows(predictions)
        described = [(one, one.model.predict_shared(shared)) for one in self.descriptors] if rows else []
        return {row: tuple(_feature(one, found, row) for one, found in described) for row in rows}


def load(located: LocatedModel, accepted_sources: Sequence[str] = ()) -> ModelSet:
    """Load a model, together with the descriptors of the same data set (see `model_lookup.companion_models`).

    Raises:
        SourceError: see `validated_sources.accept`.
    """
    model, cautions = validated_sources.accept(Model.load(located.folder), located, accepted_sources)
    return ModelSet(model, tuple(map(Descriptor, descriptors(located, model.assignment_name))), cautions)


def descriptors(located: LocatedModel, name: str) -> list[LocatedModel]:
    """The models that describe the murmurs which the model `name` finds; none for another task."""
    dataset, _, task = name.rpartition("-")
    if task != MURMUR:
        return []
    return model_lookup.companion_models(located, [f"{dataset}-{one}" for one in DESCRIPTOR_TASKS])


def cautions(located: LocatedModel, models: ModelSet, params: PredictParams) -> tuple[str, ...]:
    """What to know before predictions of these models are trusted, one line each; every output has them.

    Raises:
        CautionedModel: there is something, and `predict.cautioned_model` of params.yaml is `refuse`.
    """
    of_descriptors = (line for one in models.descriptors for line in one.located.cautions)
    found = (*located.cautions, *models.cautions, *of_descriptors)
    version_cautions.check(found, params)
    return found


def _feature(descriptor: Descriptor, predictions: Predictions, row: int) -> MurmurFeature:
    decision = predictions.top_classes[row]
    calibrated = dict(zip(predictions.classes, map(float, predictions.calibrated[row]), strict=True))
    return MurmurFeature(descriptor.model.task.name, decision, calibrated[decision], calibrated,
                         descriptor.located.description)
