"""Checks of a model's input that accept or refuse everything by distance: real classes, made by hand in no time."""

import numpy as np

from heartml.models.applicability import CONDITION_COUNT, Applicability, Reference
from heartml.models.applicability.heart_evidence import evidence
from heartml.models.applicability.signal_limits import SignalLimits
from heartml.models.heads import Targets, extra_trees


def checks(farthest: float) -> Applicability:
    """Every recording lies at a distance of about ten, and no condition is unusual."""
    vectors = np.random.default_rng(0).normal(size=(40, len(evidence(np.zeros((9, 48), np.float32), 50.0))))
    targets = Targets(np.zeros(40, np.int64), CONDITION_COUNT, np.arange(40))
    forest = extra_trees.fit(vectors, targets, {"trees": 2, "least_leaf": 5, "columns": 0.2, "balance": 0.0}, 0)
    reference = Reference("training", np.full(96, 10.0), np.eye(96) / 96, farthest, 1.0)
    return Applicability(forest, (reference,), SignalLimits(1.5, 0.002, 0.01, 0.5))
