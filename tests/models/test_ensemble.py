"""Stacking, selection, decision rule and calibration; and the stage that makes the model of them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import search_project
from support.search_project import NAME, ROOT
from threadpoolctl import threadpool_limits

from heartml.core import config, paths
from heartml.core.config import EnsembleParams
from heartml.core.stage import StageError
from heartml.core.system.hashing import sha256_file, sha256_folder
from heartml.core.tasks import TASKS
from heartml.metrics import METRICS
from heartml.metrics.class_gains import class_gains
from heartml.models.ensemble import selection, stacking_trees
from heartml.models.ensemble.calibration import Calibration
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.decision_rule import Rule
from heartml.models.ensemble.selection import EnsembleTerms
from heartml.models.ensemble.stacking import (
    Stacker,
    StackingFeatures,
    StackingView,
    out_of_fold_log_p,
    stacking_features,
    view_kinds,
)
from heartml.models.fitted_model import Model
from heartml.models.heads import HeadPrediction
from heartml.models.heads.log_probabilities import normalise
from heartml.models.heads.softmax import Softmax
from heartml.reporting import task_report
from heartml.stages import ensemble, search

PARAMS = config.load(ROOT / "params.yaml")
TERMS = EnsembleTerms(TASKS["murmur"], PARAMS.stacking, PARAMS.ensemble)
K = 3
SMALL = {"trials": 5, "network_trials": {"sequence": 1}, "batch": 3, "pruning_startup_trials": 9, "tasks": {},
         "heads": ["logistic", "lightgbm", "svm_rbf", "sequence"],
         "network_parameters": {"sequence": {"encoders": ["logspec"], "steps": 8, "batch": 8, "channels": 8}},
         "initial_trials": [
             {"encoder": "logspec", "level": "recording", "pooling": None, "head": "sequence",
              "hyperparameters": {"dropout": 0.1, "rate": 0.005, "frame_weight": 1.0, "strength": 0.5}},
             {"encoder": "logspec", "level": "unit", "pooling": "statistics", "head": "logistic",
              "hyperparameters": {"c": 0.01, "balance": 1.0}},
             {"encoder": "logspec", "level": "recording", "pooling": "modulation", "head": "lightgbm",
              "hyperparameters": {"trees": 40, "leaves": 4, "rate": 0.1, "columns": 0.4, "least_cases": 5,
                                  "balance": 0.5}}]}


def units(n: int = 240, seed: int = 0, skill: float = 1.5):
    """Labels, folds and log-probabilities that know something about the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=[0.2, 0.1, 0.7])
    return labels, np.arange(n) % 5, normalise(rng.normal(size=(n, K)) + skill * np.eye(K)[labels]), rng


@pytest.mark.parametrize("metric", ["accuracy", "uar", "weighted_accuracy", "weighted_accuracy_and_uar",
                                    "accuracy_and_uar"])
def test_a_metric_is_the_sum_of_its_gains(metric: str) -> None:
    labels, _, _, rng = units()
    classes = TASKS["murmur"].classes
    decisions = rng.integers(0, K, len(labels))
    gains = class_gains(metric, labels, classes)
    value = METRICS[metric].function(labels, np.eye(K)[decisions], decisions, classes)
    assert (gains[labels] * (labels == decisions)).sum() / gains[labels].sum() == pytest.approx(value)


def test_where_decisions_do_not_count_all_units_do() -> None:
    labels = units()[0]
    np.testing.assert_allclose(class_gains("macro_auc", labels, TASKS["murmur"].classes), 1)


def test_the_rule_moves_decisions_towards_the_metric() -> None:
    labels, _, log_p, _ = units(4000)
    skewed = log_p + np.array([-1.5, 1.5, 1.0])
    classes, uar = TASKS["murmur"].classes, METRICS["uar"]
    rule = Rule.fit(skewed, labels, class_gains("uar", labels, classes), temperature=0.2, ridge=1e-4)
    found = uar.function(labels, np.exp(log_p), rule.predict(skewed), classes)
    assert found > uar.function(labels, np.exp(log_p), skewed.argmax(1), classes) + 0.1
    assert found > uar.function(labels, np.exp(log_p), log_p.argmax(1), classes) - 0.01


