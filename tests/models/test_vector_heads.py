"""Heads on vectors: logistic regression and LightGBM predict what the libraries behind them predict."""

import numpy as np
import pytest

from heartml.models.heads import Targets, lightgbm, logistic
from heartml.models.heads.softmax import Softmax

TREES = {"trees": 30, "leaves": 4, "rate": 0.2, "columns": 1.0, "least_cases": 5, "balance": 0.0}


def cases(count: int = 150, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, Targets]:
    """Vectors [n, 6] whose first columns tell the class, on very different scales."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    vectors = rng.normal(size=(count, 6)) + 2.0 * np.eye(6)[labels]
    return vectors * np.array([1, 1, 1, 1000, 0.001, 1]), Targets(labels, classes, np.arange(count))


def test_the_softmax_is_scikit_learns_on_standardised_columns() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    vectors, targets = cases()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(vectors))
    ours = Softmax.fit(vectors, targets.labels, 3, weights, 0.3)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
    theirs.fit(vectors, targets.labels, logisticregression__sample_weight=weights)
    np.testing.assert_allclose(np.exp(ours.predict_log_proba(vectors)), theirs.predict_proba(vectors), atol=1e-3)


@pytest.mark.parametrize("present", [(0, 2), (1, 2), (0, 1, 2)])
def test_a_class_that_training_lacks_keeps_its_column_and_hardly_any_probability(present: tuple[int, ...]) -> None:
    vectors, targets = cases()
    known = np.isin(targets.labels, present)
    fitted = Softmax.fit(vectors[known], targets.labels[known], 3, np.ones(known.sum()), 1.0)
    p = np.exp(fitted.predict_log_proba(vectors))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert p.shape == (len(vectors), 3)
    assert (p[:, [c for c in range(3) if c not in present]] < 0.01).all()
    assert (p[known].argmax(axis=1) == targets.labels[known]).mean() > 0.8
    same = Softmax.from_arrays({name: np.atleast_1d(array) for name, array in fitted.arrays().items()})
    np.testing.assert_array_equal(same.predict_log_proba(vectors), fitted.predict_log_proba(vectors))


def test_the_weaker_the_penalty_the_surer_the_logistic_head() -> None:
    vectors, targets = cases()
    sure = [float(np.exp(logistic.fit(vectors, targets, {"c": c, "balance": 0.0}, 0).predict_proba(vectors).log_p)
                  .max(axis=1).mean()) for c in (0.001, 0.1, 10.0)]
    assert sure == sorted(sure)
    assert sure[0] < 0.6
    assert sure[-1] > 0.8


def test_boosted_trees_learn_what_no_line_divides_and_come_back_from_their_text() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(400, 2))
    targets = Targets((vectors[:, 0] * vectors[:, 1] > 0).astype(int), 2, np.arange(400))      # two diagonal quarters
    trees = lightgbm.fit(vectors, targets, TREES, 0)
    line = logistic.fit(vectors, targets, {"c": 1.0, "balance": 0.0}, 0)

    def right(head: object) -> float:
        new = np.random.default_rng(4).normal(size=(300, 2))
        return float((head.predict_proba(new).log_p.argmax(axis=1) == (new[:, 0] * new[:, 1] > 0)).mean())

    assert right(trees) > 0.9
    assert right(line) < 0.65
    loaded = lightgbm.load(trees.state())
    np.testing.assert_array_equal(loaded.predict_proba(vectors).log_p, trees.predict_proba(vectors).log_p)
    assert all(isinstance(text, str) for text in trees.state().texts.values()) and not trees.state().arrays


def test_balance_gives_a_rare_class_the_weight_of_the_others() -> None:
    _, targets = cases(200, 2)
    some = np.flatnonzero((targets.labels == 0) | (np.arange(200) < 20))      # ten of the second class
    rare = Targets(targets.labels[some], 2, some)
    noise = np.random.default_rng(0).normal(size=(len(some), 6))              # nothing to be learnt
    fitted = [logistic.fit(noise, rare, {"c": 1e-4, "balance": balance}, 0) for balance in (0.0, 1.0)]
    mean = [np.exp(head.predict_proba(noise).log_p)[:, 1].mean() for head in fitted]
    assert mean == pytest.approx([10 / len(some), 0.5], abs=0.02)
