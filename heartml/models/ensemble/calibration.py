"""Calibration: log-probabilities `[n, k]` in, probabilities `[n, k]` that can be shown as confidence out.

Vector scaling (Guo et al., On calibration of modern neural networks, 2017). It is fitted to the plain likelihood,
whatever metric the decision rule maximises. Decisions are never taken from its output.

No probability is surer than the number of training groups can support. By Laplace's rule of succession an event that
came G times in G trials comes again with probability (G + 1) / (G + k), k being the number of possible outcomes. So p
becomes (G p + 1) / (G + k), as if each class had been seen once more. Groups (persons) are the trials, because the
recordings of one person are not independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heartml.models.ensemble.decision_rule import Floats, Ints, scaled


@dataclass(frozen=True)
class Calibration:
    """Softmax over `scale * log_p + biases`; `biases` is `[k]`.

    `groups` is the number of training groups, which limits the result; `None` in models that were saved before it.
    """

    scale: float
    biases: Floats
    groups: int | None = None

    @classmethod
    def fit(cls, log_p: Floats, labels: Ints, ridge: float, groups: int | None = None) -> Self:
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
            groups: number of groups among the units; `None`: their number does not limit the result.
        """
        scale, biases = scaled(log_p, labels, np.ones(len(labels)), ridge)
        return cls(scale, biases, groups)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """What `to_json` gave, or an older model without the number of groups."""
        groups = saved.get("groups")
        return cls(float(saved["scale"]), np.array(saved["biases"]), None if groups is None else int(groups))

    def to_json(self) -> dict[str, Any]:
        """The calibration as plain JSON values."""
        return {"scale": self.scale, "biases": self.biases, **({} if self.groups is None else {"groups": self.groups})}

    def predict_proba(self, log_p: Floats) -> NDArray[np.float64]:
        """Log-probabilities `[n, k]` -> calibrated probabilities `[n, k]`.

        >>> half = Calibration(0.5, np.zeros(2))      # square roots: sqrt(.9) / (sqrt(.9) + sqrt(.1)) = .75
        >>> half.predict_proba(np.log([[0.9, 0.1]])).round(2).tolist()
        [[0.75, 0.25]]

        Eight groups cannot support more than 9 in 10:

        >>> Calibration(1.0, np.zeros(2), groups=8).predict_proba(np.log([[1 - 1e-9, 1e-9]])).round(2).tolist()
        [[0.9, 0.1]]
        """
        z = self.scale * log_p + self.biases
        p = np.asarray(np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True)))
        return p if self.groups is None else (self.groups * p + 1) / (self.groups + p.shape[1])
