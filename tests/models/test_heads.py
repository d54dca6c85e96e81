"""One contract for every head, and what each promises beyond it."""

import functools
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_heads import HYPERPARAMETERS
from support.small_tuning import with_encoder

from heartml.core import config
from heartml.core.system.parallel import single_thread
from heartml.models.heads import HEADS, HeadState, Targets, svm_rbf
from heartml.models.heads.augmentation import Crops
from heartml.models.heads.linear import Scale, case_weights
from heartml.models.heads.log_probabilities import normalise
from heartml.models.heads.sequence import frame_targets

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml").search
# `describe` needs an extra: its own contract is in test_describe.py. `related` learns another task than it is asked
# about, and holds no opinion on that: its contract is in tests/training/test_related.py.
NAMES = sorted(set(HEADS) - {"describe", "related"})
CLASSES = 3


def data(name: str, cases: int = 90, seed: int = 0, classes: int = CLASSES):
    """Inputs of a head whose classes can be told apart, not perfectly; frames come with heart states."""
    rng = np.random.default_rng(seed)
    labels = np.arange(cases) % classes
    targets = with_encoder(name, Targets(labels, classes, np.arange(cases) // 2))
    if HEADS[name]().TAKES == "vectors":
        return rng.normal(size=(cases, 10)) + 1.5 * np.eye(10)[labels], targets
    frames = [rng.normal(size=(rng.integers(60, 300), 12)).astype(np.float32) for _ in range(cases)]
    states = [np.resize(np.repeat(np.arange(4), 8), len(f)).astype(np.int8) for f in frames]
    for one, state, label in zip(frames, states, labels, strict=True):
        one[state == 1, 4 * label : 4 * label + 4] += 2.0
    return frames, replace(targets, states=states)


def fit(name: str, seed: int = 1):
    inputs, targets = data(name)
    return HEADS[name]().fit(inputs, targets, HYPERPARAMETERS[name], seed), inputs, targets


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """As in every worker; two threads on such small tensors take ten times as long."""
    single_thread()


@pytest.fixture(scope="module")
def fitted_once(one_thread):
    """name -> fitted head and its inputs, for tests that only look."""
    return functools.lru_cache(lambda name: fit(name)[:2])


def as_bytes(state: HeadState) -> bytes:
    arrays = [(key, str(a.dtype), a.shape, np.asarray(a).tobytes()) for key, a in sorted(state.arrays.items())]
    return repr((arrays, json.dumps(dict(state.scalars), sort_keys=True), sorted(state.texts.items()))).encode()


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_sum_to_one_and_none_is_zero(name: str, fitted_once) -> None:
    fitted, inputs = fitted_once(name)
    p = np.exp(fitted.predict_proba(inputs).log_p)
    assert p.shape == (90, CLASSES)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-9)
    assert (p > 0).all()


def with_true_posterior(name: str, cases: int, seed: int):
    """Inputs, targets, and the true log-posterior of the classes `[cases, classes]`, which no head can beat.

    Vectors: three Gaussian classes, in columns a ten-thousandth as wide as the seven that tell nothing. Frames: classes
    so far apart (by 16 deviations in the shortest recording) that the Bayes rule is never wrong.
    """
    if HEADS[name]().TAKES == "frames":
        inputs, targets = data(name, cases, seed)
        return inputs, targets, np.log(np.clip(np.eye(CLASSES)[targets.labels], 1e-12, 1))
    inputs, targets = data(name, cases, seed)      # means 1.5 apart, deviations one
    scale = np.array([0.01] * CLASSES + [100.0] * (10 - CLASSES))
    return inputs * scale, targets, normalise(1.5 * inputs[:, :CLASSES])


def regret(fitted, case) -> tuple[float, float]:
    """How far from the Bayes rule on unseen cases: in log-likelihood (nats a case), and in accuracy."""
    inputs, targets, truth = case
    log_p = fitted.predict_proba(inputs).log_p
    accuracy, best = ((p.argmax(1) == targets.labels).mean() for p in (log_p, truth))
    return float((np.exp(truth) * (truth - log_p)).sum(1).mean()), float(best - accuracy)


MOST_REGRET = {"logistic": 0.04, "svm_rbf": 0.1, "lightgbm": 0.1, "extra_trees": 0.2,     # guessing: .54
               "sequence": 0.1, "resnet": 0.35, "fcnn": 0.5, "finetune": 0.2}      # guessing: 1.1


def learnt(name: str, labels=lambda y: y) -> tuple[float, float]:
    inputs, targets, _ = with_true_posterior(name, 600 if HEADS[name]().TAKES == "vectors" else 90, seed=0)
    fitted = HEADS[name]().fit(inputs, replace(targets, labels=labels(targets.labels)), HYPERPARAMETERS[name], 1)
    return regret(fitted, with_true_posterior(name, 2000 if HEADS[name]().TAKES == "vectors" else 150, seed=99))


@pytest.mark.parametrize("name", NAMES)
def test_it_comes_near_the_bayes_rule(name: str) -> None:
    nats, errors = learnt(name)
    assert nats < MOST_REGRET[name]
    assert errors < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_a_third_of_the_labels_shuffled_is_seen(name: str) -> None:
    """The law above can tell: argmax alone could not, as two thirds of the labels still outvote the rest."""
    def shuffled(labels: np.ndarray) -> np.ndarray:
        rng, mixed = np.random.default_rng(0), labels.copy()
        rows = rng.choice(len(labels), len(labels) // 3, replace=False)
        mixed[rows] = rng.permutation(labels[rows])
        return mixed

    assert learnt(name, shuffled)[0] > MOST_REGRET[name]


@pytest.mark.parametrize("name", ["logistic", "svm_rbf"])
def test_columns_that_are_not_standardised_are_seen(name: str, monkeypatch) -> None:
    monkeypatch.setattr(Scale, "__call__", lambda self, vectors: vectors)
    nats, errors = learnt(name)
    assert nats > MOST_REGRET[name]
    assert errors > 0.3


@pytest.mark.parametrize("name", NAMES)
def test_loaded_predicts_what_saved_did(name: str, fitted_once) -> None:
    fitted, inputs = fitted_once(name)
    state = fitted.state()
    numbers = json.loads(json.dumps(dict(state.scalars)))      # as a JSON file gives them back
    loaded = HEADS[name]().load(HeadState({k: np.array(v) for k, v in state.arrays.items()}, numbers,
                                          dict(state.texts)))
    np.testing.assert_array_equal(loaded.predict_proba(inputs).log_p, fitted.predict_proba(inputs).log_p)
    assert as_bytes(loaded.state()) == as_bytes(state)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes_and_no_global_generator_is_touched(name: str, fitted_once) -> None:
    first = as_bytes(fitted_once(name)[0].state())
    np.random.seed(99)
    torch.manual_seed(99)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert as_bytes(fit(name)[0].state()) == first
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_only_heads_that_draw_depend_on_the_seed(fitted_once) -> None:
    changed = {name for name in NAMES if as_bytes(fitted_once(name)[0].state()) != as_bytes(fit(name, 2)[0].state())}
    assert changed == set(NAMES) - {"logistic"}


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_predicted_by_itself(name: str, fitted_once) -> None:
    fitted, inputs = fitted_once(name)
    alone = np.concatenate([fitted.predict_proba(inputs[row : row + 1]).log_p for row in (0, 7, 31)])
    np.testing.assert_allclose(alone, fitted.predict_proba(inputs).log_p[[0, 7, 31]], atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_training_lacks_stays_possible(name: str) -> None:
    inputs, targets = data(name)
    kept = np.flatnonzero(targets.labels != 1)
    some = inputs[kept] if isinstance(inputs, np.ndarray) else [inputs[row] for row in kept]
    states = None if targets.states is None else [targets.states[row] for row in kept]
    lacking = replace(targets, labels=targets.labels[kept], groups=targets.groups[kept], states=states)
    fitted = HEADS[name]().fit(some, lacking, HYPERPARAMETERS[name], 0)
    p = np.exp(fitted.predict_proba(inputs).log_p)
    assert np.isfinite(p).all()
    assert (p[:, 1] > 0).all()
    assert p[:, 1].mean() < 0.34


@pytest.mark.parametrize("name", ["logistic", "svm_rbf"])
def test_names_of_classes_do_not_matter(name: str) -> None:
    inputs, targets = data(name, cases=240)
    order = np.array([2, 0, 1])
    renamed = HEADS[name]().fit(inputs, replace(targets, labels=order[targets.labels]), HYPERPARAMETERS[name], 1)
    plain = HEADS[name]().fit(inputs, targets, HYPERPARAMETERS[name], 1)
    difference = np.exp(renamed.predict_proba(inputs).log_p[:, order]) - np.exp(plain.predict_proba(inputs).log_p)
    assert np.abs(difference).max() < (1e-3 if name == "logistic" else 0.15)     # inner folds are drawn by class


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"sequence"}))
def test_two_classes_work_too(name: str) -> None:
    inputs, targets = data(name, classes=2)
    p = np.exp(HEADS[name]().fit(inputs, targets, HYPERPARAMETERS[name], 0).predict_proba(inputs).log_p)
    assert p.shape == (90, 2)
    assert (p.argmax(1) == targets.labels).mean() > 0.7


