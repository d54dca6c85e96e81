"""Laws of the metrics, and each official metric against an implementation that shares nothing with ours."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from heartml.core.tasks import TASKS
from heartml.metrics import METRICS, MetricError, bootstrap_interval, bootstrap_intervals, functions, paired_bootstrap
from heartml.metrics.bootstrap import group_weights

MURMUR = ("Present", "Unknown", "Absent")
OUTCOME = ("Abnormal", "Normal")
SHOWN = {"labels": [0, 0, 1, 2, 2, 2, 2, 1], "decisions": [0, 2, 1, 2, 2, 0, 1, 0]}


def draw(seed, classes=MURMUR, n=120, groups=50):
    """Random labels, probabilities with ties, decisions that are not the argmax, groups."""
    rng = np.random.default_rng(seed)
    k = len(classes)
    labels = rng.integers(0, k, n)
    probabilities = np.round(rng.dirichlet(np.ones(k), n) + np.eye(k)[labels] * 0.3, 1) + 1e-3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return labels, probabilities, rng.integers(0, k, n), rng.integers(0, groups, n)


def score(name, labels, probabilities, decisions, classes=MURMUR):
    return METRICS[name].function(np.asarray(labels), probabilities, np.asarray(decisions), classes)


def slow_weighted_accuracy(labels, decisions, classes):
    worth = {"Present": 5, "Unknown": 3, "Absent": 1, "Abnormal": 5, "Normal": 1}
    got = sum(worth[classes[t]] for t, d in zip(labels, decisions, strict=True) if t == d)
    return got / sum(worth[classes[t]] for t in labels)


def slow_outcome_cost(labels, decisions, classes):
    """Equation by equation from the paper, one patient at a time."""
    sick = [classes[t] in {"Abnormal", "Present", "Unknown"} for t in labels]
    referred = [classes[d] in {"Abnormal", "Present", "Unknown"} for d in decisions]
    n = len(sick)
    total = 0.0
    for is_sick, is_referred in zip(sick, referred, strict=True):
        total += 10
        total += 10000 if is_sick and is_referred else 0
        total += 50000 if is_sick and not is_referred else 0
    m = sum(referred)
    total += n * (25 + 397 * (m / n) - 1718 * (m / n) * (m / n) + 11296 * (m / n) * (m / n) * (m / n) * (m / n))
    return total / n


def slow_icbhi_score(labels, decisions, classes):
    """Counted unit by unit, as the challenge's page writes it: (sensitivity + specificity) / 2."""
    healthy = [t == d for t, d in zip(labels, decisions, strict=True) if classes[t] == "Absent"]
    ill = [t == d for t, d in zip(labels, decisions, strict=True) if classes[t] != "Absent"]
    return (sum(healthy) / len(healthy) + sum(ill) / len(ill)) / 2


