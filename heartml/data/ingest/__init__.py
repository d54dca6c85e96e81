"""Ingest, before all stages. In: a publisher's folder. Out: the next version of the canonical data set in `data/`.

Every file is decoded once and checked. A refused file goes into the quarantine with its reason. Rows of other data
sets do not change. Files of this data set that were ingested before stay, even where the folder lacks them. Where no
file passes, nothing is changed at all. The demo corpus of a fresh clone makes room for the first real collection.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import replace as replaced
from pathlib import Path

import pandas as pd

from heartml.audio import entry_checks
from heartml.audio.entry_checks import DecodingJob, FileFacts
from heartml.core import config, paths
from heartml.core.config import IngestParams
from heartml.core.schema import label_column
from heartml.core.system.errors import HeartMLError
from heartml.core.system.parallel import available_workers, pool
from heartml.core.system.progress import track
from heartml.core.tasks import datasets_of, declared
from heartml.data import cache, persons
from heartml.data.datasets import Dataset, Layout, open_dataset
from heartml.data.datasets.generic import Collection, own_tasks, task_of
from heartml.data.datasets.mapping_file import TO_BE_FILLED_IN
from heartml.data.ingest import declared_tasks, demo, earlier, version
from heartml.data.ingest import tables as ingest_tables
from heartml.data.ingest.version import DatasetTables
from heartml.pipeline import graph

_NO_WORKERS_BELOW = 41     # fewer files are decoded in this process: starting workers would take longer
_FLAC = version.BUILD / "audio"
_SHOWN = 5                 # first refused files, of different reasons where there are some


class NothingPassedError(HeartMLError):
    """No file of the folder became a recording, so the data are as they were; the message has the first reasons."""


@dataclass(frozen=True)
class IngestOutcome:
    """The result of one ingest, as `heartml ingest` prints it; the counts are of this data set alone.

    Attributes:
        dataset: its name.
        recordings, patients, groups: how many it has now.
        labelled: recordings with at least one label.
        new: recordings that were not there before.
        quarantined: number of files by reason.
        changed: whether `data.dvc` names another version than before; after a dry run, whether it would.
        tasks: `tasks` of `params.yaml` now.
        tasks_changed: whether this ingest wrote them; after a dry run, whether it would.
        first_refused: `file: reason: detail` of some files in quarantine, one of each reason first.
        dry_run: whether nothing was written.
        persons: a sentence where recordings name no person, with what follows from it; else empty.
        refused: of a dry run all of these lines, since it writes no table of them; else empty.
        demo_left: recordings of the demo corpus that left `data/`; after a dry run, that would leave it.
        notes: sentences about the tasks that the mapping file declares, and about what is not filled in in it.
    """

    dataset: str
    recordings: int
    labelled: int
    patients: int
    groups: int
    new: int
    quarantined: Mapping[str, int]
    changed: bool
    tasks: tuple[str, ...]
    tasks_changed: bool
    first_refused: tuple[str, ...] = ()
    dry_run: bool = False
    persons: str = ""
    refused: tuple[str, ...] = ()
    demo_left: int = 0
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def counts(self) -> list[tuple[str, int]]:
        """The rows that are printed: text and number."""
        return [
            ("recordings", self.recordings), ("  of them with a label", self.labelled), ("  of them new", self.new),
            ("patients", self.patients), ("groups that never cross folds", self.groups),
            ("files in quarantine", sum(self.quarantined.values())),
            *((f"  {reason}", count) for reason, count in self.quarantined.items()),
        ]


def run(
    dataset: str, folder: Path, *, keep_tasks: bool = False, replace: bool = False, dry_run: bool = False
) -> IngestOutcome:
    """Ingest `folder` as data set `dataset`. It waits while another ingest or a retraining is running here.

    Args:
        dataset: its name.
        folder: in the publisher's layout; for `generic` a mapping file, or the folder of the only one.
        keep_tasks: do not change `tasks` in `params.yaml`.
        replace: remove recordings of this data set that were ingested before and are not in `folder`.
        dry_run: only say what would be taken and refused; `data/` and `params.yaml` stay as they are.

    Raises:
        NothingPassedError: no file of the folder passed; `data/` and `params.yaml` are as they were.
        LayoutError: the folder is not this data set.
        EarlierRecordingsError: earlier recordings would be lost, or their labels; `data/` is as it was.
        VersionError: `data/` is not the version that `data.dvc` names.
    """
    source, root = open_dataset(dataset, folder)
    own = own_tasks(source)
    with graph.hold_pipeline(command="heartml ingest"):
        params = config.load()     # as they are after the wait
        layout = source.read(root)
        version.restore()
        former = version.read()
        changes = declared_tasks.changes(source.NAME, declared(source.NAME), own, replace=replace)
        retained = ingest_tables.retained_rows(former, source.NAME, layout, replace=replace)
        own_before = former.recordings[former.recordings["dataset"] == source.NAME]
        earlier.refuse_lost_labels(source.NAME, retained.recordings, source.LABELS)
        facts = _examine(layout, root, params.ingest)
        if isinstance(source, Collection) and not replace:
            _refuse_another_collection(source.NAME, own_before, facts)
        admitted = ingest_tables.admit(source, layout, facts, retained, params.ingest)
        samples = {i: _samples(i) for i in admitted.candidates["recording_id"]}
        searched = cache.thresholds(params.ingest, params.validate_)
        pairs = cache.near_duplicates(
            samples, params.ingest.duplicate_correlation, searched, available_workers(0)
        )
        tables = ingest_tables.next_tables(source, layout, admitted, pairs, former, retained)
        _refuse_nothing(source, root, layout, tables)
        tasks = params.tasks if keep_tasks else _tasks(source, params.tasks, tables)
        demo_left = source.NAME != demo.NAME and demo.is_alone() and not demo.is_used(tasks)
        if demo_left:
            tables = ingest_tables.next_tables(source, layout, admitted, pairs, demo.without(former), retained)
        own_now = tables.recordings[tables.recordings["dataset"] == source.NAME]
        lost = earlier.said(source.NAME, own_before, own_now, layout.recordings, source.LABELS)
        notes = (*changes, *lost, *_about_declared(source, tables), *_unfilled(source))
        built = version.build(tables, _FLAC, _mapping(source), {source.NAME: own})
        changed = _publish(built, dry_run=dry_run)
        if tasks != params.tasks and not dry_run:
            config.set_tasks(tasks)
    found = _outcome(source, former, tables, changed, tasks, tasks != params.tasks, dry_run)
    return replaced(found, notes=notes, demo_left=len(former.recordings) if demo_left else 0)


def _publish(built: Path, *, dry_run: bool) -> bool:
    """Put a built version in place, or only say whether it is another one than that in place, and remove it."""
    if not dry_run:
        return version.publish(built)
    changed = not version.is_in_place(built)
    shutil.rmtree(version.BUILD)
    return changed


def _refuse_another_collection(dataset: str, own: pd.DataFrame, facts: Mapping[str, FileFacts]) -> None:
    try:
        earlier.refuse_another_collection(dataset, own, facts)
    except HeartMLError:
        shutil.rmtree(version.BUILD, ignore_errors=True)
        raise


def _refuse_nothing(source: Dataset, folder: Path, layout: Layout, tables: DatasetTables) -> None:
    """Refuse an ingest that takes no file of the folder.

    Raises:
        NothingPassedError: with the first reasons.
    """
    own = tables.recordings[tables.recordings["dataset"] == source.NAME]
    if own["source_file"].isin(layout.recordings["source_file"]).any():
        return
    shutil.rmtree(version.BUILD, ignore_errors=True)
    named = {*layout.recordings["source_file"], *layout.refused["source_file"]}
    refused = tables.quarantine[(tables.quarantine["dataset"] == source.NAME)
                                & tables.quarantine["source_file"].isin(named)]
    reasons = "; ".join(_in_words(refused, _SHOWN)) or f"there are no sound files in {folder}"
    more = f"; {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    raise NothingPassedError(f"no recording of {source.NAME} passed the checks, so nothing was changed: "
                             f"{reasons}{more}")


def _in_words(quarantine: pd.DataFrame, most: int) -> tuple[str, ...]:
    """`file: reason: detail` of at most `most` rows, one of each reason first."""
    first = quarantine[~quarantine.duplicated("reason")]
    rows = pd.concat([first, quarantine.drop(index=first.index)]).head(most)
    columns = (rows[column] for column in ("source_file", "reason", "detail"))
    return tuple(f"{file}: {reason}: {detail}" for file, reason, detail in zip(*columns, strict=True))


def _mapping(source: Dataset) -> dict[str, str]:
    """Data set -> its mapping file, for a collection that has one."""
    return {source.NAME: source.text} if isinstance(source, Collection) else {}


def _about_declared(source: Dataset, tables: DatasetTables) -> tuple[str, ...]:
    """The classes of the tasks that the data set declares, in words.

    Raises:
        DeclarationError: fewer than two classes of one have a recording.
    """
    own = tables.recordings[tables.recordings["dataset"] == source.NAME]
    found = declared_tasks.find(own_tasks(source), own)
    try:
        declared_tasks.refuse_one_class(source.NAME, found)
    except HeartMLError:
        shutil.rmtree(version.BUILD, ignore_errors=True)
        raise
    return declared_tasks.in_words(source.NAME, found, own)


def _unfilled(source: Dataset) -> tuple[str, ...]:
    """What the mapping file leaves to be filled in. It is no error: a trial on one's own machine needs no licence."""
    keys = [key for key in ("title", "citation", "licence") if isinstance(source, Collection)
            and getattr(source.description, key) == TO_BE_FILLED_IN]
    return (f"{source.NAME}.yaml: {' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} still {TO_BE_FILLED_IN!r}. "
            "Report, model card and lineage show that; fill it in before a model leaves your machine.",) if keys else ()


