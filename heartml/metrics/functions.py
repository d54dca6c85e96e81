"""The metrics as pure functions of arrays.

Shapes, for n units, k classes and b bootstrap resamples: `labels` and `decisions` are int [n], indices into `classes`;
`probabilities` is float [n, k]; `weights` is float [b, n], how often each resample counts each unit. Every metric
returns one value for each resample, [b]. Metrics of decisions take confusion matrices [b, k, k], with the truth in rows
and the decision in columns. What is not defined is NaN, for instance the recall of a class that does not occur. Means
over classes leave NaN out, as scikit-learn does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.core.system.errors import HeartMLError

Floats = NDArray[np.float64]
Ints = NDArray[np.int_]
Bools = NDArray[np.bool_]
Classes = tuple[str, ...]

# Reyna et al., Heart murmur detection from phonocardiogram recordings: the George B. Moody PhysioNet Challenge 2022,
# PLOS Digital Health 2(9): e0000324 (2023): weights of the weighted accuracy, referral and costs of the outcome metric.
_CLASS_WEIGHTS = {"Present": 5.0, "Unknown": 3.0, "Absent": 1.0, "Abnormal": 5.0, "Normal": 1.0}
_REFERRED = {"Present", "Unknown", "Abnormal"}
_HEALTHY = ("normal", "Normal", "Healthy", "Absent", "N")      # how tasks call the class without a finding
_COST_ALGORITHM, _COST_TREATMENT, _COST_ERROR = 10.0, 10_000.0, 50_000.0
ECE_BINS = 10   # equal widths, as in Guo et al., On calibration of modern neural networks (2017), with fewer bins


LEAST_PROBABILITY = 0.001   # of the log loss: hundreds of units cannot show that anything is rarer


class MetricError(HeartMLError):
    """The metric does not fit the classes or the arrays; the message says which."""


def confusion_matrices(labels: Ints, decisions: Ints, k: int, weights: Floats | None = None) -> Floats:
    """Weighted counts [b, k, k] with the truth in rows; without weights one matrix, [1, k, k].

    >>> confusion_matrices([0, 0, 1], [0, 1, 1], k=2).tolist()
    [[[1.0, 1.0], [0.0, 1.0]]]
    >>> confusion_matrices([0, 0, 1], [0, 1, 1], 2, weights=np.array([[1.0, 0.0, 2.0]])).tolist()
    [[[1.0, 0.0], [0.0, 2.0]]]
    """
    cells = np.zeros((len(labels), k * k))
    cells[np.arange(len(labels)), np.asarray(labels) * k + np.asarray(decisions)] = 1
    counts: Floats = (np.ones((1, len(labels))) if weights is None else weights) @ cells
    return counts.reshape(-1, k, k)


def accuracy(matrix: Floats, _: Classes) -> Floats:
    """Share of right decisions.

    >>> matrix = np.array([[[1.0, 1.0], [0.0, 8.0]]])      # 9 of 10 are right
    >>> accuracy(matrix, ("murmur", "normal")).tolist()
    [0.9]
    """
    return ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2)))


def uar(matrix: Floats, _: Classes) -> Floats:
    """Unweighted average recall: the mean over classes of the share that is found. Also called balanced accuracy.

    >>> matrix = np.array([[[1.0, 1.0], [0.0, 8.0]]])      # recalls 1/2 and 8/8
    >>> uar(matrix, ("murmur", "normal")).tolist()
    [0.75]
    """
    return _mean_of_defined(ratio(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2)))


def macro_f1(matrix: Floats, _: Classes) -> Floats:
    """Mean over classes of F1 = 2 hits / (units of the class + decisions for the class).

    >>> matrix = np.array([[[3.0, 0.0], [2.0, 1.0]]])      # F1 is 6 / (3 + 5) and 2 / (3 + 1)
    >>> macro_f1(matrix, ("murmur", "normal")).tolist()
    [0.625]
    """
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    return _mean_of_defined(ratio(2 * hits, matrix.sum(axis=1) + matrix.sum(axis=2)))


def weighted_accuracy(matrix: Floats, classes: Classes) -> Floats:
    """Share of right decisions where a unit counts by its class (PhysioNet Challenge 2022).

    Weights of murmur: Present 5, Unknown 3, Absent 1. Weights of outcome: Abnormal 5, Normal 1.

    Raises:
        MetricError: a class has no weight.

    >>> matrix = np.array([[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 2.0]]])
    >>> weighted_accuracy(matrix, ("Present", "Unknown", "Absent")).tolist()    # (5 + 3 + 2) / (10 + 6 + 4)
    [0.5]
    """
    weights = _class_weights(classes, "weighted_accuracy")
    return ratio(np.diagonal(matrix, axis1=1, axis2=2) @ weights, matrix.sum(axis=2) @ weights)


def outcome_cost(matrix: Floats, classes: Classes) -> Floats:
    """Mean cost of a patient (PhysioNet Challenge 2022): screening of all, experts, treatment, missed treatment.

    An expert's cost of a patient grows with the share s of patients that are referred:
    25 + 397 s - 1718 s^2 + 11296 s^4.

    Raises:
        MetricError: a class is none of the challenge's.

    >>> nobody_referred = np.array([[[0.0, 1.0], [0.0, 1.0]]])      # one of two patients is missed
    >>> outcome_cost(nobody_referred, ("Abnormal", "Normal")).tolist()      # 10 + 25 + 50,000 / 2
    [25035.0]
    """
    _class_weights(classes, "outcome_cost")
    sick = np.array([name in _REFERRED for name in classes])
    patients = matrix.sum(axis=(1, 2))
    referred = ratio(matrix[:, :, sick].sum(axis=(1, 2)), patients)
    treated = ratio(matrix[:, sick][:, :, sick].sum(axis=(1, 2)), patients)
    missed = ratio(matrix[:, sick][:, :, ~sick].sum(axis=(1, 2)), patients)
    expert = 25 + 397 * referred - 1718 * referred**2 + 11296 * referred**4
    return _COST_ALGORITHM + expert + _COST_TREATMENT * treated + _COST_ERROR * missed


def icbhi_score(matrix: Floats, classes: Classes) -> Floats:
    """Mean of sensitivity and specificity (ICBHI 2017 challenge).

    Specificity is the share of healthy units that are called healthy. Sensitivity is the share of all other units,
    taken together, that get their own class: a wheeze that is called a crackle is not found.

    Raises:
        MetricError: not exactly one of the classes is a healthy one.

    >>> matrix = np.array([[[8.0, 1.0, 1.0], [0.0, 2.0, 1.0], [1.0, 0.0, 0.0]]])      # 8 of 10 healthy, 2 of 4 others
    >>> icbhi_score(matrix, ("normal", "crackle", "wheeze")).round(3).tolist()
    [0.65]
    """
    healthy = np.array([name in _HEALTHY for name in classes])
    if healthy.sum() != 1:
        raise MetricError(f"icbhi_score needs one class among {', '.join(_HEALTHY)}, not {', '.join(classes)}")
    right, units = np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2)
    shares = [ratio(right[:, own].sum(axis=1), units[:, own].sum(axis=1)) for own in (healthy, ~healthy)]
    return np.asarray((shares[0] + shares[1]) / 2)


def class_recall(matrix: Floats, c: int) -> Floats:
    """Share of the units of class number `c` that are found.

    >>> class_recall(np.array([[[3.0, 1.0], [2.0, 2.0]]]), 0).tolist()      # 3 of 3 + 1
    [0.75]
    """
    return ratio(matrix[:, c, c], matrix[:, c].sum(axis=1))


def class_precision(matrix: Floats, c: int) -> Floats:
    """Share of the decisions for class number `c` that are right.

    >>> class_precision(np.array([[[3.0, 1.0], [2.0, 2.0]]]), 0).tolist()      # 3 of 3 + 2
    [0.6]
    """
    return ratio(matrix[:, c, c], matrix[:, :, c].sum(axis=1))


def class_auc(scores: Floats, positive: Bools, weights: Floats) -> Floats:
    """Area under the ROC curve of one class against the rest, [b]; a tie counts half (Mann-Whitney).

    Args:
        scores: [n], the probability of the class.
        positive: [n], whether the unit is of the class.
        weights: [b, n].

    Two positives and two negatives make four pairs, of which three are in the right order:

    >>> scores, positive = np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, False, True, False])
    >>> class_auc(scores, positive, np.ones((1, 4))).tolist()
    [0.75]
    """
    won, pairs = _auc_pairs(scores, positive, weights)
    return ratio(won, pairs)


def stratified_class_auc(scores: Floats, positive: Bools, weights: Floats, strata: NDArray[Any]) -> Floats:
    """`class_auc` that compares only units of the same stratum, [b].

    Probabilities of two fits need not be on one scale. With the fold as stratum they are not compared.

    Args:
        strata: [n], the stratum of each unit.

    >>> scores, positive = np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, False, True, False])
    >>> stratified_class_auc(scores, positive, np.ones((1, 4)), np.array([0, 0, 1, 1])).tolist()
    [1.0]
    """
    counted = [_auc_pairs(scores[s], positive[s], weights[:, s]) for s in (strata == one for one in np.unique(strata))]
    return ratio(np.sum([won for won, _ in counted], axis=0), np.sum([pairs for _, pairs in counted], axis=0))


def macro_auc(labels: Ints, probabilities: Floats, _: Ints, classes: Classes, weights: Floats) -> Floats:
    """Mean over classes of `class_auc`.

    >>> probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.1, 0.9]])
    >>> labels = np.array([0, 0, 1, 1])      # of either class three of four pairs are in the right order
    >>> macro_auc(labels, probabilities, labels, ("murmur", "normal"), np.ones((1, 4))).tolist()
    [0.75]
    """
    columns = [class_auc(probabilities[:, c], labels == c, weights) for c in range(len(classes))]
    return _mean_of_defined(np.stack(columns, axis=-1))


def reliability_bins(
    labels: Ints, probabilities: Floats, decisions: Ints, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Weight, confidence and right decisions, summed in `ECE_BINS` equal bins of the confidence, each [b, bins].

    The confidence is the probability of the decision. The decision rule may choose another class than the most likely
    one, so this is not always the largest probability.

    >>> labels, decisions = np.array([0, 0]), np.array([0, 1])
    >>> probabilities = np.array([[0.75, 0.25], [0.75, 0.25]])
    >>> weight, confidence, correct = reliability_bins(labels, probabilities, decisions, np.ones((1, 2)))
    >>> weight[0].tolist()      # confidences .25 and .75
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    >>> confidence[0, [2, 7]].tolist(), correct[0, [2, 7]].tolist()
    ([0.25, 0.75], [0.0, 1.0])
    """
    confidence = probabilities[np.arange(len(labels)), decisions]
    correct = decisions == labels
    which = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    member = np.eye(ECE_BINS)[which]
    return weights @ member, weights @ (member * confidence[:, None]), weights @ (member * correct[:, None])