def test_the_ridge_leaves_decisions_alone_where_units_are_few() -> None:
    labels, _, log_p, _ = units(40)
    gains = class_gains("uar", labels, TASKS["murmur"].classes)
    sizes = [np.abs(Rule.fit(log_p, labels, gains, 0.2, ridge).biases).max() for ridge in (1e-3, 0.1, 10)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.05


def test_decisions_come_from_the_rule_and_probabilities_do_not() -> None:
    labels, parts, log_p, _ = units()
    seen = {StackingView((0,), "direct"): StackingFeatures(log_p)}
    fitted = selection.fit(seen, labels, np.arange(len(labels)), parts, TERMS)
    other = selection.FittedEnsemble(fitted.weights, fitted.stackers, Rule(np.array([9.0, 0, 0])), fitted.calibration)
    first, second = selection.predict_proba(fitted, seen), selection.predict_proba(other, seen)
    np.testing.assert_array_equal(first.log_p, second.log_p)
    np.testing.assert_array_equal(first.calibrated, second.calibrated)
    assert (second.decisions == 0).all()


def test_calibration_changes_confidence_and_no_decision() -> None:
    labels, parts, log_p, _ = units(2000)
    seen = {StackingView((0,), "direct"): StackingFeatures(normalise(4 * log_p))}      # four times too sure
    fitted = selection.fit(seen, labels, np.arange(len(labels)), parts, TERMS)
    other = selection.FittedEnsemble(fitted.weights, fitted.stackers, fitted.rule, Calibration(1.0, np.zeros(K)))
    first, second = selection.predict_proba(fitted, seen), selection.predict_proba(other, seen)
    np.testing.assert_array_equal(first.decisions, second.decisions)
    np.testing.assert_allclose(first.calibrated.sum(1), 1)
    ece, classes = METRICS["ece"], TASKS["murmur"].classes
    before, after = (ece.function(labels, p, first.decisions, classes) for p in (np.exp(first.log_p), first.calibrated))
    assert after < 0.05 < before


def macro_auc(labels: np.ndarray, log_p: np.ndarray) -> float:
    return METRICS["macro_auc"].function(labels, np.exp(log_p), labels, TASKS["murmur"].classes)


def useless(seed: int, n: int = 150):
    rng = np.random.default_rng(seed)
    wide = {StackingView((t,), "segments"): StackingFeatures(rng.normal(size=(n, 30)),
                                                             rng.normal(size=(n, 30))) for t in range(2)}
    narrow = {StackingView((t,), "direct"): StackingFeatures(normalise(rng.normal(size=(n, K)))) for t in range(2, 8)}
    return {**wide, **narrow}, rng.choice(K, n, p=[0.3, 0.2, 0.5]), np.arange(n) % 5


def test_useless_features_score_at_chance_out_of_fold_and_above_when_not() -> None:
    out_of_fold, same = [], []
    for seed in range(6):
        seen, labels, parts = useless(seed)
        known = (seen, labels, np.arange(len(labels)), parts, TERMS)
        out_of_fold.append(macro_auc(labels, selection.out_of_fold(*known).log_p))
        same.append(macro_auc(labels, selection.predict_proba(selection.fit(*known), seen).log_p))
    assert np.mean(out_of_fold) == pytest.approx(0.5, abs=0.06)
    assert np.mean(same) > 0.62      # what out-of-fold fits are there to prevent


def test_a_folds_own_labels_do_not_change_its_predictions() -> None:
    seen, labels, parts = useless(1)
    first = selection.out_of_fold(seen, labels, np.arange(len(labels)), parts, TERMS)
    turned = np.where(parts == 3, (labels + 1) % K, labels)
    second = selection.out_of_fold(seen, turned, np.arange(len(labels)), parts, TERMS)
    for one, two in ((first.log_p, second.log_p), (first.decisions, second.decisions),
                     (first.calibrated, second.calibrated)):
        np.testing.assert_array_equal(one[parts == 3], two[parts == 3])
    assert not np.allclose(first.log_p[parts == 2], second.log_p[parts == 2])


def test_how_sure_a_prediction_is_does_not_choose_it() -> None:
    labels, _, good, _ = units(600)
    even = np.ones(K)
    soft, right, sharp = (selection.loss(normalise(s * good), labels, even, 1e-6) for s in (0.2, 1.0, 5.0))
    assert soft == pytest.approx(right, abs=1e-4) and sharp == pytest.approx(right, abs=1e-4)


def test_selection_takes_what_helps_and_not_more_than_allowed() -> None:
    labels, _, good, rng = units(600)
    second = normalise(rng.normal(size=good.shape) + 1.5 * np.eye(K)[labels])
    noise = {StackingView((t,), "direct"): normalise(3 * rng.normal(size=good.shape)) for t in range(2, 20)}
    log_p = {StackingView((0,), "direct"): good, StackingView((1,), "direct"): second, **noise}
    weights = selection.select(log_p, labels, np.ones(K), EnsembleParams(rounds=10, max_members=5), 0.01)
    assert sum(weights.values()) == pytest.approx(1)
    assert {r.trials for r in weights} == {(0,), (1,)}
    alone = selection.select(log_p, labels, np.ones(K), EnsembleParams(rounds=10, max_members=1), 0.01)
    assert len(alone) == 1
    assert selection.loss(selection.mean_log_p(log_p, weights), labels, np.ones(K), 0.01) < min(
        selection.loss(p, labels, np.ones(K), 0.01) for p in log_p.values())


def test_the_order_of_recordings_of_a_patient_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    prediction = HeadPrediction(np.log(rng.dirichlet(np.ones(K), 12)), rng.normal(size=(12, 4)))
    unit = np.array([0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 1, 0])
    order = rng.permutation(12)
    mixed = HeadPrediction(prediction.log_p[order], prediction.details[order])
    for kind in ("stack", "segments"):
        one, other = stacking_features(kind, prediction, unit), stacking_features(kind, mixed, unit[order])
        np.testing.assert_allclose(one.clean, other.clean)


def test_kinds_of_view_follow_level_and_unit() -> None:
    about_recordings = CandidateSpec("logspec", "sequence", "recording", None, {})
    about_units = CandidateSpec("logspec", "logistic", "unit", "moments", {})
    plain, detailed = HeadPrediction(np.zeros((2, K))), HeadPrediction(np.zeros((2, K)), np.zeros((2, 4)))
    assert view_kinds(about_recordings, TASKS["murmur"], plain) == ("stack",)
    assert view_kinds(about_recordings, TASKS["murmur"], detailed) == ("stack", "segments")
    assert view_kinds(about_units, TASKS["murmur"], plain) == ("direct",)
    assert view_kinds(about_recordings, TASKS["sounds"], plain) == ("direct",)


def test_a_stacker_is_fitted_without_the_fold_it_predicts() -> None:
    labels, parts, log_p, _ = units()
    seen = StackingFeatures(np.hstack([log_p, log_p]), np.hstack([log_p, log_p]) / 2)
    first = out_of_fold_log_p("stack", seen, labels, parts, np.ones(K), PARAMS.stacking)
    turned = np.where(parts == 0, (labels + 1) % K, labels)
    second = out_of_fold_log_p("stack", seen, turned, parts, np.ones(K), PARAMS.stacking)
    np.testing.assert_array_equal(first[parts == 0], second[parts == 0])


def test_a_stacker_fitted_with_noise_is_better_in_noise_and_as_good_without() -> None:
    labels, _, log_p, rng = units(1200)
    clean = np.tile(log_p, (1, 4))
    noisy = clean + 3.0 * (np.arange(4 * K) % K == 0)      # noise looks like the first class
    noisy[:, :3] = rng.normal(size=(len(noisy), 3))
    learn, ask = np.arange(len(labels)) % 2 == 0, np.arange(len(labels)) % 2 == 1
    both = StackingFeatures(clean, noisy)
    with_noise, without = (Stacker.fit("stack", e.subset(learn), labels[learn], np.ones(K), PARAMS.stacking)
                           for e in (both, StackingFeatures(clean)))

    def right(stacker: Stacker, columns: np.ndarray) -> float:
        return float((stacker.predict_log_proba(columns[ask]).argmax(1) == labels[ask]).mean())

    assert right(with_noise, noisy) > right(without, noisy) + 0.1
    assert right(with_noise, clean) > right(without, clean) - 0.03


def bent(n: int, seed: int = 0) -> tuple[dict[StackingView, StackingFeatures], np.ndarray, np.ndarray]:
    """A view whose class depends on how far a column lies from zero, which no linear score sees; labels and folds."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(n, 4 * K))
    labels = (np.abs(columns[:, 0]) > 0.67).astype(np.int64)
    labels[rng.choice(n, n // 12, replace=False)] = 2
    return {StackingView((0,), "stack"): StackingFeatures(columns)}, labels, np.arange(n) % 5


def terms_from(units_needed: int) -> EnsembleTerms:
    assert PARAMS.stacking.trees is not None
    trees = PARAMS.stacking.trees.model_copy(update={"from_units": units_needed})
    return replace(TERMS, stacking=PARAMS.stacking.model_copy(update={"trees": trees}))


def test_the_likelihood_chooses_the_stacker_and_few_units_have_no_choice() -> None:
    (features, labels, parts), groups = bent(300), np.arange(300)
    [view] = features
    fitted = {n: selection.fit(features, labels, groups, parts, terms_from(n)).stackers[view] for n in (300, 301)}
    assert {n: one.kind for n, one in fitted.items()} == {300: "trees", 301: "logistic"}
    unseen, truth, _ = bent(600, seed=9)
    right = {n: (one.predict_log_proba(unseen[view].clean).argmax(1) == truth).mean() for n, one in fitted.items()}
    assert right[300] > right[301] + 0.15
    known, _, log_p, _ = units(300)
    plain = {view: StackingFeatures(np.tile(log_p, (1, 4)))}      # the columns are log-probabilities: a linear score
    assert selection.fit(plain, known, groups, parts, terms_from(300)).stackers[view].kind != "trees"


def test_trees_are_kept_as_bytes_and_answer_alike() -> None:
    (features, labels, _), params = bent(120), PARAMS.stacking.trees
    assert params is not None
    [columns] = features.values()
    fitted = stacking_trees.fit(columns.clean, labels, np.ones(K), params)
    stored = stacking_trees.as_array(fitted)
    again = stacking_trees.from_array(stored)
    assert np.array_equal(again.predict_proba(columns.clean).log_p, fitted.predict_proba(columns.clean).log_p)
    assert np.array_equal(stacking_trees.as_array(again), stored)


def test_the_mean_of_both_stackers_is_chosen_where_it_is_better_and_is_that_mean(monkeypatch) -> None:
    (features, labels, parts), groups = bent(60), np.arange(60)
    [view] = features
    asked: list[np.ndarray] = []

    def loss(log_p: np.ndarray, *_given: object) -> float:
        asked.append(log_p)
        return -float(len(asked) == 4)       # once for the selection; then logistic, trees, mean

    monkeypatch.setattr(selection, "loss", loss)
    terms = terms_from(60)
    terms = replace(terms, ensemble=terms.ensemble.model_copy(update={"rounds": 1}))
    stacker = selection.fit(features, labels, groups, parts, terms).stackers[view]
    assert stacker.kind == "mean" and stacker.softmax is not None and stacker.trees is not None
    columns = features[view].clean
    both = stacker.softmax.predict_log_proba(columns) + stacker.trees.predict_proba(columns).log_p
    np.testing.assert_allclose(stacker.predict_log_proba(columns), normalise(both / 2))
    np.testing.assert_allclose(asked[3], normalise((asked[1] + asked[2]) / 2))
    own = Stacker.from_arrays({key: np.array(value) for key, value in stacker.arrays().items()})
    np.testing.assert_array_equal(own.predict_log_proba(columns), stacker.predict_log_proba(columns))
    with pytest.raises(KeyError):
        Softmax.from_arrays(stacker.arrays())      # as a version before this one reads it


def test_trees_of_a_fold_never_saw_its_labels_and_the_choice_is_that_of_all_units(monkeypatch) -> None:
    features, labels, parts = bent(120)
    [view] = features
    turned = np.where(parts == 0, 1 - labels.clip(0, 1), labels)
    first, second = (out_of_fold_log_p("stack", features[view], given, parts, np.ones(K), terms_from(1).stacking,
                                       "trees") for given in (labels, turned))
    np.testing.assert_array_equal(first[parts == 0], second[parts == 0])
    tried: list[bool] = []
    fit = selection.fit
    monkeypatch.setattr(selection, "fit", lambda *given, trees: (tried.append(trees), fit(*given, trees=trees))[1])
    selection.out_of_fold(features, labels, np.arange(120), parts, terms_from(120))
    assert tried == [True] * 5, "although a fold leaves fewer than 120"


def test_an_ensemble_with_trees_is_saved_read_and_told(built: Path, tmp_path: Path) -> None:
    model = Model.load(built / paths.model(NAME))
    view = next(view for view in model.ensemble.weights if view.kind != "direct")
    size = len(model.ensemble.stackers[view].softmax.scale.mean)
    rng = np.random.default_rng(0)
    stacker = Stacker.fit(view.kind, StackingFeatures(rng.normal(size=(90, size))), np.arange(90) % K, np.ones(K),
                          terms_from(1).stacking, "mean")
    changed = replace(model, ensemble=replace(model.ensemble, stackers={**model.ensemble.stackers, view: stacker}))
    (tmp_path / "model").mkdir()
    changed.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    columns = rng.normal(size=(7, size))
    np.testing.assert_array_equal(again.ensemble.stackers[view].predict_log_proba(columns),
                                  stacker.predict_log_proba(columns))
    saved = json.loads((tmp_path / "model/model.json").read_text())
    rows = [one for one in saved["readings"] if "stacker" in one]
    assert [(tuple(one["trials"]), one["stacker"]) for one in rows] == [(view.trials, "mean")]
    assert any("by logistic regression and trees" in cell for row in task_report.members_table(saved)["rows"]
               for cell in row)
    assert not any("stacker" in one for one in json.loads((built / paths.model(NAME) / "model.json").read_text())[
        "readings"])


def test_features_with_noise_are_made_for_stacked_views_and_not_for_direct_ones() -> None:
    prediction, worse = HeadPrediction(np.zeros((2, K))), HeadPrediction(np.ones((2, K)))
    assert stacking_features("direct", prediction, np.arange(2), worse).noisy is None
    assert stacking_features("stack", prediction, np.arange(2)).noisy is None
    np.testing.assert_array_equal(stacking_features("stack", prediction, np.arange(2), worse).noisy,
                                  np.ones((2, 4 * K)))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the stage; two threads on such small matrices take ten times as long."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        search_project.write(root, **SMALL)
        search.run(NAME)
        ensemble.run(NAME)
    return root


def test_out_of_fold_has_every_unit_once_and_no_held_out_one(built: Path) -> None:
    folds = pd.read_parquet(built / paths.folds(NAME)).drop_duplicates("unit_id").set_index("unit_id")
    table = pd.read_parquet(built / paths.out_of_fold(NAME)).set_index("unit_id")
    known = folds[folds["part"] != "test"]
    assert sorted(table.index) == sorted(known.index)
    assert (table.loc[known.index, ["group_id", "label", "part"]] == known[["group_id", "label", "part"]]).all(None)
    for kind in "pc":
        np.testing.assert_allclose(table[[f"{kind}_{name}" for name in TASKS["murmur"].classes]].sum(axis=1), 1)
    assert set(table["decision"]) <= set(TASKS["murmur"].classes)


def test_it_learns_from_what_can_be_heard(built: Path) -> None:
    table = pd.read_parquet(built / paths.out_of_fold(NAME))
    assert (table["label"] == table["decision"]).mean() > 0.7


def test_the_stage_again_gives_the_same_bytes(built: Path, monkeypatch) -> None:
    monkeypatch.chdir(built)
    before = sha256_folder(paths.model(NAME)), sha256_file(paths.out_of_fold(NAME))
    ensemble.run(NAME)
    assert (sha256_folder(paths.model(NAME)), sha256_file(paths.out_of_fold(NAME))) == before
    assert list((built / ".heartml/pooled").iterdir()) == [], "pooled vectors go when nobody needs them any more"


def test_a_search_on_other_folds_is_refused(built: Path, tmp_path: Path, monkeypatch) -> None:
    import shutil

    shutil.copytree(built, tmp_path / "other")
    monkeypatch.chdir(tmp_path / "other")
    folds = pd.read_parquet(paths.folds(NAME))
    folds.iloc[::-1].to_parquet(paths.folds(NAME))
    with pytest.raises(StageError, match="other folds"):
        ensemble.run(NAME)
