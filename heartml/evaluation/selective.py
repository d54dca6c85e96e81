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
    """Refer all decisions with a confidence below `refer_below`, and inputs that cannot be judged; score the others.

    Returns:
        below: the limit. outside: check -> how many units cannot be judged for it, and how many of these were wrong;
        `null` where the model has no checks. referred: {value, low, high}, the share of units that is referred. units,
        groups, absent: how many units and groups are decided, and the classes that none of these units has. estimable:
        whether these are enough groups. scores: the task's metrics on them, where that is so. classes: class -> how
        many of its units are referred, and how many it has.
    """
    referred = (scored.confidence < refer_below) | scored.outside
    decided = scored.take(~referred)
    groups = len(np.unique(decided.groups))
    found: dict[str, Any] = {
        "below": refer_below,
        "outside": _outside(scored),
        "referred": metric_intervals([_share(referred)], scored, scored.probabilities, params, seed)["referred"],
        "units": len(decided.labels), "groups": groups, "estimable": groups >= min_groups,
        "absent": [name for c, name in enumerate(scored.classes) if not (decided.labels == c).any()],
        "classes": {name: _count(referred, scored.labels == c) for c, name in enumerate(scored.classes)},
    }
    if found["estimable"]:
        found["scores"] = metric_intervals(task_metrics(task), decided, decided.probabilities, params, seed)
    return found


def _outside(scored: LabelledPredictions) -> dict[str, dict[str, int]] | None:
    """check -> units that are referred for it, and how many of them had a wrong decision; `all` counts each once."""
    if scored.referred_for is None:
        return None
    wrong = scored.decisions != scored.labels
    checks = [set(filter(None, text.split("; "))) for text in scored.referred_for]
    rows = {"all": scored.outside, **{name: np.array([name in own for own in checks])
                                      for name in sorted(set().union(*checks))}}
    return {name: {"units": int(here.sum()), "wrong": int((here & wrong).sum())} for name, here in rows.items()}


def _count(referred: NDArray[np.bool_], here: NDArray[np.bool_]) -> dict[str, int]:
    return {"referred": int(referred[here].sum()), "units": int(here.sum())}


def _share(referred: NDArray[np.bool_]) -> Metric:
    """The share of referred units as a metric, so that its interval resamples groups like all other intervals."""
    def weighted(_: object, __: object, ___: object, ____: object, weights: Floats) -> Floats:
        return np.asarray(weights @ referred / weights.sum(axis=1), np.float64)

    return Metric("referred", "Referred to a human", False, weighted)