def _samples(recording_id: str) -> Path:
    """The file with the samples of a recording: in the current version, or decoded just now."""
    current = paths.audio(recording_id)
    return current if current.exists() else paths.audio(recording_id, _FLAC)


def _examine(layout: Layout, folder: Path, params: IngestParams) -> dict[str, FileFacts]:
    """Source file -> facts. Only files that no earlier ingest has decoded are decoded."""
    known, published = cache.read_facts(), ingest_tables.published_facts(layout)
    facts: dict[str, FileFacts] = {}
    for file in track(published, "looking for what is new", len(published)):
        path = folder / file
        fault = entry_checks.path_fault(folder, path)
        if fault:
            facts[file] = FileFacts.refused(fault)
            continue
        old = known.get(entry_checks.source_sha256(path))
        if old and (entry_checks.first_fault(old, published[file], params) or paths.audio(old.recording_id).exists()):
            facts[file] = old
    jobs = {file: DecodingJob(folder / file, _FLAC) for file in published if file not in facts}
    if jobs and not sys.stderr.isatty():    # where no bar shows it
        print(f"{folder}: decoding {len(jobs)} of {len(published)} files", file=sys.stderr, flush=True)
    with pool(available_workers(0) if len(jobs) >= _NO_WORKERS_BELOW else 1) as workers:
        found = track(workers.map(entry_checks.examine, jobs.values()), "decoding", len(jobs))
        facts |= dict(zip(jobs, found, strict=True))
    cache.add_facts(facts.values())
    return facts


