"""The evaluation of one model on one task: scores beside baselines, classes, subgroups, confounded classes.

In: the predictions for the held-out part and the out-of-fold predictions for the rest, as tables (see
`heartml.metrics.scores`), and the recordings behind them, one row a recording, joined with their folds and signal
measurements. Out: values for `metrics.json`. Its keys are a stored format; there a baseline is called `floor`.
"""
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from heartml.core.schema import label_column
from heartml.core.task_definition import HEART, Organ
from heartml.core.tasks import Assignment, Task, stored_definition
from heartml.evaluation import baselines
from heartml.evaluation.coarse_classes import coarse_classes
from heartml.evaluation.parts import AssessedPart, AssessmentRules
from heartml.evaluation.selective import referral
from heartml.evaluation.sources import mean_over_sources
from heartml.metrics import METRICS, Metric, confusion_matrices, stratified_class_auc
from heartml.metrics.scores import (
    JsonInterval,
    LabelledPredictions,
    metric_intervals,
    paired_difference,
    per_class,
    subgroups,
    task_metrics,
    task_scores,
)

HELD_OUT, OUT_OF_FOLD = "held_out", "out_of_fold"
PARTS = (HELD_OUT, OUT_OF_FOLD)
BY_PART = ("counts", "against_floors", "best_floor", "per_class", "per_source", "subgroups", "confusion",
            "referral", "mean_over_sources")              # keys of `metrics.json` with one value for each part
DESCRIPTION_COLUMNS = ("source", "age_group", "sex")
UNIT_COLUMNS = ("signal", "session", "any_label")
SUBGROUP_COLUMNS = (*DESCRIPTION_COLUMNS, "location", *UNIT_COLUMNS)


def describe_units(recordings: pd.DataFrame, task: Task) -> pd.DataFrame:
    """One row a unit, in order of appearance, indexed by unit_id.

    Columns: group_id, label, part and `DESCRIPTION_COLUMNS`, of each the first value that is known. Also `location`
    where a unit is a recording, and those of `UNIT_COLUMNS` that are known.
    """
    also = [*(["location"] if task.unit == "recording" else []),
            *(name for name in UNIT_COLUMNS if name in recordings and recordings[name].notna().any())]
    columns = ["group_id", "label", "part", *DESCRIPTION_COLUMNS, *also]
    return recordings.groupby("unit_id", sort=False)[columns].first()


def left_out_classes(
    recordings: pd.DataFrame, groups: pd.DataFrame, assignment: Assignment, in_folds: Collection[str]
) -> dict[str, dict[str, int]]:
    """Classes that are in the data but in no fold because they are rare (`Task.rare`): class -> its units and groups.

    Args:
        recordings: recording_id, dataset, patient_id and the task's label; of all data sets.
        groups: recording_id, group_id as validation joined them.
        in_folds: the classes that the folds contain.
    """
    task, column = assignment.task, label_column(assignment.task.label)
    if task.rare == "kept":
        return {}
    own = recordings[recordings["dataset"].isin(assignment.datasets)].merge(groups, on="recording_id", validate="1:1")
    found = {name: own[own[column] == name] for name in task.classes if name not in in_folds}
    unit = "patient_id" if task.unit == "patient" else "recording_id"
    return {name: {"units": of[unit].nunique(), "groups": of["group_id"].nunique()} for name, of in found.items()}


def assessed_parts(
    tables: Mapping[str, pd.DataFrame], recordings: pd.DataFrame, task: Task, names: tuple[str, ...]
) -> dict[str, AssessedPart]:
    """Put the predictions for each part beside those of the baselines.

    Args:
        tables: part -> its table of predictions.
        recordings: one row a recording, see `inputs.read_recordings`.
        names: the baselines, see `baselines.BASELINES`.
    """
    units = describe_units(recordings, task)
    index = {name: number for number, name in enumerate(task.classes)}
    numbered = units.reset_index().assign(label=lambda table: [index[label] for label in table["label"]])
    row_of = pd.Series(np.arange(len(units)), index=units.index)
    predicted = {name: baselines.predict(name, recordings, numbered, task) for name in names}
    parts = {}
    for part, table in tables.items():
        scored = LabelledPredictions.from_table(table, task.classes)
        rows = row_of.loc[list(scored.unit_ids)].to_numpy()
        beside = {
            name: replace(scored, decisions=decisions[rows], probabilities=p[rows], calibrated=p[rows])
            for name, (p, decisions) in predicted.items()
        }
        parts[part] = AssessedPart(scored, beside, units.iloc[rows])
    return parts


