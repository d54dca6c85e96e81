"""What an evaluation reads:

the task's recordings with folds, descriptions and measurements, held against each other.
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
from heartml.evaluation.assessment import (
    left_out,
)

MEASURED = tuple(field.name for field in fields(quality.Quality))

SESSION = {True: "heard in training", False: "new"}

LEAKS = ("patient_id", "joined_group_id", schema.SESSION)

SIGNAL = {True: "with warnings", False: "no warnings"}

OF_RECORDING = ["recording_id", "source", "location", "age_group", "sex"]


def read_recordings(name: str, limits: ValidateParams) -> pd.DataFrame:
    """The task's recordings with folds, description, measurements and `signal`, in the folds' order.

    `signal` says of the whole unit whether a recording of it has quality warnings: do errors gather there?
    `session` says whether a recording of it was made in a session that training has heard; null where none is known.

    Raises:
        FoldsError: a group, a patient or near-identical audio stands in two parts: nothing is scored.
        StageError: a recording of the folds is not in the data set, or was not measured.
    """
    table = folds.load(paths.folds(name))
    whole = pd.read_parquet(paths.RECORDINGS)
    recordings = whole[[*OF_RECORDING, "patient_id"]].assign(**{schema.SESSION: whole.get(schema.SESSION)})
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
        recordings[[*OF_RECORDING, schema.SESSION]], on="recording_id", validate="1:1")
    measured = described.merge(signal, on="recording_id", validate="1:1")
    warned = pd.Series([has_warnings(row, limits) for row in measured.to_dict("records")])
    heard = folds.trained_beside(measured, schema.SESSION).groupby(measured["unit_id"]).transform("max")
    return measured.assign(signal=warned.groupby(measured["unit_id"]).transform("any").map(SIGNAL),
                           session=heard.map(SESSION))


def leaks(recordings: pd.DataFrame) -> dict[str, dict[str, int]]:
    """What could be on both sides of a split -> how many of it there are, and how many are.

    Persons and near-identical audio never are (`folds.check_folds`). A session that holds several known persons may
    be: room, sensor and day are the same then, and the subgroups `session` say what that is worth.
    """
    found = {column: folds.crossing(recordings, column) for column in LEAKS}
    return {column: {"there": there, "crossing": crossing} for column, (there, crossing) in found.items()}


def read_left_out(name: str, learnt: Collection[str]) -> dict[str, dict[str, int]]:
    """The task's classes that are too rare to be in the folds, see `assessment.left_out`."""
    assignment = tasks.resolve(name)
    columns = ["recording_id", "dataset", "patient_id", label_column(assignment.task.label)]
    recordings = pd.read_parquet(paths.RECORDINGS, columns=columns)
    groups = pd.read_parquet(paths.VALIDATION / "groups.parquet", columns=["recording_id", "group_id"])
    return left_out(recordings, groups, assignment, learnt)


def has_warnings(measured: Mapping[Any, Any], limits: ValidateParams) -> bool:
    """Whether a recording with the columns of `Quality` has quality warnings."""
    return bool(quality.warnings(quality.Quality(**{name: measured[name] for name in MEASURED}), limits))


def read_out_of_fold(name: str, recordings: pd.DataFrame) -> pd.DataFrame:
    """The cross-fitted predictions, held against the folds.

    Raises:
        StageError: a unit is missing, is not one of the folds', or has another label, group or part there.
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