def slow_ece(labels, probabilities, decisions):
    """Guo et al. (2017), equation 3, bin by bin, of the decisions."""
    answers = [(float(p[d]), t == d) for t, p, d in zip(labels, probabilities, decisions, strict=True)]
    total = 0.0
    for low in range(10):
        inside = [(sure, right) for sure, right in answers if low / 10 < sure <= (low + 1) / 10]
        if inside:
            confidence = sum(sure for sure, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            total += len(inside) / len(labels) * abs(confidence - accuracy)
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_each_metric_equals_an_independent_implementation(seed):
    labels, probabilities, decisions, _ = draw(seed)
    recalls = sk.recall_score(labels, decisions, average="macro")
    accuracy = sk.accuracy_score(labels, decisions)
    weighted = slow_weighted_accuracy(labels, decisions, MURMUR)
    truth = np.eye(3)[labels]
    expected = {
        "accuracy": accuracy,
        "uar": recalls,
        "macro_f1": sk.f1_score(labels, decisions, average="macro"),
        "macro_auc": sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "weighted_accuracy": weighted,
        "outcome_cost": slow_outcome_cost(labels, decisions, MURMUR),
        "weighted_accuracy_and_uar": (weighted + recalls) / 2,
        "icbhi_score": slow_icbhi_score(labels, decisions, MURMUR),
        "accuracy_and_uar": (accuracy + recalls) / 2,
        "ece": slow_ece(labels, probabilities, decisions),
        "log_loss": -np.log(probabilities[np.arange(len(labels)), labels].clip(0.001)).mean(),
        "brier": sum(((p - t) ** 2).sum() for p, t in zip(probabilities, truth, strict=True)) / len(labels),
    }
    assert expected.keys() == METRICS.keys()
    for name, value in expected.items():
        assert score(name, labels, probabilities, decisions) == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_two_class_metrics_equal_independent_implementations():
    labels, probabilities, decisions, _ = draw(3, OUTCOME)
    assert score("macro_auc", labels, probabilities, decisions, OUTCOME) == pytest.approx(
        sk.roc_auc_score(labels, probabilities[:, 1]))
    assert score("brier", labels, probabilities, decisions, OUTCOME) == pytest.approx(
        2 * sk.brier_score_loss(labels, probabilities[:, 1]))
    assert score("outcome_cost", labels, probabilities, decisions, OUTCOME) == pytest.approx(
        slow_outcome_cost(labels, decisions, OUTCOME))
    assert score("weighted_accuracy", labels, probabilities, decisions, OUTCOME) == pytest.approx(
        slow_weighted_accuracy(labels, decisions, OUTCOME))


def test_weighted_accuracy_worked_by_hand():
    # 2 Present (1 found), 2 Unknown (1 found), 4 Absent (2 found): (5 + 3 + 2) / (10 + 6 + 4)
    assert score("weighted_accuracy", **SHOWN, probabilities=np.full((8, 3), 1 / 3)) == 10 / 20


@pytest.mark.parametrize(("labels", "decisions", "cost"), [
    ([1, 1], [1, 1], 10 + 25),                                               # nobody referred, nobody sick
    ([0, 1], [1, 1], 10 + 25 + 25000),                                       # one of two missed
    ([0, 1], [0, 1], 10 + 25 + 397 / 2 - 1718 / 4 + 11296 / 16 + 5000),      # the half that is sick referred
    ([0, 0], [0, 0], 10 + 25 + 397 - 1718 + 11296 + 10000),                  # everybody referred and treated
])
def test_outcome_cost_worked_by_hand(labels, decisions, cost):
    assert score("outcome_cost", labels, np.full((2, 2), 0.5), decisions, OUTCOME) == pytest.approx(cost)


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if m.greater_is_better])
def test_perfect_predictions_score_one(name):
    labels = np.array([0, 1, 2, 2, 1, 0, 2])
    assert score(name, labels, np.eye(3)[labels], labels) == 1


@pytest.mark.parametrize("name", ["ece", "brier"])
def test_perfect_probabilities_have_no_error(name):
    labels = np.array([0, 1, 2, 2])
    assert score(name, labels, np.eye(3)[labels], labels) == 0


def test_the_calibration_error_is_that_of_the_decisions_not_of_the_likeliest_class():
    labels, probabilities = np.array([0, 0, 0, 0]), np.tile([0.75, 0.25, 0.0], (4, 1))
    assert score("ece", labels, probabilities, labels) == 0.25
    assert score("ece", labels, probabilities, [2, 2, 2, 2]) == 0      # never right, and as sure as that
    assert score("ece", labels, probabilities, [0, 0, 2, 2]) == 0.125


@pytest.mark.parametrize("name", METRICS)
def test_order_of_units_and_of_classes_does_not_matter(name):
    labels, probabilities, decisions, groups = draw(5)
    order = np.random.default_rng(0).permutation(len(labels))
    swap = np.array([2, 0, 1])   # class c of MURMUR is class swap[c] of the renamed order
    renamed = tuple(MURMUR[c] for c in np.argsort(swap))
    value = score(name, labels, probabilities, decisions)
    assert score(name, labels[order], probabilities[order], decisions[order]) == pytest.approx(value)
    swapped = score(name, swap[labels], probabilities[:, np.argsort(swap)], swap[decisions], renamed)
    assert swapped == pytest.approx(value)
    kwargs = {"resamples": 200, "confidence": 0.9}
    first = bootstrap_interval(METRICS[name], labels, probabilities, decisions, MURMUR, groups,
                               rng=np.random.default_rng(1), **kwargs)
    second = bootstrap_interval(METRICS[name], labels[order], probabilities[order], decisions[order], MURMUR,
                                groups[order], rng=np.random.default_rng(1), **kwargs)
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_names_metrics_that_know_its_classes(task):
    labels, probabilities, decisions, _ = draw(1, task.classes)
    for name in (task.metric, *task.official):
        assert math.isfinite(score(name, labels, probabilities, decisions, task.classes))


