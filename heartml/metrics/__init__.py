"""The registry of metrics: labels, probabilities and decisions arrive, one number leaves.

Conventions: `labels` and `decisions` are int [n], indices into `classes`; `probabilities` is float [n, k]; `weights` is
float [b, n], one row for each bootstrap resample. `Metric.weighted` gives b values at once. `Metric.function` is the
same with every weight 1. The functions behind the metrics, with worked examples, are in `heartml.metrics.functions`.
A task that leaves out its rare classes (`Task.rare`) has no units of them. Its means are over the other classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heartml.metrics import functions
from heartml.metrics.bootstrap import (
    Difference,
    Interval,
    Kind,
    bootstrap_interval,
    bootstrap_intervals,
    paired_bootstrap,
)
from heartml.metrics.functions import (
    Classes,
    Floats,
    Ints,
    MetricError,
    class_auc,
    confusion_matrices,
    reliability_bins,
    stratified_class_auc,
)

__all__ = [
    "METRICS", "Difference", "Interval", "Metric", "MetricError", "bootstrap_interval", "bootstrap_intervals",
    "class_auc", "class_metrics", "confusion_matrices", "paired_bootstrap", "reliability_bins", "stratified_class_auc",
]

OfMatrix = Callable[[Floats, Classes], Floats]
Weighted = Callable[[Ints, Floats, Ints, Classes, Floats], Floats]


@dataclass(frozen=True)
class Metric:
    """One number about predictions.

    Attributes:
        name: key in `METRICS`, and in every table and file.
        title: for people.
        greater_is_better: false for costs and calibration errors.
        weighted: (labels, probabilities, decisions, classes, weights [b, n]) -> values [b].
        kind: what it is made from: counts of `decisions`, `ranks` of probabilities, or `means` over units. It tells
            whether its interval takes pseudo-groups (`heartml.metrics.bootstrap`).
        span: distance between its best and its worst value; infinite for one without bounds.
    """

    name: str
    title: str
    greater_is_better: bool
    weighted: Weighted
    kind: Kind = "means"
    span: float = 1.0

    def function(self, labels: Ints, probabilities: Floats, decisions: Ints, classes: Classes) -> float:
        """The metric on all units, each counted once.

        Raises:
            MetricError: the shapes differ, a label is no index of a class, or the metric does not know the classes.

        >>> METRICS["accuracy"].function([0, 0, 1], np.eye(2)[[0, 1, 1]], [0, 1, 1], ("murmur", "normal"))
        0.6666666666666666
        """
        labels, decisions, probabilities = np.asarray(labels), np.asarray(decisions), np.asarray(probabilities, float)
        n, k = len(labels), len(classes)
        if decisions.shape != (n,) or probabilities.shape != (n, k) or n == 0:
            raise MetricError(f"{self.name}: {n} labels, decisions {decisions.shape}, probabilities "
                              f"{probabilities.shape}; expected [n], [n] and [n, {k}] with n > 0")
        if min(labels.min(), decisions.min()) < 0 or max(labels.max(), decisions.max()) >= k:
            raise MetricError(f"{self.name}: a label or decision is no index into {', '.join(classes)}")
        return float(self.weighted(labels, probabilities, decisions, classes, np.ones((1, n)))[0])


def class_metrics(c: int) -> tuple[Metric, ...]:
    """Recall, precision and AUC of class number `c` against the rest.

    >>> labels, decisions = [0, 0, 1, 1], [0, 0, 0, 1]
    >>> [m.function(labels, np.eye(2)[decisions], decisions, ("murmur", "normal")) for m in class_metrics(1)]
    [0.5, 1.0, 0.75]
    """
    def auc(labels: Ints, probabilities: Floats, _: Ints, __: Classes, weights: Floats) -> Floats:
        return class_auc(probabilities[:, c], labels == c, weights)

    return (
        Metric("recall", "Recall", True, _of_confusion(lambda m, _: functions.class_recall(m, c)), "decisions"),
        Metric("precision", "Precision", True, _of_confusion(lambda m, _: functions.class_precision(m, c)),
               "decisions"),
        Metric("auc", "AUC", True, auc, "ranks"),
    )


def _of_confusion(value: OfMatrix) -> Weighted:
    def weighted(labels: Ints, _: Floats, decisions: Ints, classes: Classes, weights: Floats) -> Floats:
        return value(confusion_matrices(labels, decisions, len(classes), weights), classes)

    return weighted


def _mean(first: OfMatrix, second: OfMatrix) -> OfMatrix:
    return lambda matrix, classes: (first(matrix, classes) + second(matrix, classes)) / 2


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", True, _of_confusion(functions.accuracy), "decisions"),
        Metric("uar", "Mean recall (UAR)", True, _of_confusion(functions.uar), "decisions"),
        Metric("macro_f1", "Macro F1", True, _of_confusion(functions.macro_f1), "decisions"),
        Metric("macro_auc", "Macro AUC", True, functions.macro_auc, "ranks"),
        Metric("weighted_accuracy", "Weighted accuracy", True, _of_confusion(functions.weighted_accuracy),
               "decisions"),
        Metric("icbhi_score", "ICBHI score", True, _of_confusion(functions.icbhi_score), "decisions"),
        Metric("outcome_cost", "Outcome cost a patient", False, _of_confusion(functions.outcome_cost), "decisions",
               math.inf),
        Metric("weighted_accuracy_and_uar", "Mean of weighted accuracy and UAR", True,
               _of_confusion(_mean(functions.weighted_accuracy, functions.uar)), "decisions"),
        Metric("accuracy_and_uar", "Mean of accuracy and UAR", True,
               _of_confusion(_mean(functions.accuracy, functions.uar)), "decisions"),
        Metric("ece", "Calibration error (ECE)", False, functions.ece),
        Metric("brier", "Brier score", False, functions.brier, span=2.0),
        Metric("log_loss", "Log loss", False, functions.log_loss, span=-math.log(functions.LEAST_PROBABILITY)),
    )
}
