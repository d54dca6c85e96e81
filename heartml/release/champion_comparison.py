"""Challenger and champion on the units that neither model was trained on.

In: the predictions of both models, and the folds of both. Out: a `Comparison` with each model's scores and the paired
differences. A prediction is fair if no recording of the unit's group was in the training of the model that made it. So
held-out predictions are fair, and out-of-fold ones, whose models were trained on other folds. A unit may be held out
for one model and out of fold for the other. Labels and groups are the challenger's.

Pure: no file, no registry, no clock.
"""

from collections import defaultdict
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
from heartml.release.looks import Look

CALIBRATION = ("ece", "brier")      # metrics of calibrated probabilities that are reported
LOSS = "log_loss"                   # the one that decides
EVIDENCE = {"held_out": "held out", "out_of_fold": "out of fold",
            "mixed": "held out for one and out of fold for the other", "new": "new to the champion"}


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion on the units that both can be judged on.

    Attributes:
        units, groups: how many were compared.
        evidence: key of `EVIDENCE` -> how many of the units.
        trained: units left out because their group was in the training behind the champion's prediction.
        unknown: units left out because the champion has no prediction for them.
        absent: classes of the challenger's units that no compared unit has.
        challenger, champion: each metric's value on these units.
        champion_held_out: the champion's on those that are held out for the challenger; NaN where there are none.
        difference: challenger minus champion on the task's metric, with its interval at `gate.confidence`.
        difference_at_look: the same at the confidence of this look.
        loss: challenger minus champion in the log loss of their calibrated probabilities, at the confidence of this
            look. Less is better.
        calibration: the same in the Brier score, at `gate.confidence`.
        subgroups: `column=value` -> gain of the challenger on the task's metric (positive is better), and its groups.
        look: how often champions of this task have been compared, this time included.
        confidence: of this look.
    """

    units: int
    groups: int
    evidence: Mapping[str, int]
    trained: int
    unknown: int
    absent: tuple[str, ...]
    challenger: Mapping[str, float]
    champion: Mapping[str, float]
    champion_held_out: Mapping[str, float]
    difference: Difference
    difference_at_look: Difference
    loss: Difference
    calibration: Difference
    subgroups: Mapping[str, Mapping[str, float]]
    look: int
    confidence: float


@dataclass(frozen=True, eq=False)
class Champion:
    """What the gate knows about the serving model.

    Attributes:
        version: number of the registered version.
        predictions: held-out ones, out-of-fold ones where its run keeps them (`parts` tells which), and new ones;
            `None` if the model predicts other classes.
        folds: recording_id and part of what it was trained and tested on.
        new: units that it predicted now, because they are new to it.
    """

    version: str
    predictions: LabelledPredictions | None
    folds: pd.DataFrame
    new: Set[str] = frozenset()

    @property
    def trained_on(self) -> frozenset[str]:
        """Recording ids that it was fitted to."""
        return frozenset(self.folds.loc[self.folds["part"] != TEST, "recording_id"])


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


def units_seen(folds: pd.DataFrame, others: pd.DataFrame, part_of_unit: Mapping[str, str]) -> frozenset[str]:
    """Units whose group was in the training behind another model's prediction.

    A prediction of fold f comes from models that were fitted to all folds but f; a held-out prediction from a model
    that was fitted to all folds. Where there is no prediction yet, it would be a held-out one.

    Args:
        folds: schema.FOLDS, of the challenger.
        others: recording_id and part, of the other model.
        part_of_unit: unit -> the part that the other model's prediction belongs to.

    The other model had a and b in folds 0 and 1. Its out-of-fold prediction of u1 is fair. Group g2 was in two folds
    of it, since nobody knew then that b and c are of one person, so its prediction of u2 is not:

    >>> folds = pd.DataFrame({"recording_id": ["a", "b", "c", "d"], "unit_id": ["u1", "u2", "u3", "u4"],
    ...                       "group_id": ["g1", "g2", "g2", "g4"], "part": ["0", "1", "1", "test"]})
    >>> others = pd.DataFrame({"recording_id": ["a", "b", "c"], "part": ["0", "1", "0"]})
    >>> sorted(units_seen(folds, others, {"u1": "0", "u2": "1", "u3": "0"}))
    ['u2', 'u3']
    >>> sorted(units_seen(folds, others, {}))
    ['u1', 'u2', 'u3']
    """
    training = others[others["part"] != TEST]
    fitted = folds[["recording_id", "group_id"]].merge(training[["recording_id", "part"]], on="recording_id")
    folds_of_group = defaultdict[str, set[str]](set)
    for group, part in zip(fitted["group_id"], fitted["part"], strict=True):
        folds_of_group[str(group)].add(str(part))
    units = folds.drop_duplicates("unit_id")
    return frozenset(str(unit) for unit, group in zip(units["unit_id"], units["group_id"], strict=True)
                     if folds_of_group[str(group)] - {part_of_unit.get(str(unit), TEST)})


def compare(
    task: Task, challenger: LabelledPredictions, champion: Champion, folds: pd.DataFrame, subgroups: pd.DataFrame,
    params: GateParams, rng: np.random.Generator, look: Look,
) -> Comparison | None:
    """Compare both models on the units they share; `None` if no unit is left or the classes differ.

    Args:
        challenger: its predictions about its held-out units and its out-of-fold predictions.
        folds: schema.FOLDS, of the challenger.
        subgroups: indexed by unit_id, one column for each way to divide the units (sex, age group, source).
        rng: draws the bootstrap's resamples.
        look: which look at this task's units it is, with its confidence.
    """
    if champion.predictions is None:
        return None
    row_of = {str(unit): row for row, unit in enumerate(champion.predictions.unit_ids)}
    seen = units_seen(folds, champion.folds, dict(zip(row_of, map(str, champion.predictions.parts), strict=True)))
    fair = ~np.isin(challenger.unit_ids, sorted(seen))
    predicted = np.array([unit in row_of for unit in challenger.unit_ids], dtype=bool)
    if not (fair & predicted).any():
        return None
    first = challenger.take(fair & predicted)
    second = champion.predictions.take(np.array([row_of[unit] for unit in first.unit_ids], dtype=np.intp))
    metric = METRICS[task.metric]
    difference, at_look, loss, calibration = (_difference(of, first, second, params.bootstrap, confidence, rng)
                                              for of, confidence in (
        (metric, params.confidence), (metric, look.confidence), (METRICS[LOSS], look.confidence),
        (METRICS["brier"], params.confidence)))
    held_out = first.parts == TEST
    return Comparison(
        len(first.labels), len(np.unique(first.groups)), _evidence(first, second, champion.new), int((~fair).sum()),
        int((fair & ~predicted).sum()), absent_classes(challenger, first), _values(task, first, first),
        _values(task, first, second), _values(task, first.take(held_out), second.take(held_out)), difference, at_look,
        loss, calibration,
        _subgroups(metric, first, second, subgroups.reindex(first.unit_ids), params.min_subgroup_groups),
        look.number, look.confidence,
    )


def _evidence(first: LabelledPredictions, second: LabelledPredictions, new: Set[str]) -> dict[str, int]:
    """How many units there are of each kind of evidence."""
    own, other = first.parts == TEST, second.parts == TEST
    later = np.isin(first.unit_ids, sorted(new))
    masks = (own & other & ~later, ~own & ~other & ~later, (own != other) & ~later, later)
    return {kind: int(mask.sum()) for kind, mask in zip(EVIDENCE, masks, strict=True)}


def _difference(
    of: Metric, first: LabelledPredictions, second: LabelledPredictions, resamples: int, confidence: float,
    rng: np.random.Generator,
) -> Difference:
    return paired_bootstrap(
        of, first.labels, (metric_probabilities(of, first), first.decisions),
        (metric_probabilities(of, second), second.decisions), first.classes, first.groups,
        resamples=resamples, confidence=confidence, rng=rng)


def absent_classes(units: LabelledPredictions, compared: LabelledPredictions) -> tuple[str, ...]:
    """Classes that some units have and no compared unit has."""
    return tuple(units.classes[c] for c in np.setdiff1d(units.labels, compared.labels))


def metric_probabilities(metric: Metric, predictions: LabelledPredictions) -> NDArray[np.float64]:
    """The probabilities that a metric scores, `[n, k]`: the calibrated ones for calibration metrics, else the others.

    Calibrated probabilities are shown to people. The others are those that the decisions were made from.
    """
    return predictions.calibrated if metric.name in (*CALIBRATION, LOSS) else predictions.probabilities


def gain(metric: Metric, difference: float) -> float:
    """A difference of a metric, with the sign changed if less is better, so that positive is better.

    >>> gain(METRICS["uar"], 0.2), gain(METRICS["brier"], 0.2)
    (0.2, -0.2)
    """
    return difference if metric.greater_is_better else -difference


def _values(task: Task, truth: LabelledPredictions, predictions: LabelledPredictions) -> dict[str, float]:
    metrics = (*task_metrics(task), *(METRICS[name] for name in (*CALIBRATION, LOSS)))
    none = not len(truth.labels)
    return {metric.name: np.nan if none else _value(metric, truth, predictions) for metric in metrics}


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
