"""What the ingested data would allow: every task of every data set with its units, classes and groups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from heartml.core import paths
from heartml.core.schema import label_column
from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import did_you_mean
from heartml.core.tasks import GROUPS, TASKS, Task, TaskError, expand, resolve
from heartml.data.datasets import DATASETS, load


class InventoryError(HeartMLError):
    """Nothing has been ingested."""


@dataclass(frozen=True)
class Class:
    """One class of a task: how many units carry it, from how many groups."""

    name: str
    units: int
    groups: int


@dataclass(frozen=True)
class Allowed:
    """One task that the data allow, under its full name; `group`: the name that stands for it and others."""

    name: str
    unit: str
    classes: tuple[Class, ...]
    unlabelled: int
    group: str | None


def read() -> list[Allowed]:
    """The tasks that the data in `data/` allow.

    Raises:
        InventoryError: there is no `data/`.
    """
    return allowed(_recordings())


def _recordings() -> pd.DataFrame:
    if not paths.RECORDINGS.exists():
        raise InventoryError(f"no {paths.RECORDINGS}: `heartml ingest pascal DIR`, or `dvc pull data.dvc`, brings it")
    return pd.read_parquet(paths.RECORDINGS)


def allowed(recordings: pd.DataFrame) -> list[Allowed]:
    """Tasks with at least two classes among the labelled units of one data set, in the order of `DATASETS`.

    Then those for which several data sets have labels, on all of them together.
    """
    there = set(recordings["dataset"])
    single = [_count((dataset,), recordings, TASKS[name])
              for dataset in [*(name for name in DATASETS if name in there), *sorted(there - set(DATASETS))]
              for name in load(dataset).TASKS]
    users: dict[str, list[str]] = {}
    for task in single:
        if any(entry.units for entry in task.classes):
            dataset, _, name = task.name.partition("-")
            users.setdefault(name, []).append(dataset)
    together = [_count(datasets, recordings, TASKS[name]) for name, datasets in users.items() if len(datasets) > 1]
    return [task for task in (*single, *together) if _trainable(task, 1)]


def choose(names: Iterable[str], min_groups: int) -> tuple[str, ...]:
    """`chosen` of the data in `data/`.

    Raises:
        InventoryError: there is no `data/`.
        TaskError: see `chosen`.
    """
    return chosen(names, _recordings(), min_groups)


def chosen(names: Iterable[str], recordings: pd.DataFrame, min_groups: int) -> tuple[str, ...]:
    """Full names of tasks; a group stands for those of its tasks that the data can teach.

    Args:
        min_groups: a class with fewer groups is no class for a task that leaves rare ones out.

    Raises:
        TaskError: there is no such task, its data set is not there, or the data cannot teach it.
    """
    wanted: dict[str, None] = {}
    for name in names:
        _refuse_absent(name, sorted(set(recordings["dataset"])))
        own = [one for one in expand([name]) if _teachable(one, recordings, min_groups)]
        if not own:
            raise TaskError(f"{name}: fewer than two classes in data/; `heartml tasks` lists what the data allow")
        wanted |= dict.fromkeys(own)
    return tuple(wanted)


def _refuse_absent(name: str, there: Sequence[str]) -> None:
    for dataset in resolve(expand([name])[0]).datasets:
        if dataset not in there:
            way_out = (f": `heartml ingest {dataset} DIR` brings it" if dataset in DATASETS else
                       f", where there are {', '.join(there)}.{did_you_mean(dataset, there)}")
            raise TaskError(f"{name}: no {dataset} in {paths.DATA}/{way_out}")


def teachable(task: Allowed, min_groups: int) -> bool:
    """Whether `choose` takes it: two classes have a group, or `min_groups` of them where rare classes are left out."""
    rare = TASKS[task.name.rpartition("-")[2]].rare
    return _trainable(task, min_groups if rare == "left out" else 1)


def _teachable(name: str, recordings: pd.DataFrame, min_groups: int) -> bool:
    assignment = resolve(name)
    return teachable(_count(assignment.datasets, recordings, assignment.task), min_groups)


def _trainable(task: Allowed, min_groups: int) -> bool:
    return sum(entry.groups >= min_groups for entry in task.classes) > 1


def _count(datasets: Iterable[str], recordings: pd.DataFrame, task: Task) -> Allowed:
    names, label = "+".join(datasets), label_column(task.label)
    own = recordings[recordings["dataset"].isin(names.split("+"))]
    units = own.drop_duplicates("recording_id" if task.unit == "recording" else "patient_id")
    labels = units[label] if label in units else pd.Series(pd.NA, index=units.index, dtype="string")
    classes = []
    for name in task.classes:
        of_class = units[(labels == name).fillna(False)]
        classes.append(Class(name, len(of_class), of_class["group_id"].nunique()))
    group = next((f"{names}-{group}" for group, tasks in GROUPS.items() if task.name in tasks), None)
    return Allowed(f"{names}-{task.name}", task.unit, tuple(classes), int(labels.isna().sum()), group)
