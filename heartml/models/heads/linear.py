"""What the pooled heads share: standardised columns, weighted classes, and rows that sum to one."""
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads import Inputs, Targets
from heartml.models.heads.log_probabilities import SMALLEST, normalise

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of each column; a column that never changes becomes zero."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, vectors: Floats) -> Self:
        """Fitted to `[cases, features]`."""
        deviation = vectors.std(0)
        return cls(vectors.mean(0), np.where(deviation > 1e-9, deviation, np.inf))

    def __call__(self, vectors: Floats) -> Floats:
        return np.asarray((vectors - self.mean) / self.deviation)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """For `State.arrays`."""
        return {"mean": self.mean, "deviation": self.deviation}


def vectors_of(inputs: Inputs) -> Floats:
    """The inputs of a head that takes vectors."""
    return cast(Floats, inputs)


def case_weights(targets: Targets, power: float) -> Floats:
    """Inverse class frequency to `power` for each case, mean one: `[cases]`."""
    counts = np.bincount(targets.labels, minlength=targets.classes)
    weights = (1.0 / counts[targets.labels]) ** power
    return np.asarray(weights / weights.mean())


def spread(log_p: Floats, present: NDArray[np.int64], classes: int) -> Floats:
    """Columns of the classes that training saw -> all `classes` columns, rows summing to one."""
    whole = np.full((len(log_p), classes), np.log(SMALLEST))
    whole[:, present] = log_p
    return normalise(whole, SMALLEST)
