"""From log-probabilities to a decision: one bias a class, fitted to what a metric pays for each class.

Accuracy, mean recall and weighted accuracy are, for given counts of classes, sums over correct units with a gain a
class. Maximising the likelihood weighted by these gains and taking the largest is the smooth way to maximise the
metric: a grid search for biases on the metric itself loses .02 to .04 on CirCor's 421 patients to chance.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heartml.metrics import METRICS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def class_gains(metric_name: str, labels: Ints, classes: tuple[str, ...]) -> Floats:
    """What one unit of each class adds to the metric when it is decided rightly, mean over units one: `[k]`.

    Measured, not derived: the metric with everything right, less the metric with one unit of the class wrong. Where the
    metric does not look at decisions every unit counts the same. A class without units has no gain.
    """
    metric, k = METRICS[metric_name], len(classes)
    certain = np.eye(k)[labels]
    best = metric.function(labels, certain, labels, classes)
    gains = np.zeros(k)
    for c in np.unique(labels):
        decisions = labels.copy()
        first = int(np.argmax(labels == c))
        decisions[first] = (c + 1) % k
        gains[c] = abs(best - metric.function(labels, certain, decisions, classes))
    mean = gains[labels].mean()
    return gains / mean if mean > 0 else np.ones(k)


@dataclass(frozen=True)
class Rule:
    """Decide for the largest log-probability plus bias: `[k]`."""

    biases: Floats

    @classmethod
    def fit(cls, log_p: Floats, labels: Ints, gains: Floats, ridge: float) -> Self:
        """Biases (and a scale, which no decision needs) that maximise the gain-weighted likelihood.

        Args:
            log_p: `[n, k]`, of units that neither this rule's models nor their stackers were fitted to.
            ridge: pulls towards no bias; the more, the more of the metric's noise is left alone.
        """
        scale, biases = scaled(log_p, labels, gains[labels], ridge)
        return cls((biases - biases.mean()) / scale)

    def decide(self, log_p: Floats) -> Ints:
        """`[n, k] -> [n]`."""
        return np.asarray((log_p + self.biases).argmax(axis=1), np.int64)


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
