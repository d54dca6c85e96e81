"""What one right decision of each class adds to a metric.

Accuracy, mean recall and weighted accuracy are sums over right decisions, each with the gain of its class.
"""

import numpy as np
from numpy.typing import NDArray

from heartml.metrics import METRICS

Floats = NDArray[np.float64]


def class_gains(metric_name: str, labels: NDArray[np.int64], classes: tuple[str, ...]) -> Floats:
    """Gain of one right decision for each class `[k]`, scaled so that the mean over the units is one.

    Measured, not derived: the metric with every decision right, less the metric with one unit of the class wrong. Where
    the metric does not depend on decisions, every unit counts the same. A class without units has no gain.

    Args:
        metric_name: key of `METRICS`.
        labels: int `[n]`, indices into `classes`.

    Accuracy counts every unit once. UAR counts a class once, so a unit of a rare class counts more:

    >>> labels = np.array([0, 1, 1, 1])
    >>> class_gains("accuracy", labels, ("murmur", "normal")).round(3).tolist()
    [1.0, 1.0]
    >>> class_gains("uar", labels, ("murmur", "normal")).round(3).tolist()      # 1/2 and 1/6, over their mean 1/4
    [2.0, 0.667]
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
