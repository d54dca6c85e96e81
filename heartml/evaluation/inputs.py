"""What an evaluation reads, checked part against part.

In: the task's folds, the data set's recordings and the outputs of the stage `validate`. Out: one table of recordings
with their folds, their descriptions and their signal measurements; and the model's out-of-fold predictions.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from heartml.audio import quality
from heartml.core import folds, paths, schema, tasks
from heartml.core.config import ValidateParams
from heartml.core.schema import TEST, label_column
from heartml.core.stage import StageError
from heartml.core.tasks import Task
from heartml.evaluation.assessment import left_out_classes

QUALITY_COLUMNS = tuple(field.name for field in fields(quality.Quality))

# The next two: values of the columns `session` and `signal`. They are in stored tables, so their wording stays.
SESSION_VALUES = {True: "heard in training", False: "new"}

SIGNAL_VALUES = {True: "with warnings", False: "no warnings"}

ANY_LABEL_VALUES = {True: "any of the labels", False: "none of the labels"}      # of the column `any_label`

LEAK_COLUMNS = ("patient_id", "joined_group_id", schema.SESSION)

RECORDING_COLUMNS = ["recording_id", "source", "location", "age_group", "sex"]


def read_recordings(name: str, limits: ValidateParams) -> pd.DataFrame:
    """The task's recordings with folds, descriptions and measurements, one row a recording, in the folds' order.

    Columns are added, each with one value for the whole unit. `signal`: whether a recording of the unit has
    quality warnings. `session`: whether one was made in a session from which training recordings come; null where
    sessions are not known. `any_label`, only where a case may have several labels (`joint_labels`): whether the
    unit has any of them.

    Raises:
        FoldsError: a group, a patient or near-duplicate audio is in two parts. Then nothing may be scored.
        StageError: a recording of the folds is not in the data set, or was not measured.
    """
    table = folds.load(paths.folds(name))
    whole = pd.read_parquet(paths.RECORDINGS)
    recordings = whole[[*RECORDING_COLUMNS, "patient_id"]].assign(**{schema.SESSION: whole.get(schema.SESSION)})
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    joined = pd.read_parquet(paths.VALIDATION / "groups.parquet", columns=["recording_id", "group_id"])
    for other, what in ((recordings, "in data/recordings.parquet"), (signal, "measured by validate"),
                        (joined, "in a group that validate joined")):
        lost = table[~table["recording_id"].isin(other["recording_id"])]
        if len(lost):
            raise StageError(f"recording {lost['recording_id'].iloc[0][:12]} of the folds is not {what}: "
                             "run `dvc repro`, which brings every stage up to date")
    owners = recordings[["recording_id", "patient_id"]].merge(joined, on="recording_id", validate="1:1")
    owners = owners.rename(columns={"group_id": "joined_group_id"})
    folds.check_folds(table, owners)
    described = table.merge(owners, on="recording_id", validate="1:1").merge(
        recordings[[*RECORDING_COLUMNS, schema.SESSION]], on="recording_id", validate="1:1")
    measured = described.merge(signal, on="recording_id", validate="1:1")
    warned = pd.Series([has_warnings(row, limits) for row in measured.to_dict("records")])
    shared = folds.shared_with_training(measured, schema.SESSION).groupby(measured["unit_id"]).transform("max")
    rows = measured.assign(signal=warned.groupby(measured["unit_id"]).transform("any").map(SIGNAL_VALUES),
                           session=shared.map(SESSION_VALUES))
    return with_any_label(rows, whole, tasks.resolve(name).task)


def joint_labels(task: Task) -> tuple[str, ...]:
    """The labels of a case that may have several at once, where this task is one of them; else none.

    They are the labels of the task's group, if each is present or absent.

    >>> joint_labels(tasks.TASKS["mitral_stenosis"])
    ('aortic_stenosis', 'aortic_regurgitation', 'mitral_regurgitation', 'mitral_stenosis')
    >>> joint_labels(tasks.TASKS["systolic_timing"]), joint_labels(tasks.TASKS["valves"])
    ((), ())
    """
    group = next((names for names in tasks.GROUPS.values() if task.name in names), ())
    others = [tasks.TASKS[name] for name in group]
    same = all((other.classes, other.positive) == (task.classes, task.positive) for other in others)
    return tuple(other.label for other in others) if task.positive and same else ()


def with_any_label(rows: pd.DataFrame, recordings: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The rows with the column `any_label`, where the task is one of several labels of a case; else as they are.

    Cases without any label are easy to tell, so a label's score should also be known among those who have any.

    Args:
        rows: recording_id and unit_id, one row a recording.
        recordings: recording_id and label columns.
    """
    columns = [label_column(label) for label in joint_labels(task) if label_column(label) in recordings]
    if len(columns) < 2:
        return rows
    has = (recordings.set_index("recording_id")[columns] == task.positive).fillna(False).astype(bool).any(axis=1)
    own = rows["recording_id"].map(has).astype(bool)
    return rows.assign(any_label=own.groupby(rows["unit_id"]).transform("any").map(ANY_LABEL_VALUES))


