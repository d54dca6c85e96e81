"""The next version of the tables. Pure.

In: a publisher's layout, the facts that decoding gave, and the former version. Out: `DatasetTables`. *Candidates* are
the files of one data set that passed the entry checks, and the recordings of the former version that stay: the columns
of `schema.RECORDINGS` without `group_id`, then `group` and `label_<name>`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from heartml.audio.entry_checks import Fault, FileFacts, PublishedFacts, first_fault
from heartml.core.config import IngestParams
from heartml.core.schema import LABEL_PREFIX, OPTIONAL, QUARANTINE, RECORDINGS, SESSION, label_column
from heartml.core.system.text import short
from heartml.core.tasks import TASKS
from heartml.data.datasets import Dataset, Layout
from heartml.data.datasets.generic import own_tasks, task_of
from heartml.data.ingest import grouping, withdrawn
from heartml.data.ingest.version import DatasetTables

_MISSING_FILE = "missing_file"


@dataclass(frozen=True)
class Admitted:
    """Candidates, and rows of the quarantine for the files that were refused."""

    candidates: pd.DataFrame
    refused: pd.DataFrame


def published_facts(layout: Layout) -> dict[str, PublishedFacts]:
    """Source file -> checksums and number of samples that the publisher gives."""
    columns = (layout.recordings[c].astype(object) for c in ("source_file", "file_sha256", "pcm_sha256", "samples"))
    return {
        file: PublishedFacts(*(None if pd.isna(value) else value for value in values))
        for file, *values in zip(*columns, strict=True)
    }


def retained_rows(former: DatasetTables, dataset: str, layout: Layout, *, replace: bool) -> DatasetTables:
    """The rows of this data set in the former version that stay: those of files that the layout does not name.

    A recording also stays where the layout names its file and the file is missing.

    Args:
        former: the former version.
        dataset: name of the data set.
        layout: what is ingested now.
        replace: no row stays.
    """
    if replace:
        return DatasetTables(former.recordings.head(0), former.annotations.head(0), former.quarantine.head(0),
                             former.withdrawn)
    missing = layout.refused["reason"] == _MISSING_FILE
    named = {*layout.recordings["source_file"], *layout.refused.loc[~missing, "source_file"]}
    recordings = former.recordings[_of(former.recordings, dataset) & ~former.recordings["source_file"].isin(named)]
    named |= {*layout.refused.loc[missing, "source_file"]}
    quarantine = former.quarantine[_of(former.quarantine, dataset) & ~former.quarantine["source_file"].isin(named)]
    annotations = former.annotations[former.annotations["recording_id"].isin(recordings["recording_id"])]
    return DatasetTables(recordings, annotations, quarantine, former.withdrawn)


def _labels(table: pd.DataFrame) -> list[str]:
    return [column for column in map(str, table) if column.startswith(LABEL_PREFIX)]


def _of(table: pd.DataFrame, dataset: str) -> "pd.Series[bool]":
    return table["dataset"] == dataset


def admit(
    source: Dataset, layout: Layout, facts: Mapping[str, FileFacts], retained: DatasetTables, params: IngestParams
) -> Admitted:
    """Check every file of the layout: entry checks, known labels, withdrawn consent, one spelling of a patient's id.

    Args:
        source: the data set.
        layout: what is ingested now.
        facts: source file -> facts of decoding.
        retained: rows of the data set that stay, of `retained_rows`.
        params: limits of the entry checks.
    """
    published, before = published_facts(layout), retained.recordings
    withdrawn_files = withdrawn.faults(layout.recordings, facts, retained.withdrawn)
    spellings = grouping.spelling_faults(layout.recordings, before)
    faults = {file: first_fault(facts[file], published[file], params) or fault or withdrawn_files.get(file)
              or spellings.get(file) for file, fault in _unknown_labels(source, layout.recordings).items()}
    files = layout.recordings["source_file"]
    passed = layout.recordings[pd.Series([faults[file] is None for file in files], files.index, dtype=bool)]
    decoded = [facts[file] for file in passed["source_file"]]
    fresh = passed.assign(
        recording_id=[fact.recording_id for fact in decoded],
        dataset=source.NAME,
        sample_rate_hz=[fact.sample_rate_hz for fact in decoded],
        seconds=[fact.seconds for fact in decoded],
        source_sha256=[fact.source_sha256 for fact in decoded],
        licence=source.LICENCE,
        **{SESSION: passed["session"]},
    )
    columns = [c for c in RECORDINGS if c != "group_id"] + ["group"]
    columns += [column for column in OPTIONAL if column in before or fresh[column].notna().any()]
    columns += _labels(fresh)
    old = before.assign(group=before["group_id"]).reindex(columns=columns)
    candidates = pd.concat([fresh[columns], old], ignore_index=True) if len(old) else fresh[columns]
    named = layout.recordings.set_index("source_file")
    rows = [(source.NAME, file, named.at[file, "patient_id"], *fault) for file, fault in faults.items() if fault]
    return Admitted(candidates.reset_index(drop=True), pd.DataFrame(rows, columns=list(QUARANTINE)))


def _unknown_labels(source: Dataset, recordings: pd.DataFrame) -> dict[str, Fault | None]:
    """Source file -> fault where a label is no class of the data set, None elsewhere."""
    faults: dict[str, Fault | None] = dict.fromkeys(recordings["source_file"])
    for name, allowed in source.LABELS.items():
        column = recordings[label_column(name)]
        wrong = column.notna() & ~column.isin(allowed)
        for file, label in zip(recordings.loc[wrong, "source_file"], column[wrong], strict=True):
            faults[file] = faults[file] or Fault("unknown_label", f"{name} is {short(label)}, not {', '.join(allowed)}")
    return faults


def next_tables(
    source: Dataset, layout: Layout, admitted: Admitted, pairs: pd.DataFrame, former: DatasetTables,
    retained: DatasetTables,
) -> DatasetTables:
    """The next version: refuse copies and contradictions among the candidates, group the others, add other data sets.

    Args:
        source: the data set.
        layout: what is ingested now.
        admitted: of `admit`.
        pairs: near-duplicates among the candidates, `cache.PAIR_COLUMNS`.
        former: the former version, with all data sets.
        retained: rows of this data set that stay, of `retained_rows`.
    """
    others = former.recordings[~_of(former.recordings, source.NAME)]
    candidates = admitted.candidates
    own = [task_of(source, name) for name in source.TASKS]
    compared = [label_column(task.recording_label or task.label) for task in own]
    faults = grouping.contradictions(candidates, pairs, compared)
    every = (*TASKS.values(), *own_tasks(source).values())
    of_patients = sorted({label_column(task.label) for task in every if task.unit == "patient"} & set(candidates))
    faults |= grouping.patient_contradictions(
        candidates.drop(index=list(faults)), of_patients, _refused_but_stated(source, layout, candidates))
    single = candidates.drop(index=list(faults))
    faults |= grouping.copies(single, _labels(candidates), others)
    same = [*layout.same_person, *_known_before(retained.recordings)]
    grouped = candidates.assign(group_id=grouping.groups(candidates, pairs, same))
    accepted = grouped.drop(index=list(faults), columns="group")
    faulty = candidates.loc[list(faults), ["dataset", "source_file", "patient_id"]].assign(
        reason=[fault.reason for fault in faults.values()], detail=[fault.detail for fault in faults.values()]
    )
    refused = [admitted.refused, faulty, _still_missing(layout.refused, accepted), retained.quarantine]
    elsewhere = former.quarantine[~_of(former.quarantine, source.NAME)]
    of_others = former.annotations[former.annotations["recording_id"].isin(others["recording_id"])]
    return DatasetTables(
        _sorted(_stack(others, accepted), ["dataset", "source_file"]),
        _sorted(_stack(of_others, _annotations(layout, accepted, retained)), ["recording_id", "start_s", "end_s"]),
        _sorted(_stack(elsewhere, _one_row_a_file(_stack(*refused))), ["dataset", "source_file"]),
        former.withdrawn,
    )


def _refused_but_stated(source: Dataset, layout: Layout, candidates: pd.DataFrame) -> pd.DataFrame:
    """Patients and labels of the layout's files that were refused, without labels that the data set does not know."""
    said = pd.concat([layout.recordings[~layout.recordings["source_file"].isin(candidates["source_file"])],
                      layout.stated], ignore_index=True)
    known = {label_column(name): said[label_column(name)].where(said[label_column(name)].isin(allowed))
             for name, allowed in source.LABELS.items()}
    return said.assign(**known)


