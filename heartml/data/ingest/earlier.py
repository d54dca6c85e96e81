"""What an ingest does to recordings of earlier ingests of the same data set: nothing is lost without a word. Pure.

In: the former recordings, and the facts or tables of what is ingested now. Out: sentences, or a refusal. The name of a
collection is that of its mapping file, so two folders may have one name by chance. Their files are then often named
alike, and the second would take the place of the first.
"""

from collections.abc import Collection as Some
from collections.abc import Mapping

import pandas as pd

from heartml.audio.entry_checks import FileFacts
from heartml.core.schema import LABEL_PREFIX, label_column
from heartml.core.system.errors import HeartMLError

_SHOWN = 3


class EarlierRecordingsError(HeartMLError):
    """The folder would take recordings or labels of an earlier ingest away; the message names the way out."""


def refuse_another_collection(dataset: str, own: pd.DataFrame, facts: Mapping[str, FileFacts]) -> None:
    """Refuse a folder of which most files have another sound than the data have under the same path.

    A single corrected file is no other collection, nor are corrections of at most half of the files that are there.

    Args:
        own: former recordings of the data set, `schema.RECORDINGS`.
        facts: source file -> facts of what is ingested now.

    Raises:
        EarlierRecordingsError: with the number of files, and the ways out.
    """
    shared = own[own["source_file"].isin(list(facts))]
    other = shared[~shared["recording_id"].isin([fact.recording_id for fact in facts.values()])]
    if len(other) > max(1, len(shared) / 2):
        raise EarlierRecordingsError(
            f"{dataset}: {len(other)} of {len(shared)} files that data/ has under the same path, such as "
            f"{other['source_file'].iloc[0]}, have another sound there. Is this another collection? Then rename its "
            f"mapping file, whose name is the data set's (`heartml init FOLDER --name NAME`). If the files were "
            "corrected, ingest the complete folder with --replace, which drops what is not in it")


def refuse_lost_labels(dataset: str, retained: pd.DataFrame, labels: Some[str]) -> None:
    """Refuse a mapping file without a task whose labels recordings have that this folder does not name.

    Args:
        retained: recordings of the data set that stay, with label columns.
        labels: those that the data set has now.

    Raises:
        EarlierRecordingsError: with the label and the number of recordings.
    """
    for column, count in _labelled(retained).items():
        name = column.removeprefix(LABEL_PREFIX)
        if count and name not in labels:
            raise EarlierRecordingsError(
                f"{dataset}: the mapping file has no task {name} any more, and {count} earlier recordings that are not "
                f"in this folder would lose their labels of it. Keep {name} in it, or drop those recordings with "
                "--replace")


def said(dataset: str, own: pd.DataFrame, now: pd.DataFrame, named: pd.DataFrame, labels: Some[str]) -> tuple[str, ...]:
    """Which earlier recordings and labels are gone, and which persons are taken for those of before.

    Args:
        own, now: recordings of the data set before, and in the next version.
        named: recordings of the folder, `source_file` and `patient_id`.
        labels: those that the data set has now.
    """
    lines = []
    gone = own.loc[~own["recording_id"].isin(now["recording_id"]), "source_file"]
    if len(gone):
        lines.append(f"{dataset}: {len(gone)} of {len(own)} earlier recordings are gone (replaced, refused now, or not "
                     f"in this folder): {_some(gone)}.")
    lines += [f"{dataset}: {count} labels of {column.removeprefix(LABEL_PREFIX)} are gone, which the mapping file does "
              "not name any more." for column, count in _labelled(own).items()
              if count and column not in {label_column(name) for name in labels}]
    same = sorted(set(own["patient_id"].dropna()) & set(named["patient_id"].dropna()))
    if same and not set(own["source_file"]) & set(named["source_file"]):
        stay = int(now["recording_id"].isin(own["recording_id"]).sum())
        lines.append(f"{dataset}: {stay} recordings of another folder stay, and {len(same)} patients are taken for "
                     f"persons of both: {_some(same)}. If this is another collection, give its mapping file another "
                     "name.")
    return tuple(lines)


def _labelled(recordings: pd.DataFrame) -> dict[str, int]:
    """Label column -> number of recordings that have a label in it."""
    return {column: int(recordings[column].notna().sum()) for column in map(str, recordings)
            if column.startswith(LABEL_PREFIX)}


def _some(names: Some[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{shown}, ..." if len(names) > _SHOWN else shown
