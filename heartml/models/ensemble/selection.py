"""Many readings, one answer: greedy selection, a mean of log-probabilities, a decision rule and a calibration.

Greedy selection with replacement (Caruana et al., Ensemble selection from libraries of models, 2004), scored by the
likelihood weighted by what the metric pays for each class: the metric itself is too coarse to choose by. It is the
likelihood after recalibration, since rule and calibration come after: how sharp a mean is must not choose its members.
Everything here is fitted to out-of-fold answers, and `cross_fitted` fits all of it anew without each fold.
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
from heartml.models.ensemble.candidate import normalised
from heartml.models.ensemble.decision_rule import Rule, scaled
from heartml.models.ensemble.stacking import Evidence, Floats, Ints, Reader, Reading, cross_read


@dataclass(frozen=True)
class Combination:
    """Weights (summing to one) and readers of the selected readings, in the order of the readings."""

    weights: Mapping[Reading, float]
    readers: Mapping[Reading, Reader]
    rule: Rule
    calibration: Calibration

    def log_p(self, seen: Mapping[Reading, Evidence]) -> Floats:
        """Evidence of each reading about `n` units as recorded -> log-probabilities `[n, k]`."""
        return mean({r: self.readers[r](seen[r].heard) for r in self.weights}, self.weights)


@dataclass(frozen=True)
class Verdicts:
    """Log-probabilities `[n, k]`, decisions `[n]`, calibrated probabilities `[n, k]`."""

    log_p: Floats
    decisions: Ints
    calibrated: Floats


def mean(log_p: Mapping[Reading, Floats], weights: Mapping[Reading, float]) -> Floats:
    """Weighted mean of log-probabilities, normalised."""
    return normalised(np.sum([weight * log_p[reading] for reading, weight in weights.items()], axis=0))


@dataclass(frozen=True)
class Terms:
    """What a combination is fitted for, and with which numbers."""

    task: Task
    stacking: StackingParams
    ensemble: EnsembleParams


def fit(seen: Mapping[Reading, Evidence], labels: Ints, parts: Ints, terms: Terms) -> Combination:
    """Select, read, decide and calibrate from out-of-fold evidence of `n` units.

    Args:
        seen: evidence of every reading about the units.
        parts: fold of each unit `[n]`; readers are cross-fitted over these.
    """
    params = terms.stacking
    gains = class_gains(terms.task.metric, labels, terms.task.classes)
    log_p = {r: cross_read(r.kind, e, labels, parts, gains, params) for r, e in sorted(seen.items())}
    weights = select(log_p, labels, gains, terms.ensemble, params.calibration_ridge)
    together = mean(log_p, weights)
    readers = {r: Reader.fit(r.kind, seen[r], labels, gains, params) for r in weights}
    rule = Rule.fit(together, labels, gains, params.rule_temperature, params.rule_ridge)
    return Combination(weights, readers, rule, Calibration.fit(together, labels, params.calibration_ridge))


def select(
    log_p: Mapping[Reading, Floats], labels: Ints, gains: Floats, params: EnsembleParams, ridge: float
) -> dict[Reading, float]:
    """Add, `rounds` times, the reading that helps the mean most; at most `max_members` trials or committees."""
    chosen: list[Reading] = []
    total = np.zeros((len(labels), len(gains)))
    for _ in range(params.rounds):
        members = {reading.trials for reading in chosen}
        allowed = [r for r in log_p if len(members) < params.max_members or r.trials in members]
        losses = [loss((total + log_p[r]) / (len(chosen) + 1), labels, gains, ridge) for r in allowed]
        chosen.append(allowed[int(np.argmin(losses))])
        total = total + log_p[chosen[-1]]
    return {reading: count / params.rounds for reading, count in sorted(Counter(chosen).items())}


def loss(log_p: Floats, labels: Ints, gains: Floats, ridge: float) -> float:
    """Negative log-likelihood after recalibration, units weighted by the gain of their class."""
    weights: NDArray[np.float64] = gains[labels]
    scale, biases = scaled(log_p, labels, weights, ridge)
    own = normalised(scale * log_p + biases)[np.arange(len(labels)), labels]
    return float(-(weights * own).sum() / weights.sum())


def judge(combination: Combination, seen: Mapping[Reading, Evidence]) -> Verdicts:
    """What a combination says about units."""
    log_p = combination.log_p(seen)
    return Verdicts(log_p, combination.rule.decide(log_p), combination.calibration(log_p))


def cross_fitted(seen: Mapping[Reading, Evidence], labels: Ints, parts: Ints, terms: Terms) -> Verdicts:
    """Verdicts about each fold from a combination that was selected and fitted on the other folds."""
    log_p, calibrated = np.zeros((2, len(labels), len(terms.task.classes)))
    decisions = np.zeros(len(labels), np.int64)
    for part in np.unique(parts):
        here = parts == part
        fitted = fit({r: e.of(~here) for r, e in seen.items()}, labels[~here], parts[~here], terms)
        verdicts = judge(fitted, {r: e.of(here) for r, e in seen.items()})
        log_p[here], decisions[here], calibrated[here] = verdicts.log_p, verdicts.decisions, verdicts.calibrated
    return Verdicts(log_p, decisions, calibrated)
