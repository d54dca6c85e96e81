"""What is predicted: label, classes in order, unit, the metric that decides and the metrics that are reported.

A task's full name is `<data set>-<task>`, for instance `circor-murmur`; several data sets are joined with `+`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import did_you_mean


@dataclass(frozen=True)
class CoarseClasses:
    """Some of a task's classes joined, to compare with studies that do not separate them. The decisions stay the same.

    Attributes:
        name: key in `metrics.json`.
        title: for people.
        classes: coarse class, in order -> the task's classes that it joins; each class of the task is in exactly one.
    """

    name: str
    title: str
    classes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Task:
    """One thing to predict.

    Attributes:
        name: key in `TASKS`.
        label: name of the unit's label (column `label_<name>` of the recordings table).
        classes: in order; probabilities have shape [units, len(classes)].
        unit: `recording`, or `patient` (all recordings of one patient are one case).
        metric: key of `heartml.metrics.METRICS`; search, decision rule and gate optimise it.
        official: further metrics that are reported, in the order of the table.
        recording_label: label of the single recording, where the publisher gives one (a murmur is audible at some
            locations only); `None`: the unit's label.
        positive: the class whose recall and predictive value clinicians ask for, or `None`.
        rare: what happens to a class with too few groups in all the data (see `estimable_classes`). `kept`: models are
            trained on it and it enters the means, but it has no score of its own. `left out`: its units are in no fold,
            no fit and no score, and the report names them. The reason: a class of one to nine people is in the training
            data of some folds only, and in a mean over classes it would count as much as a class of fifty. Such a mean
            would depend on chance. The task then predicts the remaining classes only.
        coarse_classes: joined classes that are scored as well.
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
    coarse_classes: tuple[CoarseClasses, ...] = ()


_SHAPES = ("Crescendo", "Decrescendo", "Diamond", "Plateau")
_PITCHES = ("Low", "Medium", "High")
_QUALITIES = ("Blowing", "Harsh", "Musical")
_DESCRIPTORS = {                 # features of CirCor's murmurs, in the order in which a clinician describes them
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
    """The task of one feature of a murmur. Only patients whose murmur is described have the label."""
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
            coarse_classes=(_FOUR_SOUNDS,),
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
LABELS: Mapping[str, tuple[str, ...]] = {     # label of a unit or a recording -> its classes, in order
    label: task.classes for task in TASKS.values() for label in (task.label, task.recording_label) if label
}
# Several tasks under one name. Where a case has several labels at once (the descriptors of a murmur, several diseases),
# each label is a task with its own search, interval and decision. A missing label then costs only its own task.
GROUPS: dict[str, tuple[str, ...]] = {"descriptors": tuple(_DESCRIPTORS), "diseases": DISEASES}


class TaskError(HeartMLError):
    """There is no such task; the message says how to list the tasks."""


@dataclass(frozen=True)
class Assignment:
    """A task on the data sets that it uses.

    Attributes:
        name: the full name, `circor+pascal-murmur`.
        datasets: names of the data sets.
        task: the task.
    """

    name: str
    datasets: tuple[str, ...]
    task: Task


def resolve(name: str) -> Assignment:
    """The task behind `<data set>[+<data set>...]-<task>`.

    Raises:
        TaskError: the name has another form, or there is no such task.

    >>> found = resolve("circor-murmur")
    >>> found.datasets, found.task.classes
    (('circor',), ('Present', 'Unknown', 'Absent'))
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


def estimable_classes(task: Task, groups: Mapping[str, int], min_groups: int) -> tuple[str, ...]:
    """The classes with at least `min_groups` groups, in the task's order.

    Args:
        groups: class -> number of groups with that label, in all data that are labelled for the task.
        min_groups: `validate.min_class_groups`.

    >>> estimable_classes(TASKS["murmur"], {"Present": 30, "Unknown": 4, "Absent": 80}, min_groups=10)
    ('Present', 'Absent')
    """
    return tuple(name for name in task.classes if groups.get(name, 0) >= min_groups)


def expand_groups(names: Iterable[str]) -> tuple[str, ...]:
    """Full names with `<data set>-<group>` replaced by the group's tasks, each once, in order.

    Raises:
        TaskError: see `resolve`.

    >>> expand_groups(["bmdhs-diseases"])[:2]
    ('bmdhs-aortic_stenosis', 'bmdhs-aortic_regurgitation')
    """
    found: dict[str, None] = {}
    for name in names:
        datasets, _, last = name.rpartition("-")
        for one in (f"{datasets}-{task}" for task in GROUPS[last]) if last in GROUPS else (name,):
            found[resolve(one).name] = None
    return tuple(found)
