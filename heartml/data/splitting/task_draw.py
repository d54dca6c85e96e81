"""The one draw of a task's parts, for its split and for whatever else must know who is in which part.

In: recordings and groups of the data version, parameters. Out: a `TaskDraw`.
"""

from dataclasses import dataclass

import pandas as pd

from heartml.core import schema
from heartml.core.config import Params
from heartml.core.tasks import Assignment, parent_of
from heartml.data.splitting import within
from heartml.data.splitting.assign import assign_folds
from heartml.data.splitting.published import read_published
from heartml.data.splitting.units import label_units, without_rare


@dataclass(frozen=True)
class TaskDraw:
    """The parts of one task.

    Attributes:
        labelled: of `label_units`, every unit with a label.
        units: the same without rare classes, where the task leaves these out.
        folds: schema.FOLDS of `units`; with the context, where the task has the parts of `parent`.
        parent: full name of the task whose parts these are; `None`: the task has a draw of its own.
        published: whether a published split says what is held out.
    """

    labelled: pd.DataFrame
    units: pd.DataFrame
    folds: pd.DataFrame
    parent: str | None
    published: bool


def draw(assignment: Assignment, recordings: pd.DataFrame, groups: pd.DataFrame, params: Params) -> TaskDraw:
    """Draw the parts of a task, or take those of the task that it lies within.

    Args:
        assignment: the task and its data sets.
        recordings: schema.RECORDINGS with labels.
        groups: recording_id and group_id, after groups with near-duplicates have been joined.
        params: its sections `split` and `validate` and its seed. Of a task within another one the other one's keys of
            `split` count, since it is that one's draw.

    Raises:
        StageError: see `label_units`, `without_rare`, `assign_folds` and `within.assign_within`.

    >>> from heartml.core.tasks import resolve
    >>> resolve("circor-systolic_shape").task.within      # so its draw is that of circor-murmur
    'murmur'
    """
    labelled = label_units(recordings, groups, assignment)
    units = without_rare(labelled, assignment, params.validate_.min_class_groups)
    parent = _parent(assignment, units, recordings, groups)
    own = params.split.for_task(assignment.name if parent is None else parent[0].name)
    published = read_published(own.published) if own.published else None
    if parent is None:
        folds = assign_folds(units, own, params.seed, published)
    else:
        folds = within.assign_within(units, parent[1], own, params.seed, published)
    return TaskDraw(labelled, units, folds, None if parent is None else parent[0].name, published is not None)


def _parent(assignment: Assignment, units: pd.DataFrame, recordings: pd.DataFrame, groups: pd.DataFrame
            ) -> tuple[Assignment, pd.DataFrame] | None:
    """The task whose parts this one takes, and its units; `None` where it has none, or that lacks some of `units`."""
    parent = parent_of(assignment)
    if parent is None or schema.label_column(parent.task.label) not in recordings:
        return None
    found = label_units(recordings, groups, parent)
    return (parent, found) if within.covers(found, units) else None
