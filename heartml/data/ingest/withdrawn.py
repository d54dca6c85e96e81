"""Withdrawn consent: which files it refuses, and a version without a patient. Pure.

A patient who has withdrawn is refused by id and by samples, so that a file under another name does not come back.
"""

from collections.abc import Mapping

import pandas as pd

from heartml.audio.entry_checks import Fault, FileFacts
from heartml.core.schema import QUARANTINE, WITHDRAWN
from heartml.data.ingest.version import DatasetTables

REASON = "withdrawn"


def faults(recordings: pd.DataFrame, facts: Mapping[str, FileFacts], withdrawn: pd.DataFrame) -> dict[str, Fault]:
    """Source file -> fault, for the files of a layout that belong to somebody who has withdrawn consent.

    Args:
        recordings: `source_file` and `patient_id`, a row a file.
        withdrawn: schema.WITHDRAWN.
    """
    patients = dict(zip(withdrawn["patient_id"], withdrawn["reason"], strict=True))
    samples = dict(zip(withdrawn["recording_id"], withdrawn["reason"], strict=True))
    found: dict[str, Fault] = {}
    for file, patient in recordings[["source_file", "patient_id"]].astype(object).itertuples(index=False):
        key = facts[file].recording_id
        for asked, reasons in ((patient, patients), (key, samples)):
            if isinstance(asked, str) and asked in reasons:
                found.setdefault(file, Fault(REASON, detail(reasons[asked])))
    return found


def detail(reason: str) -> str:
    """What a row of the quarantine says."""
    return f"consent withdrawn: {reason}"


def without(tables: DatasetTables, patient: str, reason: str, also: pd.DataFrame) -> DatasetTables:
    """The next version: the patient's recordings are quarantined, and remembered as withdrawn.

    The first reason that was given stays.

    Args:
        also: `source_file`, `dataset`, `patient_id`, `recording_id` of the patient's recordings in former versions.
    """
    known = tables.withdrawn
    said = known.loc[known["patient_id"] == patient, "reason"]
    reason = str(said.iloc[0]) if len(said) else reason
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
