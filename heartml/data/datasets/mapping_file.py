"""The mapping file of a collection: what its table's columns and values mean, and the tasks that it declares.

In: a YAML file as a person writes it. Out: a `CollectionMapping`; a mistake is named by its key. See
`heartml.data.datasets.generic` for the whole form.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from heartml.core.config import Section
from heartml.core.system import cells, untrusted
from heartml.core.system.text import short
from heartml.core.system.untrusted import DocumentError
from heartml.core.task_definition import (
    HEART,
    OFFICIAL,
    Organ,
    Task,
    Unit,
    class_name,
    classes_fault,
    metric_fault,
    name_fault,
)
from heartml.core.tasks import GROUPS, LABELS, TASKS
from heartml.data.datasets import LayoutError

TO_BE_FILLED_IN = "to be filled in"     # what `heartml init` writes for a title, a citation or a licence


class Columns(Section):
    """Which column of the CSV holds what."""

    path: str
    patient: str | None = None
    group: str | None = None
    location: str | None = None
    age: str | None = None
    sex: str | None = None
    source: str | None = None


class Values(Section):
    """What a column's values mean."""

    location: dict[str, str] = Field(default_factory=dict)
    age: dict[str, str] = Field(default_factory=dict)
    sex: dict[str, str] = Field(default_factory=dict)
    source: dict[str, str] = Field(default_factory=dict)


class LabelColumn(Section):
    """The column with a task's labels, and which class each of its values means."""

    column: str
    classes: dict[str, str] = Field(default_factory=dict)


