"""The metrics as functions of arrays: weighted resamples are what repeated rows are, and scikit-learn agrees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from heartml.metrics import functions

CLASSES = ("Present", "Unknown", "Absent")


def drawn(seed: int, units: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels [n] of all classes, probabilities [n, 3] with ties, decisions [n], and whole weights [1, n]."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(units) % 3)
    probabilities = np.round(rng.dirichlet([1, 1, 1], units), 1) + 0.05
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return labels, probabilities, rng.integers(0, 3, units), rng.integers(0, 4, (1, units)).astype(float)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_a_weight_counts_a_unit_as_often_as_if_it_stood_there_several_times(seed: int) -> None:
    labels, p, decisions, weights = drawn(seed)
    rows = np.repeat(np.arange(len(labels)), weights[0].astype(int))
    once = np.ones((1, len(rows)))
    matrix = functions.confusion_matrices(labels, decisions, 3, weights)
    repeated = functions.confusion_matrices(labels[rows], decisions[rows], 3)
    np.testing.assert_array_equal(matrix, repeated)
    for name in ("macro_auc", "ece", "brier"):
        metric = getattr(functions, name)
        np.testing.assert_allclose(metric(labels, p, decisions, CLASSES, weights),
                                   metric(labels[rows], p[rows], decisions[rows], CLASSES, once), err_msg=name)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_scikit_learn_comes_to_the_same_numbers(seed: int) -> None:
    labels, p, decisions, _ = drawn(seed)
    matrix, once = functions.confusion_matrices(labels, decisions, 3), np.ones((1, len(labels)))
    assert functions.accuracy(matrix, CLASSES)[0] == pytest.approx(sklearn_metrics.accuracy_score(labels, decisions))
    assert functions.uar(matrix, CLASSES)[0] == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(labels, decisions))
    assert functions.macro_f1(matrix, CLASSES)[0] == pytest.approx(
        sklearn_metrics.f1_score(labels, decisions, average="macro"))
    for c in range(3):
        assert functions.class_auc(p[:, c], labels == c, once)[0] == pytest.approx(
            sklearn_metrics.roc_auc_score(labels == c, p[:, c]))
    assert functions.brier(labels, p, decisions, CLASSES, once)[0] == pytest.approx(
        sum(sklearn_metrics.brier_score_loss(labels == c, p[:, c]) for c in range(3)))


def test_pairs_of_two_strata_are_not_compared() -> None:
    scores, positive = np.array([0.9, 0.1, 0.3, 0.2]), np.array([True, False, True, False])
    two, one = np.array([0, 0, 1, 1]), np.zeros(4, int)
    once = np.ones((1, 4))
    assert functions.stratified_class_auc(scores, positive, once, one) == functions.class_auc(scores, positive, once)
    moved = scores + np.where(two == 1, -5.0, 0.0)       # another scale in the second fold
    assert functions.stratified_class_auc(moved, positive, once, two)[0] == 1
    assert functions.class_auc(moved, positive, once)[0] < 1


def test_what_is_not_defined_is_nan_and_left_out_of_a_mean_over_classes() -> None:
    labels, decisions = np.array([0, 0, 2]), np.array([0, 2, 2])
    matrix = functions.confusion_matrices(labels, decisions, 3)
    assert np.isnan(functions.class_recall(matrix, 1)) and np.isnan(functions.class_precision(matrix, 1))
    assert functions.uar(matrix, CLASSES)[0] == pytest.approx(0.75)


def test_the_challenges_metrics_take_the_challenges_classes_only() -> None:
    matrix = np.ones((1, 2, 2))
    for name in ("weighted_accuracy", "outcome_cost"):
        with pytest.raises(functions.MetricError, match=f"{name} is defined for Present.* not for loud"):
            getattr(functions, name)(matrix, ("Abnormal", "loud"))


def test_the_cost_of_a_patient_grows_with_missed_illness_and_with_referral() -> None:
    def cost(*rows: list[float]) -> float:
        return float(functions.outcome_cost(np.array([rows]), ("Abnormal", "Normal"))[0])

    right, missed, everybody = cost([10, 0], [0, 90]), cost([5, 5], [0, 90]), cost([10, 0], [90, 0])
    assert right < missed and right < everybody
    assert missed - cost([5, 5], [0, 90]) == 0
    assert everybody == pytest.approx(10 + 25 + 397 - 1718 + 11296 + 10_000 * 0.1)