def split_leaks(recordings: pd.DataFrame) -> dict[str, dict[str, int]]:
    """What could be on both sides of a split: column -> how many values there are, and how many do cross.

    Persons and near-duplicate audio never cross (`folds.check_folds` refuses that). A session of several known persons
    may cross: room, sensor and day are then the same on both sides. The subgroups `session` measure what that is worth.
    """
    found = {column: folds.count_crossing(recordings, column) for column in LEAK_COLUMNS}
    return {column: {"there": there, "crossing": crossing} for column, (there, crossing) in found.items()}


def read_left_out_classes(name: str, in_folds: Collection[str]) -> dict[str, dict[str, int]]:
    """The task's classes that are too rare to be in the folds, see `assessment.left_out_classes`."""
    assignment = tasks.resolve(name)
    columns = ["recording_id", "dataset", "patient_id", label_column(assignment.task.label)]
    recordings = pd.read_parquet(paths.RECORDINGS, columns=columns)
    groups = pd.read_parquet(paths.VALIDATION / "groups.parquet", columns=["recording_id", "group_id"])
    return left_out_classes(recordings, groups, assignment, in_folds)


def has_warnings(measured: Mapping[Any, Any], limits: ValidateParams) -> bool:
    """Whether a recording with the columns of `Quality` has quality warnings."""
    return bool(quality.warnings(quality.Quality(**{name: measured[name] for name in QUALITY_COLUMNS}), limits))


def read_out_of_fold(name: str, recordings: pd.DataFrame) -> pd.DataFrame:
    """The out-of-fold predictions, one row a unit, checked against the folds.

    Args:
        recordings: see `read_recordings`.

    Raises:
        StageError: a unit is missing, is not in the folds, or has another label, group or part there.
    """
    table = pd.read_parquet(paths.out_of_fold(name))
    rest = recordings[recordings["part"] != TEST]
    expected = rest.groupby("unit_id", sort=False)[["group_id", "label", "part"]].first()
    lost = sorted(set(expected.index) ^ set(table["unit_id"]))
    if lost or table["unit_id"].duplicated().any():
        which = lost[0] if lost else table.loc[table["unit_id"].duplicated(), "unit_id"].iloc[0]
        raise StageError(f"unit {which}: not once in folds and once in out_of_fold.parquet. Run `dvc repro`.")
    columns = ["group_id", "label", "part"]
    differs = (table.set_index("unit_id").loc[expected.index, columns].astype(str) != expected.astype(str)).any(axis=1)
    if differs.any():
        raise StageError(f"unit {expected.index[differs][0]}: label, group or fold differs between folds and "
                         "out_of_fold.parquet. Run `dvc repro`.")
    return table
