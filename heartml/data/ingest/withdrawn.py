"""Withdrawn consent in the data: which files ingest refuses, and the next version without a patient. Pure.

A patient who has withdrawn is refused by id, in any spelling, and by samples, so that the recordings do not come back
under other names. What the registry says about consent is `heartml.registry.consent`. The act of withdrawing, which
changes both, is `heartml.lineage.withdrawal`.
"""

from collections.abc import Mapping

import pandas as pd

from heartml.audio.entry_checks import Fault, FileFacts
from heartml.core.schema import QUARANTINE, WITHDRAWN
from heartml.data.ingest.grouping import patient_key
from heartml.data.ingest.version import DatasetTables

REASON = "withdrawn"


def faults(recordings: pd.DataFrame, facts: Mapping[str, FileFacts], withdrawn: pd.DataFrame) -> dict[str, Fault]:
    """The files of a layout that belong to a patient who has withdrawn consent.

    Args:
        recordings: `source_file` and `patient_id`, a row a file.
        facts: source file -> facts of decoding.
        withdrawn: schema.WITHDRAWN.

    Returns:
        Source file -> fault.
    """
    known = withdrawn[["patient_id", "reason"]].dropna(subset=["patient_id"])
    patients = {patient_key(patient): reason for patient, reason in known.itertuples(index=False)}
    samples = dict(zip(withdrawn["recording_id"], withdrawn["reason"], strict=True))
    found: dict[str, Fault] = {}
    for file, patient in recordings[["source_file", "patient_id"]].astype(object).itertuples(index=False):
        owner = patient_key(patient) if isinstance(patient, str) else None
        for name, reasons in ((owner, patients), (facts[file].recording_id, samples)):
            if name is not None and name in reasons:
                found.setdefault(file, Fault(REASON, detail(reasons[name])))
    return found


def detail(reason: str) -> str:
    """The column `detail` of the quarantine."""
    return f"consent withdrawn: {reason}"


def reason_of(withdrawn: pd.DataFrame, patient: str) -> str | None:
    """The reason that a patient gave for withdrawing consent; None for a patient who has not (schema.WITHDRAWN)."""
    reasons = withdrawn.loc[withdrawn["patient_id"] == patient, "reason"]
    return str(reasons.iloc[0]) if len(reasons) else None


def without_patient(tables: DatasetTables, patient: str, reason: str, also: pd.DataFrame) -> DatasetTables:
    """The next version: the patient's recordings are quarantined and listed as withdrawn.

    Args:
        tables: the version in place.
        patient: patient id.
        reason: in words. A patient who has withdrawn before keeps the first reason.
        also: `source_file`, `dataset`, `patient_id`, `recording_id` of the patient's recordings in former versions.
    """
    known = tables.withdrawn
    reason = reason_of(known, patient) or reason
    own = tables.recordings[tables.recordings["patient_id"] == patient]
    rows = own[["dataset", "source_file", "patient_id"]].assign(reason=REASON, detail=detail(reason))
    refused = tables.quarantine[tables.quarantine["patient_id"] == patient]
    columns = ["source_file", "dataset", "patient_id", "recording_id"]
    named = pd.concat([table.reindex(columns=columns) for table in (own, also, refused)]).assign(reason=reason)
    return DatasetTables(
        tables.recordings.drop(index=own.index),
        tables.annotations[~tables.annotations["recording_id"].isin(own["recording_id"])],
        _sorted(_together(tables.quarantine, rows)[list(QUARANTINE)]),
        _sorted(_together(known, named)[list(WITHDRAWN)].drop_duplicates(["dataset", "source_file"])),
    )


def _together(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table for table in (first, second) if len(table)] or [first], ignore_index=True)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["dataset", "source_file"], kind="stable", ignore_index=True)