def ece(labels: Ints, probabilities: Floats, decisions: Ints, _: Classes, weights: Floats) -> Floats:
    """Expected calibration error (Guo et al. 2017): mean distance of confidence and accuracy over `reliability_bins`.

    >>> labels, probabilities = np.array([0, 0, 0, 0]), np.tile([0.75, 0.25], (4, 1))
    >>> ece(labels, probabilities, labels, ("murmur", "normal"), np.ones((1, 4))).tolist()      # 75 % sure, 100 % right
    [0.25]
    """
    total, confidence, correct = reliability_bins(labels, probabilities, decisions, weights)
    return ratio(np.abs(confidence - correct).sum(axis=1), total.sum(axis=1))


def brier(labels: Ints, probabilities: Floats, _: Ints, classes: Classes, weights: Floats) -> Floats:
    """Mean squared distance of the probabilities from the truth, summed over all classes: 0 to 2 (Brier 1950).

    >>> labels, probabilities = np.array([0]), np.array([[0.75, 0.25]])
    >>> brier(labels, probabilities, labels, ("murmur", "normal"), np.ones((1, 1))).tolist()      # .25^2 + .25^2
    [0.125]
    """
    squared = ((probabilities - np.eye(len(classes))[labels]) ** 2).sum(axis=1)
    return ratio(weights @ squared, weights.sum(axis=1))


