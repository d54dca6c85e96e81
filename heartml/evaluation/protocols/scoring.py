"""The paper's columns: decisions for the patients of test parts in; scores, and means over splits and seeds, out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.config import Params
from heartml.core.tasks import TASKS
from heartml.evaluation.protocols.cohort import Cohort
from heartml.metrics import METRICS
from heartml.metrics.bootstrap import bootstrap_interval

SYSTEMS = ("single", "ensemble", "finetune")
COLUMNS = (("w_acc", "weighted_accuracy"), ("uar", "uar"))
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def paper_rule(log_p: Floats, unit: Ints) -> Ints:
    """Decision for each patient by the paper's rule: log-probabilities `[r, 3]`, units `[r]` -> `[units]`.

    Each recording has the class with the highest probability. Any Present recording makes the patient Present, else any
    Unknown one makes it Unknown. The classes are in that order, so the smallest index decides.
    """
    decided = log_p.argmax(axis=1)
    return np.array([decided[unit == u].min() for u in np.unique(unit)], np.int64)


def paper_columns(labels: Ints, decisions: Ints, free: NDArray[np.bool_]) -> dict[str, Any]:
    """The paper's columns for all test patients and, with the suffix `_twin_free`, for those where `free` holds.

    What is not defined is `None`.
    """
    task = TASKS["murmur"]
    found: dict[str, Any] = {}
    for suffix, rows in (("", np.ones(len(labels), bool)), ("_twin_free", free)):
        for short, name in COLUMNS:
            found[short + suffix] = METRICS[name].function(
                labels[rows], np.eye(len(task.classes))[decisions[rows]], decisions[rows], task.classes
            ) if rows.any() else None
    found["recall"] = {
        name: float((decisions[labels == c] == c).mean()) if (labels == c).any() else None
        for c, name in enumerate(task.classes)
    }
    return found


def mean(results: Sequence[Mapping[str, Any]], system: str) -> dict[str, Any]:
    """Means of every number of a system over splits and seeds, and standard deviations under `sd`."""
    flat = pd.json_normalize([result[system] for result in results], sep="/").astype(float)
    means, deviations = flat.mean(), flat.std()
    return {**_nested(means), "sd": _nested(deviations)}


def _nested(values: "pd.Series[float]") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        where, _, key = str(name).rpartition("/")
        (found.setdefault(where, {}) if where else found)[key] = None if pd.isna(value) else float(value)
    return found


def pooled(results: Sequence[Mapping[str, Any]], cohort: Cohort, params: Params) -> dict[str, Any] | None:
    """Scores of the test patients of all splits together, with bootstrap intervals over children.

    `None` where a patient is in several test parts.
    """
    first = pd.concat([pd.DataFrame(r["predictions"]) for r in results if r["seed"] == 0], ignore_index=True)
    if first["patient_id"].duplicated().any():
        return None
    classes = TASKS["murmur"].classes
    code = {name: c for c, name in enumerate(classes)}
    group = cohort.recordings.drop_duplicates("patient_id").set_index("patient_id")["group_id"]
    labels, groups = np.array([code[label] for label in first["label"]]), first["patient_id"].map(group).to_numpy(str)
    found: dict[str, Any] = {"patients": len(first)}
    for system in [one for one in SYSTEMS if one in results[0]]:
        decisions = np.array([code[name] for name in first[system]])
        for short, name in COLUMNS:
            interval = bootstrap_interval(
                METRICS[name], labels, np.eye(len(classes))[decisions], decisions, classes, groups,
                resamples=params.evaluate.bootstrap, confidence=params.evaluate.confidence,
                rng=np.random.default_rng(params.seed))
            found.setdefault(system, {})[short] = [interval.value, interval.low, interval.high]
    return found
