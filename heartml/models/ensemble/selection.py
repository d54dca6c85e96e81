"""Selection: stacking features of many views `[n, columns]` in, one prediction of each unit `[n, k]` out.

Views are selected greedily with replacement (Caruana et al., Ensemble selection from libraries of models, 2004) and
their log-probabilities are averaged. A decision rule and a calibration follow. Selection maximises the likelihood,
where each class weighs as much as it does in the metric: the metric itself is too coarse to choose by. The likelihood
is taken after recalibration, because rule and calibration come later: how sure a mean is must not choose its members.
Views are selected with logistic regression as their stacker. Of a selected view the same likelihood then chooses among
logistic regression, boosted trees and the mean of both, where there are enough units to fit trees to.
Everything is fitted to out-of-fold predictions. `out_of_fold` fits all of it again without each fold.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.core.config import EnsembleParams, StackingParams
from heartml.core.tasks import Task
from heartml.metrics.class_gains import class_gains
from heartml.models.ensemble.calibration import Calibration
from heartml.models.ensemble.decision_rule import Rule, scaled
from heartml.models.ensemble.stacking import (
    Floats,
    Ints,
    Stacker,
    StackerKind,
    StackingFeatures,
    StackingView,
    mean_of_stackers,
    out_of_fold_log_p,
)
from heartml.models.heads.log_probabilities import normalise


@dataclass(frozen=True)
class FittedEnsemble:
    """Weights (summing to one) and stackers of the selected views, then the decision rule and the calibration."""

    weights: Mapping[StackingView, float]
    stackers: Mapping[StackingView, Stacker]
    rule: Rule
    calibration: Calibration

    def log_p(self, features: Mapping[StackingView, StackingFeatures]) -> Floats:
        """Stacking features of each view about `n` units -> uncalibrated log-probabilities `[n, k]`."""
        log_p = {view: self.stackers[view].predict_log_proba(features[view].clean) for view in self.weights}
        return mean_log_p(log_p, self.weights)


@dataclass(frozen=True)
class EnsemblePrediction:
    """Uncalibrated log-probabilities `[n, k]`, decisions `[n]` and calibrated probabilities `[n, k]`."""

    log_p: Floats
    decisions: Ints
    calibrated: Floats


def mean_log_p(log_p: Mapping[StackingView, Floats], weights: Mapping[StackingView, float]) -> Floats:
    """Weighted mean of log-probabilities `[n, k]` over the views in `weights`, normalised."""
    return normalise(np.sum([weight * log_p[view] for view, weight in weights.items()], axis=0))


@dataclass(frozen=True)
class EnsembleTerms:
    """The task that an ensemble is fitted for, and the parameters of the fit."""

    task: Task
    stacking: StackingParams
    ensemble: EnsembleParams


def fit(features: Mapping[StackingView, StackingFeatures], labels: Ints, groups: Ints, parts: Ints,
        terms: EnsembleTerms, *, trees: bool | None = None) -> FittedEnsemble:
    """Fit stackers, selection, decision rule and calibration to out-of-fold features of `n` units.

    Args:
        features: of every view about the units.
        labels: class of each unit `[n]`.
        groups: number of each unit's group `[n]`.
        parts: fold of each unit `[n]`. Selection and rule use stackers that were fitted without the unit's fold.
        trees: whether trees are tried as stackers; `None`: where there are enough units, `has_enough`.
    """
    params = terms.stacking
    gains = class_gains(terms.task.metric, labels, terms.task.classes)
    log_p = {view: out_of_fold_log_p(view.kind, own, labels, parts, gains, params)
             for view, own in sorted(features.items())}
    weights = select(log_p, labels, gains, terms.ensemble, params.calibration_ridge)
    models: dict[StackingView, StackerKind] = dict.fromkeys(weights, "logistic")
    for view in weights if (has_enough(labels, params) if trees is None else trees) else ():
        models[view], log_p[view] = _best_stacker(view, features[view], log_p[view], labels, parts, gains, params)
    averaged = mean_log_p(log_p, weights)
    stackers = {view: Stacker.fit(view.kind, features[view], labels, gains, params, models[view]) for view in weights}
    rule = Rule.fit(averaged, labels, gains, params.rule_temperature, params.rule_ridge)
    calibration = Calibration.fit(averaged, labels, params.calibration_ridge, len(np.unique(groups)))
    return FittedEnsemble(weights, stackers, rule, calibration)


def has_enough(labels: Ints, params: StackingParams) -> bool:
    """Whether there are enough units to fit trees to."""
    return params.trees is not None and len(labels) >= params.trees.from_units


def _best_stacker(view: StackingView, features: StackingFeatures, logistic: Floats, labels: Ints, parts: Ints,
                  gains: Floats, params: StackingParams) -> tuple[StackerKind, Floats]:
    """The stacker with the least `loss` out of fold, and its log-probabilities; the first of equals.

    Args:
        logistic: those of logistic regression `[n, k]`.
    """
    if view.kind == "direct":
        return "logistic", logistic
    boosted = out_of_fold_log_p(view.kind, features, labels, parts, gains, params, "trees")
    found: list[tuple[StackerKind, Floats]] = [
        ("logistic", logistic), ("trees", boosted), ("mean", mean_of_stackers(logistic, boosted))]
    return min(found, key=lambda one: loss(one[1], labels, gains, params.calibration_ridge))


def select(
    log_p: Mapping[StackingView, Floats], labels: Ints, gains: Floats, params: EnsembleParams, ridge: float
) -> dict[StackingView, float]:
    """Weights of the views: `rounds` times the view is added that lowers the mean's loss most.

    Args:
        log_p: out-of-fold log-probabilities of each view `[n, k]`.
        gains: weight of each class `[k]`.
        params: `max_members` limits the number of different members (trials, or groups of averaged networks).
        ridge: of the recalibration, see `loss`.
    """
    chosen: list[StackingView] = []
    total = np.zeros((len(labels), len(gains)))
    for _ in range(params.rounds):
        members = {view.trials for view in chosen}
        allowed = [view for view in log_p if len(members) < params.max_members or view.trials in members]
        losses = [loss((total + log_p[view]) / (len(chosen) + 1), labels, gains, ridge) for view in allowed]
        chosen.append(allowed[int(np.argmin(losses))])
        total = total + log_p[chosen[-1]]
    return {view: count / params.rounds for view, count in sorted(Counter(chosen).items())}


def loss(log_p: Floats, labels: Ints, gains: Floats, ridge: float) -> float:
    """Negative log-likelihood of `[n, k]` after recalibration; a unit weighs as much as the gain of its class."""
    weights: NDArray[np.float64] = gains[labels]
    scale, biases = scaled(log_p, labels, weights, ridge)
    own = normalise(scale * log_p + biases)[np.arange(len(labels)), labels]
    return float(-(weights * own).sum() / weights.sum())


def predict_proba(ensemble: FittedEnsemble, features: Mapping[StackingView, StackingFeatures]) -> EnsemblePrediction:
    """Predict `n` units from their stacking features."""
    log_p = ensemble.log_p(features)
    return EnsemblePrediction(log_p, ensemble.rule.predict(log_p), ensemble.calibration.predict_proba(log_p))


def out_of_fold(features: Mapping[StackingView, StackingFeatures], labels: Ints, groups: Ints, parts: Ints,
                terms: EnsembleTerms) -> EnsemblePrediction:
    """Predict each fold with an ensemble that was selected and fitted on the other folds; arguments as in `fit`."""
    log_p, calibrated = np.zeros((2, len(labels), len(terms.task.classes)))
    decisions = np.zeros(len(labels), np.int64)
    trees = has_enough(labels, terms.stacking)      # as in the ensemble of all units
    for part in np.unique(parts):
        here = parts == part
        others = {view: own.subset(~here) for view, own in features.items()}
        fitted = fit(others, labels[~here], groups[~here], parts[~here], terms, trees=trees)
        found = predict_proba(fitted, {view: own.subset(here) for view, own in features.items()})
        log_p[here], decisions[here], calibrated[here] = found.log_p, found.decisions, found.calibrated
    return EnsemblePrediction(log_p, decisions, calibrated)