def test_the_forest_of_arrays_is_scikit_learns() -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    from heartml.models.heads import extra_trees

    inputs, targets = data("extra_trees")
    theirs = ExtraTreesClassifier(15, min_samples_leaf=2, random_state=3).fit(inputs, targets.labels)
    ours = extra_trees.flatten([one.tree_ for one in theirs.estimators_], theirs.classes_, CLASSES)
    unseen, _ = data("extra_trees", seed=8)
    expected = theirs.predict_proba(unseen)
    sure = (expected > 1e-3).all(1)
    np.testing.assert_allclose(np.exp(ours.predict_proba(unseen).log_p)[sure], expected[sure], atol=1e-6)


def test_the_machines_of_arrays_are_scikit_learns() -> None:
    from sklearn.svm import SVC

    inputs, targets = data("svm_rbf")
    ours = svm_rbf._machines(inputs, targets, HYPERPARAMETERS["svm_rbf"])
    scale, cases = Scale.fit(inputs), case_weights(targets, 0.5)
    unseen, _ = data("svm_rbf", seed=8)
    for column, pair in enumerate(combinations(range(CLASSES), 2)):
        rows = np.isin(targets.labels, pair)
        theirs = SVC(C=3.0, gamma=0.5 / 10).fit(scale(inputs)[rows], targets.labels[rows] == pair[0],
                                                sample_weight=cases[rows])
        np.testing.assert_allclose(ours.scores(unseen)[:, column], theirs.decision_function(scale(unseen)), atol=1e-8)