def test_a_stratified_auc_is_the_share_of_pairs_within_a_stratum_that_are_in_the_right_order():
    labels, probabilities, _, strata = draw(21, n=60, groups=4)
    scores, positive = probabilities[:, 0], labels == 0
    pairs = [(scores[i], scores[j]) for i in np.flatnonzero(positive) for j in np.flatnonzero(~positive)
             if strata[i] == strata[j]]
    share = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)
    assert functions.stratified_class_auc(scores, positive, np.ones((1, 60)), strata)[0] == pytest.approx(share)


def test_a_constant_score_has_auc_one_half():
    labels = np.array([0, 1, 2, 0])
    assert score("macro_auc", labels, np.full((4, 3), 1 / 3), labels) == 0.5


def test_a_class_without_cases_is_left_out_of_means():
    labels, decisions = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2])
    assert score("uar", labels, np.eye(3)[decisions], decisions) == 0.75
    assert math.isnan(score("macro_auc", [0, 0], np.full((2, 3), 1 / 3), [0, 0]))


def test_wrong_classes_and_shapes_are_refused_by_name():
    with pytest.raises(MetricError, match="not for artifact, normal"):
        score("weighted_accuracy", [0, 1], np.eye(2), [0, 1], ("artifact", "normal"))
    with pytest.raises(MetricError, match="3 labels"):
        score("uar", [0, 1, 1], np.eye(2), [0, 1, 1], OUTCOME)
    with pytest.raises(MetricError, match="no index"):
        score("uar", [0, 2], np.eye(2), [0, 1], OUTCOME)


@pytest.mark.parametrize("name", METRICS)
def test_interval_contains_the_value(name):
    for seed in range(5):
        labels, probabilities, decisions, groups = draw(seed, n=40, groups=15)
        interval = bootstrap_interval(METRICS[name], labels, probabilities, decisions, MURMUR, groups,
                                      resamples=200, confidence=0.9, rng=np.random.default_rng(seed))
        assert interval.low <= interval.value <= interval.high
        assert interval.low < interval.high


@pytest.mark.parametrize("name", METRICS)
def test_weights_are_whole_groups_drawn_again(name):
    """A weighted metric equals the metric on the rows of the drawn groups, copied one by one."""
    labels, probabilities, decisions, groups = draw(7, n=60, groups=12)
    weights = np.random.default_rng(2).integers(0, 4, (5, groups.max() + 1))[:, groups].astype(float)
    values = METRICS[name].weighted(labels, probabilities, decisions, MURMUR, weights)
    for row, value in zip(weights, values, strict=True):
        rows = np.repeat(np.arange(len(labels)), row.astype(int))
        assert score(name, labels[rows], probabilities[rows], decisions[rows]) == pytest.approx(value)


def test_a_group_is_weighed_whole():
    groups = np.array(["b", "a", "b", "c", "a"])
    weights = next(group_weights(groups, 2000, np.random.default_rng(2)))
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert weights[:, [0, 1, 3]].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.1)


def covered(groups, draws, metric, paired=False):
    """Share of intervals of 95 % that hold the truth: classes as in CirCor, recalls .9, .6, .9, one unit a group."""
    rng, truth, hits = np.random.default_rng(5), np.array([0.9, 0.6, 0.9]), 0
    for _ in range(draws):
        labels = rng.choice(3, p=[0.19, 0.07, 0.74], size=groups)
        labels[:3] = [0, 1, 2]
        first, second = (np.where(rng.random(groups) < truth[labels], labels, (labels + 1) % 3) for _ in range(2))
        given = {"resamples": 300, "confidence": 0.95, "rng": np.random.default_rng(0)}
        models = [(np.eye(3)[decisions], decisions) for decisions in (first, second)]
        found = paired_bootstrap(METRICS[metric], labels, *models, MURMUR, np.arange(groups), **given) if paired else (
            bootstrap_interval(METRICS[metric], labels, *models[0], MURMUR, np.arange(groups), **given))
        hits += found.low <= (0 if paired else truth.mean()) <= found.high
    return hits / draws


@pytest.mark.parametrize(("groups", "paired"), [(20, False), (40, False), (80, False), (40, True), (80, True)])
def test_intervals_of_few_groups_cover_what_they_say(groups, paired):
    """Of 250 draws 95 % are 237 or 238, give or take 3.4; the percentile interval covered 70 to 85 % here."""
    assert 0.91 <= covered(groups, 250, "uar", paired) <= 1


