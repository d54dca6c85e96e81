"""What is predicted: target, classes in order, unit, the metric that chooses and the ones that are reported.

A task's full name is `<data set>-<task>`, for instance `circor-murmur`; several data sets are joined with `+`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import did_you_mean


@dataclass(frozen=True)
class CoarseClasses:
    """A task seen with fewer classes, at the same operating point: for studies that do not tell all of them apart.

    Attributes:
        name: key in `metrics.json`.
        title: for people.
        classes: class of the view, in order -> the task's classes that it joins; each of the task's exactly once.
    """

    name: str
    title: str
    classes: Mapping[str, tuple[str, ...]]


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
        rare: what becomes of a class with too few groups in all the data (see `estimable`). `kept`: it is learnt and
            enters the means, and has no number of its own. `left out`: its units enter no fold, no fit and no number,
            and are named wherever the task is reported. A class of one to nine people is in the training of some folds
            and not of others, and would weigh in a mean over classes as much as one of fifty: that is the luck of the
            draw. What such a task says and scores is about the classes that are left, and never about the rare ones.
        views: coarser readings that are scored as well.
    """

    name: str
    label: str
    classes: tuple[str, ...]
    unit: Literal["recording", "patient"]
    metric: str
    official: tuple[str, ...]
    recording_label: str | None = None
    positive: str | None = None
    rare: Literal["kept", "left out"] = "kept"
    views: tuple[CoarseClasses, ...] = ()


_SHAPES = ("Crescendo", "Decrescendo", "Diamond", "Plateau")
_PITCHES = ("Low", "Medium", "High")
_QUALITIES = ("Blowing", "Harsh", "Musical")
_DESCRIPTORS = {                 # of CirCor's murmurs, in the order in which a clinician says them
    "systolic_timing": ("Early-systolic", "Mid-systolic", "Late-systolic", "Holosystolic"),
    "systolic_shape": _SHAPES,
    "systolic_grading": ("I/VI", "II/VI", "III/VI"),
    "systolic_pitch": _PITCHES,
    "systolic_quality": _QUALITIES,
    "diastolic_timing": ("Early-diastolic", "Mid-diastolic", "Late-diastolic", "Holodiastolic"),
    "diastolic_shape": _SHAPES,
    "diastolic_grading": ("I/IV", "II/IV", "III/IV", "IV/IV"),
    "diastolic_pitch": _PITCHES,
    "diastolic_quality": _QUALITIES,
}


DISEASES = ("aortic_stenosis", "aortic_regurgitation", "mitral_regurgitation", "mitral_stenosis")
_OFFICIAL = ("uar", "macro_auc", "accuracy", "macro_f1")


_FOUR_SOUNDS = CoarseClasses("four_classes", "Four classes: an extra sound and an extra beat are one", {
    "artifact": ("artifact",), "extra": ("extrahls", "extrastole"), "murmur": ("murmur",), "normal": ("normal",)})


def _descriptor(name: str, classes: tuple[str, ...]) -> Task:
    """One feature of a murmur; only patients whose murmur is described have the label."""
    phase, feature = name.split("_")
    return Task(name, f"{phase}_murmur_{feature}", classes, "patient", "uar",
                ("macro_f1", "uar", "macro_auc", "accuracy"), rare="left out")


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
            views=(_FOUR_SOUNDS,),
        ),
        *(_descriptor(name, classes) for name, classes in _DESCRIPTORS.items()),
        Task(   # UAR is the MAcc of PhysioNet 2016 (mean of sensitivity and specificity) without its terms for quality
            "normal", "normal", ("Abnormal", "Normal"), "recording", "uar", _OFFICIAL, None, "Abnormal",
        ),
        Task("valves", "valve", ("AS", "MR", "MS", "MVP", "N"), "recording", "uar", _OFFICIAL),
        Task("disease", "disease", ("Diseased", "Normal"), "patient", "uar", _OFFICIAL, None, "Diseased"),
        *(Task(name, name, ("Present", "Absent"), "patient", "uar", _OFFICIAL, None, "Present") for name in DISEASES),
    )
}
LABELS: Mapping[str, tuple[str, ...]] = {     # name of a label, of a unit or of a recording -> its classes, in order
    label: task.classes for task in TASKS.values() for label in (task.label, task.recording_label) if label
}


# Several tasks under one name. A case with several labels at once (a murmur's descriptors, diseases that come together)
# is one task a label: each has its own search, interval and decision, and a label that is missing costs only its own.
GROUPS: dict[str, tuple[str, ...]] = {"descriptors": tuple(_DESCRIPTORS), "diseases": DISEASES}


class TaskError(HeartMLError):
    """No such task; the message says how those there are can be seen."""


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
    if datasets and task in GROUPS:
        several = ", ".join(f"{datasets}-{one}" for one in GROUPS[task])
        raise TaskError(f"{name!r} is several tasks: `heartml tasks --use {name}` writes {several} into params.yaml")
    if not datasets or task not in TASKS:
        near = did_you_mean(name, (f"{datasets}-{one}" for one in (*TASKS, *GROUPS))) if datasets else ""
        raise TaskError(f"no task {name!r}, which would be <data set>-<task>, for instance circor-murmur.{near} "
                        "`heartml tasks` lists those that the data allow")
    return Assignment(name, tuple(datasets.split("+")), TASKS[task])


def estimable(task: Task, groups: Mapping[str, int], min_groups: int) -> tuple[str, ...]:
    """The classes that enough groups carry to say anything about them, in the task's order.

    Args:
        groups: class -> number of groups that carry it in all the data that are labelled for the task.
        min_groups: `validate.min_class_groups`.
    """
    return tuple(name for name in task.classes if groups.get(name, 0) >= min_groups)


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
