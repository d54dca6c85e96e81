"""What a metric pays for each class: accuracy, mean recall and weighted accuracy are sums over right decisions."""

import numpy as np
from numpy.typing import NDArray

from heartml.metrics import METRICS

Floats = NDArray[np.float64]


def class_gains(metric_name: str, labels: NDArray[np.int64], classes: tuple[str, ...]) -> Floats:
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