def log_loss(labels: Ints, probabilities: Floats, _: Ints, __: Classes, weights: Floats) -> Floats:
    """Mean of minus the logarithm of the true class's probability (Good 1952), in nats; a proper score.

    A probability below `LEAST_PROBABILITY` counts as that: otherwise one unit that was called impossible would decide.

    >>> labels, probabilities = np.array([0, 0]), np.array([[0.5, 0.5], [1.0, 0.0]])
    >>> log_loss(labels, probabilities, labels, ("murmur", "normal"), np.ones((1, 2))).round(4).tolist()
    [0.3466]
    """
    losses = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], LEAST_PROBABILITY))
    return ratio(weights @ losses, weights.sum(axis=1))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient of two arrays of one shape, NaN where the denominator is zero.

    >>> ratio(np.array([1.0, 1.0]), np.array([4.0, 0.0])).tolist()
    [0.25, nan]
    """
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def _auc_pairs(scores: Floats, positive: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """Pairs of a positive and a negative unit that are in the right order, and all such pairs, each [b]."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    ordered, is_positive = weights[:, order], positive[order]
    above = np.add.reduceat(ordered * is_positive, starts, axis=1)
    below = np.add.reduceat(ordered * ~is_positive, starts, axis=1)
    won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return won, above.sum(axis=1) * below.sum(axis=1)


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the last axis, NaN left out: [b, k] -> [b]."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1).astype(float))


def _class_weights(classes: Classes, metric: str) -> Floats:
    unknown = [name for name in classes if name not in _CLASS_WEIGHTS]
    if unknown:
        raise MetricError(f"{metric} is defined for {', '.join(_CLASS_WEIGHTS)}, not for {', '.join(unknown)}")
    return np.array([_CLASS_WEIGHTS[name] for name in classes])