def _known_before(recordings: pd.DataFrame) -> Iterable[tuple[str, str]]:
    """Patient ids with the group that an earlier ingest gave them."""
    known = recordings.dropna(subset=["patient_id"])
    return zip(known["patient_id"], known["group_id"], strict=True)


def _still_missing(refused: pd.DataFrame, accepted: pd.DataFrame) -> pd.DataFrame:
    """The rows that a layout refuses, without missing files whose recording an earlier ingest has brought."""
    known = (refused["reason"] == _MISSING_FILE) & refused["source_file"].isin(accepted["source_file"])
    return refused[~known]


def _annotations(layout: Layout, accepted: pd.DataFrame, retained: DatasetTables) -> pd.DataFrame:
    ids = accepted[["source_file", "recording_id"]]
    fresh = layout.annotations.merge(ids, on="source_file").drop(columns="source_file")
    old = retained.annotations[retained.annotations["recording_id"].isin(accepted["recording_id"])]
    return _stack(fresh, old)


def _stack(*tables: pd.DataFrame) -> pd.DataFrame:
    """All rows of the tables. Where none has a row, the table with the most columns, so that label columns stay."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else max(tables, key=lambda table: len(table.columns))


def _one_row_a_file(quarantine: pd.DataFrame) -> pd.DataFrame:
    return quarantine.drop_duplicates("source_file", keep="first")


def _sorted(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return table.sort_values(by, kind="stable", ignore_index=True)
