"""What the ingested data would allow: every task of every data set with its units, classes and groups."""

from dataclasses import dataclass

import pandas as pd

from heartml import paths
from heartml.datasets import DATASETS, load
from heartml.errors import HeartMLError
from heartml.schema import label_column
from heartml.tasks import TASKS, Task


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
    """One task that the data allow, under its full name."""

    name: str
    unit: str
    classes: tuple[Class, ...]
    unlabelled: int


def read() -> list[Allowed]:
    """The tasks that the data in `data/` allow.

    Raises:
        InventoryError: there is no `data/`.
    """
    if not paths.RECORDINGS.exists():
        raise InventoryError(f"no {paths.RECORDINGS}: `heartml ingest pascal DIR`, or `dvc pull data.dvc`, brings it")
    return allowed(pd.read_parquet(paths.RECORDINGS))


def allowed(recordings: pd.DataFrame) -> list[Allowed]:
    """Tasks with at least two classes among the labelled units of one data set, in the order of `DATASETS`."""
    found = []
    for dataset in DATASETS:
        own = recordings[recordings["dataset"] == dataset]
        tasks = [TASKS[name] for name in (load(dataset).TASKS if len(own) else ())]
        counted = [_count(dataset, own, task) for task in tasks]
        found += [task for task in counted if sum(entry.units > 0 for entry in task.classes) > 1]
    return found


def _count(dataset: str, own: pd.DataFrame, task: Task) -> Allowed:
    key, label = "recording_id" if task.unit == "recording" else "patient_id", label_column(task.label)
    units = own.drop_duplicates(key)
    classes = []
    for name in task.classes:
        of_class = units[units[label] == name]
        classes.append(Class(name, len(of_class), of_class["group_id"].nunique()))
    return Allowed(f"{dataset}-{task.name}", task.unit, tuple(classes), int(units[label].isna().sum()))