def test_a_class_whose_only_groups_were_found_is_not_certain():
    labels = np.array([0, 0, 0, 0, 1, 1])
    found = bootstrap_interval(METRICS["uar"], labels, np.eye(2)[labels], labels, OUTCOME, np.arange(6),
                               resamples=500, confidence=0.95, rng=np.random.default_rng(0))
    assert found.low < 0.8 and found.high == 1


def test_a_confidence_beyond_the_resamples_moves_the_ends_outwards():
    labels, probabilities, decisions, groups = draw(13)
    good = (0.97 * np.eye(3)[labels] + 0.01, labels)
    lows = [paired_bootstrap(METRICS["log_loss"], labels, (probabilities, decisions), good, MURMUR, groups,
                             resamples=200, confidence=confidence, rng=np.random.default_rng(0)).low
            for confidence in (0.95, 0.99, 0.999, 0.999999)]
    assert lows == sorted(lows, reverse=True) and len(set(lows)) == 4
    many = paired_bootstrap(METRICS["log_loss"], labels, (probabilities, decisions), good, MURMUR, groups,
                            resamples=100_000, confidence=0.999, rng=np.random.default_rng(1))
    assert lows[2] == pytest.approx(many.low, rel=0.2)


def test_units_of_one_group_widen_the_interval():
    """Copying every unit twenty times within its group adds no evidence; calling the copies independent would."""
    labels, probabilities, decisions, _ = draw(9, n=40)
    rows = np.repeat(np.arange(40), 20)

    def width(groups):
        interval = bootstrap_interval(METRICS["accuracy"], labels[rows], probabilities[rows], decisions[rows], MURMUR,
                                      groups, resamples=500, confidence=0.95, rng=np.random.default_rng(0))
        return interval.high - interval.low

    assert width(rows) > 3 * width(np.arange(len(rows)))


@pytest.mark.parametrize("name", [name for name in METRICS if math.isfinite(METRICS[name].span)])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_no_interval_of_a_difference_is_wider_than_the_metric(name, n):
    """Six groups at the confidence of a late look: the ends are computed beyond the resamples, and stay possible."""
    labels = np.arange(n) % 2
    models = [(np.eye(2)[decisions], decisions) for decisions in (labels, 1 - labels)]
    first, second = models if METRICS[name].greater_is_better else models[::-1]
    found = paired_bootstrap(METRICS[name], labels, first, second, OUTCOME, list(range(n)), resamples=200,
                             confidence=0.9999, rng=np.random.default_rng(0))
    assert -METRICS[name].span <= found.low <= found.value <= found.high <= METRICS[name].span


@pytest.mark.parametrize("name", METRICS)
def test_a_model_does_not_differ_from_itself(name):
    labels, probabilities, decisions, groups = draw(11)
    same = (probabilities, decisions)
    difference = paired_bootstrap(METRICS[name], labels, same, same, MURMUR, groups,
                                  resamples=200, confidence=0.95, rng=np.random.default_rng(0))
    assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("name", METRICS)
def test_a_clearly_better_model_wins_whatever_the_sign_of_the_metric(name):
    labels, probabilities, decisions, groups = draw(13)
    good = (0.97 * np.eye(3)[labels] + 0.01, labels)
    difference = paired_bootstrap(METRICS[name], labels, good, (probabilities, decisions), MURMUR, groups,
                                  resamples=400, confidence=0.95, rng=np.random.default_rng(0))
    reverse = paired_bootstrap(METRICS[name], labels, (probabilities, decisions), good, MURMUR, groups,
                               resamples=400, confidence=0.95, rng=np.random.default_rng(0))
    assert difference.p < 0.05 < reverse.p
    assert difference.low <= difference.value <= difference.high
    assert (difference.value > 0) == METRICS[name].greater_is_better
    assert reverse.value == -difference.value


def test_a_thousand_resamples_of_five_hundred_units_are_quick():
    labels, probabilities, decisions, groups = draw(17, n=500, groups=300)
    started = time.process_time()
    bootstrap_intervals([METRICS["weighted_accuracy"], METRICS["uar"]], labels, probabilities, decisions, MURMUR,
                        groups, resamples=1000, confidence=0.95, rng=np.random.default_rng(0))
    assert time.process_time() - started < 1
