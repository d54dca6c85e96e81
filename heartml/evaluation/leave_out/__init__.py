"""Leave one data set (or one source) out: did the model learn the heart, or the place where it was recorded?

In: a task that was retrained, on several data sets or on one with several sources. For each of them the pipeline's own
stages are trained on the others alone, search and decision rule included, and evaluated on the one that is left out.
Out: these scores with intervals over groups, beside two others on the same units: those of the baselines, and those of
the task's own model, which was trained on other units of the same collection.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from heartml.core import config, folds, paths, tasks
from heartml.core.config import Params
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json
from heartml.core.system.progress import track
from heartml.core.tasks import Task
from heartml.evaluation.leave_out import rounds, scratch
from heartml.evaluation.leave_out.rounds import Round
from heartml.metrics.scores import LabelledPredictions, metric_intervals, paired_difference, task_metrics

By = Literal["dataset", "source"]


class LeaveOutError(HeartMLError):
    """Nothing can be left out; the message gives the reason and the way out."""


def run(name: str, by: By) -> dict[str, Any]:
    """Leave out each data set (or source) of task `name` in turn.

    Returns:
        `task`, `by`, `metric`, `official`, `confidence`, `min_groups` and `left_out`: one entry a collection, in the
        order of their names, with `units`, `groups`, `trained_on`, `unheard` (classes that the others do not have),
        `scores`, `floors` (of the baselines), `best_floor`, `per_class`, `in_collection` (scores of the task's own
        model) and `difference` (left out minus in collection).

    Raises:
        LeaveOutError: the task has not been retrained, or there is only one collection.
        RoundError: a stage failed.
    """
    params, task = config.load(), tasks.resolve(name).task
    own = _own_predictions(name)
    planned = rounds.plan(_units(name), by, params.split.for_task(name), params.seed)
    if len(planned) < 2:
        way = "name several data sets, as in circor+simulated-murmur, or add --by source" if by == "dataset" else \
            "all its recordings are from one source"
        raise LeaveOutError(f"{name}: there is only one {by} ({planned[0].value}): {way}")
    found = [_entry(one, scratch.evaluate_round(name, by, one.folds, params), own, task, params)
             for one in track(planned, f"leave out one {by}", len(planned))]
    scratch.remove_stale_rounds(name, by, [one.folds for one in planned], params)
    return {
        "task": name, "by": by, "metric": task.metric, "official": [metric.name for metric in task_metrics(task)],
        "confidence": params.evaluate.confidence, "min_groups": params.validate_.min_class_groups, "left_out": found,
    }


def _own_predictions(name: str) -> pd.DataFrame:
    """The task's held-out and out-of-fold predictions, one row a unit, indexed by unit_id.

    Raises:
        LeaveOutError: there is no model.
    """
    needed = (paths.out_of_fold(name), paths.evaluation(name) / "predictions.parquet")
    if not all(path.exists() for path in needed):
        raise LeaveOutError(f"{name}: has no model to compare with. Put it into `tasks` of params.yaml "
                            f"(heartml tasks --use {name}) and run `heartml retrain`.")
    return pd.concat([pd.read_parquet(path) for path in needed], ignore_index=True).set_index("unit_id", drop=False)


def _units(name: str) -> pd.DataFrame:
    """The task's folds with the data set and the source of each recording."""
    described = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", "dataset", "source"])
    return folds.load(paths.folds(name)).merge(described, on="recording_id", validate="1:1")


def _entry(one: Round, evaluation: Path, own: pd.DataFrame, task: Task, params: Params) -> dict[str, Any]:
    """One collection's numbers."""
    metrics: Mapping[str, Any] = read_json(evaluation / "metrics.json")
    table = pd.read_parquet(evaluation / "predictions.parquet")
    left_out = LabelledPredictions.from_table(table, task.classes)
    in_collection = LabelledPredictions.from_table(own.loc[list(table["unit_id"])], task.classes)
    return {
        "value": one.value, **metrics["counts"]["held_out"],
        "trained_on": one.trained_on, "unheard": one.unseen_classes,
        "scores": metrics["held_out"], "floors": metrics["floors"], "best_floor": metrics["best_floor"]["held_out"],
        "per_class": metrics["per_class"]["held_out"],
        "in_collection": metric_intervals(task_metrics(task), in_collection, in_collection.probabilities,
                                          params.evaluate, params.seed),
        "difference": paired_difference(left_out, in_collection, task, params.evaluate, params.seed),
    }
