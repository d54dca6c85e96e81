"""The tasks that the ingested data allow, each with its classes, and how many units and groups these have.

In: schema.RECORDINGS with label columns. Out: `AvailableTask`s, or full names of tasks.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from heartml.core import paths
from heartml.core.schema import label_column
from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import did_you_mean
from heartml.core.tasks import GROUPS, TASKS, Task, TaskError, datasets_of, expand_groups, resolve
from heartml.data.datasets import DATASETS, load


class NoDataError(HeartMLError):
    """There is no `data/`: nothing has been ingested."""


@dataclass(frozen=True)
class ClassCount:
    """One class of a task: how many units have it, from how many groups."""

    name: str
    units: int
    groups: int


@dataclass(frozen=True)
class AvailableTask:
    """One task that the data allow.

    Attributes:
        name: full name, `<data set>-<task>`.
        unit: `recording` or `patient`.
        classes: with their numbers of units and groups.
        unlabelled: number of units without a label.
        group: name for this task together with others (`circor-descriptors`), or None.
    """

    name: str
    unit: str
    classes: tuple[ClassCount, ...]
    unlabelled: int
    group: str | None


def read() -> list[AvailableTask]:
    """The tasks that the data in `data/` allow.

    Raises:
        NoDataError: there is no `data/`.
    """
    return find_available(_recordings())


def _recordings() -> pd.DataFrame:
    if not paths.RECORDINGS.exists():
        raise NoDataError(f"no {paths.RECORDINGS}: `heartml ingest pascal DIR`, or `dvc pull data.dvc`, brings it")
    return pd.read_parquet(paths.RECORDINGS)


def find_available(recordings: pd.DataFrame) -> list[AvailableTask]:
    """Tasks with at least two classes among the labelled units.

    First come the tasks of single data sets, in the order of `DATASETS`. Then come tasks for which several data sets
    have labels, on all of them together.
    """
    present = set(recordings["dataset"])
    names = [f"{dataset}-{name}"
             for dataset in [*(name for name in DATASETS if name in present), *sorted(present - set(DATASETS))]
             for name in load(dataset).TASKS]
    single = [_count(dataset, recordings, task) for dataset, task in _known(names)]
    users: dict[str, list[str]] = {}
    for available in single:
        if any(entry.units for entry in available.classes):
            dataset, _, name = available.name.rpartition("-")
            users.setdefault(name, []).append(dataset)
    joint = [f"{'+'.join(datasets)}-{name}" for name, datasets in users.items() if len(datasets) > 1]
    together = [_count(datasets, recordings, task) for datasets, task in _known(joint)]
    return [available for available in (*single, *together) if _trainable(available, 1)]


def _known(names: Iterable[str]) -> Iterator[tuple[tuple[str, ...], Task]]:
    """Data sets and task of each name; not of declared tasks that the data sets do not share, or of too few classes."""
    for name in names:
        with contextlib.suppress(TaskError):
            found = resolve(name)
            yield found.datasets, found.task


def select_tasks(names: Iterable[str], min_groups: int) -> tuple[str, ...]:
    """`select_from` for the data in `data/`.

    Raises:
        NoDataError: there is no `data/`.
        TaskError: see `select_from`.
    """
    return select_from(names, _recordings(), min_groups)


def select_from(names: Iterable[str], recordings: pd.DataFrame, min_groups: int) -> tuple[str, ...]:
    """Full names of tasks. The name of a group is replaced by those of its tasks that the data allow.

    Args:
        names: full names of tasks or groups of tasks.
        recordings: schema.RECORDINGS with label columns.
        min_groups: a class with fewer groups does not count for a task that leaves rare classes out.

    Raises:
        TaskError: there is no such task, a data set of it has not been ingested or has no label for it, or it has fewer
            than two classes.
    """
    wanted: dict[str, None] = {}
    for name in names:
        _refuse_absent(name, sorted(set(recordings["dataset"])))
        several = expand_groups([name])
        if len(several) == 1:
            _refuse_unlabelled(name, recordings)
        own = [one for one in several if not _unlabelled(one, recordings)
               and _is_trainable_name(one, recordings, min_groups)]
        if not own:
            raise TaskError(f"{name}: fewer than two classes in data/; `heartml tasks` lists what the data allow")
        wanted |= dict.fromkeys(own)
    return tuple(wanted)


def _refuse_absent(name: str, present: Sequence[str]) -> None:
    for dataset in datasets_of(name):
        if dataset not in present:
            way_out = (f": `heartml ingest {dataset} DIR` brings it" if dataset in DATASETS else
                       f", where there are {', '.join(present)}.{did_you_mean(dataset, present)}")
            raise TaskError(f"{name}: no {dataset} in {paths.DATA}/{way_out}")


def _unlabelled(name: str, recordings: pd.DataFrame) -> list[str]:
    """The data sets of a task that have no label for it, where it uses several."""
    assignment, column = resolve(name), label_column(resolve(name).task.label)
    if len(assignment.datasets) < 2:
        return []
    labelled = set(recordings.loc[recordings[column].notna(), "dataset"]) if column in recordings else set()
    return [dataset for dataset in assignment.datasets if dataset not in labelled]


def _refuse_unlabelled(name: str, recordings: pd.DataFrame) -> None:
    without = _unlabelled(name, recordings)
    if without:
        assignment = resolve(name)
        rest = [dataset for dataset in assignment.datasets if dataset not in without]
        way_out = f": `heartml tasks --use {'+'.join(rest)}-{assignment.task.name}` uses the others" if rest else ""
        raise TaskError(f"{name}: {' and '.join(without)} has no label {assignment.task.label}{way_out}")


def is_trainable(task: AvailableTask, min_groups: int) -> bool:
    """Whether a model can be trained for the task: two of its classes have groups enough.

    One group is enough, or `min_groups` where the task leaves rare classes out.
    """
    published = TASKS.get(task.name.rpartition("-")[2])     # a declared task keeps its rare classes
    return _trainable(task, min_groups if published and published.rare == "left out" else 1)


def _is_trainable_name(name: str, recordings: pd.DataFrame, min_groups: int) -> bool:
    assignment = resolve(name)
    return is_trainable(_count(assignment.datasets, recordings, assignment.task), min_groups)


def _trainable(task: AvailableTask, min_groups: int) -> bool:
    return sum(entry.groups >= min_groups for entry in task.classes) > 1


def _count(datasets: Iterable[str], recordings: pd.DataFrame, task: Task) -> AvailableTask:
    names, label = "+".join(datasets), label_column(task.label)
    own = recordings[recordings["dataset"].isin(names.split("+"))]
    units = own.drop_duplicates("recording_id" if task.unit == "recording" else "patient_id")
    labels = units[label] if label in units else pd.Series(pd.NA, index=units.index, dtype="string")
    classes = []
    for name in task.classes:
        of_class = units[(labels == name).fillna(False)]
        classes.append(ClassCount(name, len(of_class), of_class["group_id"].nunique()))
    group = next((f"{names}-{group}" for group, tasks in GROUPS.items() if task.name in tasks), None)
    return AvailableTask(f"{names}-{task.name}", task.unit, tuple(classes), int(labels.isna().sum()), group)
