"""From a table of predictions to the numbers and curves of the evaluation: pure, no path, no model.

A table of predictions has one row a unit: unit_id, group_id, label, part, decision, p_<class> (what decides) and
c_<class> (calibrated, what is shown), as `artifacts/<task>/out_of_fold.parquet` has. Every interval resamples groups.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.config import EvaluateParams
from heartml.core.system.errors import HeartMLError
from heartml.core.tasks import Task
from heartml.metrics import METRICS, Metric, bootstrap_intervals, class_metrics, paired_bootstrap, reliability

Floats = NDArray[np.float64]
Number = dict[str, float | None]
NOT_GIVEN = "not given"
CURVE_POINTS = 200
COVERAGES = tuple(round(0.5 + step / 20, 2) for step in range(11))


class ScoresError(HeartMLError):
    """A table of predictions does not fit the task; the message names the unit."""


@dataclass(frozen=True)
class Scored:
    """Predictions of `n` units as arrays: ids, groups, parts [n], labels, decisions int [n], probabilities [n, k]."""

    unit_ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    parts: NDArray[np.str_]
    labels: NDArray[np.int64]
    decisions: NDArray[np.int64]
    probabilities: Floats
    calibrated: Floats
    classes: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, classes: tuple[str, ...]) -> "Scored":
        """Read a table of predictions.

        Raises:
            ScoresError: a label or a decision is none of `classes`, or a probability is not a number.
        """
        for column in ("label", "decision"):
            strange = table[~table[column].isin(classes)]
            if len(strange):
                row = strange.iloc[0]
                raise ScoresError(f"unit {row['unit_id']}: {column} {row[column]!r} is none of {', '.join(classes)}")
        p, c = (table[[f"{kind}_{name}" for name in classes]].to_numpy(float) for kind in "pc")
        wrong = ~np.isfinite(p).all(axis=1) | ~np.isfinite(c).all(axis=1)
        if wrong.any():
            raise ScoresError(f"unit {table['unit_id'].iloc[int(wrong.argmax())]}: a probability is not a number")
        index = {name: number for number, name in enumerate(classes)}
        labels, decisions = (np.array([index[x] for x in table[column]], np.int64) for column in ("label", "decision"))
        ids, groups, parts = (table[column].to_numpy(str) for column in ("unit_id", "group_id", "part"))
        return cls(ids, groups, parts, labels, decisions, p, c, classes)

    def take(self, mask: NDArray[np.bool_] | NDArray[np.intp]) -> "Scored":
        """The units where `mask` [n] holds, or those with the given row numbers."""
        arrays = ("unit_ids", "groups", "parts", "labels", "decisions", "probabilities", "calibrated")
        return replace(self, **{name: getattr(self, name)[mask] for name in arrays})

    @property
    def confidence(self) -> Floats:
        """Calibrated probability of each decision [n]."""
        return self.calibrated[np.arange(len(self.labels)), self.decisions]

    def counts(self) -> dict[str, Any]:
        """Units and groups, in all and by class."""
        by_class = {name: self.take(self.labels == c) for c, name in enumerate(self.classes)}
        return {
            "units": len(self.labels), "groups": len(np.unique(self.groups)),
            "classes": {name: {"units": len(part.labels), "groups": len(np.unique(part.groups))}
                        for name, part in by_class.items()},
        }


def number(value: float) -> float | None:
    """A JSON number; what is not defined is null."""
    return None if math.isnan(value) else float(value)


def intervals(
    metrics: Sequence[Metric], scored: Scored, probabilities: Floats, params: EvaluateParams, seed: int
) -> dict[str, Number]:
    """metric -> {value, low, high}; resamples depend on the seed and the set of groups alone."""
    found = bootstrap_intervals(
        metrics, scored.labels, probabilities, scored.decisions, scored.classes, scored.groups,
        resamples=params.bootstrap, confidence=params.confidence, rng=np.random.default_rng(seed),
    )
    return {name: {"value": number(i.value), "low": number(i.low), "high": number(i.high)} for name, i in found.items()}


def task_metrics(task: Task) -> list[Metric]:
    """The metric that chooses, then the official ones, each once."""
    return [METRICS[name] for name in dict.fromkeys((task.metric, *task.official))]


def scores(scored: Scored, task: Task, params: EvaluateParams, seed: int) -> dict[str, Number]:
    """The task's metrics, and the calibration's: `ece`, `brier` after it, `ece_before`, `brier_before` before it."""
    calibration = [METRICS["ece"], METRICS["brier"]]
    before = intervals(calibration, scored, scored.probabilities, params, seed)
    return {
        **intervals(task_metrics(task), scored, scored.probabilities, params, seed),
        **intervals(calibration, scored, scored.calibrated, params, seed),
        **{f"{name}_before": value for name, value in before.items()},
    }


def versus(scored: Scored, other: Scored, task: Task, params: EvaluateParams, seed: int) -> Number:
    """The task's metric of the first minus that of the other on the same units: {value, low, high, p}."""
    found = paired_bootstrap(
        METRICS[task.metric], scored.labels, (scored.probabilities, scored.decisions),
        (other.probabilities, other.decisions), scored.classes, scored.groups,
        resamples=params.bootstrap, confidence=params.confidence, rng=np.random.default_rng(seed),
    )
    return {"value": number(found.value), "low": number(found.low), "high": number(found.high), "p": found.p}


