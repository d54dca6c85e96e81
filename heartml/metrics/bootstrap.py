"""Intervals and paired differences by resampling whole groups, because units of one child are not independent.

A resample draws as many groups as there are, with replacement. A group that is drawn m times gives each of its units
the weight m. Metrics take these weights (`Metric.weighted`), so that a thousand resamples are a few matrix products.
Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from heartml.metrics import Metric

Floats = NDArray[np.float64]
Groups = Sequence[Any] | NDArray[Any]
_WEIGHTS_AT_ONCE = 2_000_000   # 16 MB of weights: all resamples at once could fill the memory


@dataclass(frozen=True)
class Interval:
    """A metric's value and its bootstrap interval, which contains it; NaN where the metric is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The metric of a first model minus that of a second one.

    Attributes:
        value: the difference on all units, each counted once.
        low, high: percentile interval of the difference.
        p: one-sided: the share of resamples in which the first model is not better than the second (of a cost, the
            lower is better). A model compared with itself has p = 1.
    """

    value: float
    low: float
    high: float
    p: float


def group_weights(groups: Groups, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Weights of units for `resamples` draws of whole groups, in blocks of shape [some resamples, n].

    The draw depends on the sorted set of groups, not on the order of the units.

    Args:
        groups: [n], the group of each unit.

    There are two groups, so each resample draws two. The third one here draws group b twice:

    >>> [weights] = group_weights(["a", "a", "b"], 3, np.random.default_rng(0))
    >>> weights.tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 2.0]]
    """
    _, group_of_unit = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    count = int(group_of_unit.max()) + 1
    block = max(1, _WEIGHTS_AT_ONCE // len(group_of_unit))
    for start in range(0, resamples, block):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(block, resamples - start))
        yield drawn[:, group_of_unit].astype(np.float64)


def bootstrap_interval(
    metric: "Metric", labels: NDArray[np.int_], probabilities: Floats, decisions: NDArray[np.int_],
    classes: tuple[str, ...], groups: Groups, *, resamples: int, confidence: float, rng: np.random.Generator,
) -> Interval:
    """Percentile interval of one metric over groups; see `bootstrap_intervals`.

    >>> from heartml.metrics import METRICS
    >>> labels, decisions = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    >>> bootstrap_interval(METRICS["accuracy"], labels, np.eye(2)[decisions], decisions, ("murmur", "normal"),
    ...                    groups=["a", "b", "c", "d"], resamples=1000, confidence=0.9, rng=np.random.default_rng(0))
    Interval(value=0.75, low=0.5, high=1.0)
    """
    return bootstrap_intervals([metric], labels, probabilities, decisions, classes, groups,
                               resamples=resamples, confidence=confidence, rng=rng)[metric.name]


def bootstrap_intervals(
    metrics: Sequence["Metric"], labels: NDArray[np.int_], probabilities: Floats, decisions: NDArray[np.int_],
    classes: tuple[str, ...], groups: Groups, *, resamples: int, confidence: float, rng: np.random.Generator,
) -> dict[str, Interval]:
    """Percentile intervals of several metrics on the same resamples: name of the metric -> interval.

    Resamples in which a metric is not defined (the AUC when only one class is drawn) are left out of its interval. An
    interval is widened to contain the value, because resampling biases the calibration error upwards.

    Args:
        labels: int [n], indices into `classes`.
        probabilities: [n, k].
        decisions: int [n], indices into `classes`.
        groups: [n], names or numbers.
        confidence: .95 for an interval from the 2.5th to the 97.5th percentile.

    Raises:
        MetricError: see `Metric.function`.
    """
    labels, decisions = np.asarray(labels), np.asarray(decisions)
    drawn: dict[str, list[Floats]] = {metric.name: [] for metric in metrics}
    for weights in group_weights(groups, resamples, rng):
        for metric in metrics:
            drawn[metric.name].append(metric.weighted(labels, probabilities, decisions, classes, weights))
    return {
        metric.name: _interval(metric.function(labels, probabilities, decisions, classes),
                               np.concatenate(drawn[metric.name]), confidence)
        for metric in metrics
    }


def paired_bootstrap(
    metric: "Metric", labels: NDArray[np.int_], first: tuple[Floats, NDArray[np.int_]],
    second: tuple[Floats, NDArray[np.int_]], classes: tuple[str, ...], groups: Groups,
    *, resamples: int, confidence: float, rng: np.random.Generator,
) -> Difference:
    """Difference of two models on the same units and the same resamples.

    Args:
        first, second: (probabilities [n, k], decisions [n]) of each model; the rest as in `bootstrap_intervals`.

    The first model is right for every unit, the second for all but the last. They are equal in a resample that does
    not draw the last unit, which has the probability (3/4)^4 = .316:

    >>> from heartml.metrics import METRICS
    >>> labels, worse = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    >>> paired_bootstrap(METRICS["accuracy"], labels, (np.eye(2)[labels], labels), (np.eye(2)[worse], worse),
    ...                  ("murmur", "normal"), ["a", "b", "c", "d"], resamples=999, confidence=0.9,
    ...                  rng=np.random.default_rng(0))
    Difference(value=0.25, low=0.0, high=0.5, p=0.301)
    """
    differences = np.concatenate([
        metric.weighted(labels, *first, classes, weights) - metric.weighted(labels, *second, classes, weights)
        for weights in group_weights(groups, resamples, rng)
    ])
    value = metric.function(labels, *first, classes) - metric.function(labels, *second, classes)
    interval = _interval(value, differences, confidence)
    defined = differences[~np.isnan(differences)]
    gains = defined if metric.greater_is_better else -defined
    p = (1 + int((gains <= 0).sum())) / (1 + len(defined))
    return Difference(interval.value, interval.low, interval.high, p)


def _interval(value: float, drawn: Floats, confidence: float) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, min(value, float(low)), max(value, float(high)))