def assess(parts: Mapping[str, AssessedPart], task: Task, rules: AssessmentRules) -> dict[str, Any]:
    """Every number of `metrics.json` that comes from predictions about units; `score_locations` has the others."""
    found = {name: _assess_part(part, task, rules) for name, part in parts.items()}
    gathered = {key: {name: values[key] for name, values in found.items()} for key in BY_PART}
    return {
        "task": task.name, "classes": task.classes, "unit": task.unit, "metric": task.metric, "positive": task.positive,
        "official": [metric.name for metric in task_metrics(task)], "confidence": rules.params.confidence,
        "min_groups": rules.min_groups, "confounded_auc": rules.params.confounded_auc,
        "floor_order": rules.params.baselines,
        "floor_titles": {name: baselines.BASELINES[name].title for name in rules.params.baselines},
        **{name: values["scores"] for name, values in found.items()}, **stored_definition(task),
        **({"organ": task.organ} if task.organ != HEART else {}),
        "floors": found[HELD_OUT]["floors"], "floors_out_of_fold": found[OUT_OF_FOLD]["floors"],
        **gathered, **confounded_classes(parts[OUT_OF_FOLD], task, rules), "views": coarse_classes(parts, task, rules),
    }


def _assess_part(part: AssessedPart, task: Task, rules: AssessmentRules) -> dict[str, Any]:
    scored, params, seed = part.scored, rules.params, rules.seed
    known = {column: list(part.units[column]) for column in part.units if column in SUBGROUP_COLUMNS}
    by = subgroups(scored, known, task, rules.min_groups, params, seed)
    beside = {name: metric_intervals(task_metrics(task), other, other.probabilities, params, seed)
              for name, other in part.baselines.items()}
    return {
        "counts": scored.counts(),
        "scores": task_scores(scored, task, params, seed),
        "floors": beside,
        "against_floors": {name: paired_difference(scored, other, task, params, seed)
                           for name, other in part.baselines.items()},
        "best_floor": best_baseline(beside, task.metric),
        "per_class": per_class(scored, rules.min_groups, params, seed),
        "per_source": by.pop("source"),
        "mean_over_sources": mean_over_sources(scored, known["source"], task, rules),
        "subgroups": by,
        "referral": referral(scored, task, rules.refer_below, rules.min_groups, params, seed),
        "confusion": confusion_matrices(scored.labels, scored.decisions, len(task.classes))[0].astype(int),
    }


def best_baseline(beside: Mapping[str, Mapping[str, JsonInterval]], metric: str) -> str | None:
    """The name of the baseline with the best value of a metric; of equal ones the first, `None` where none has one.

    Args:
        beside: baseline -> metric -> {value, low, high}.
    """
    sign = 1 if METRICS[metric].greater_is_better else -1
    values = {name: numbers[metric]["value"] for name, numbers in beside.items()}
    defined = {name: sign * value for name, value in values.items() if value is not None}
    return max(defined, key=lambda name: defined[name]) if defined else None


def best_numbers(beside: Mapping[str, Mapping[str, JsonInterval]], metrics: Iterable[str]) -> dict[str, JsonInterval]:
    """metric -> the number of the baseline that is best at it; a metric that no baseline has is left out."""
    best = {metric: best_baseline(beside, metric) for metric in metrics}
    return {metric: beside[name][metric] for metric, name in best.items() if name is not None}


