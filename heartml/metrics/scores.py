"""From a table of predictions to the numbers and curves of the evaluation. Pure: no path, no model.

A table of predictions has one row for each unit: unit_id, group_id, label, part, decision, p_<class> (the probabilities
that the decision was made from) and c_<class> (calibrated, for showing), as `artifacts/<task>/out_of_fold.parquet` has.
Numbers leave as values for JSON, curves as tables. Every interval resamples groups.
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
from heartml.metrics import METRICS, Metric, bootstrap_intervals, class_metrics, paired_bootstrap, reliability_bins

Floats = NDArray[np.float64]
JsonInterval = dict[str, float | None]     # value, low, high, and p where two models are compared
NOT_GIVEN = "not given"
CURVE_POINTS = 200
COVERAGES = tuple(round(0.5 + step / 20, 2) for step in range(11))


class ScoresError(HeartMLError):
    """A table of predictions does not fit the task; the message names the unit."""


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions for n units of k classes, with their true labels, as arrays.

    Attributes:
        unit_ids: [n].
        groups: [n], the group of each unit.
        parts: [n], a fold or the held-out part.
        labels: int [n], indices into `classes`.
        decisions: int [n], indices into `classes`.
        probabilities: [n, k], what the decisions were made from.
        calibrated: [n, k], the probabilities that are shown.
        classes: [k] names.
        referred_for: [n], the checks of the input for which the model refers a unit, or an empty text; `None` where the
            model has no checks.
    """

    unit_ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    parts: NDArray[np.str_]
    labels: NDArray[np.int64]
    decisions: NDArray[np.int64]
    probabilities: Floats
    calibrated: Floats
    classes: tuple[str, ...]
    referred_for: NDArray[np.str_] | None = None

    @classmethod
    def from_table(cls, table: pd.DataFrame, classes: tuple[str, ...]) -> "LabelledPredictions":
        """Read a table of predictions.

        Raises:
            ScoresError: a label or a decision is none of `classes`, or a probability is not a number.
        """
        for column in ("label", "decision"):
            unknown = table[~table[column].isin(classes)]
            if len(unknown):
                row = unknown.iloc[0]
                raise ScoresError(f"unit {row['unit_id']}: {column} {row[column]!r} is none of {', '.join(classes)}")
        p, c = (table[[f"{kind}_{name}" for name in classes]].to_numpy(float) for kind in "pc")
        wrong = ~np.isfinite(p).all(axis=1) | ~np.isfinite(c).all(axis=1)
        if wrong.any():
            raise ScoresError(f"unit {table['unit_id'].iloc[int(wrong.argmax())]}: a probability is not a number")
        index = {name: number for number, name in enumerate(classes)}
        labels, decisions = (np.array([index[x] for x in table[column]], np.int64) for column in ("label", "decision"))
        ids, groups, parts = (table[column].to_numpy(str) for column in ("unit_id", "group_id", "part"))
        checks = table["referred_for"].fillna("").to_numpy(str) if "referred_for" in table else None
        return cls(ids, groups, parts, labels, decisions, p, c, classes, checks)

    def take(self, mask: NDArray[np.bool_] | NDArray[np.intp]) -> "LabelledPredictions":
        """The units where `mask` [n] is true, or those with the given row numbers."""
        arrays = ("unit_ids", "groups", "parts", "labels", "decisions", "probabilities", "calibrated")
        checked = None if self.referred_for is None else self.referred_for[mask]
        return replace(self, **{name: getattr(self, name)[mask] for name in arrays}, referred_for=checked)

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Which units the model refers whatever its confidence, [n]."""
        return np.zeros(len(self.labels), bool) if self.referred_for is None else self.referred_for != ""

    @property
    def confidence(self) -> Floats:
        """Calibrated probability of each decision, [n]."""
        return self.calibrated[np.arange(len(self.labels)), self.decisions]

    def counts(self) -> dict[str, Any]:
        """Number of units and groups, in all and by class."""
        by_class = {name: self.take(self.labels == c) for c, name in enumerate(self.classes)}
        return {
            "units": len(self.labels), "groups": len(np.unique(self.groups)),
            "classes": {name: {"units": len(part.labels), "groups": len(np.unique(part.groups))}
                        for name, part in by_class.items()},
        }


def json_number(value: float) -> float | None:
    """The value as JSON holds it: NaN, which means not defined, becomes null.

    >>> json_number(0.5), json_number(float("nan"))
    (0.5, None)
    """
    return None if math.isnan(value) else float(value)


def metric_intervals(
    metrics: Sequence[Metric], predictions: LabelledPredictions, probabilities: Floats, params: EvaluateParams,
    seed: int,
) -> dict[str, JsonInterval]:
    """metric -> {value, low, high}; the resamples depend only on the seed and the set of groups.

    Args:
        probabilities: [n, k], `predictions.probabilities` or `predictions.calibrated`.
    """
    found = bootstrap_intervals(
        metrics, predictions.labels, probabilities, predictions.decisions, predictions.classes, predictions.groups,
        resamples=params.bootstrap, confidence=params.confidence, rng=np.random.default_rng(seed),
    )
    return {name: {end: json_number(getattr(interval, end)) for end in ("value", "low", "high")}
            for name, interval in found.items()}


def task_metrics(task: Task) -> list[Metric]:
    """The metric that chooses, then the official ones, each once.

    >>> from heartml.core.tasks import TASKS
    >>> [metric.name for metric in task_metrics(TASKS["outcome"])]
    ['uar', 'outcome_cost', 'macro_auc', 'accuracy', 'macro_f1']
    """
    return [METRICS[name] for name in dict.fromkeys((task.metric, *task.official))]


def task_scores(
    predictions: LabelledPredictions, task: Task, params: EvaluateParams, seed: int
) -> dict[str, JsonInterval]:
    """The task's metrics, and those of the calibration: `ece`, `brier` after it, `ece_before`, `brier_before` it."""
    calibration = [METRICS["ece"], METRICS["brier"]]
    before = metric_intervals(calibration, predictions, predictions.probabilities, params, seed)
    return {
        **metric_intervals(task_metrics(task), predictions, predictions.probabilities, params, seed),
        **metric_intervals(calibration, predictions, predictions.calibrated, params, seed),
        **{f"{name}_before": value for name, value in before.items()},
    }


