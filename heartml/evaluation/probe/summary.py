"""From probed encoders to numbers: scores with intervals, paired differences, costs, ranks. Pure.

Every encoder has one row for each layer and pooling, and one, `chosen`, in which the pooling was chosen in the inner
folds. Differences and ranks are those of `chosen`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core import paths
from heartml.core.config import Params
from heartml.metrics import METRICS, paired_bootstrap
from heartml.metrics.scores import LabelledPredictions, json_number, metric_intervals
from heartml.training import training_set
from heartml.training.training_set import TrainingSet

if TYPE_CHECKING:
    from heartml.evaluation.probe import ProbedEncoder

METRIC_NAMES = ("macro_auc", "uar", "log_loss")
COMPARED = ("macro_auc", "log_loss")
CHOSEN = "chosen"
REFERENCE = "logspec"

Floats = NDArray[np.float64]


def summarise(tables: Mapping[str, pd.DataFrame], control_of: Mapping[str, str], found: Sequence["ProbedEncoder"],
              params: Params) -> dict[str, Any]:
    """All numbers of a probe, as JSON values.

    Returns:
        `tasks`: task -> `units`, `groups`, `classes` and `encoders`: rows sorted by the AUC of `chosen`, each with
        `encoder`, `scores` (name of a pooling or `chosen` -> metric -> value, low, high), `features`, `cost`,
        `against_logspec`, `against_random` and, where several encoders were asked for, `against_first` (metric ->
        value, low, high, p; null where there is none). `first`: the one that was named first, or null. `ranks`:
        `encoder`, `mean_rank` and `ranks` by task, best first, by the AUC of `chosen`.
    """
    recordings = pd.read_parquet(paths.RECORDINGS)
    named = list(dict.fromkeys(one.encoder for one in found
                               if one.encoder != REFERENCE and one.encoder not in control_of.values()))
    first = named[0] if len(named) > 1 else None
    tasks: dict[str, dict[str, Any]] = {}
    for task, table in tables.items():
        of_task = {one.encoder: one for one in found if one.task == task}
        train_set = training_set.build(task, table, recordings)
        rows = [_row(one, of_task, control_of, first, train_set, params) for one in of_task.values()]
        rows.sort(key=lambda row: -row["scores"][CHOSEN]["macro_auc"]["value"])
        tasks[task] = {"units": len(train_set.unit_ids), "groups": len(set(train_set.group_ids)),
                       "recordings": len(train_set.recording_ids), "classes": list(train_set.task.classes),
                       "encoders": rows}
    return {"tasks": tasks, "ranks": ranks({task: [row["encoder"] for row in own["encoders"]]
                                            for task, own in tasks.items()}),
            "confidence": params.evaluate.confidence, "first": first}


def ranks(ordered: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Mean rank of every encoder over tasks.

    Args:
        ordered: task -> encoders, best first.

    >>> ranks({"a": ["x", "y"], "b": ["x", "y"]})[1]
    {'encoder': 'y', 'mean_rank': 2.0, 'ranks': {'a': 2, 'b': 2}}
    """
    names = sorted({name for own in ordered.values() for name in own})
    found = []
    for name in names:
        of_task = {task: own.index(name) + 1 for task, own in ordered.items() if name in own}
        found.append({"encoder": name, "mean_rank": sum(of_task.values()) / len(of_task), "ranks": of_task})
    return sorted(found, key=lambda row: (row["mean_rank"], row["encoder"]))


def _row(one: "ProbedEncoder", of_task: Mapping[str, "ProbedEncoder"], control_of: Mapping[str, str],
         first: str | None, train_set: TrainingSet, params: Params) -> dict[str, Any]:
    own = one.probed
    choices = {CHOSEN: own.chosen(train_set.parts), **own.probabilities}
    metrics = [METRICS[name] for name in METRIC_NAMES]
    scores = {name: metric_intervals(metrics, predictions(one, p, train_set), p, params.evaluate, params.seed)
              for name, p in choices.items()}
    others = {"against_logspec": REFERENCE, "against_random": control_of.get(one.encoder, ""), "against_first": first}
    differences = {key: None if other is None or other == one.encoder or other not in of_task
                   else _difference(one, of_task[other], train_set, params)
                   for key, other in others.items() if key != "against_first" or first is not None}
    return {"encoder": one.encoder, "scores": scores, "features": dict(one.features), "cost": asdict(one.cost),
            **differences}


def predictions(one: "ProbedEncoder", p: Floats, train_set: TrainingSet) -> LabelledPredictions:
    """Probabilities `[u, k]` of the task's units as labelled predictions."""
    return LabelledPredictions(
        np.array(train_set.unit_ids), np.array(train_set.group_ids), train_set.parts.astype(str), train_set.labels,
        one.probed.decisions(p), p, p, train_set.task.classes)


def _difference(first: "ProbedEncoder", second: "ProbedEncoder", train_set: TrainingSet, params: Params
                ) -> dict[str, dict[str, float | None]]:
    one, other = (predictions(own, own.probed.chosen(train_set.parts), train_set) for own in (first, second))
    found: dict[str, dict[str, float | None]] = {}
    for name in COMPARED:
        difference = paired_bootstrap(
            METRICS[name], one.labels, (one.probabilities, one.decisions), (other.probabilities, other.decisions),
            one.classes, one.groups, resamples=params.evaluate.bootstrap, confidence=params.evaluate.confidence,
            rng=np.random.default_rng(params.seed))
        found[name] = {end: json_number(getattr(difference, end)) for end in ("value", "low", "high", "p")}
    return found