def confounded_classes(part: AssessedPart, task: Task, rules: AssessmentRules) -> dict[str, Any]:
    """The AUC of each baseline for each class, and the classes that a baseline tells from the others too well.

    Returns:
        floor_auc: baseline -> class -> {value, low, high}. confounded: one entry for each pair whose whole interval
        lies at or above `confounded_auc`.
    """
    estimable = {
        name: c for c, name in enumerate(task.classes)
        if len(np.unique(part.scored.groups[part.scored.labels == c])) >= rules.min_groups
    }
    by_baseline: dict[str, Any] = {}
    confounded = []
    for baseline, scored in part.baselines.items():
        if baseline == "majority":
            continue
        metrics = {name: _auc_within(scored, c) for name, c in estimable.items()}
        by_baseline[baseline] = {
            name: metric_intervals([metric], scored, scored.probabilities, rules.params, rules.seed)["auc"]
            for name, metric in metrics.items()
        }
        confounded += [
            {"class": name, "floor": baseline, "heard": baselines.BASELINES[baseline].cue, "auc": auc,
             "words": confounded_in_words(name, baseline, auc, task.organ)}
            for name, auc in by_baseline[baseline].items() if (auc["low"] or 0) >= rules.params.confounded_auc
        ]
    return {"floor_auc": by_baseline, "confounded": confounded}


def _auc_within(scored: LabelledPredictions, c: int) -> Metric:
    """AUC of class `c` within folds: across folds a weak baseline would rank the folds by their prior, not units."""
    return Metric("auc", "AUC", True, lambda y, p, _, __, w: stratified_class_auc(p[:, c], y == c, w, scored.parts))


def confounded_in_words(name: str, baseline: str, auc: JsonInterval, organ: Organ) -> str:
    """One sentence on class `name` for `metrics.json`: a stored text, so its wording stays."""
    return (f"{name} is confounded: it can be told from {baselines.BASELINES[baseline].title.lower()} "
            f"(AUC {auc['value']:.2f}, {auc['low']:.2f} to {auc['high']:.2f}). "
            f"A model may have learnt {baselines.BASELINES[baseline].cue}, not the {organ}.")


def score_locations(recordings: pd.DataFrame, task: Task, rules: AssessmentRules) -> dict[str, Any]:
    """Macro AUC for the patient from the recordings of one location alone: location -> units, groups, estimable, AUC.

    Empty where a unit is a recording.

    Args:
        recordings: recording_id, unit_id, group_id, label (the unit's), part, location, p_<class>; several
            recordings of one patient at one location are averaged.
    """
    if task.unit != "patient":
        return {}
    p = [f"p_{name}" for name in task.classes]
    located = recordings.dropna(subset=["location"])
    merged = located.groupby(["location", "unit_id", "group_id", "label", "part"], sort=True)[p].mean().reset_index()
    merged["decision"] = merged["label"]   # one recording has no decision: only probabilities count here
    merged[[f"c_{name}" for name in task.classes]] = merged[p]
    found: dict[str, Any] = {}
    for location, table in merged.groupby("location"):
        scored = LabelledPredictions.from_table(table, task.classes)
        groups = len(np.unique(scored.groups))
        found[str(location)] = {"units": len(table), "groups": groups, "estimable": groups >= rules.min_groups}
        if groups >= rules.min_groups:
            auc = metric_intervals([METRICS["macro_auc"]], scored, scored.probabilities, rules.params, rules.seed)
            found[str(location)] |= auc
    return found


def summary(found: Mapping[str, Any]) -> dict[str, float]:
    """The values alone, for `summary.json`: `held_out.uar`, `out_of_fold.uar` and `best_floor.uar`.

    The last is the best baseline's value on the held-out part.
    """
    tables = {part: found[part] for part in PARTS} | {"best_floor": best_numbers(found["floors"], found["official"])}
    return {
        f"{table}.{name}": number["value"] for table, numbers in tables.items()
        for name, number in numbers.items() if number["value"] is not None
    }