def _tasks(source: Dataset, tasks: tuple[str, ...], tables: DatasetTables) -> tuple[str, ...]:
    """`tasks`; where none of them uses this data set, the first task that its labels allow."""
    if any(source.NAME in datasets_of(task) for task in tasks):
        return tasks
    own = tables.recordings[tables.recordings["dataset"] == source.NAME]
    allowed = [name for name in source.TASKS if own[label_column(task_of(source, name).label)].nunique() > 1]
    return (f"{source.NAME}-{allowed[0]}",) if allowed else tasks


def _outcome(
    source: Dataset, former: DatasetTables, tables: DatasetTables, changed: bool, tasks: tuple[str, ...],
    tasks_changed: bool, dry_run: bool,
) -> IngestOutcome:
    dataset = source.NAME
    own = tables.recordings[tables.recordings["dataset"] == dataset]
    labels = own.filter(like=label_column(""))
    refused = tables.quarantine[tables.quarantine["dataset"] == dataset]
    return IngestOutcome(
        dataset, len(own), int(labels.notna().any(axis=1).sum()), own["patient_id"].nunique(),
        own["group_id"].nunique(), int((~own["recording_id"].isin(former.recordings["recording_id"])).sum()),
        dict(sorted(Counter(refused["reason"]).items())), changed, tasks, tasks_changed,
        _in_words(refused, _SHOWN), dry_run, _persons(source, own), _in_words(refused, len(refused)) if dry_run else (),
    )


def _persons(source: Dataset, own: pd.DataFrame) -> str:
    """`persons.unknown_in_words`, for a described collection with the way out."""
    words = persons.unknown_in_words(persons.count_unknown(own))
    mend = " A column with the persons, named as `columns.patient` in the mapping file, mends that."
    return words + mend if words and isinstance(source, Collection) else words