def test_inner_folds_keep_groups_whole() -> None:
    _, targets = data("svm_rbf")
    for train, test in svm_rbf.inner_folds(targets, 0):
        assert not set(targets.groups[train]) & set(targets.groups[test])


def test_balance_lifts_the_rare_class() -> None:
    inputs, _ = data("logistic")
    targets = Targets(np.where(np.arange(90) < 8, 1, 0), 2, np.arange(90))
    rare = []
    for name in ("logistic", "svm_rbf", "lightgbm", "extra_trees"):
        for balance in (0.0, 1.0):
            numbers = {**HYPERPARAMETERS[name], "balance": balance, "least_leaf": 6}
            fitted = HEADS[name]().fit(inputs, targets, numbers, 0)
            rare.append(np.exp(fitted.predict_proba(data("logistic", seed=3)[0]).log_p)[:, 1].mean())
    assert all(low < high for low, high in zip(rare[::2], rare[1::2], strict=True)), rare


def test_a_crop_and_its_states_are_of_one_moment() -> None:
    length = [40, 300, 600]
    frames = [np.arange(n, dtype=np.float32)[:, None] for n in length]
    states = [(np.arange(n) // 10 % 4).astype(np.int8) for n in length]
    crops = Crops.of(frames, Targets(np.zeros(3, int), 1, np.arange(3), states), strength=0.0, chunk_s=5.1)
    rows = np.array([0, 1, 2, 2, 1])
    drawn, seen = crops.draw(rows, np.random.default_rng(0))
    assert drawn.shape == (5, 255, 1)
    moment = drawn[..., 0]
    steady = np.isclose(np.diff(moment, axis=1, append=0), 1, atol=1e-3)      # not where a short recording goes round
    assert steady.mean() > 0.95
    at = [(moment[steady] + slack).astype(int) // 10 % 4 for slack in (-0.01, 0.01)]
    assert ((seen[steady] == at[0]) | (seen[steady] == at[1])).all()


def test_augmentation_never_reaches_another_recording() -> None:
    frames = [np.full((n, 4), 1000.0 * k, np.float32) for k, n in enumerate([30, 260, 500, 90])]
    targets = Targets(np.zeros(4, int), 1, np.arange(4))
    rng = np.random.default_rng(1)
    for _ in range(20):
        drawn, _ = Crops.of(frames, targets, 1.0, 5.1).draw(np.arange(4), rng)
        assert (np.abs(drawn - 1000.0 * np.arange(4)[:, None, None]) < 20).all()


def test_systole_is_told_apart_by_the_recordings_class() -> None:
    states = np.array([[0, 9, 1, 9, 2, 9, 3, 9, 4, 9, -1, 9]], np.int8) % 9
    states[0, 10] = -1
    found = frame_targets(np.repeat(states, 2, 0), np.array([0, 2]))
    assert found.tolist() == [[0, 4, 2, 1, 3, -1], [0, 6, 2, 1, 3, -1]]


def test_the_sequence_head_finds_the_states_it_was_trained_on() -> None:
    rng = np.random.default_rng(0)
    state = np.resize(np.repeat(np.arange(4), 12), 300).astype(np.int8)
    frames = [(np.eye(4, 6)[state] * 3 + rng.normal(size=(300, 6))).astype(np.float32) for _ in range(24)]
    targets = Targets(np.arange(24) % 2, 2, np.arange(24), [state] * 24)
    hyperparameters = {**HYPERPARAMETERS["sequence"], "steps": 60, "frame_weight": 1.0}
    fitted = HEADS["sequence"]().fit(frames, targets, hyperparameters, 0)
    _, posteriors = fitted.predict_recording(frames[0])
    expected = np.array([0, 4, 2, 1])[state[::2]]
    found = np.where(posteriors.argmax(1) > 4, 4, posteriors.argmax(1))
    assert (found == expected).mean() > 0.85
    assert fitted.predict_proba(frames).details is not None


def test_without_annotations_there_are_no_details() -> None:
    inputs, targets = data("sequence")
    hyperparameters = {**HYPERPARAMETERS["sequence"], "steps": 2}
    fitted = HEADS["sequence"]().fit(inputs, replace(targets, states=None), hyperparameters, 0)
    assert fitted.predict_proba(inputs[:3]).details is None
