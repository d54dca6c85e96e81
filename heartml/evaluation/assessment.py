"""Everything that is said about one model on one task: its scores beside floors, classes, subgroups, suspicions.

In: predictions of the held-out part and the cross-fitted ones of the rest, as tables (see `heartml.metrics.scores`),
and the recordings behind them, one row each, joined with their folds and signal measurements. Out: values for JSON.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from heartml.core.config import EvaluateParams
from heartml.core.schema import label_column
from heartml.core.tasks import Assignment, Task
from heartml.evaluation import baselines
from heartml.evaluation.coarse_classes import coarse_classes
from heartml.evaluation.selective import referral
from heartml.metrics import METRICS, Metric, class_auc_within, confusion
from heartml.metrics.scores import Number, Scored, intervals, per_class, scores, subgroups, task_metrics, versus

HELD_OUT, OUT_OF_FOLD = "held_out", "out_of_fold"
PARTS = (HELD_OUT, OUT_OF_FOLD)
GATHERED = ("counts", "against_floors", "best_floor", "per_class", "per_source", "subgroups", "confusion",
            "referral")
DESCRIBES = ("source", "age_group", "sex")
DIVIDES = (*DESCRIBES, "location", "signal", "session")      # the columns by which subgroups are scored


@dataclass(frozen=True)
class AssessmentRules:
    """With which numbers to judge.

    Attributes:
        params: resamples, confidence, floors.
        min_groups: fewest groups for a number.
        seed: of the resamples.
        refer_below: confidence below which the model leaves a decision to a human; 0: it decides everything.
    """

    params: EvaluateParams
    min_groups: int
    seed: int
    refer_below: float = 0.0


@dataclass(frozen=True)
class AssessedPart:
    """One part of the data: the model's predictions, the floors' on the same units, and what is known of each unit."""

    scored: Scored
    floors: Mapping[str, Scored]
    known: pd.DataFrame   # indexed by unit_id, see `describe`


def describe(recordings: pd.DataFrame, task: Task) -> pd.DataFrame:
    """One row a unit, in order of appearance: group_id, label, part, and `DESCRIBES`: of each the first that is known.

    Where a unit is a recording also its location; and `signal` and `session` where they are known.
    """
    also = [*(["location"] if task.unit == "recording" else []),
            *(name for name in ("signal", "session") if name in recordings and recordings[name].notna().any())]
    columns = ["group_id", "label", "part", *DESCRIBES, *also]
    return recordings.groupby("unit_id", sort=False)[columns].first()


def left_out(
    recordings: pd.DataFrame, groups: pd.DataFrame, assignment: Assignment, learnt: Collection[str]
) -> dict[str, dict[str, int]]:
    """Classes that are in the data and, being rare (`Task.rare`), in no fold: class -> its units and groups.

    Args:
        recordings: recording_id, dataset, patient_id and the task's label; of all data sets.
        groups: recording_id, group_id as validation joined them.
        learnt: classes that stand in the folds.
    """
    task, column = assignment.task, label_column(assignment.task.label)
    if task.rare == "kept":
        return {}
    own = recordings[recordings["dataset"].isin(assignment.datasets)].merge(groups, on="recording_id", validate="1:1")
    found = {name: own[own[column] == name] for name in task.classes if name not in learnt}
    unit = "patient_id" if task.unit == "patient" else "recording_id"
    return {name: {"units": of[unit].nunique(), "groups": of["group_id"].nunique()} for name, of in found.items()}


def parts_of(
    tables: Mapping[str, pd.DataFrame], recordings: pd.DataFrame, task: Task, wanted: tuple[str, ...]
) -> dict[str, AssessedPart]:
    """Put the predictions of each part beside those of the floors `wanted`."""
    units = describe(recordings, task)
    index = {name: number for number, name in enumerate(task.classes)}
    numbered = units.reset_index().assign(label=lambda table: [index[label] for label in table["label"]])
    row_of = pd.Series(np.arange(len(units)), index=units.index)
    predicted = {name: baselines.predict(name, recordings, numbered, task) for name in wanted}
    parts = {}
    for part, table in tables.items():
        scored = Scored.of(table, task.classes)
        rows = row_of.loc[list(scored.unit_ids)].to_numpy()
        beside = {
            name: replace(scored, decisions=decisions[rows], probabilities=p[rows], calibrated=p[rows])
            for name, (p, decisions) in predicted.items()
        }
        parts[part] = AssessedPart(scored, beside, units.iloc[rows])
    return parts


def assess(parts: Mapping[str, AssessedPart], task: Task, rules: AssessmentRules) -> dict[str, Any]:
    """Everything for `metrics.json`, but for the locations."""
    found = {name: _assess_part(part, task, rules) for name, part in parts.items()}
    gathered = {key: {name: values[key] for name, values in found.items()} for key in GATHERED}
    return {
        "task": task.name, "classes": task.classes, "unit": task.unit, "metric": task.metric, "positive": task.positive,
        "official": [metric.name for metric in task_metrics(task)], "confidence": rules.params.confidence,
        "min_groups": rules.min_groups, "confounded_auc": rules.params.confounded_auc,
        "floor_order": rules.params.baselines,
        "floor_titles": {name: baselines.BASELINES[name].title for name in rules.params.baselines},
        **{name: values["scores"] for name, values in found.items()},
        "floors": found[HELD_OUT]["floors"], "floors_out_of_fold": found[OUT_OF_FOLD]["floors"],
        **gathered, **suspicions(parts[OUT_OF_FOLD], task, rules), "views": coarse_classes(parts, task, rules),
    }


def _assess_part(part: AssessedPart, task: Task, rules: AssessmentRules) -> dict[str, Any]:
    scored, params, seed = part.scored, rules.params, rules.seed
    known = {column: list(part.known[column]) for column in part.known if column in DIVIDES}
    by = subgroups(scored, known, task, rules.min_groups, params, seed)
    beside = {name: intervals(task_metrics(task), f, f.probabilities, params, seed) for name, f in part.floors.items()}
    return {
        "counts": scored.counts(),
        "scores": scores(scored, task, params, seed),
        "floors": beside,
        "against_floors": {name: versus(scored, floor, task, params, seed) for name, floor in part.floors.items()},
        "best_floor": best_baseline(beside, task.metric),
        "per_class": per_class(scored, rules.min_groups, params, seed),
        "per_source": by.pop("source"),
        "subgroups": by,
        "referral": referral(scored, task, rules.refer_below, rules.min_groups, params, seed),
        "confusion": confusion(scored.labels, scored.decisions, len(task.classes))[0].astype(int),
    }


def best_baseline(beside: Mapping[str, Mapping[str, Number]], metric: str) -> str | None:
    """The floor with the best value of a metric; the first of equals, none where none is defined."""
    sign = 1 if METRICS[metric].greater_is_better else -1
    values = {name: numbers[metric]["value"] for name, numbers in beside.items()}
    defined = {name: sign * value for name, value in values.items() if value is not None}
    return max(defined, key=lambda name: defined[name]) if defined else None


def best_numbers(beside: Mapping[str, Mapping[str, Number]], metrics: Iterable[str]) -> dict[str, Number]:
    """metric -> the number of the floor that is best at it; metrics that no floor has are left out."""
    best = {metric: best_baseline(beside, metric) for metric in metrics}
    return {metric: beside[name][metric] for metric, name in best.items() if name is not None}


def suspicions(part: AssessedPart, task: Task, rules: AssessmentRules) -> dict[str, Any]:
    """How well each floor tells each class apart (AUC), and the classes that a floor tells apart too well, in words."""
    estimable = {
        name: c for c, name in enumerate(task.classes)
        if len(np.unique(part.scored.groups[part.scored.labels == c])) >= rules.min_groups
    }
    by_floor: dict[str, Any] = {}
    confounded = []
    for floor, scored in part.floors.items():
        if floor == "majority":
            continue
        by_floor[floor] = {
            name: intervals([_auc_within(scored, c)], scored, scored.probabilities, rules.params, rules.seed)["auc"]
            for name, c in estimable.items()
        }
        confounded += [
            {"class": name, "floor": floor, "heard": baselines.BASELINES[floor].heard, "auc": auc,
             "words": words(name, floor, auc)}
            for name, auc in by_floor[floor].items() if (auc["low"] or 0) >= rules.params.confounded_auc
        ]
    return {"floor_auc": by_floor, "confounded": confounded}


def _auc_within(scored: Scored, c: int) -> Metric:
    """AUC of class `c` within folds; the prior of a weak floor differs by fold, and would rank folds, not units."""
    return Metric("auc", "AUC", True, lambda y, p, _, __, w: class_auc_within(p[:, c], y == c, w, scored.parts))


def words(name: str, floor: str, auc: Number) -> str:
    """What it means that a floor tells a class apart."""
    return (f"{name} is confounded: it can be told from {baselines.BASELINES[floor].title.lower()} "
            f"(AUC {auc['value']:.2f}, {auc['low']:.2f} to {auc['high']:.2f}). "
            f"A model may have learnt {baselines.BASELINES[floor].heard}, not the heart.")


def locations(recordings: pd.DataFrame, task: Task, rules: AssessmentRules) -> dict[str, Any]:
    """Patients only: what one location alone tells about the patient, by location.

    Args:
        recordings: recording_id, unit_id, group_id, label (the unit's), part, location, p_<class>; several
            recordings of one patient at one location are averaged.
    """
    if task.unit != "patient":
        return {}
    p = [f"p_{name}" for name in task.classes]
    heard = recordings.dropna(subset=["location"])
    merged = heard.groupby(["location", "unit_id", "group_id", "label", "part"], sort=True)[p].mean().reset_index()
    merged["decision"] = merged["label"]   # a recording decides nothing: only probabilities are looked at here
    merged[[f"c_{name}" for name in task.classes]] = merged[p]
    found: dict[str, Any] = {}
    for location, table in merged.groupby("location"):
        scored = Scored.of(table, task.classes)
        groups = len(np.unique(scored.groups))
        found[str(location)] = {"units": len(table), "groups": groups, "estimable": groups >= rules.min_groups}
        if groups >= rules.min_groups:
            auc = intervals([METRICS["macro_auc"]], scored, scored.probabilities, rules.params, rules.seed)
            found[str(location)] |= auc
    return found


def summary(found: Mapping[str, Any]) -> dict[str, float]:
    """The values alone, flat: `held_out.uar`, `out_of_fold.uar`, `best_floor.uar` (held out, of its best floor)."""
    tables = {part: found[part] for part in PARTS} | {"best_floor": best_numbers(found["floors"], found["official"])}
    return {
        f"{table}.{name}": number["value"] for table, numbers in tables.items()
        for name, number in numbers.items() if number["value"] is not None
    }
