"""The models that answer together: the one that was asked for, and those that describe the murmur it finds.

What a recording sounds like is made once for all of them (`heartml.models.shared_inputs`); descriptors are loaded when
the first murmur is found, and asked about nobody else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from heartml.core.tasks import GROUPS
from heartml.inference import model_lookup
from heartml.inference.model_lookup import Located
from heartml.inference.murmur_words import MurmurFeature
from heartml.models.fitted_model import Model, Predictions
from heartml.models.shared_inputs import SharedInputs

MURMUR = "murmur"
# Diastolic descriptors stay unasked: they were taught by patients with a diastolic murmur alone, and nothing here tells
# who has one (5 of CirCor's 179 murmurs). Of a systolic one that can be taken for granted (178 of 179).
ASKED = tuple(name for name in GROUPS["descriptors"] if name.startswith("systolic_"))


@dataclass(frozen=True)
class Descriptor:
    """A model that describes one feature, and where it comes from."""

    located: Located

    @cached_property
    def model(self) -> Model:
        """Read from disk when it is first asked."""
        return Model.load(self.located.folder)


@dataclass(frozen=True)
class ModelSet:
    """The model that answers, and what describes the murmurs it finds: nothing where it answers something else."""

    model: Model
    descriptors: tuple[Descriptor, ...]

    @property
    def finds_murmurs(self) -> bool:
        """Whether its answer can be that a patient has a murmur."""
        return self.model.task.name == MURMUR

    def present(self, said: Predictions) -> list[int]:
        """Rows of the units that have a murmur."""
        if not self.finds_murmurs:
            return []
        return [int(row) for row in np.flatnonzero(said.decisions == said.classes.index(str(self.model.task.positive)))]

    def features(self, shared: SharedInputs, said: Predictions) -> Mapping[int, tuple[MurmurFeature, ...]]:
        """Row of each unit with a murmur -> its features, in the order of the tasks."""
        rows = self.present(said)
        heard = [(one, one.model.predict_shared(shared)) for one in self.descriptors] if rows else []
        return {row: tuple(_feature(one, told, row) for one, told in heard) for row in rows}


def load(located: Located) -> ModelSet:
    """The model at `located` with the descriptors that the same data set has (see `locate.beside`)."""
    model = Model.load(located.folder)
    if model.task.name != MURMUR:
        return ModelSet(model, ())
    datasets = model.assignment_name.rpartition("-")[0]
    found = model_lookup.beside(located, [f"{datasets}-{name}" for name in ASKED])
    return ModelSet(model, tuple(Descriptor(one) for one in found))


def _feature(descriptor: Descriptor, told: Predictions, row: int) -> MurmurFeature:
    decided = int(told.decisions[row])
    calibrated = dict(zip(told.classes, map(float, told.calibrated[row]), strict=True))
    return MurmurFeature(descriptor.model.task.name, told.classes[decided], calibrated[told.classes[decided]],
                         calibrated,
                   descriptor.located.words)
