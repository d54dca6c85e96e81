"""Tasks that a collection declares in its mapping file: what changed since the last ingest, and which classes it has.

Pure, except for `write`. In: the tasks of the mapping file, those of the version in `data/`, and the recordings of the
next version. Out: `data/tasks/<data set>.json`. Nothing is merged in silence: another meaning of a task that is there
is refused, unless the folder replaces all that was ingested before, and every other change is said.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from heartml.core import paths
from heartml.core.schema import label_column
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, write_json
from heartml.core.system.hashing import sha256
from heartml.core.task_definition import Declared, Task, differences
from heartml.core.tasks import present_classes

Declarations = Mapping[str, Mapping[str, Declared]]     # data set -> task's name -> task


class DeclarationError(HeartMLError):
    """A declared task means something else than before, or has too few classes; the message names the way out."""


def changes(dataset: str, before: Mapping[str, Declared], now: Mapping[str, Task], *, replace: bool) -> tuple[str, ...]:
    """What is new, different or gone in the declared tasks of a data set, one sentence each.

    Args:
        before: as the version in `data/` has them.
        now: as the mapping file has them.
        replace: the folder takes the place of all recordings that were ingested before.

    Raises:
        DeclarationError: a task has other classes or another unit than before, and recordings of before stay.
    """
    said = []
    for name, task in now.items():
        words = differences(before[name].task, task) if name in before else ""
        former = before[name].task if name in before else task
        if not replace and (set(former.classes), former.unit) != (set(task.classes), task.unit):
            raise DeclarationError(
                f"{dataset}-{name} is declared with other {words} (before and now), and earlier recordings keep their "
                "old labels. --replace takes the new one, and drops recordings that this folder lacks. Or give the "
                "task another name")
        if words:
            said.append(f"{dataset}-{name} has changed: {words} (before and now).")
        elif former.classes != task.classes:
            said.append(f"{dataset}-{name}: its classes have another order: {', '.join(task.classes)}.")
    return (*said, *(f"{dataset}-{name} is not declared any more." for name in before if name not in now))


def find(tasks: Mapping[str, Task], recordings: pd.DataFrame) -> dict[str, Declared]:
    """Each task with the classes that no recording has.

    Args:
        recordings: with label columns; all of one data set.
    """
    return {name: Declared(task, tuple(c for c in task.classes if c not in _labels(task, recordings)))
            for name, task in tasks.items()}


def _labels(task: Task, recordings: pd.DataFrame) -> set[str]:
    column = label_column(task.label)
    return set(recordings[column].dropna()) if column in recordings else set()


def refuse_one_class(dataset: str, found: Mapping[str, Declared]) -> None:
    """Refuse declared tasks of which fewer than two classes have a recording.

    Raises:
        DeclarationError: it names the classes without a recording, and the way out.
    """
    for name, one in found.items():
        left = present_classes(one).classes
        if len(left) < 2:
            what = f"every labelled recording is {left[0]}" if left else "no recording has a label"
            raise DeclarationError(
                f"{dataset}-{name}: {what}, none is {' or '.join(one.absent)}; a task needs two classes. Are the words "
                f"in `tasks.{name}.classes` those of the column? Else add recordings of another class, or take "
                f"tasks.{name} out of {dataset}.yaml"
            )


def in_words(dataset: str, found: Mapping[str, Declared], recordings: pd.DataFrame) -> tuple[str, ...]:
    """The classes of each declared task with their numbers of recordings, and those that are left out."""
    lines = []
    for name, one in found.items():
        labels = recordings[label_column(one.task.label)]
        counted = ", ".join(f"{label} {int((labels == label).sum())}" for label in present_classes(one).classes)
        absent = f"; no recording is {' or '.join(one.absent)}, which is left out" if one.absent else ""
        lines.append(f"{dataset}-{name}: recordings of {counted}{absent}.")
    return tuple(lines)


def next_declarations(
    former: Declarations, own: Mapping[str, Mapping[str, Task]], recordings: pd.DataFrame
) -> dict[str, dict[str, Declared]]:
    """All declarations of the next version: those of `own` as they are now, those of other data sets as they were.

    Args:
        own: data set -> the tasks of its mapping file.
        recordings: of the next version. Which classes are absent is found anew for every data set.
    """
    tasks = {dataset: {name: one.task for name, one in known.items()} for dataset, known in former.items()}
    every = {dataset: known for dataset, known in {**tasks, **own}.items() if known}
    return {dataset: find(known, recordings[recordings["dataset"] == dataset]) for dataset, known in every.items()}


def write(folder: Path, declarations: Declarations) -> None:
    """Write one file for each data set into a version that lies in `folder`."""
    for dataset, known in declarations.items():
        write_json(folder / paths.declared_tasks(dataset).relative_to(paths.DATA), _as_json(known))


def digest(declarations: Declarations) -> str:
    """What tells one state of all declarations from another; empty where there are none."""
    content = {dataset: _as_json(known) for dataset, known in declarations.items()}
    return sha256(canonical_json(content).encode()) if content else ""


def _as_json(known: Mapping[str, Declared]) -> dict[str, object]:
    return {name: one.to_json() for name, one in known.items()}


def stems(folder: Path) -> Iterable[str]:
    """The data sets of a version that declare tasks."""
    return sorted(path.stem for path in folder.glob("*.json"))