def paired_difference(
    first: LabelledPredictions, second: LabelledPredictions, task: Task, params: EvaluateParams, seed: int
) -> JsonInterval:
    """The task's metric of `first` minus that of `second` on the same units: {value, low, high, p}."""
    found = paired_bootstrap(
        METRICS[task.metric], first.labels, (first.probabilities, first.decisions),
        (second.probabilities, second.decisions), first.classes, first.groups,
        resamples=params.bootstrap, confidence=params.confidence, rng=np.random.default_rng(seed),
    )
    ends = {end: json_number(getattr(found, end)) for end in ("value", "low", "high")}
    return {**ends, "p": found.p}


def per_class(predictions: LabelledPredictions, min_groups: int, params: EvaluateParams, seed: int) -> dict[str, Any]:
    """class -> units, groups, estimable; and where it is estimable: recall, precision, AUC against the rest.

    Args:
        min_groups: a class with fewer groups is not estimable.
    """
    found = {}
    for c, name in enumerate(predictions.classes):
        of_class = predictions.labels == c
        groups = len(np.unique(predictions.groups[of_class]))
        entry: dict[str, Any] = {"units": int(of_class.sum()), "groups": groups, "estimable": groups >= min_groups}
        if entry["estimable"]:
            entry |= metric_intervals(class_metrics(c), predictions, predictions.probabilities, params, seed)
        found[name] = entry
    return found


def subgroups(
    predictions: LabelledPredictions, values: Mapping[str, Sequence[Any]], task: Task, min_groups: int,
    params: EvaluateParams, seed: int,
) -> dict[str, Any]:
    """column -> value -> units, groups, estimable, absent classes; and where it is estimable: the task's metrics.

    Args:
        values: column -> value of every unit [n]; null becomes "not given".
        min_groups: a subgroup with fewer groups is not estimable.
    """
    found: dict[str, Any] = {}
    for column, of_unit in values.items():
        texts = pd.Series(list(of_unit), dtype="string").fillna(NOT_GIVEN).to_numpy(str)
        found[column] = {
            value: _subgroup(predictions.take(texts == value), task, min_groups, params, seed)
            for value in np.unique(texts)
        }
    return found


def _subgroup(
    part: LabelledPredictions, task: Task, min_groups: int, params: EvaluateParams, seed: int
) -> dict[str, Any]:
    groups = len(np.unique(part.groups))
    absent = [name for c, name in enumerate(part.classes) if not (part.labels == c).any()]
    entry = {"units": len(part.labels), "groups": groups, "estimable": groups >= min_groups, "absent": absent}
    if entry["estimable"]:
        entry |= metric_intervals(task_metrics(task), part, part.probabilities, params, seed)
    return entry


