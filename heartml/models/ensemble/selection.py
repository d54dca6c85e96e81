"""Many views, one prediction: greedy selection, a mean of log-probabilities, a decision rule and a calibration.

Greedy selection with replacement (Caruana et al., Ensemble selection from libraries of models, 2004), scored by the
likelihood weighted by what the metric pays for each class: the metric itself is too coarse to choose by. It is the
likelihood after recalibration, since rule and calibration come after: how sharp a mean is must not choose its members.
Everything here is fitted to out-of-fold predictions, and `cross_fitted` fits all of it anew without each fold.
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
from heartml.models.ensemble.stacking import Floats, Ints, Stacker, StackingFeatures, StackingView, out_of_fold_log_p
from heartml.models.heads.log_probabilities import normalise


@dataclass(frozen=True)
class FittedEnsemble:
    """Weights (summing to one) and stackers of the selected views, in the order of the views."""

    weights: Mapping[StackingView, float]
    stackers: Mapping[StackingView, Stacker]
    rule: Rule
    calibration: Calibration

    def log_p(self, seen: Mapping[StackingView, StackingFeatures]) -> Floats:
        """Evidence of each view about `n` units as recorded -> log-probabilities `[n, k]`."""
        return mean_log_p({r: self.stackers[r].predict_log_proba(seen[r].clean) for r in self.weights}, self.weights)


@dataclass(frozen=True)
class EnsemblePrediction:
    """Log-probabilities `[n, k]`, decisions `[n]`, calibrated probabilities `[n, k]`."""

    log_p: Floats
    decisions: Ints
    calibrated: Floats


def mean_log_p(log_p: Mapping[StackingView, Floats], weights: Mapping[StackingView, float]) -> Floats:
    """Weighted mean of log-probabilities, normalised."""
    return normalise(np.sum([weight * log_p[view] for view, weight in weights.items()], axis=0))


@dataclass(frozen=True)
class EnsembleTerms:
    """What a combination is fitted for, and with which numbers."""

    task: Task
    stacking: StackingParams
    ensemble: EnsembleParams


def fit(seen: Mapping[StackingView, StackingFeatures], labels: Ints, parts: Ints,
        terms: EnsembleTerms) -> FittedEnsemble:
    """Select, read, decide and calibrate from out-of-fold features of `n` units.

    Args:
        seen: features of every view about the units.
        parts: fold of each unit `[n]`; stackers are cross-fitted over these.
    """
    params = terms.stacking
    gains = class_gains(terms.task.metric, labels, terms.task.classes)
    log_p = {r: out_of_fold_log_p(r.kind, e, labels, parts, gains, params) for r, e in sorted(seen.items())}
    weights = select(log_p, labels, gains, terms.ensemble, params.calibration_ridge)
    together = mean_log_p(log_p, weights)
    stackers = {r: Stacker.fit(r.kind, seen[r], labels, gains, params) for r in weights}
    rule = Rule.fit(together, labels, gains, params.rule_temperature, params.rule_ridge)
    return FittedEnsemble(weights, stackers, rule, Calibration.fit(together, labels, params.calibration_ridge))


def select(
    log_p: Mapping[StackingView, Floats], labels: Ints, gains: Floats, params: EnsembleParams, ridge: float
) -> dict[StackingView, float]:
    """Add, `rounds` times, the view that helps the mean most; at most `max_members` trials or committees."""
    chosen: list[StackingView] = []
    total = np.zeros((len(labels), len(gains)))
    for _ in range(params.rounds):
        members = {view.trials for view in chosen}
        allowed = [r for r in log_p if len(members) < params.max_members or r.trials in members]
        losses = [loss((total + log_p[r]) / (len(chosen) + 1), labels, gains, ridge) for r in allowed]
        chosen.append(allowed[int(np.argmin(losses))])
        total = total + log_p[chosen[-1]]
    return {view: count / params.rounds for view, count in sorted(Counter(chosen).items())}


def loss(log_p: Floats, labels: Ints, gains: Floats, ridge: float) -> float:
    """Negative log-likelihood after recalibration, units weighted by the gain of their class."""
    weights: NDArray[np.float64] = gains[labels]
    scale, biases = scaled(log_p, labels, weights, ridge)
    own = normalise(scale * log_p + biases)[np.arange(len(labels)), labels]
    return float(-(weights * own).sum() / weights.sum())


def predict_proba(combination: FittedEnsemble, seen: Mapping[StackingView, StackingFeatures]) -> EnsemblePrediction:
    """What a combination says about units."""
    log_p = combination.log_p(seen)
    return EnsemblePrediction(log_p, combination.rule.predict(log_p), combination.calibration.predict_proba(log_p))


def out_of_fold(seen: Mapping[StackingView, StackingFeatures], labels: Ints, parts: Ints,
                terms: EnsembleTerms) -> EnsemblePrediction:
    """Verdicts about each fold from a combination that was selected and fitted on the other folds."""
    log_p, calibrated = np.zeros((2, len(labels), len(terms.task.classes)))
    decisions = np.zeros(len(labels), np.int64)
    for part in np.unique(parts):
        here = parts == part
        fitted = fit({r: e.of(~here) for r, e in seen.items()}, labels[~here], parts[~here], terms)
        verdicts = predict_proba(fitted, {r: e.of(here) for r, e in seen.items()})
        log_p[here], decisions[here], calibrated[here] = verdicts.log_p, verdicts.decisions, verdicts.calibrated
    return EnsemblePrediction(log_p, decisions, calibrated)
