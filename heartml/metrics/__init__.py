"""What a prediction is worth: labels, probabilities and decisions in, one number out.

Conventions, once: `labels` and `decisions` are int [n], indices into `classes`; `probabilities` is float [n, k];
`weights` is float [b, n], one row a bootstrap resample, so that `Metric.weighted` gives b values at once and
`Metric.function` is the same with every weight 1. Confusion matrices are [b, k, k], truth in rows, decision in columns.
Classes that do not occur are left out of means over classes, as scikit-learn does. What is not defined is NaN.
A task that leaves rare classes out (`tasks.Task.rare`) has no units of them: its means are over the estimable classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.core.system.errors import HeartMLError
from heartml.metrics.bootstrap import Difference, Interval, bootstrap_interval, bootstrap_intervals, paired_bootstrap

__all__ = [
    "METRICS", "Difference", "Interval", "Metric", "MetricError", "bootstrap_interval", "bootstrap_intervals",
    "class_auc", "class_auc_within", "class_metrics", "confusion", "paired_bootstrap", "reliability",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int_]
Classes = tuple[str, ...]
OfMatrix = Callable[[Floats, Classes], Floats]
Weighted = Callable[[Ints, Floats, Ints, Classes, Floats], Floats]

# Reyna et al., Heart murmur detection from phonocardiogram recordings: the George B. Moody PhysioNet Challenge 2022,
# PLOS Digital Health 2(9): e0000324 (2023): weights of the weighted accuracy, referral and costs of the outcome metric.
_CLASS_WEIGHTS = {"Present": 5.0, "Unknown": 3.0, "Absent": 1.0, "Abnormal": 5.0, "Normal": 1.0}
_REFERRED = {"Present", "Unknown", "Abnormal"}
_COST_ALGORITHM, _COST_TREATMENT, _COST_ERROR = 10.0, 10_000.0, 50_000.0
ECE_BINS = 10   # equal widths, as in Guo et al., On calibration of modern neural networks (2017), with fewer bins


class MetricError(HeartMLError):
    """The metric does not fit the classes or the arrays; the message says which."""


@dataclass(frozen=True)
class Metric:
    """One number about predictions.

    Attributes:
        name: key in `METRICS`, and in every table and file.
        title: for people.
        greater_is_better: costs and calibration errors are better when small.
        weighted: (labels, probabilities, decisions, classes, weights [b, n]) -> values [b].
    """

    name: str
    title: str
    greater_is_better: bool
    weighted: Weighted

    def function(self, labels: Ints, probabilities: Floats, decisions: Ints, classes: Classes) -> float:
        """The metric on the units as they are.

        Raises:
            MetricError: shapes differ, a label is no index of a class, or the metric does not know the classes.
        """
        labels, decisions, probabilities = np.asarray(labels), np.asarray(decisions), np.asarray(probabilities, float)
        n, k = len(labels), len(classes)
        if decisions.shape != (n,) or probabilities.shape != (n, k) or n == 0:
            raise MetricError(f"{self.name}: {n} labels, decisions {decisions.shape}, probabilities "
                              f"{probabilities.shape}; expected [n], [n] and [n, {k}] with n > 0")
        if min(labels.min(), decisions.min()) < 0 or max(labels.max(), decisions.max()) >= k:
            raise MetricError(f"{self.name}: a label or decision is no index into {', '.join(classes)}")
        return float(self.weighted(labels, probabilities, decisions, classes, np.ones((1, n)))[0])


def confusion(labels: Ints, decisions: Ints, k: int, weights: Floats | None = None) -> Floats:
    """Weighted counts [b, k, k], truth in rows; without weights one matrix [1, k, k]."""
    cells = np.zeros((len(labels), k * k))
    cells[np.arange(len(labels)), np.asarray(labels) * k + np.asarray(decisions)] = 1
    counts: Floats = (np.ones((1, len(labels))) if weights is None else weights) @ cells
    return counts.reshape(-1, k, k)


def class_auc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve of one class against the rest, ties counted half (Mann-Whitney) -> [b]."""
    won, pairs = _auc_pairs(scores, positive, weights)
    return _ratio(won, pairs)


def class_auc_within(scores: Floats, positive: NDArray[np.bool_], weights: Floats, strata: NDArray[Any]) -> Floats:
    """The same, comparing only units of the same stratum: scores of different fits do not share a scale -> [b]."""
    counted = [_auc_pairs(scores[s], positive[s], weights[:, s]) for s in (strata == one for one in np.unique(strata))]
    return _ratio(np.sum([won for won, _ in counted], axis=0), np.sum([pairs for _, pairs in counted], axis=0))


