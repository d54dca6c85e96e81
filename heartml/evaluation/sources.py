"""The score of a mean source: what telling the sources apart cannot raise.

In: predictions and the source of each unit. Out: the task's metric within each source, averaged over the sources. A
pooled score can lie far above it where classes are mixed differently in each source.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.tasks import Task
from heartml.evaluation.parts import AssessmentRules
from heartml.metrics import METRICS, Metric, Weighted
from heartml.metrics.functions import Classes, Floats, Ints
from heartml.metrics.scores import NOT_GIVEN, LabelledPredictions, metric_intervals


def mean_over_sources(
    scored: LabelledPredictions, sources: Sequence[Any], task: Task, rules: AssessmentRules
) -> dict[str, Any] | None:
    """The task's metric, averaged over the sources that have enough groups, each counted once.

    Args:
        scored: predictions for n units.
        sources: of each unit, [n]; those without one are a source of their own, as among the subgroups.

    Returns:
        value, low and high (groups are drawn again), and `sources`, how many were averaged. `None` where fewer than two
        sources have `min_groups` groups and a score.
    """
    names = pd.Series(list(sources), dtype="string").fillna(NOT_GIVEN).to_numpy(str)
    rows = [names == name for name in np.unique(names)]
    metric = METRICS[task.metric]
    large = [own for own in rows
             if len(np.unique(scored.groups[own])) >= rules.min_groups and _has_score(metric, scored.take(own))]
    if len(large) < 2:
        return None
    averaged = Metric(metric.name, metric.title, metric.greater_is_better, _averaged(metric, large))
    number = metric_intervals([averaged], scored, scored.probabilities, rules.params, rules.seed)[metric.name]
    return {**number, "sources": len(large)}


def _has_score(metric: Metric, part: LabelledPredictions) -> bool:
    return not np.isnan(metric.function(part.labels, part.probabilities, part.decisions, part.classes))


def _averaged(metric: Metric, rows: Sequence[NDArray[np.bool_]]) -> Weighted:
    """`Metric.weighted` of the mean over sources; one that a resample does not draw is left out of its mean."""
    def weighted(labels: Ints, p: Floats, decisions: Ints, classes: Classes, weights: Floats) -> Floats:
        labels, decisions = np.asarray(labels), np.asarray(decisions)
        values = np.stack([metric.weighted(labels[own], p[own], decisions[own], classes, weights[:, own])
                           for own in rows])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)      # the mean of nothing is NaN, as it should be
            mean: Floats = np.nanmean(values, axis=0)
        return mean

    return weighted
