"""Leaving unsure decisions to a human: how many that are, whose they are, and what the others are worth. Pure.

In: predictions as arrays and the confidence below which a decision is referred. Out: plain values for JSON.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.core.config import EvaluateParams
from heartml.core.tasks import Task
from heartml.metrics import Metric
from heartml.metrics.scores import Floats, Scored, intervals, task_metrics


def referral(
    scored: Scored, task: Task, refer_below: float, min_groups: int, params: EvaluateParams, seed: int
) -> dict[str, Any]:
    """What becomes of decisions whose confidence lies below `refer_below`.

    Returns:
        below; referred: {value, low, high}, share of the units; units, groups and absent classes of those that are
        decided, estimable, and where it is: `scores`, the task's metrics on these; classes: class -> how many of its
        units are referred, and how many there are.
    """
    referred = scored.confidence < refer_below
    decided = scored.take(~referred)
    groups = len(np.unique(decided.groups))
    found: dict[str, Any] = {
        "below": refer_below,
        "referred": intervals([_share(referred)], scored, scored.probabilities, params, seed)["referred"],
        "units": len(decided.labels), "groups": groups, "estimable": groups >= min_groups,
        "absent": [name for c, name in enumerate(scored.classes) if not (decided.labels == c).any()],
        "classes": {name: _count(referred, scored.labels == c) for c, name in enumerate(scored.classes)},
    }
    if found["estimable"]:
        found["scores"] = intervals(task_metrics(task), decided, decided.probabilities, params, seed)
    return found


def _count(referred: NDArray[np.bool_], here: NDArray[np.bool_]) -> dict[str, int]:
    return {"referred": int(referred[here].sum()), "units": int(here.sum())}


def _share(referred: NDArray[np.bool_]) -> Metric:
    """The share of units that are referred, as a metric, so that its interval resamples groups as all others do."""
    def weighted(_: object, __: object, ___: object, ____: object, weights: Floats) -> Floats:
        return np.asarray(weights @ referred / weights.sum(axis=1), np.float64)

    return Metric("referred", "Left to a human", False, weighted)
