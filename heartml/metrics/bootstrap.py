"""Intervals and paired differences by resampling whole groups, because units of one child are not independent.

A resample draws as many groups as there are, with replacement; drawing a group m times gives each of its units the
weight m. Metrics take these weights (`Metric.weighted`), so that a thousand resamples are a few matrix products.
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
_WEIGHTS_AT_ONCE = 2_000_000   # 16 MB of weights: [resamples, units] never stands in memory as a whole


@dataclass(frozen=True)
class Interval:
    """A metric's value and its bootstrap interval, which contains it; NaN where the metric is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """First minus second, in the metric's own unit.

    Attributes:
        value: the difference on the units as they are.
        low, high: percentile interval of the difference.
        p: one-sided: the share of resamples in which the first is not better than the second
            (lower cost is better). A model against itself has p = 1.
    """

    value: float
    low: float
    high: float
    p: float


def group_weights(groups: Groups, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Unit weights of `resamples` draws of whole groups, in blocks of shape [some resamples, units].

    The draw depends on the sorted set of groups, not on the order of the units.
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
    """Percentile interval of one metric over groups; see `bootstrap_intervals`."""
    return bootstrap_intervals([metric], labels, probabilities, decisions, classes, groups,
                               resamples=resamples, confidence=confidence, rng=rng)[metric.name]


def bootstrap_intervals(
    metrics: Sequence["Metric"], labels: NDArray[np.int_], probabilities: Floats, decisions: NDArray[np.int_],
    classes: tuple[str, ...], groups: Groups, *, resamples: int, confidence: float, rng: np.random.Generator,
) -> dict[str, Interval]:
    """Percentile intervals of several metrics on the same resamples.

    Args: `labels`, `decisions` int [n]; `probabilities` [n, k]; `groups` [n], any hashable that prints.
    Resamples in which a metric is not defined (AUC with one class drawn) are left out of its interval. An interval is
    widened to contain the value: resampling biases the calibration error upwards.
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
    """Two models on the same units: `first` and `second` are (probabilities [n, k], decisions [n])."""
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
