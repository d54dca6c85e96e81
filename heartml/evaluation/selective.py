"""Selective prediction: which decisions are referred to a human, and how good the remaining ones are. Pure.

In: predictions as arrays, and the confidence below which a decision is referred. Out: plain values for JSON.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.core.config import EvaluateParams
from heartml.core.tasks import Task
from heartml.metrics import Metric
from heartml.metrics.scores import Floats, LabelledPredictions, metric_intervals, task_metrics


def referral(
    scored: LabelledPredictions, task: Task, refer_below: float, min_groups: int, params: EvaluateParams, seed: int
) -> dict[str, Any]:
    """Refer all decisions with a confidence below `refer_below`, and score the others.

    Returns:
        below: the limit. referred: {value, low, high}, the share of units that is referred. units, groups, absent: how
        many units and groups are decided, and the classes that none of these units has. estimable: whether these are
        enough groups. scores: the task's metrics on them, where that is so. classes: class -> how many of its units
        are referred, and how many it has.
    """
    referred = scored.confidence < refer_below
    decided = scored.take(~referred)
    groups = len(np.unique(decided.groups))
    found: dict[str, Any] = {
        "below": refer_below,
        "referred": metric_intervals([_share(referred)], scored, scored.probabilities, params, seed)["referred"],
        "units": len(decided.labels), "groups": groups, "estimable": groups >= min_groups,
        "absent": [name for c, name in enumerate(scored.classes) if not (decided.labels == c).any()],
        "classes": {name: _count(referred, scored.labels == c) for c, name in enumerate(scored.classes)},
    }
    if found["estimable"]:
        found["scores"] = metric_intervals(task_metrics(task), decided, decided.probabilities, params, seed)
    return found


def _count(referred: NDArray[np.bool_], here: NDArray[np.bool_]) -> dict[str, int]:
    return {"referred": int(referred[here].sum()), "units": int(here.sum())}


def _share(referred: NDArray[np.bool_]) -> Metric:
    """The share of referred units as a metric, so that its interval resamples groups like all other intervals."""
    def weighted(_: object, __: object, ___: object, ____: object, weights: Floats) -> Floats:
        return np.asarray(weights @ referred / weights.sum(axis=1), np.float64)

    return Metric("referred", "Referred to a human", False, weighted)