def _meanings(value: Any) -> Any:
    """A list of classes as words of the table that mean themselves.

    Raises:
        ValueError: one is there twice, or is no word.
    """
    if not isinstance(value, list):
        return value
    nested = next((name for name in value if not isinstance(name, str)), None)
    if nested is not None:
        raise ValueError(f"{short(nested)} is no word: write a list of words, or word: class")
    twice = next((name for name in value if value.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{short(twice)} is there twice")
    return {name: name for name in value}


def _classification(kind: str) -> str:
    """The kind of a task.

    Raises:
        ValueError: it is another one than classification.
    """
    if kind == "regression":
        raise ValueError("search, ensemble and gate decide between classes, and a number has none. `heartml protocol "
                         "regression TABLE` tells how well encoders predict it; or declare ranges of it as classes")
    if kind != "classification":
        raise ValueError(f"{short(kind)} is no kind of task: classification")
    return kind


class OwnTask(Section):
    """A task that the collection declares: the column with its labels, its classes, and how it is scored.

    `classes` is a list in the words of the table, or word -> class; the class `''` is no label.
    """

    column: str
    classes: Annotated[dict[str, str], BeforeValidator(_meanings)]
    unit: Unit = "recording"
    positive: str | None = None
    metric: str = OFFICIAL[0]
    official: tuple[str, ...] = OFFICIAL
    organ: Organ = HEART
    kind: Annotated[str, AfterValidator(_classification)] = "classification"

    @property
    def meanings(self) -> dict[str, str]:
        """Word of the table -> class, as it is stored; `''` is no label."""
        return {word: class_name(name) for word, name in self.classes.items()}

    def task(self, name: str) -> Task:
        """The task, with all classes in the order in which they are first named."""
        classes = tuple(dict.fromkeys(filter(None, self.meanings.values())))
        positive = class_name(self.positive) if self.positive else None
        return Task(name, name, classes, self.unit, self.metric, self.official, None, positive, organ=self.organ)


class CollectionMapping(Section):
    """The content of a mapping file."""

    title: str
    citation: str
    licence: str
    publisher: str | None = None
    table: str
    columns: Columns
    values: Values = Values()
    labels: dict[str, LabelColumn] = Field(default_factory=dict)
    tasks: dict[str, OwnTask] = Field(default_factory=dict)


def read(path: Path) -> tuple[str, CollectionMapping]:
    """The text of a mapping file and what it says.

    Raises:
        LayoutError: it is missing or not usable; the message names the key.
    """
    try:
        text = untrusted.read_text(path, max_bytes=untrusted.MAX_YAML_BYTES)
        values = untrusted.parse_yaml(text, yaml.BaseLoader)    # all text: `yes` and 1 are words of the CSV, not values
        description = CollectionMapping.model_validate(values)
    except DocumentError as error:
        raise LayoutError(f"{path}: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg'].removeprefix('Value error, ')}"
                 for e in error.errors()[:5]]
        raise LayoutError(f"{path.name}: " + "; ".join(lines)[:1000]) from None
    published = {name: own for name, own in description.tasks.items() if name in TASKS}
    faults = (*_label_faults(description), *_own_faults(description), *_published_faults(published),
              *_spelling_faults(description))
    for fault in faults:
        raise LayoutError(f"{path.name}: {fault}")
    labels = {name: LabelColumn(column=own.column, classes=own.meanings) for name, own in published.items()}
    own = {name: one for name, one in description.tasks.items() if name not in published}
    return text, description.model_copy(update={"labels": {**description.labels, **labels}, "tasks": own})


def _spelling_faults(description: CollectionMapping) -> Iterator[str]:
    """Words of which a table cannot tell one from another, and which have two meanings."""
    meanings = {f"labels.{name[:80]}.classes": mapped.classes for name, mapped in description.labels.items()}
    meanings |= {f"tasks.{name[:80]}.classes": own.meanings for name, own in description.tasks.items()}
    meanings |= {f"values.{role}": getattr(description.values, role) for role in Values.model_fields}
    for key, of in meanings.items():
        for word, others in cells.other_spellings(of).items():
            if other := next((other for other in others if of[other] != of[word]), None):
                yield (f"{key}: {short(word)} and {short(other)} are one word in two spellings, and mean "
                       f"{short(of[word])} and {short(of[other])}")


def _label_faults(description: CollectionMapping) -> Iterator[str]:
    """Labels that belong to no task or lack its classes, and patients that nobody knows although a task needs them."""
    if not description.labels and not description.tasks:
        yield "labels: there is none; name a column for a published task here, or declare a task of your own in `tasks`"
    for name, mapped in description.labels.items():
        if name not in TASKS:
            yield (f"labels.{name[:80]}: no such task, there are {', '.join(TASKS)}. A task of your own is declared in "
                   "`tasks` (docs/collections.md)")
            continue
        unknown = [value for value in mapped.classes.values() if value not in TASKS[name].classes]
        if unknown:
            yield f"labels.{name}.classes: {short(unknown[0])} is none of {', '.join(TASKS[name].classes)}"
        if TASKS[name].unit == "patient" and description.columns.patient is None:
            yield f"columns.patient: labels.{name} is about patients, so a column must name them"
        if name in description.tasks:
            yield f"tasks.{name}: it is in `labels` as well; keep one of them"


def _own_faults(description: CollectionMapping) -> Iterator[str]:
    """What is wrong with the tasks that the collection declares, published names aside."""
    for name, own in description.tasks.items():
        task, key = own.task(name), f"tasks.{name[:80]}"
        if name not in TASKS and (fault := name_fault(name, (*GROUPS, *LABELS))):
            yield f"{key}: {fault}"
        if fault := classes_fault(task.classes):
            yield f"{key}.classes: {fault}"
        if name not in TASKS and (fault := metric_fault(task.metric, task.official)[1]):
            yield f"{key}.{metric_fault(task.metric, task.official)[0]}: {fault}"
        if task.positive is not None and task.positive not in task.classes:
            yield f"{key}.positive: {short(task.positive)} is none of {', '.join(task.classes)}"
        if task.unit == "patient" and description.columns.patient is None:
            yield f"columns.patient: {key} is about patients, so a column must name them; or use `unit: recording`"


def _published_faults(published: dict[str, OwnTask]) -> Iterator[str]:
    """Declarations under a published task's name that say something else than the published task."""
    for name, own in published.items():
        task, known = own.task(name), TASKS[name]
        if set(task.classes) - set(known.classes):
            yield (f"tasks.{name}: this name is a published task's, with the classes {', '.join(known.classes)}. Give "
                   f"yours another name, or give its words these classes")
        # The organ is compared where it is not written, too: a collection of hearts may call a task `sex`.
        for key in sorted(own.model_fields_set & {"unit", "metric", "positive", "official"} | {"organ"}):
            said, stands = getattr(task, key), getattr(known, key)
            if said != stands:
                way = f"Write `organ: {stands}`" if key == "organ" else "Leave it out"
                yield (f"tasks.{name}.{key}: {short(said)}, but {name} is a published task with {short(stands)}. "
                       f"{way}, or give your task another name")