def confusion_rows(predictions: LabelledPredictions) -> pd.DataFrame:
    """One row for each unit: actual, predicted. DVC's confusion template reads this."""
    names = np.array(predictions.classes)
    return pd.DataFrame({"actual": names[predictions.labels], "predicted": names[predictions.decisions]})


def roc_curves(predictions: LabelledPredictions) -> pd.DataFrame:
    """class, false_positive_rate, true_positive_rate of each class against the rest; at most `CURVE_POINTS` each."""
    from sklearn.metrics import roc_curve

    labels, probabilities = predictions.labels, predictions.probabilities
    found = [roc_curve(labels == c, probabilities[:, c])[:2] for c in _separable_classes(predictions)]
    return _curves(predictions, found, ("false_positive_rate", "true_positive_rate"))


def precision_recall_curves(predictions: LabelledPredictions) -> pd.DataFrame:
    """class, recall, precision of each class against the rest; at most `CURVE_POINTS` each."""
    from sklearn.metrics import precision_recall_curve

    labels, probabilities = predictions.labels, predictions.probabilities
    pairs = [precision_recall_curve(labels == c, probabilities[:, c])[:2] for c in _separable_classes(predictions)]
    found = [(recall[::-1], precision[::-1]) for precision, recall in pairs]
    return _curves(predictions, found, ("recall", "precision"))


def _separable_classes(predictions: LabelledPredictions) -> list[int]:
    """Classes that some units belong to and some do not."""
    labels = predictions.labels
    return [c for c in range(len(predictions.classes)) if 0 < (labels == c).sum() < len(labels)]


def _curves(
    predictions: LabelledPredictions, found: Sequence[tuple[Floats, Floats]], axes: tuple[str, str]
) -> pd.DataFrame:
    tables = []
    for c, (x, y) in zip(_separable_classes(predictions), found, strict=True):
        points = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
        tables.append(pd.DataFrame({"class": predictions.classes[c], axes[0]: x[points], axes[1]: y[points]}))
    return pd.concat(tables) if tables else pd.DataFrame(columns=["class", *axes])


def calibration_curve(predictions: LabelledPredictions) -> pd.DataFrame:
    """stage (before or after calibration), units, mean confidence and accuracy: one row for each bin with units."""
    tables, once = [], np.ones((1, len(predictions.labels)))
    for stage, probabilities in (("before", predictions.probabilities), ("after", predictions.calibrated)):
        units, confidence, correct = (
            sums[0] for sums in reliability_bins(predictions.labels, probabilities, predictions.decisions, once)
        )
        filled = units > 0
        tables.append(pd.DataFrame({
            "stage": stage, "units": units[filled].astype(int),
            "confidence": confidence[filled] / units[filled], "accuracy": correct[filled] / units[filled],
        }))
    return pd.concat(tables)


def coverage_curve(predictions: LabelledPredictions, task: Task, min_groups: int) -> pd.DataFrame:
    """coverage, units, the task's metric and the accuracy, when only the most confident decisions are counted.

    Units that the model refers whatever its confidence are counted last.

    Coverage is the share of the units that are counted. A row with fewer groups than `min_groups` is left out.
    """
    order = np.lexsort((-predictions.confidence, predictions.outside))     # what cannot be judged is left out first
    rows = []
    for coverage in COVERAGES:
        counted = np.zeros(len(order), dtype=bool)
        counted[order[: math.ceil(coverage * len(order))]] = True
        part = predictions.take(counted)
        if len(np.unique(part.groups)) >= min_groups:
            rows.append({"coverage": coverage, "units": len(part.labels), **{
                name: METRICS[name].function(part.labels, part.probabilities, part.decisions, part.classes)
                for name in dict.fromkeys((task.metric, "accuracy"))}})
    return pd.DataFrame(rows, columns=["coverage", "units", *dict.fromkeys((task.metric, "accuracy"))])


def interval_text(interval: JsonInterval) -> str:
    """A value and its interval for people.

    >>> interval_text({"value": 0.812, "low": 0.7331, "high": 0.884})
    '0.812 [0.733, 0.884]'
    >>> interval_text({"value": None, "low": None, "high": None})
    'not defined'
    """
    if interval["value"] is None or interval["low"] is None:
        return "not defined"
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
