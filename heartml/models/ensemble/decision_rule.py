"""The decision rule: log-probabilities `[n, k]` in, decisions `[n]` out.

The rule adds one bias for each class and takes the largest sum. Accuracy, mean recall and weighted accuracy are sums
over the correct units, where each class has its own gain. `Rule.fit` maximises that sum with its steps made smooth.
A grid search on the metric itself would follow chance. A likelihood weighted by the gains would follow units that no
bias can move.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """Decide for the class with the largest log-probability plus bias; `biases` is `[k]`."""

    biases: Floats

    @classmethod
    def fit(cls, log_p: Floats, labels: Ints, gains: Floats, temperature: float, ridge: float) -> Self:
        """Fit the biases with the largest expected gain when classes are drawn from the sharpened probabilities.

        A rare class that is worth as much as the frequent one gets a bias above it:

        >>> log_p = np.log([[0.9, 0.1]] * 8 + [[0.6, 0.4]] * 2)
        >>> labels = np.array([0] * 8 + [1] * 2)
        >>> rule = Rule.fit(log_p, labels, gains=np.array([1 / 8, 1 / 2]), temperature=0.2, ridge=0.01)
        >>> rule.predict(log_p).tolist()
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]

        Args:
            log_p: `[n, k]`, of units that neither the models nor their stackers were fitted to.
            labels: class of each unit `[n]`.
            gains: what the metric gives for a correct unit of each class `[k]`.
            temperature: of the softmax. Towards 0 the expectation becomes the metric itself, with its steps.
            ridge: penalty on the squares of the biases. A larger one follows less of the metric's noise.
        """
        weights = gains[labels]
        initial = (scaled(log_p, labels, weights, ridge)[1], np.zeros(log_p.shape[1]))
        found = [_sharpest(log_p, labels, weights / weights.sum(), temperature, ridge, start) for start in initial]
        biases = min(found, key=lambda pair: pair[0])[1]
        return cls(biases - biases.mean())

    def predict(self, log_p: Floats) -> Ints:
        """Decide: log-probabilities `[n, k]` -> index of a class `[n]`.

        >>> Rule(np.array([0.0, 1.0])).predict(np.log([[0.8, 0.2], [0.7, 0.3]])).tolist()     # e * .3 is above .7
        [0, 1]
        """
        return np.asarray((log_p + self.biases).argmax(axis=1), np.int64)


def _sharpest(
    log_p: Floats, labels: Ints, share: Floats, temperature: float, ridge: float, start: Floats
) -> tuple[float, Floats]:
    """Loss (penalty minus expected gain) and biases `[k]` of the optimum near `start`."""
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

    Args:
        log_p: log-probabilities `[n, k]`.
        labels, weights: class and weight of each unit `[n]`.
        ridge: penalty on the squares of the biases and of the logarithm of the scale.
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
