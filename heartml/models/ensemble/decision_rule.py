"""From log-probabilities to a decision: one bias a class, fitted to what a metric pays for each class.

Accuracy, mean recall and weighted accuracy are, for given counts of classes, sums over correct units with a gain a
class. `Rule.fit` maximises that sum with the step from wrong to right made smooth: a grid search on the metric itself
follows chance, the likelihood weighted by the gains follows units that no bias will ever move.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """Decide for the largest log-probability plus bias: `[k]`."""

    biases: Floats

    @classmethod
    def fit(cls, log_p: Floats, labels: Ints, gains: Floats, temperature: float, ridge: float) -> Self:
        """Biases with the largest expected gain when classes are drawn from the sharpened probabilities.

        Args:
            log_p: `[n, k]`, of units that neither this rule's models nor their stackers were fitted to.
            temperature: of the softmax; towards 0 the expectation becomes the metric itself, steps and all.
            ridge: pulls towards no bias; the more, the more of the metric's noise is left alone.
        """
        weights = gains[labels]
        starts = (scaled(log_p, labels, weights, ridge)[1], np.zeros(log_p.shape[1]))
        found = [_sharpest(log_p, labels, weights / weights.sum(), temperature, ridge, start) for start in starts]
        biases = min(found, key=lambda pair: pair[0])[1]
        return cls(biases - biases.mean())

    def predict(self, log_p: Floats) -> Ints:
        """`[n, k] -> [n]`."""
        return np.asarray((log_p + self.biases).argmax(axis=1), np.int64)


def _sharpest(
    log_p: Floats, labels: Ints, share: Floats, temperature: float, ridge: float, start: Floats
) -> tuple[float, Floats]:
    """Loss (expected gain that is missed, plus the penalty) and biases `[k]` of the optimum next to `start`."""
    from scipy.optimize import minimize

    rows, hit = np.arange(len(labels)), np.eye(log_p.shape[1])[labels]

    def loss(biases: Floats) -> tuple[float, Floats]:
        z = (log_p + biases) / temperature
        p = np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True))
        right = share * p[rows, labels]
        gradient = -(right[:, None] * (hit - p)).sum(0) / temperature + 2 * ridge * biases
        return float(ridge * (biases**2).sum() - right.sum()), gradient

    found = minimize(loss, start, jac=True, method="L-BFGS-B")
    return float(found.fun), np.asarray(found.x, np.float64)


def scaled(log_p: Floats, labels: Ints, weights: Floats, ridge: float) -> tuple[float, Floats]:
    """Scale and biases `[k]` of the softmax over `scale * log_p + biases` with the largest weighted likelihood.

    Penalised by `ridge` times the squares of the biases and of the logarithm of the scale.
    """
    from scipy.optimize import minimize

    rows, share = np.arange(len(labels)), weights / weights.sum()

    def loss(x: Floats) -> tuple[float, Floats]:
        scale, biases = np.exp(x[0]), x[1:]
        z = scale * log_p + biases
        z = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
        error = np.exp(z)
        error[rows, labels] -= 1
        slope_z = share[:, None] * error
        gradient = np.concatenate([[scale * (slope_z * log_p).sum()], slope_z.sum(0)]) + 2 * ridge * x
        return float(-(share * z[rows, labels]).sum() + ridge * (x**2).sum()), gradient

    found = minimize(loss, np.zeros(1 + log_p.shape[1]), jac=True, method="L-BFGS-B").x
    return float(np.exp(found[0])), found[1:]
