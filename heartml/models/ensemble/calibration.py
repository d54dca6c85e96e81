"""Calibration: log-probabilities `[n, k]` in, probabilities `[n, k]` that can be shown as confidence out.

Vector scaling (Guo et al., On calibration of modern neural networks, 2017). It is fitted to the plain likelihood,
whatever metric the decision rule maximises. Decisions are never taken from its output.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heartml.models.ensemble.decision_rule import Floats, Ints, scaled


@dataclass(frozen=True)
class Calibration:
    """Softmax over `scale * log_p + biases`; `biases` is `[k]`."""

    scale: float
    biases: Floats

    @classmethod
    def fit(cls, log_p: Floats, labels: Ints, ridge: float) -> Self:
        """Fit scale and biases by maximum likelihood.

        Predictions that are too sure are made less sure. Here the classes are right three times out of four:

        >>> log_p = np.log([[0.99, 0.01], [0.99, 0.01], [0.01, 0.99], [0.01, 0.99]] * 2)
        >>> fitted = Calibration.fit(log_p, np.array([0, 0, 1, 1, 0, 1, 1, 0]), ridge=0.0)
        >>> fitted.predict_proba(np.log([[0.99, 0.01]])).round(2).tolist()
        [[0.75, 0.25]]

        Args:
            log_p: out-of-fold log-probabilities `[n, k]`.
            labels: class of each unit `[n]`.
            ridge: penalty on the squares of the biases and of the logarithm of the scale.
        """
        scale, biases = scaled(log_p, labels, np.ones(len(labels)), ridge)
        return cls(scale, biases)

    def predict_proba(self, log_p: Floats) -> NDArray[np.float64]:
        """Log-probabilities `[n, k]` -> calibrated probabilities `[n, k]`.

        >>> half = Calibration(0.5, np.zeros(2))      # square roots: sqrt(.9) / (sqrt(.9) + sqrt(.1)) = .75
        >>> half.predict_proba(np.log([[0.9, 0.1]])).round(2).tolist()
        [[0.75, 0.25]]
        """
        z = self.scale * log_p + self.biases
        return np.asarray(np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True)))
