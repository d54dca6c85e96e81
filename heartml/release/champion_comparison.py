"""Challenger and champion on the same held-out units.

In: the predictions of both models, and the challenger's folds. Out: a `Comparison` with each model's scores and the
paired differences. Only units that the champion was not trained on are compared, with the challenger's labels and
groups. Pure: no file, no registry, no clock.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.config import GateParams
from heartml.core.schema import TEST
from heartml.core.tasks import Task
from heartml.metrics import METRICS, Metric
from heartml.metrics.bootstrap import Difference, paired_bootstrap
from heartml.metrics.scores import LabelledPredictions, task_metrics

CALIBRATION = ("ece", "brier")      # the metrics of calibrated probabilities


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion on the units that both can be judged on.

    Attributes:
        units, groups: how many were compared.
        trained: held-out units left out because their group was in the champion's training data.
        unknown: held-out units left out because the champion has no prediction for them.
        absent: classes of the challenger's held-out units that no compared unit has.
        challenger, champion: each metric's value on these units.
        difference: challenger minus champion on the task's metric, with its interval.
        calibration: challenger minus champion in the Brier score of their calibrated probabilities, with its interval.
        subgroups: `column=value` -> gain of the challenger on the task's metric (positive is better), and its groups.
    """

    units: int
    groups: int
    trained: int
    unknown: int
    absent: tuple[str, ...]
    challenger: Mapping[str, float]
    champion: Mapping[str, float]
    difference: Difference
    calibration: Difference
    subgroups: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Champion:
    """What the gate knows about the serving model.

    Attributes:
        version: number of the registered version.
        predictions: about held-out units; `None` if the model predicts other classes.
        trained_on: recording ids that it was fitted to.
    """

    version: str
    predictions: LabelledPredictions | None
    trained_on: Set[str]


def units_not_trained_on(folds: pd.DataFrame, trained_on: Set[str]) -> pd.Series:
    """Held-out unit ids whose whole group another model was not trained on.

    Args:
        folds: schema.FOLDS, of the challenger.
        trained_on: recording ids that the other model was fitted to.

    Unit u2 is left out, because another recording of its group was in training:

    >>> folds = pd.DataFrame({"recording_id": ["a", "b", "c"], "unit_id": ["u1", "u2", "u3"],
    ...                       "group_id": ["g1", "g2", "g2"], "part": ["test", "test", "0"]})
    >>> units_not_trained_on(folds, {"c"}).tolist()
    ['u1']
    """
    seen = folds.loc[folds["recording_id"].isin(trained_on), "group_id"]
    held_out = folds.loc[folds["part"] == TEST].drop_duplicates("unit_id")
    return held_out.loc[~held_out["group_id"].isin(seen), "unit_id"]


def compare(
    task: Task, challenger: LabelledPredictions, champion: Champion, folds: pd.DataFrame, subgroups: pd.DataFrame,
    params: GateParams, rng: np.random.Generator,
) -> Comparison | None:
    """Compare both models on the units they share; `None` if no unit is left or the classes differ.

    Args:
        challenger: its predictions about its held-out units.
        folds: schema.FOLDS, of the challenger.
        subgroups: indexed by unit_id, one column for each way to divide the units (sex, age group, source).
        rng: draws the bootstrap's resamples.
    """
    if champion.predictions is None:
        return None
    fair = np.isin(challenger.unit_ids, units_not_trained_on(folds, champion.trained_on).to_numpy(str))
    row_of = {unit: row for row, unit in enumerate(champion.predictions.unit_ids)}
    predicted = np.array([unit in row_of for unit in challenger.unit_ids], dtype=bool)
    if not (fair & predicted).any():
        return None
    first = challenger.take(fair & predicted)
    second = champion.predictions.take(np.array([row_of[unit] for unit in first.unit_ids], dtype=np.intp))
    metric = METRICS[task.metric]
    difference, calibration = (paired_bootstrap(
        of, first.labels, (metric_probabilities(of, first), first.decisions),
        (metric_probabilities(of, second), second.decisions), task.classes,
        first.groups, resamples=params.bootstrap, confidence=params.confidence, rng=rng,
    ) for of in (metric, METRICS["brier"]))
    return Comparison(
        len(first.labels), len(np.unique(first.groups)), int((~fair).sum()), int((fair & ~predicted).sum()),
        absent_classes(challenger, first), _values(task, first, first), _values(task, first, second), difference,
        calibration, _subgroups(metric, first, second, subgroups.reindex(first.unit_ids), params.min_subgroup_groups),
    )


def absent_classes(held_out: LabelledPredictions, compared: LabelledPredictions) -> tuple[str, ...]:
    """Classes that some held-out units have and no compared unit has."""
    return tuple(held_out.classes[c] for c in np.setdiff1d(held_out.labels, compared.labels))


def metric_probabilities(metric: Metric, predictions: LabelledPredictions) -> NDArray[np.float64]:
    """The probabilities that a metric scores, `[n, k]`: the calibrated ones for calibration metrics, else the others.

    Calibrated probabilities are shown to people. The others are those that the decisions were made from.
    """
    return predictions.calibrated if metric.name in CALIBRATION else predictions.probabilities


def gain(metric: Metric, difference: float) -> float:
    """A difference of a metric, with the sign changed if less is better, so that positive is better.

    >>> gain(METRICS["uar"], 0.2), gain(METRICS["brier"], 0.2)
    (0.2, -0.2)
    """
    return difference if metric.greater_is_better else -difference


def _values(task: Task, truth: LabelledPredictions, predictions: LabelledPredictions) -> dict[str, float]:
    metrics = (*task_metrics(task), *(METRICS[name] for name in CALIBRATION))
    return {metric.name: _value(metric, truth, predictions) for metric in metrics}


def _value(metric: Metric, truth: LabelledPredictions, predictions: LabelledPredictions) -> float:
    return metric.function(truth.labels, metric_probabilities(metric, predictions), predictions.decisions,
                           truth.classes)


def _subgroups(
    metric: Metric, first: LabelledPredictions, second: LabelledPredictions, columns: pd.DataFrame, min_groups: int
) -> dict[str, dict[str, float]]:
    found = {}
    for column in columns:
        for value in sorted(columns[column].dropna().unique()):
            rows = (columns[column] == value).fillna(False).to_numpy(bool)
            own, other = first.take(rows), second.take(rows)
            groups = len(np.unique(own.groups))
            if groups >= min_groups:
                difference = _value(metric, own, own) - _value(metric, own, other)
                found[f"{column}={value}"] = {"gain": gain(metric, difference), "groups": float(groups)}
    return found
