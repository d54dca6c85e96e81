"""The units of a task: the recordings or patients that it predicts, each with one label.

In: recordings (schema.RECORDINGS and label columns), groups (recording_id, group_id). Out: one row for each recording
of a labelled unit.
"""

import pandas as pd

from heartml.core import schema
from heartml.core.stage import StageError
from heartml.core.tasks import Assignment, estimable_classes


def label_units(recordings: pd.DataFrame, groups: pd.DataFrame, assignment: Assignment) -> pd.DataFrame:
    """The recordings whose unit has a label for the task.

    Args:
        recordings: schema.RECORDINGS with the column `label_<name>` of the task.
        groups: recording_id and group_id, after groups with near-duplicates have been joined.
        assignment: the task and its data sets.

    Returns:
        recording_id, unit_id, group_id, label, patient_id, source, source_file, in the order of unit_id and
        recording_id. `unit_id` is the patient_id or the recording_id, whichever the task predicts.

    Raises:
        StageError: there are no recordings, a label is unknown, or a patient has two labels where the patient is the
            unit.

    >>> from heartml.core.tasks import resolve
    >>> recordings = pd.DataFrame({
    ...     "recording_id": ["r1", "r2", "r3", "r4"], "dataset": "circor", "source": "CC2014", "group_id": "before",
    ...     "source_file": ["1.wav", "2.wav", "3.wav", "4.wav"],
    ...     "patient_id": ["p1", "p1", "p2", "p3"], "label_murmur": ["Present", "Present", "Absent", None]})
    >>> groups = pd.DataFrame({"recording_id": ["r1", "r2", "r3", "r4"], "group_id": ["g1", "g1", "g2", "g3"]})
    >>> units = label_units(recordings, groups, resolve("circor-murmur"))
    >>> units[["recording_id", "unit_id", "group_id", "label"]].to_numpy().tolist()
    [['r1', 'p1', 'g1', 'Present'], ['r2', 'p1', 'g1', 'Present'], ['r3', 'p2', 'g2', 'Absent']]
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
        missing_id = table.loc[table["group_id"].isna(), "recording_id"].iloc[0]
        raise StageError(f"recording {missing_id[:12]} is in no group: run `heartml validate` (or `dvc repro`) first.")
    unit = "patient_id" if task.unit == "patient" else "recording_id"
    label = _patient_labels(table, column) if task.unit == "patient" else table[column]
    units = table.assign(unit_id=table[unit], label=label.astype("string")).dropna(subset=["unit_id", "label"])
    _check_labels(units, assignment)
    columns = ["recording_id", "unit_id", "group_id", "label", "patient_id", "source", "source_file"]
    return units[columns].sort_values(["unit_id", "recording_id"], ignore_index=True)


def without_rare(units: pd.DataFrame, assignment: Assignment, min_groups: int) -> pd.DataFrame:
    """The units of `label_units` without those of rare classes, where the task leaves such classes out.

    Args:
        units: of `label_units`.
        assignment: the task and its data sets.
        min_groups: a class with fewer groups is rare.

    Raises:
        StageError: fewer than two classes are left; the message says how many groups each has, and the way out.
    """
    if assignment.task.rare == "kept":
        return units
    groups = units.groupby("label")["group_id"].nunique()
    kept = estimable_classes(assignment.task, {str(name): int(n) for name, n in groups.items()}, min_groups)
    if len(kept) < 2:
        found = ", ".join(f"{name} {groups.get(name, 0)}" for name in assignment.task.classes)
        raise StageError(f"{assignment.name} is not estimable: fewer than two of its classes have {min_groups} groups "
                         f"({found}). Take it out of `tasks` in params.yaml, or ingest more patients; `heartml tasks` "
                         "counts what there is.")
    return units[units["label"].isin(kept)].reset_index(drop=True)


def owners(recordings: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """What must not be in two parts, for each recording: its patient, its group before and after groups were joined.

    Args:
        recordings: recording_id, patient_id, group_id.
        groups: recording_id, group_id, after groups with near-duplicates have been joined.

    Returns:
        recording_id, patient_id, group_id, joined_group_id.
    """
    before = recordings[["recording_id", "patient_id", "group_id"]]
    return before.merge(groups.rename(columns={"group_id": "joined_group_id"}), on="recording_id", validate="1:1")


def _patient_labels(table: pd.DataFrame, column: str) -> "pd.Series[str]":
    """The patient's label for each of its recordings.

    Raises:
        StageError: a patient has two labels; the message names the patients and the files.
    """
    known = table.dropna(subset=["patient_id", column])
    labels = known.groupby("patient_id")[column].unique()
    contradictory = labels[labels.map(len) > 1]
    if len(contradictory):
        first = list(contradictory.items())[:5]
        names = "; ".join(f"{patient}: {' and '.join(sorted(found))}" for patient, found in first)
        raise StageError(f"{len(contradictory)} patients have two labels in {column} ({names}): "
                         "correct the publisher's table and ingest again")
    return table["patient_id"].map(labels.map(lambda found: found[0]))


def _check_labels(units: pd.DataFrame, assignment: Assignment) -> None:
    classes = assignment.task.classes
    unknown = units[~units["label"].isin(classes)]
    if len(unknown):
        row = unknown.iloc[0]
        raise StageError(f"{len(unknown)} recordings have a label that {assignment.name} does not know, first "
                         f"{row['label']!r} of {row['source_file']}: expected {', '.join(classes)}")
    if assignment.task.rare == "kept" and units["label"].nunique() < 2:
        found = units["label"].iloc[0] if len(units) else "none"
        raise StageError(f"{assignment.name}: fewer than two classes, labels found: {found}. Ingest more recordings.")
