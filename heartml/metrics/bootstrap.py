"""Intervals and paired differences by weighing whole groups, because units of one child are not independent.

A resample gives each group a weight drawn from an exponential distribution, and each of its units that weight: the
Bayesian bootstrap. Metrics take such weights (`Metric.weighted`), so that a thousand resamples are a few matrix
products. The plain percentile interval covers 70 to 85 % of truths where 95 are stated and 20 to 80 groups are few of a
rare class. Three things mend that; `benchmarks/coverage.py` measures what it is worth, docs/decisions.md has the table.

1. Pseudo-groups. A class whose two groups were both found has no spread, so its recall would be certain. Each class
   that occurs gets a quarter of a group decided right and a quarter decided wrong. In a comparison of two models it
   gets pseudo-groups on which one of them alone is right, as often as that is so on the units of all classes; half of
   these follow the direction of the units. They are drawn anew in each resample and belong to metrics of decisions and
   of ranks, not to means over units.
2. Wider quantiles. With n groups the quantile is Student's with n - 1 degrees of freedom, and the exponential weights
   spread a mean less than it varies, by (n - 1) / (n + 1).
3. A difference may be asked for at a confidence that the resamples cannot resolve (`heartml.release.looks`). Then its
   ends are moved outwards in the proportion of the quantiles, no further than two values of the metric can differ.

Sources: Rubin, The Bayesian Bootstrap, Ann. Statist. 9 (1981); Brown, Cai & DasGupta, Interval estimation for a
binomial proportion, Statist. Sci. 16 (2001) on priors of part of a unit; Hesterberg, What teachers should know about
the bootstrap, Am. Stat. 69 (2015) on the wider quantiles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from heartml.metrics import Metric

Floats = NDArray[np.float64]
Ints = NDArray[np.int_]
Groups = Sequence[Any] | NDArray[Any]
Kind = Literal["decisions", "ranks", "means"]   # what a metric is made from, see `Metric.kind`
_PRIOR = 0.25                                   # of a group, right and wrong, in each class
_PRIOR_OF_PAIR: dict[Kind, float] = {"decisions": 3.0, "ranks": 0.25}   # pseudo-groups, times the share of disagreement
_WEIGHTS_AT_ONCE = 2_000_000   # 16 MB of weights: all resamples at once could fill the memory
_LEAST_TAIL = 0.01             # share of the resamples beyond an end of a difference; an end further out is computed


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
        low, high: interval of the difference.
        p: one-sided: the share of resamples in which the first model is not better than the second (of a cost, the
            lower is better). A model compared with itself has p = 1.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class _Pseudo:
    """Pseudo-groups beside the real units, m of them.

    Attributes:
        labels: int [m].
        decisions: int [m], for each of the models that are scored.
        mass: [m], the shape of the Gamma distribution of a pseudo-group's weight: the number of groups that it stands
            for.
        units: [m], units of its class in a group, so that it weighs as much as a real group.
    """

    labels: Ints
    decisions: tuple[Ints, ...]
    mass: Floats
    units: Floats

    def weights(self, resamples: int, rng: np.random.Generator) -> Floats:
        """Weights [resamples, m]."""
        return rng.gamma(self.mass, size=(resamples, len(self.mass))) * self.units


def group_weights(groups: Groups, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Weights of units in `resamples` Bayesian resamples of whole groups, in blocks of shape [some resamples, n].

    The draw depends on the sorted set of groups, not on the order of the units.

    Args:
        groups: [n], the group of each unit.

    >>> [weights] = group_weights(["a", "a", "b"], 2, np.random.default_rng(0))
    >>> weights.round(2).tolist()
    [[0.68, 0.68, 1.02], [0.02, 0.02, 0.0]]
    """
    _, group_of_unit = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    count = int(group_of_unit.max()) + 1
    block = max(1, _WEIGHTS_AT_ONCE // len(group_of_unit))
    for start in range(0, resamples, block):
        yield rng.exponential(size=(min(block, resamples - start), count))[:, group_of_unit]


def bootstrap_interval(
    metric: "Metric", labels: NDArray[np.int_], probabilities: Floats, decisions: NDArray[np.int_],
    classes: tuple[str, ...], groups: Groups, *, resamples: int, confidence: float, rng: np.random.Generator,
) -> Interval:
    """Interval of one metric over groups; see `bootstrap_intervals`.

    Three of three normal recordings were found, and one of two murmurs:

    >>> from heartml.metrics import METRICS
    >>> labels, decisions = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0])
    >>> found = bootstrap_interval(METRICS["uar"], labels, np.eye(2)[decisions], decisions, ("normal", "murmur"),
    ...                            list("abcde"), resamples=1000, confidence=0.9, rng=np.random.default_rng(0))
    >>> round(found.value, 2), round(found.low, 2), round(found.high, 2)
    (0.75, 0.32, 0.98)
    """
    return bootstrap_intervals([metric], labels, probabilities, decisions, classes, groups,
                               resamples=resamples, confidence=confidence, rng=rng)[metric.name]


def bootstrap_intervals(
    metrics: Sequence["Metric"], labels: NDArray[np.int_], probabilities: Floats, decisions: NDArray[np.int_],
    classes: tuple[str, ...], groups: Groups, *, resamples: int, confidence: float, rng: np.random.Generator,
) -> dict[str, Interval]:
    """Intervals of several metrics on the same resamples: name of the metric -> interval.

    Resamples in which a metric is not defined are left out of its interval. An interval is widened to contain the
    value, because resampling biases the calibration error upwards.

    Args:
        labels: int [n], indices into `classes`.
        probabilities: [n, k].
        decisions: int [n], indices into `classes`.
        groups: [n], names or numbers.
        confidence: .95 for an interval that is meant to miss the truth in one of twenty cases.

    Raises:
        MetricError: see `Metric.function`.
    """
    labels, decisions = np.asarray(labels), np.asarray(decisions)
    pseudo = _right_and_wrong(labels, groups, len(classes))
    drawn: dict[str, list[Floats]] = {metric.name: [] for metric in metrics}
    for weights in group_weights(groups, resamples, rng):
        added = pseudo.weights(len(weights), rng)
        for metric in metrics:
            drawn[metric.name].append(
                _with_pseudo(metric, labels, (probabilities, decisions), classes, weights, pseudo, 0, added))
    count = _count(groups)
    return {
        metric.name: _interval(metric.function(labels, probabilities, decisions, classes),
                               np.concatenate(drawn[metric.name]), confidence, count)
        for metric in metrics
    }


def mean_interval(
    values: Floats, groups: Groups, *, resamples: int, confidence: float, rng: np.random.Generator
) -> Interval:
    """The mean of a number of each unit, for instance an error or a difference of two errors, and its interval.

    Args:
        values: [n].
        groups: [n], names or numbers.

    >>> found = mean_interval(np.array([1.0, 1.0, 3.0, 3.0]), list("aabc"), resamples=500, confidence=0.9,
    ...                       rng=np.random.default_rng(0))
    >>> found.value, found.low < 1.8, found.high > 2.2
    (2.0, True, True)
    """
    drawn = [(weights @ values) / weights.sum(1) for weights in group_weights(groups, resamples, rng)]
    return _interval(float(np.mean(values)), np.concatenate(drawn), confidence, _count(groups))


def paired_bootstrap(
    metric: "Metric", labels: NDArray[np.int_], first: tuple[Floats, NDArray[np.int_]],
    second: tuple[Floats, NDArray[np.int_]], classes: tuple[str, ...], groups: Groups,
    *, resamples: int, confidence: float, rng: np.random.Generator,
) -> Difference:
    """Difference of two models on the same units and the same resamples.

    Args:
        first, second: (probabilities [n, k], decisions [n]) of each model; the rest as in `bootstrap_intervals`.

    The first model is right for every unit, the second for all but the last:

    >>> from heartml.metrics import METRICS
    >>> labels, worse = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    >>> found = paired_bootstrap(METRICS["accuracy"], labels, (np.eye(2)[labels], labels), (np.eye(2)[worse], worse),
    ...                          ("murmur", "normal"), ["a", "b", "c", "d"], resamples=999, confidence=0.9,
    ...                          rng=np.random.default_rng(0))
    >>> found.value, round(found.low, 2), round(found.high, 2), round(found.p, 2)
    (0.25, -0.59, 0.97, 0.13)
    """
    labels, models = np.asarray(labels), (first, second)
    pseudo = _disagreeing(labels, first, second, groups, len(classes), metric.kind)
    blocks = []
    for weights in group_weights(groups, resamples, rng):
        added = pseudo.weights(len(weights), rng)
        ours, theirs = (_with_pseudo(metric, labels, model, classes, weights, pseudo, number, added)
                        for number, model in enumerate(models))
        blocks.append(ours - theirs)
    differences = np.concatenate(blocks)
    value = metric.function(labels, *first, classes) - metric.function(labels, *second, classes)
    interval = _interval(value, differences, confidence, _count(groups), least=_LEAST_TAIL)
    low, high = max(interval.low, -metric.span), min(interval.high, metric.span)
    defined = differences[~np.isnan(differences)]
    gains = defined if metric.greater_is_better else -defined
    p = (1 + int((gains <= 0).sum())) / (1 + len(defined))
    return Difference(interval.value, low, high, p)


def _right_and_wrong(labels: Ints, groups: Groups, k: int) -> _Pseudo:
    """For each class that occurs: part of a group decided right, and as much decided wrong, spread over the others."""
    cells = [(c, d, _PRIOR if d == c else _PRIOR / (k - 1)) for c in np.unique(labels) for d in range(k)]
    return _pseudo([(c, (d,), mass) for c, d, mass in cells], labels, groups)


def _disagreeing(
    labels: Ints, first: tuple[Floats, Ints], second: tuple[Floats, Ints], groups: Groups, k: int, kind: Kind
) -> _Pseudo:
    """For each class that occurs: pseudo-groups on which one model alone is right, as often as one is on all units.

    Half of them follow the direction in which the units do, half do not: a class may differ from the others.
    """
    same = all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    if same or kind == "means":
        return _pseudo([], labels, groups)
    right = [np.asarray(decisions) == labels for _, decisions in (first, second)]
    alone = [_PRIOR + float((one & ~other).sum()) for one, other in (right, right[::-1])]
    ours, theirs = (_PRIOR_OF_PAIR[kind] * (own / 2 + sum(alone) / 4) / (1 + len(labels)) / (k - 1) for own in alone)
    return _pseudo([(c, pair, mass) for c in np.unique(labels) for d in range(k) if d != c
                    for pair, mass in (((c, d), ours), ((d, c), theirs))], labels, groups)


def _pseudo(cells: Sequence[tuple[int, tuple[int, ...], float]], labels: Ints, groups: Groups) -> _Pseudo:
    """Pseudo-groups from (class, decision of each model, mass)."""
    names = np.asarray(groups).astype(str)
    size = {c: (labels == c).sum() / len(np.unique(names[labels == c])) for c in np.unique(labels)}
    decisions = tuple(np.array(of, dtype=np.int_) for of in zip(*(of for _, of, _ in cells), strict=True))
    return _Pseudo(np.array([c for c, _, _ in cells], dtype=np.int_), decisions,
                   np.array([mass for *_, mass in cells], dtype=float), np.array([size[c] for c, _, _ in cells], float))


def _with_pseudo(
    metric: "Metric", labels: Ints, model: tuple[Floats, Ints], classes: tuple[str, ...], weights: Floats,
    pseudo: _Pseudo, number: int, added: Floats,
) -> Floats:
    """The metric of one model in each resample, with the pseudo-groups where the metric's kind takes them."""
    probabilities, decisions = model
    if metric.kind == "means" or not len(pseudo.labels):
        return metric.weighted(labels, probabilities, decisions, classes, weights)
    own = pseudo.decisions[number]
    return metric.weighted(
        np.concatenate([labels, pseudo.labels]), np.concatenate([probabilities, np.eye(len(classes))[own]]),
        np.concatenate([decisions, own]), classes, np.concatenate([weights, added], axis=1))


def _count(groups: Groups) -> int:
    return len(np.unique(np.asarray(groups).astype(str)))


def _interval(value: float, drawn: Floats, confidence: float, groups: int, least: float = 0.0) -> Interval:
    """The ends of the draws, wider for few groups, and widened to contain the value.

    Args:
        least: the smallest share of draws beyond an end that the draws resolve. An end that lies further out is moved
            there from the median, in the proportion of the quantiles.
    """
    from scipy.special import stdtrit

    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    n = max(groups, 2)
    wide = float(stdtrit(n - 1, (1 + confidence) / 2)) * np.sqrt((n + 1) / (n - 1))
    tail = max(NormalDist().cdf(-wide), least)
    low, middle, high = np.quantile(drawn, [tail, 0.5, 1 - tail])
    further = wide / -NormalDist().inv_cdf(tail) if 0 < least == tail else 1.0
    low, high = middle + (low - middle) * further, middle + (high - middle) * further
    return Interval(value, min(value, float(low)), max(value, float(high)))
