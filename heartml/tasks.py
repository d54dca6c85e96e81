"""What is predicted: target, classes in order, unit, the metric that chooses and the ones that are reported.

A task's full name is `<data set>-<task>`, for instance `circor-murmur`; several data sets are joined with `+`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from heartml.errors import HeartMLError


@dataclass(frozen=True)
class Task:
    """One prediction problem.

    Attributes:
        name: what is predicted; `TASKS` key.
        label: name of the label of the unit (`label_<name>` in the recordings table).
        classes: in order; probabilities have shape [units, len(classes)].
        unit: `recording`, or `patient` (all recordings of one patient are one case).
        metric: key of `heartml.metrics.METRICS` that search, decision rule and gate maximise.
        official: further metrics that are reported, in the order of the table.
        recording_label: label that says what this one recording shows, where it is known
            better than the unit's (a murmur is heard at some locations only); `None`: the unit's label.
        positive: the class whose recall and predictive value clinicians ask for, or `None`.
    """

    name: str
    label: str
    classes: tuple[str, ...]
    unit: Literal["recording", "patient"]
    metric: str
    official: tuple[str, ...]
    recording_label: str | None = None
    positive: str | None = None


TASKS = {
    task.name: task
    for task in (
        Task(
            "murmur", "murmur", ("Present", "Unknown", "Absent"), "patient", "weighted_accuracy_and_uar",
            ("weighted_accuracy", "uar", "macro_auc", "accuracy", "macro_f1"), "murmur_here", "Present",
        ),
        Task(
            "outcome", "outcome", ("Abnormal", "Normal"), "patient", "uar",
            ("outcome_cost", "uar", "macro_auc", "accuracy", "macro_f1"), None, "Abnormal",
        ),
        Task(
            "sounds", "sound", ("artifact", "extrahls", "extrastole", "murmur", "normal"), "recording",
            "accuracy_and_uar", ("accuracy", "uar", "macro_auc", "macro_f1"), None, "murmur",
        ),
    )
}


# Several tasks under one name. A case with several labels at once (a murmur's descriptors, diseases that come together)
# is one task a label: each has its own search, interval and decision, and a label that is missing costs only its own.
GROUPS: dict[str, tuple[str, ...]] = {}


class TaskError(HeartMLError):
    """No such task; the message lists those there are."""


@dataclass(frozen=True)
class Assignment:
    """A task on the data sets it uses."""

    name: str
    datasets: tuple[str, ...]
    task: Task


def resolve(name: str) -> Assignment:
    """The task behind `<data set>[+<data set>...]-<task>`.

    Raises:
        TaskError: the name has another form or no such task exists.
    """
    datasets, _, task = name.rpartition("-")
    if not datasets or task not in TASKS:
        known = ", ".join(f"<data set>-{t}" for t in TASKS)
        raise TaskError(f"no task {name!r}: write {known}, for instance circor-murmur (`tasks` in params.yaml)")
    return Assignment(name, tuple(datasets.split("+")), TASKS[task])


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Full names with `<data set>-<group>` replaced by the group's tasks, each once, in order.

    Raises:
        TaskError: as `resolve`.
    """
    found: dict[str, None] = {}
    for name in names:
        datasets, _, last = name.rpartition("-")
        for one in (f"{datasets}-{task}" for task in GROUPS[last]) if last in GROUPS else (name,):
            found[resolve(one).name] = None
    return tuple(found)