def per_class(scored: Scored, min_groups: int, params: EvaluateParams, seed: int) -> dict[str, Any]:
    """class -> units, groups, estimable, and where it is: recall, precision, AUC against the rest."""
    found = {}
    for c, name in enumerate(scored.classes):
        here = scored.labels == c
        groups = len(np.unique(scored.groups[here]))
        entry: dict[str, Any] = {"units": int(here.sum()), "groups": groups, "estimable": groups >= min_groups}
        if entry["estimable"]:
            entry |= intervals(class_metrics(c), scored, scored.probabilities, params, seed)
        found[name] = entry
    return found


def subgroups(
    scored: Scored, values: Mapping[str, Sequence[Any]], task: Task, min_groups: int, params: EvaluateParams, seed: int
) -> dict[str, Any]:
    """column -> value -> units, groups, estimable, absent classes, and where it is: the task's metrics.

    Args:
        values: column -> value of every unit [n]; null becomes "not given".
    """
    found: dict[str, Any] = {}
    for column, of_unit in values.items():
        texts = pd.Series(list(of_unit), dtype="string").fillna(NOT_GIVEN).to_numpy(str)
        found[column] = {
            value: _subgroup(scored.take(texts == value), task, min_groups, params, seed) for value in np.unique(texts)
        }
    return found


def _subgroup(part: Scored, task: Task, min_groups: int, params: EvaluateParams, seed: int) -> dict[str, Any]:
    groups = len(np.unique(part.groups))
    absent = [name for c, name in enumerate(part.classes) if not (part.labels == c).any()]
    entry = {"units": len(part.labels), "groups": groups, "estimable": groups >= min_groups, "absent": absent}
    if entry["estimable"]:
        entry |= intervals(task_metrics(task), part, part.probabilities, params, seed)
    return entry


def confusion_rows(scored: Scored) -> pd.DataFrame:
    """One row a unit: actual, predicted. What DVC's confusion template reads."""
    names = np.array(scored.classes)
    return pd.DataFrame({"actual": names[scored.labels], "predicted": names[scored.decisions]})


def roc(scored: Scored) -> pd.DataFrame:
    """class, false_positive_rate, true_positive_rate of each class against the rest."""
    from sklearn.metrics import roc_curve

    found = [roc_curve(scored.labels == c, scored.probabilities[:, c])[:2] for c in _contrasted(scored)]
    return _curves(scored, found, ("false_positive_rate", "true_positive_rate"))


def precision_recall(scored: Scored) -> pd.DataFrame:
    """class, recall, precision of each class against the rest."""
    from sklearn.metrics import precision_recall_curve

    pairs = [precision_recall_curve(scored.labels == c, scored.probabilities[:, c])[:2] for c in _contrasted(scored)]
    return _curves(scored, [(recall[::-1], precision[::-1]) for precision, recall in pairs], ("recall", "precision"))


def _contrasted(scored: Scored) -> list[int]:
    """Classes that some units have and some have not."""
    return [c for c in range(len(scored.classes)) if 0 < (scored.labels == c).sum() < len(scored.labels)]


def _curves(scored: Scored, found: Sequence[tuple[Floats, Floats]], axes: tuple[str, str]) -> pd.DataFrame:
    tables = []
    for c, (x, y) in zip(_contrasted(scored), found, strict=True):
        kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
        tables.append(pd.DataFrame({"class": scored.classes[c], axes[0]: x[kept], axes[1]: y[kept]}))
    return pd.concat(tables) if tables else pd.DataFrame(columns=["class", *axes])


def calibration(scored: Scored) -> pd.DataFrame:
    """stage (before, after calibration), units, confidence in the decision, its accuracy, one row a filled bin."""
    tables, once = [], np.ones((1, len(scored.labels)))
    for stage, probabilities in (("before", scored.probabilities), ("after", scored.calibrated)):
        units, confidence, correct = (
            sums[0] for sums in reliability(scored.labels, probabilities, scored.decisions, once)
        )
        filled = units > 0
        tables.append(pd.DataFrame({
            "stage": stage, "units": units[filled].astype(int),
            "confidence": confidence[filled] / units[filled], "accuracy": correct[filled] / units[filled],
        }))
    return pd.concat(tables)


def abstention(scored: Scored, task: Task, min_groups: int) -> pd.DataFrame:
    """coverage, units, and the task's metric and accuracy on the units whose decision is the most sure."""
    order = np.argsort(-scored.confidence, kind="stable")
    rows = []
    for coverage in COVERAGES:
        kept = np.zeros(len(order), dtype=bool)
        kept[order[: math.ceil(coverage * len(order))]] = True
        part = scored.take(kept)
        if len(np.unique(part.groups)) >= min_groups:
            rows.append({"coverage": coverage, "units": len(part.labels), **{
                name: METRICS[name].function(part.labels, part.probabilities, part.decisions, part.classes)
                for name in dict.fromkeys((task.metric, "accuracy"))}})
    return pd.DataFrame(rows, columns=["coverage", "units", *dict.fromkeys((task.metric, "accuracy"))])


def in_words(number: Number) -> str:
    """`0.812 [0.733, 0.884]`."""
    if number["value"] is None or number["low"] is None:
        return "not defined"
    return f"{number['value']:.3f} [{number['low']:.3f}, {number['high']:.3f}]"
