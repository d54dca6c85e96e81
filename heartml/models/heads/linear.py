"""What heads of pooled vectors share: standardised columns, weights of cases, classes that training lacks."""

from dataclasses import dataclass
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads import Inputs, Targets
from heartml.models.heads.log_probabilities import SMALLEST, normalise

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each column `[features]`; a column that never changes becomes zero."""

    mean: Floats
    deviation: Floats

    @classmethod
    def fit(cls, vectors: Floats) -> Self:
        """Fit to `[cases, features]`."""
        deviation = vectors.std(0)
        return cls(vectors.mean(0), np.where(deviation > 1e-9, deviation, np.inf))

    def __call__(self, vectors: Floats) -> Floats:
        """Standardise the columns of `[cases, features]`."""
        return np.asarray((vectors - self.mean) / self.deviation)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The fitted arrays, for `HeadState.arrays`."""
        return {"mean": self.mean, "deviation": self.deviation}


def vectors_of(inputs: Inputs) -> Floats:
    """The inputs of a head that takes vectors."""
    return cast(Floats, inputs)


def case_weights(targets: Targets, power: float) -> Floats:
    """Weight of each case `[cases]`: the inverse frequency of its class to the power `power`, with mean one."""
    counts = np.bincount(targets.labels, minlength=targets.classes)
    weights = (1.0 / counts[targets.labels]) ** power
    return np.asarray(weights / weights.mean())


def with_absent_classes(log_p: Floats, present: NDArray[np.int64], classes: int) -> Floats:
    """Add the classes that training lacks: `[cases, present] -> [cases, classes]`, rows summing to one."""
    whole = np.full((len(log_p), classes), np.log(SMALLEST))
    whole[:, present] = log_p
    return normalise(whole, SMALLEST)
