"""Confidence that can be believed: vector scaling (Guo et al., On calibration of modern neural networks, 2017).

Fitted to the plain likelihood, whatever the decision rule is after; decisions are never taken from its output.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heartml.models.ensemble.decision_rule import Floats, Ints, scaled


@dataclass(frozen=True)
class Calibration:
    """Softmax over `scale * log_p + biases`."""

    scale: float
    biases: Floats

    @classmethod
    def fit(cls, log_p: Floats, labels: Ints, ridge: float) -> Self:
        """Fitted to out-of-fold log-probabilities `[n, k]`."""
        scale, biases = scaled(log_p, labels, np.ones(len(labels)), ridge)
        return cls(scale, biases)

    def predict_proba(self, log_p: Floats) -> NDArray[np.float64]:
        """`[n, k]` log-probabilities -> calibrated probabilities."""
        z = self.scale * log_p + self.biases
        return np.asarray(np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True)))
