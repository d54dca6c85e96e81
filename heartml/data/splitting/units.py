"""What a task predicts: its units, recordings or patients, each with one label.

In: recordings (schema.RECORDINGS, labels), groups (recording_id, group_id). Out: one row a labelled recording.
"""

import pandas as pd

from heartml.core import schema
from heartml.core.stage import StageError
from heartml.core.tasks import Assignment, estimable


def label_units(recordings: pd.DataFrame, groups: pd.DataFrame, assignment: Assignment) -> pd.DataFrame:
    """Recordings that have a label for the task: recording_id, unit_id, group_id, label, patient_id, source.

    Raises:
        StageError: no recordings, an unknown label, or a patient with two labels where the patient is the unit.
    """
    task, column = assignment.task, schema.label_column(assignment.task.label)
    own = recordings[recordings["dataset"].isin(assignment.datasets)]
    missing = [name for name in assignment.datasets if name not in set(own["dataset"])]
    if missing or column not in own:
        name = missing[0] if missing else assignment.datasets[0]
        what = f"no recordings of {name}" if missing else f"no label {task.label!r} in {name}"
        raise StageError(f"{assignment.name}: {what}: run `heartml ingest {name} DIR`, or change `tasks`")
    table = own.drop(columns="group_id").merge(groups, on="recording_id", how="left", validate="1:1")
    if table["group_id"].isna().any():
        lost = table.loc[table["group_id"].isna(), "recording_id"].iloc[0]
        raise StageError(f"recording {lost[:12]} is in no group: run `heartml validate` (or `dvc repro`) first.")
    unit = "patient_id" if task.unit == "patient" else "recording_id"
    label = _patient_labels(table, column) if task.unit == "patient" else table[column]
    units = table.assign(unit_id=table[unit], label=label.astype("string")).dropna(subset=["unit_id", "label"])
    _check_labels(units, assignment)
    columns = ["recording_id", "unit_id", "group_id", "label", "patient_id", "source"]
    return units[columns].sort_values(["unit_id", "recording_id"], ignore_index=True)


def without_rare(units: pd.DataFrame, assignment: Assignment, min_groups: int) -> pd.DataFrame:
    """The units that the task learns from: where it leaves rare classes out, those of the estimable ones.

    Raises:
        StageError: fewer than two classes are left; the message says how many groups each has, and the way out.
    """
    if assignment.task.rare == "kept":
        return units
    groups = units.groupby("label")["group_id"].nunique()
    kept = estimable(assignment.task, {str(name): int(n) for name, n in groups.items()}, min_groups)
    if len(kept) < 2:
        found = ", ".join(f"{name} {groups.get(name, 0)}" for name in assignment.task.classes)
        raise StageError(f"{assignment.name} is not estimable: fewer than two of its classes have {min_groups} groups "
                         f"({found}). Take it out of `tasks` in params.yaml, or ingest more patients; `heartml tasks` "
                         "counts what there is.")
    return units[units["label"].isin(kept)].reset_index(drop=True)


def _patient_labels(table: pd.DataFrame, column: str) -> "pd.Series[str]":
    """The patient's label for each of its recordings.

    Raises:
        StageError: a patient has two labels; the message names the patients and the files.
    """
    known = table.dropna(subset=["patient_id", column])
    labels = known.groupby("patient_id")[column].unique()
    torn = labels[labels.map(len) > 1]
    if len(torn):
        names = "; ".join(f"{patient}: {' and '.join(sorted(found))}" for patient, found in list(torn.items())[:5])
        raise StageError(f"{len(torn)} patients have two labels in {column} ({names}): "
                         "mend the publisher's table and ingest again")
    return table["patient_id"].map(labels.map(lambda found: found[0]))


def _check_labels(units: pd.DataFrame, assignment: Assignment) -> None:
    classes = assignment.task.classes
    strange = units[~units["label"].isin(classes)]
    if len(strange):
        row = strange.iloc[0]
        raise StageError(f"{len(strange)} recordings have a label that {assignment.name} does not know, first "
                         f"{row['label']!r} of {row['source_file']}: expected {', '.join(classes)}")
    if assignment.task.rare == "kept" and units["label"].nunique() < 2:
        found = units["label"].iloc[0] if len(units) else "none"
        raise StageError(f"{assignment.name}: nothing to tell apart, labels found: {found}. Ingest more recordings.")
