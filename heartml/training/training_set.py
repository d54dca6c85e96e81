"""The training set of a task: tables of folds and recordings in, units, labels and folds as integer arrays out.

Units (recordings or patients) are in the order of their ids, recordings in the order of the table of folds. Everything
else is an index into these. The held-out part is left out here, so that no later step can use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core import folds, paths, schema
from heartml.core.tasks import Task, parent_of, resolve

Ints = NDArray[np.int64]
UNANNOTATED = len(schema.STATES)
UNKNOWN = -1


@dataclass(frozen=True)
class TrainingSet:
    """`r` recordings of `u` units.

    Attributes:
        unit: index of each recording's unit `[r]`.
        recording_labels: class of each recording itself `[r]`; the unit's class where the recording's is not known.
        labels: class of each unit `[u]`.
        groups: number of each unit's group `[u]`.
        parts: number of each unit's fold `[u]`.
    """

    name: str
    task: Task
    recording_ids: tuple[str, ...]
    unit_ids: tuple[str, ...]
    group_ids: tuple[str, ...]
    unit: Ints
    recording_labels: Ints
    labels: Ints
    groups: Ints
    parts: Ints

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.parts.max()) + 1

    def recordings_of(self, units: NDArray[np.bool_]) -> Ints:
        """Indices of the recordings of the units where `units` `[u]` holds."""
        return np.flatnonzero(units[self.unit])


def load(name: str) -> TrainingSet:
    """Read the training set of a task from its folds and the recordings."""
    table = folds.load(paths.folds(name))
    recordings = pd.read_parquet(paths.RECORDINGS)
    return build(name, table[table["part"] != folds.TEST], recordings)


def load_parent(name: str) -> TrainingSet | None:
    """The folds of a task with the labels of the task that it lies within, its own cases and the context.

    The rows are in the order of that task's own folds, so that tasks within one have the same training set of it.
    `None` where it lies within none, or a recording of its folds has no label for that one.
    """
    parent = parent_of(resolve(name))
    recordings = pd.read_parquet(paths.RECORDINGS)
    column = "" if parent is None else schema.label_column(parent.task.label)
    if parent is None or column not in recordings:
        return None
    table = folds.read_heard(paths.folds(name))
    heard = table[table["part"] != folds.TEST].sort_values(["unit_id", "recording_id"], ignore_index=True)
    label = heard["recording_id"].map(recordings.set_index("recording_id")[column])
    of_unit = label.groupby(heard["unit_id"]).transform("first")
    return None if of_unit.isna().any() else build(parent.name, heard.assign(label=of_unit), recordings)


def build(name: str, table: pd.DataFrame, recordings: pd.DataFrame) -> TrainingSet:
    """The training set of rows of `schema.FOLDS`, from which the held-out part is already left out."""
    task = resolve(name).task
    code = {label: c for c, label in enumerate(task.classes)}
    units = table.drop_duplicates("unit_id").sort_values("unit_id")
    row_of = {unit_id: row for row, unit_id in enumerate(units["unit_id"])}
    group_row = {group_id: row for row, group_id in enumerate(sorted(set(units["group_id"])))}
    labels = np.array([code[label] for label in units["label"]])
    unit = np.array([row_of[unit_id] for unit_id in table["unit_id"]])
    return TrainingSet(
        name, task, tuple(table["recording_id"]), tuple(units["unit_id"]), tuple(units["group_id"]), unit,
        _recording_labels(table, recordings, task, labels[unit]), labels,
        np.array([group_row[group_id] for group_id in units["group_id"]]),
        np.array([int(part) for part in units["part"]]),
    )


def _recording_labels(table: pd.DataFrame, recordings: pd.DataFrame, task: Task, labels: Ints) -> Ints:
    """The class of each recording itself where it is known and one of the task's classes, else `labels` `[r]`."""
    column = schema.label_column(task.recording_label or task.label)
    if task.recording_label is None or column not in recordings:
        return labels
    own = recordings.set_index("recording_id")[column].reindex(table["recording_id"])
    code = {label: c for c, label in enumerate(task.classes)}
    return np.array([code.get(value, label) for value, label in zip(own, labels, strict=True)])


def states(
    recording_ids: Sequence[str], counts: Sequence[int], frame_rate_hz: float, seconds: Sequence[float],
    annotations: pd.DataFrame,
) -> list[NDArray[np.int8]] | None:
    """Heart state of every frame of each recording; `None` where no recording has annotated intervals.

    Args:
        counts: number of frames of each recording; they lie in the middle of it.
        seconds: length of each recording.

    Returns:
        int8 `[frames]` of each recording: index into `schema.STATES`, `UNANNOTATED` between annotations, `UNKNOWN` in
        recordings without any.
    """
    own = schema.of_heart(annotations)
    lasting = own["end_s"] > own["start_s"]     # points in time tell the state of no frame
    known = own[lasting & own["recording_id"].isin(recording_ids)]
    if not len(known):
        return None
    of_recording = dict(tuple(known.groupby("recording_id")))
    found = []
    for recording_id, count, length_s in zip(recording_ids, counts, seconds, strict=True):
        first_s = (length_s - (count - 1) / frame_rate_hz) / 2
        centres_s = first_s + np.arange(count, dtype=np.float64) / frame_rate_hz
        rows = of_recording.get(recording_id)
        found.append(np.full(count, UNKNOWN, np.int8) if rows is None else _states(rows, centres_s))
    return found


def _states(rows: pd.DataFrame, centres_s: NDArray[np.float64]) -> NDArray[np.int8]:
    code = {state: number for number, state in enumerate(schema.STATES)}
    ordered = rows.sort_values("start_s")
    which = np.searchsorted(ordered["start_s"].to_numpy(), centres_s, side="right") - 1
    inside = (which >= 0) & (centres_s < ordered["end_s"].to_numpy()[np.maximum(which, 0)])
    codes = np.array([code.get(state, UNANNOTATED) for state in ordered["state"]], np.int8)
    return np.where(inside, codes[np.maximum(which, 0)], UNANNOTATED).astype(np.int8)
