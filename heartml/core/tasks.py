"""What is predicted: label, classes in order, unit, the metric that decides and the metrics that are reported.

A task's full name is `<data set>-<task>`, for instance `circor-murmur`; several data sets are joined with `+`. The
tasks of published data sets stand here. A collection of a user's own may declare tasks in its mapping file: those are
read from `data/tasks/<data set>.json`, which `heartml ingest` writes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from heartml.core import paths
from heartml.core.lung_tasks import LUNG_TASKS
from heartml.core.system.files import read_json
from heartml.core.system.text import did_you_mean
from heartml.core.task_definition import OFFICIAL, CoarseClasses, Declared, Task, TaskError, differences

__all__ = [
    "DISEASES", "GROUPS", "LABELS", "TASKS", "Assignment", "CoarseClasses", "Declared", "Task", "TaskError",
    "datasets_of", "declared", "declared_by", "estimable_classes", "expand_groups", "of_stored", "parent_of",
    "present_classes", "resolve", "stored_definition",
]

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
_FOUR_SOUNDS = CoarseClasses("four_classes", "Four classes: an extra sound and an extra beat are one", {
    "artifact": ("artifact",), "extra": ("extrahls", "extrastole"), "murmur": ("murmur",), "normal": ("normal",)})


def _descriptor(name: str, classes: tuple[str, ...]) -> Task:
    """The task of one feature of a murmur. Only patients whose murmur is described have the label."""
    phase, feature = name.split("_")
    return Task(name, f"{phase}_murmur_{feature}", classes, "patient", "uar",
                ("macro_f1", "uar", "macro_auc", "accuracy"), rare="left out", within="murmur")


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
            "normal", "normal", ("Abnormal", "Normal"), "recording", "uar", OFFICIAL, None, "Abnormal",
        ),
        Task("valves", "valve", ("AS", "MR", "MS", "MVP", "N"), "recording", "uar", OFFICIAL),
        Task("disease", "disease", ("Diseased", "Normal"), "patient", "uar", OFFICIAL, None, "Diseased"),
        *(Task(name, name, ("Present", "Absent"), "patient", "uar", OFFICIAL, None, "Present") for name in DISEASES),
        Task("heart_sounds", "heart_sound", (
            "Normal", "Early Systolic Murmur", "Mid Systolic Murmur", "Late Systolic Murmur", "Late Diastolic Murmur",
            "Atrial Fibrillation", "AV Block", "Tachycardia", "S3", "S4"), "recording", "uar", OFFICIAL),
        *LUNG_TASKS,
    )
}
LABELS: Mapping[str, tuple[str, ...]] = {     # label of a unit or a recording -> its classes, in order
    label: task.classes for task in TASKS.values() for label in (task.label, task.recording_label) if label
}
# Several tasks under one name. Where a case has several labels at once (the descriptors of a murmur, several diseases),
# each label is a task with its own search, interval and decision. A missing label then costs only its own task.
GROUPS: dict[str, tuple[str, ...]] = {"descriptors": tuple(_DESCRIPTORS), "diseases": DISEASES}


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


def datasets_of(name: str) -> tuple[str, ...]:
    """The data sets in a task's full name, whatever the task.

    >>> datasets_of("clinic+ward-pedal")
    ('clinic', 'ward')
    """
    return tuple(filter(None, name.rpartition("-")[0].split("+")))


def resolve(name: str) -> Assignment:
    """The task behind `<data set>[+<data set>...]-<task>`: a published one, or one that each of the data sets declares.

    Raises:
        TaskError: the name has another form, there is no such task, or the data sets declare different ones.

    >>> found = resolve("circor-murmur")
    >>> found.datasets, found.task.classes
    (('circor',), ('Present', 'Unknown', 'Absent'))
    """
    datasets, _, task = name.rpartition("-")
    if datasets and task in GROUPS:
        several = ", ".join(f"{datasets}-{one}" for one in GROUPS[task])
        raise TaskError(f"{name!r} is several tasks: `heartml tasks --use {name}` writes {several} into params.yaml")
    names = tuple(datasets.split("+"))
    own = {dataset: declared(dataset) for dataset in names if datasets}
    stored = bool(own) and all(task in tasks for tasks in own.values())     # before its name was a published one
    if datasets and task in TASKS and not stored:
        return Assignment(name, names, TASKS[task])
    if not any(task in tasks for tasks in own.values()):
        raise TaskError(_unknown(name, own))
    return Assignment(name, names, _joined(name, task, own))


def parent_of(assignment: Assignment) -> Assignment | None:
    """The task on the same data sets that has this one's cases among its own (`Task.within`); `None` where none is.

    >>> found = parent_of(resolve("circor-systolic_shape"))
    >>> found.name if found else None, parent_of(resolve("circor-murmur"))
    ('circor-murmur', None)
    """
    within = assignment.task.within
    return None if within is None else resolve(f"{'+'.join(assignment.datasets)}-{within}")


def _unknown(name: str, own: Mapping[str, Mapping[str, Declared]]) -> str:
    """The message for a task that is neither published nor declared."""
    datasets, _, _ = name.rpartition("-")
    known = (*TASKS, *GROUPS, *(one for tasks in own.values() for one in tasks))
    near = did_you_mean(name, (f"{datasets}-{one}" for one in known)) if datasets else ""
    where = "" if paths.DATA.exists() else f" There is no {paths.DATA}/ here: `dvc pull data.dvc` brings it."
    return (f"no task {name!r}, which would be <data set>-<task>, for instance circor-murmur.{near} "
            f"`heartml tasks` lists those that the data allow.{where}")


def _joined(name: str, task: str, own: Mapping[str, Mapping[str, Declared]]) -> Task:
    """The one task that all data sets of `own` declare, without classes that no recording of any of them has.

    Raises:
        TaskError: one declares another task under this name or none, or fewer than two classes have a recording.
    """
    without = [dataset for dataset, tasks in own.items() if task not in tasks]
    if without:
        raise TaskError(f"{name}: {' and '.join(without)} declares no task {task}. A collection with a mapping file "
                        "can: add the task there and ingest it again")
    (first, one), *others = ((dataset, tasks[task]) for dataset, tasks in own.items())
    for dataset, other in others:
        if words := differences(one.task, other.task):
            raise TaskError(f"{name}: {first} and {dataset} declare different tasks: {words}. Declare the same in both "
                            "mapping files and ingest again, or train each alone")
    absent = set(one.absent).intersection(*(other.absent for _, other in others))
    found = present_classes(Declared(one.task, tuple(absent)))
    if len(found.classes) < 2:
        raise TaskError(f"{name}: only {' and '.join(found.classes) or 'no class'} has recordings; a task needs two "
                        "classes. Ingest recordings of another one, or take the task out of `tasks` in params.yaml")
    return found


def present_classes(one: Declared) -> Task:
    """The task without the classes that no recording has.

    >>> task = Task("pedal", "pedal", ("click", "rumble", "none"), "recording", "uar", OFFICIAL, None, "rumble")
    >>> present_classes(Declared(task, ("rumble",))).classes, present_classes(Declared(task, ("rumble",))).positive
    (('click', 'none'), None)
    """
    classes = tuple(name for name in one.task.classes if name not in one.absent)
    return replace(one.task, classes=classes, positive=one.task.positive if one.task.positive in classes else None)


def declared(dataset: str) -> dict[str, Declared]:
    """The tasks that a data set of `data/` declares, by name; none for a published data set.

    Raises:
        TaskError: the file of the declarations is damaged.
    """
    path = paths.declared_tasks(dataset)
    if not dataset.isidentifier() or not path.is_file():
        return {}
    try:
        return {str(name): Declared.from_json(saved) for name, saved in read_json(path).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TaskError(f"{path}: damaged ({type(error).__name__}). `{paths.RESTORE_DATA}` puts it back") from None


def declared_by(datasets: Iterable[str]) -> dict[str, tuple[Task, ...]]:
    """Data set -> the tasks that it declares, without classes that no recording has; only data sets that declare one.

    Raises:
        TaskError: see `declared`.
    """
    found = {dataset: tuple(map(present_classes, declared(dataset).values())) for dataset in sorted(set(datasets))}
    return {dataset: own for dataset, own in found.items() if own}


def of_stored(saved: Mapping[str, object], name: str) -> Task:
    """The task of a stored model or evaluation: its own definition where it has one, else the task that `name` means.

    Args:
        saved: `model.json` or `metrics.json`. Those of published tasks, and older ones, have no key `definition`.

    Raises:
        TaskError: see `resolve`.
    """
    own = saved.get("definition")
    return Task.from_json(own) if isinstance(own, Mapping) else resolve(name).task


def stored_definition(task: Task) -> dict[str, object]:
    """What a stored model or evaluation says of its task besides the published keys: nothing for a published task."""
    return {} if TASKS.get(task.name) == task else {"definition": task.to_json()}


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
