"""Baselines: what a trivial predictor scores that uses no heart sound. A model that is not better has learnt nothing.

One baseline is the majority class. Each of the others is a small logistic regression on one kind of column, fitted on
other folds than it is scored on. Its decision rule is adapted to the metric, as the ensemble's is; otherwise it would
be too easy to beat. The rule divides by the prior to a power, or weighs classes by what the metric pays for them, or
always gives one class. In: tables with one row a recording. Out: predictions `[units, classes]`, in the order of
`units`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.schema import TEST
from heartml.core.tasks import Task
from heartml.metrics import METRICS
from heartml.metrics.class_gains import class_gains

Floats = NDArray[np.float64]
NOT_GIVEN = "not given"
PERSONAL = ("age_group", "sex")
NUISANCE = ("level_db", "dc", "seconds", "bandwidth_hz", "clipped_share")
PRIOR_POWERS = (0.0, 0.5, 1.0)   # 0: the likeliest class; 1: every class counts the same
BINS = 5                         # of a signal column, at its quantiles: its effect need not be linear


@dataclass(frozen=True)
class Baseline:
    """One baseline.

    Attributes:
        title: its name on pages. It is stored in `metrics.json`, as `cue` is, so their wording stays.
        cue: what it uses in place of the heart, in words.
        columns: recordings, one row each -> `[units, features]`, indexed by unit_id.
        binned: whether each column is cut into `BINS` bins first.
    """

    title: str
    cue: str
    columns: Callable[[pd.DataFrame], pd.DataFrame]
    binned: bool = False


def _share_of(recordings: pd.DataFrame, column: str) -> pd.DataFrame:
    """The share of a unit's recordings that has each value of `column`: `[units, values]`."""
    values = recordings[column].fillna(NOT_GIVEN).astype(str)
    return pd.crosstab(recordings["unit_id"], f"{column}=" + values, normalize="index")


def _source(recordings: pd.DataFrame) -> pd.DataFrame:
    return _share_of(recordings, "source")


def _metadata(recordings: pd.DataFrame) -> pd.DataFrame:
    """Age group, sex, and the number of recordings from each location: `[units, values]`."""
    locations = "location=" + recordings["location"].fillna(NOT_GIVEN).astype(str)
    counts = pd.crosstab(recordings["unit_id"], locations)
    return pd.concat([_share_of(recordings, "age_group"), _share_of(recordings, "sex"), counts], axis=1)


def _nuisance(recordings: pd.DataFrame) -> pd.DataFrame:
    """Level, DC, length, bandwidth and clipping: mean, minimum and maximum over the unit's recordings."""
    measured = recordings.set_index("unit_id")[list(NUISANCE)].abs()
    if measured.index.is_unique:
        return measured
    values = measured.groupby(level=0).agg(["mean", "min", "max"])
    values.columns = [" ".join(pair) for pair in values.columns]
    return values


def _nothing(recordings: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index(recordings["unit_id"].unique(), name="unit_id"))


BASELINES: Mapping[str, Baseline] = {
    "majority": Baseline("Majority class", "nothing", _nothing),
    "source": Baseline("Data source alone", "the sensor or campaign", _source),
    "metadata": Baseline("Age, sex and place alone", "the patient's age, sex or location", _metadata),
    "nuisance": Baseline("Loudness and length alone", "level, length or bandwidth", _nuisance, binned=True),
}


def predict(
    name: str, recordings: pd.DataFrame, units: pd.DataFrame, task: Task
) -> tuple[Floats, NDArray[np.int64]]:
    """The predictions of baseline `name` for every unit, each by a fit without the unit's fold.

    Args:
        recordings: unit_id, source, age_group, sex, location and the `NUISANCE` columns; one row a recording.
        units: unit_id, label (index into the task's classes), part; one row a unit. Held-out units are predicted
            by a fit on all others, a unit of fold k by a fit on the other folds.

    Returns:
        probabilities [n, k], decisions [n] in the order of `units`.
    """
    baseline = BASELINES[name]
    columns = baseline.columns(_without_label(recordings, task)).reindex(units["unit_id"]).to_numpy(float)
    labels, parts = units["label"].to_numpy(int), units["part"].to_numpy(str)
    probabilities = np.zeros((len(units), len(task.classes)))
    decisions = np.zeros(len(units), dtype=np.int64)
    for part in np.unique(parts):
        fit, on = (parts != part) & (parts != TEST), parts == part
        rule = _fit(columns[fit], labels[fit], task, baseline.binned)
        probabilities[on], decisions[on] = rule(columns[on])
    return probabilities, decisions


def _without_label(recordings: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The columns without the one that a task predicts: who is asked for a patient's sex does not know it."""
    return recordings.assign(**{task.label: None}) if task.label in PERSONAL else recordings


def _fit(
    columns: Floats, labels: NDArray[np.int_], task: Task, binned: bool
) -> Callable[[Floats], tuple[Floats, NDArray[np.int64]]]:
    """Fit one baseline on `[units, features]`; returns a function from other rows to probabilities and decisions."""
    k = len(task.classes)
    prior = np.asarray((np.bincount(labels, minlength=k) + 1e-9) / (len(labels) + k * 1e-9), np.float64)
    classify = _regression(columns, labels, k, binned) if columns.shape[1] and len(set(labels)) > 1 else None

    def probabilities_of(rows: Floats) -> Floats:
        return classify(rows) if classify else np.tile(prior, (len(rows), 1))

    def decide(probabilities: Floats, weights: Floats) -> NDArray[np.int64]:
        return np.asarray(np.argmax(probabilities * weights, axis=1), np.int64)

    metric = METRICS[task.metric]
    sign = 1 if metric.greater_is_better else -1
    fitted = probabilities_of(columns)
    gains = class_gains(task.metric, labels, task.classes)
    weights = max(_weights(prior, gains) if classify else [np.ones(k)],
                  key=lambda w: sign * metric.function(labels, fitted, decide(fitted, w), task.classes))

    def rule(rows: Floats) -> tuple[Floats, NDArray[np.int64]]:
        probabilities = probabilities_of(rows)
        return probabilities, decide(probabilities, weights)

    return rule


def _weights(prior: Floats, gains: Floats) -> list[Floats]:
    """Weights `[k]` that a baseline may multiply its probabilities by; a unit vector makes it always give one class."""
    return [*(prior**-power for power in PRIOR_POWERS), gains, *np.eye(len(prior))]


def _regression(columns: Floats, labels: NDArray[np.int_], k: int, binned: bool) -> Callable[[Floats], Floats]:
    """Logistic regression [units, features] -> [units, k]; a class without training rows gets probability 0."""
    from sklearn.linear_model import LogisticRegression

    edges = [np.unique(np.quantile(column, np.arange(1, BINS) / BINS)) for column in columns.T]

    def design(rows: Floats) -> Floats:
        if not binned:
            return rows
        bin_of = [np.searchsorted(cuts, column, side="left") for cuts, column in zip(edges, rows.T, strict=True)]
        return np.hstack([np.eye(BINS)[bins] for bins in bin_of])

    model = LogisticRegression(max_iter=1000).fit(design(columns), labels)

    def classify(rows: Floats) -> Floats:
        probabilities = np.zeros((len(rows), k))
        probabilities[:, model.classes_] = model.predict_proba(design(rows))
        return probabilities

    return classify