def _auc_pairs(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Pairs of a case and another that the scores rank well, and all such pairs, each [b]."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    ordered, is_positive = weights[:, order], positive[order]
    above = np.add.reduceat(ordered * is_positive, starts, axis=1)
    below = np.add.reduceat(ordered * ~is_positive, starts, axis=1)
    won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return won, above.sum(axis=1) * below.sum(axis=1)


def reliability(
    labels: Ints, probabilities: Floats, decisions: Ints, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Weight, confidence and accuracy summed in `ECE_BINS` equal bins of the confidence, each [b, bins].

    Confidence is the probability of the decision, as it is shown and referred by (`Predictions.confidence`). The rule
    may decide for another class than the most likely one, so it is not always the largest probability.
    """
    confidence = probabilities[np.arange(len(labels)), decisions]
    correct = decisions == labels
    which = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    member = np.eye(ECE_BINS)[which]
    return weights @ member, weights @ (member * confidence[:, None]), weights @ (member * correct[:, None])


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, NaN where the denominator is zero."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the last axis, NaN left out: [b, k] -> [b]."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1).astype(float))


def _lookup(classes: Classes, metric: str) -> Floats:
    unknown = [name for name in classes if name not in _CLASS_WEIGHTS]
    if unknown:
        raise MetricError(f"{metric} is defined for {', '.join(_CLASS_WEIGHTS)}, not for {', '.join(unknown)}")
    return np.array([_CLASS_WEIGHTS[name] for name in classes])


def _accuracy(matrix: Floats, _: Classes) -> Floats:
    return _ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2)))


def _uar(matrix: Floats, _: Classes) -> Floats:
    return _mean_of_defined(_ratio(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2)))


def _macro_f1(matrix: Floats, _: Classes) -> Floats:
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    return _mean_of_defined(_ratio(2 * hits, matrix.sum(axis=1) + matrix.sum(axis=2)))


def _weighted_accuracy(matrix: Floats, classes: Classes) -> Floats:
    """(5 PP + 3 UU + AA) / (5 Np + 3 Nu + Na); outcome: (5 AA + NN) / (5 Na + Nn)."""
    weights = _lookup(classes, "weighted_accuracy")
    return _ratio(np.diagonal(matrix, axis1=1, axis2=2) @ weights, matrix.sum(axis=2) @ weights)


def _outcome_cost(matrix: Floats, classes: Classes) -> Floats:
    """Mean cost a patient: prescreening of all, expert screening of the referred, treatment, missed treatment.

    An expert's cost a patient grows with the share s of patients that are referred: 25 + 397 s - 1718 s^2 + 11296 s^4.
    """
    _lookup(classes, "outcome_cost")
    sick = np.array([name in _REFERRED for name in classes])
    patients = matrix.sum(axis=(1, 2))
    referred = _ratio(matrix[:, :, sick].sum(axis=(1, 2)), patients)
    treated = _ratio(matrix[:, sick][:, :, sick].sum(axis=(1, 2)), patients)
    missed = _ratio(matrix[:, sick][:, :, ~sick].sum(axis=(1, 2)), patients)
    expert = 25 + 397 * referred - 1718 * referred**2 + 11296 * referred**4
    return _COST_ALGORITHM + expert + _COST_TREATMENT * treated + _COST_ERROR * missed


def _macro_auc(labels: Ints, probabilities: Floats, _: Ints, classes: Classes, weights: Floats) -> Floats:
    columns = [class_auc(probabilities[:, c], labels == c, weights) for c in range(len(classes))]
    return _mean_of_defined(np.stack(columns, axis=-1))


def _ece(labels: Ints, probabilities: Floats, decisions: Ints, _: Classes, weights: Floats) -> Floats:
    """Mean distance of confidence and accuracy over the bins of `reliability`, of the decisions that are taken."""
    total, confidence, correct = reliability(labels, probabilities, decisions, weights)
    return _ratio(np.abs(confidence - correct).sum(axis=1), total.sum(axis=1))


def _brier(labels: Ints, probabilities: Floats, _: Ints, classes: Classes, weights: Floats) -> Floats:
    """Mean squared distance to the truth over all classes, 0 to 2 (Brier 1950)."""
    squared = ((probabilities - np.eye(len(classes))[labels]) ** 2).sum(axis=1)
    return _ratio(weights @ squared, weights.sum(axis=1))


def _of_confusion(value: OfMatrix) -> Weighted:
    def weighted(labels: Ints, _: Floats, decisions: Ints, classes: Classes, weights: Floats) -> Floats:
        return value(confusion(labels, decisions, len(classes), weights), classes)

    return weighted


def _mean(first: OfMatrix, second: OfMatrix) -> OfMatrix:
    return lambda matrix, classes: (first(matrix, classes) + second(matrix, classes)) / 2


def class_metrics(c: int) -> tuple[Metric, ...]:
    """Recall, precision and AUC of class number `c` against the rest."""
    def auc(labels: Ints, probabilities: Floats, _: Ints, __: Classes, weights: Floats) -> Floats:
        return class_auc(probabilities[:, c], labels == c, weights)

    return (
        Metric("recall", "Recall", True, _of_confusion(lambda m, _: _ratio(m[:, c, c], m[:, c].sum(axis=1)))),
        Metric("precision", "Precision", True, _of_confusion(lambda m, _: _ratio(m[:, c, c], m[:, :, c].sum(axis=1)))),
        Metric("auc", "AUC", True, auc),
    )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", True, _of_confusion(_accuracy)),
        Metric("uar", "Mean recall (UAR)", True, _of_confusion(_uar)),
        Metric("macro_f1", "Macro F1", True, _of_confusion(_macro_f1)),
        Metric("macro_auc", "Macro AUC", True, _macro_auc),
        Metric("weighted_accuracy", "Weighted accuracy", True, _of_confusion(_weighted_accuracy)),
        Metric("outcome_cost", "Outcome cost a patient", False, _of_confusion(_outcome_cost)),
        Metric("weighted_accuracy_and_uar", "Mean of weighted accuracy and UAR", True,
               _of_confusion(_mean(_weighted_accuracy, _uar))),
        Metric("accuracy_and_uar", "Mean of accuracy and UAR", True, _of_confusion(_mean(_accuracy, _uar))),
        Metric("ece", "Calibration error (ECE)", False, _ece),
        Metric("brier", "Brier score", False, _brier),
    )
}
