"""Trace a recording or a patient forward: which data versions, groups, folds, runs and registered versions used it.

In: a recording id or the start of one, a source file's name, or a patient id. Out: a `Trace`.

It is searched in every data version that git's history and the runs name, in their quarantine, and in the folds that
each run keeps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from heartml.core.schema import FOLDS, TEST
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import temporary_folder
from heartml.core.system.progress import track
from heartml.lineage import data_versions
from heartml.lineage.chain import StoredFiles
from heartml.lineage.data_versions import DataVersion, VersionTables
from heartml.lineage.dvc_objects import ObjectNotFound, Objects
from heartml.registry import consent, tracking, versions
from heartml.registry.tracking import Client, Run
from heartml.registry.versions import Version

if TYPE_CHECKING:
    import pandas as pd

RECORDING, PATIENT, FILE = "recording", "patient", "source file"
TRAINING, HELD_OUT = "training", "held out"
_SHORTEST = 6     # fewest digits of a recording id that are accepted for the whole id


class UnknownName(HeartMLError):  # noqa: N818 - reads as what is the case
    """Nothing has this name, or several recordings have it. The message says which."""


@dataclass(frozen=True)
class TracedRecording:
    """One recording, as described by the newest data version that holds it. `data`: hashes of all such versions."""

    recording_id: str
    patient_id: str | None
    group_id: str
    dataset: str
    source_file: str
    source_sha256: str
    licence: str
    data: tuple[str, ...]


@dataclass(frozen=True)
class NearDuplicate:
    """Another patient id in the same group: the same person, or near-duplicate audio. `recordings`: how many."""

    patient_id: str
    group_id: str
    recordings: int


@dataclass(frozen=True)
class QuarantinedFile:
    """One row of the quarantine. `data`: hashes of the data versions that have it."""

    source_file: str
    patient_id: str | None
    reason: str
    detail: str
    data: tuple[str, ...]


@dataclass(frozen=True)
class Use:
    """How one run used the recordings.

    Attributes:
        version, aliases, verdict: of the registered version; `None` and empty if the run's model was not registered.
        parts: part of `folds.parquet` (`test`: held out) -> recording ids.
        withdrawn: consent that was withdrawn since, in words; empty if none was.
    """

    task: str
    run_id: str
    data: str
    version: str | None
    aliases: tuple[str, ...]
    verdict: str | None
    withdrawn: str
    parts: Mapping[str, tuple[str, ...]]

    @property
    def roles(self) -> tuple[str, ...]:
        """`training`, `held out`, or both."""
        there = {HELD_OUT if part == TEST else TRAINING for part in self.parts}
        return tuple(role for role in (TRAINING, HELD_OUT) if role in there)


@dataclass(frozen=True)
class Trace:
    """Everything that is known about a recording, a source file or a patient.

    Attributes:
        asked: the name that was searched.
        kind: `recording`, `patient` or `source file`.
        twins: other patient ids in the same groups.
        refused: quarantined files.
        data: data versions that hold one of the recordings or refused files.
        missing: what could not be read, in words.
    """

    asked: str
    kind: str
    recordings: tuple[TracedRecording, ...]
    twins: tuple[NearDuplicate, ...]
    refused: tuple[QuarantinedFile, ...]
    data: tuple[DataVersion, ...]
    uses: tuple[Use, ...]
    missing: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        uses = [{**asdict(use), "roles": use.roles} for use in self.uses]
        return {**asdict(self), "uses": uses}


def find(client: Client, name: str, objects: Objects | None = None) -> Trace:
    """Trace one recording, source file or patient.

    Raises:
        UnknownName: no data version has anything of this name, or several recording ids start with it.
    """
    objects = objects or Objects()
    runs = tracking.training_runs(client)
    known = data_versions.list_data_versions({run.run_id: run.tags["heartml.data"] for run in runs})
    missing = data_versions.unseen()
    tables: dict[str, VersionTables] = {}
    for version in track(known, "data versions", len(known)):
        try:
            tables[version.md5] = data_versions.tables(objects, version.md5)
        except ObjectNotFound as gone:
            missing.append(f"data version {version.md5}: {gone}")
    kind, ids, rows = _matches(name, tables, missing)
    recordings = _recordings(tables, ids)
    uses, unread = _uses(client, runs, ids)
    holding = {md5 for one in recordings for md5 in one.data} | {md5 for row in rows for md5 in row.data}
    return Trace(name, kind, recordings, _near_duplicates(tables, recordings), rows,
                 tuple(version for version in known if version.md5 in holding), uses, (*missing, *unread))


def _matches(
    name: str, tables: Mapping[str, VersionTables], missing: Sequence[str]
) -> tuple[str, frozenset[str], tuple[QuarantinedFile, ...]]:
    """The kind of name, the ids of its recordings, and its quarantined files."""
    all_ids = {str(key) for one in tables.values() for key in one.recordings["recording_id"]}
    starts = {key for key in all_ids if key.startswith(name)} if len(name) >= _SHORTEST else set()
    if len(starts) > 1:
        raise UnknownName(f"{name}: the start of {len(starts)} recording ids ({', '.join(sorted(starts)[:3])} ...); "
                      "give more digits")
    if starts:
        return RECORDING, frozenset(starts), ()
    for kind in (PATIENT, FILE):
        ids = {str(key) for one in tables.values()
               for key in one.recordings.loc[_has_name(one.recordings, name, kind), "recording_id"]}
        rows = _refused(tables, name, kind)
        if ids or rows:
            return kind, frozenset(ids), rows
    more = f"; and {len(missing) - 1} more" if missing[1:] else ""
    unread = f" (not all could be read: {missing[0]}{more})" if missing else ""
    raise UnknownName(f"{name}: no recording, source file or patient of {len(tables)} data versions "
                      f"has this name{unread}. A recording id needs {_SHORTEST} digits or more")


def _has_name(table: "pd.DataFrame", name: str, kind: str) -> "pd.Series[bool]":
    """Rows of a patient (its id, with or without the data set's name before it) or of a file (its path or name)."""
    if kind == FILE:
        names = table["source_file"]
        same = (names == name) | names.str.endswith(f"/{name}")
    else:
        same = (table["patient_id"] == name) | (table["patient_id"] == table["dataset"] + f"-{name}")
    return same.fillna(False).astype(bool)


def _refused(tables: Mapping[str, VersionTables], name: str, kind: str) -> tuple[QuarantinedFile, ...]:
    found: dict[tuple[Any, ...], list[str]] = {}
    for md5, one in tables.items():
        rows = one.quarantine[_has_name(one.quarantine, name, kind)]
        for row in rows[["source_file", "patient_id", "reason", "detail"]].astype(object).itertuples(index=False):
            found.setdefault(tuple(row), []).append(md5)
    return tuple(QuarantinedFile(file, _text(patient), reason, detail, tuple(where))
                 for (file, patient, reason, detail), where in found.items())


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _recordings(tables: Mapping[str, VersionTables], ids: frozenset[str]) -> tuple[TracedRecording, ...]:
    """Each recording with its newest description, and all data versions that hold it."""
    rows: dict[str, Mapping[Any, Any]] = {}
    where: dict[str, list[str]] = {}
    for md5, one in tables.items():
        own = one.recordings[one.recordings["recording_id"].isin(ids)].astype(object)
        for row in own.to_dict("records"):
            rows[row["recording_id"]] = row
            where.setdefault(row["recording_id"], []).append(md5)
    return tuple(TracedRecording(key, _text(row["patient_id"]), row["group_id"], row["dataset"], row["source_file"],
                                 row["source_sha256"], row["licence"], tuple(where[key]))
                 for key, row in sorted(rows.items(), key=lambda item: (item[1]["dataset"], item[1]["source_file"])))


def _near_duplicates(
    tables: Mapping[str, VersionTables], recordings: Iterable[TracedRecording]
) -> tuple[NearDuplicate, ...]:
    own = {one.patient_id for one in recordings}
    groups = {one.group_id for one in recordings}
    found: dict[tuple[str, str], set[str]] = {}
    for one in tables.values():
        near = one.recordings[one.recordings["group_id"].isin(groups)].astype(object)
        for key, patient, group in near[["recording_id", "patient_id", "group_id"]].itertuples(index=False):
            if isinstance(patient, str) and patient not in own:
                found.setdefault((patient, group), set()).add(key)
    return tuple(NearDuplicate(patient, group, len(keys)) for (patient, group), keys in sorted(found.items()))


def _uses(client: Client, runs: Sequence[Run], ids: frozenset[str]) -> tuple[tuple[Use, ...], list[str]]:
    """How the runs used the recordings, with their registered versions; and which runs' folds could not be read."""
    of_run = {version.run_id: version for name in versions.model_names(client)
              for version in versions.list_versions(client, name)}
    uses: list[Use] = []
    missing: list[str] = []
    for run in track(runs, "runs", len(runs)):
        folds = _folds(client, run, missing)
        own = folds[folds["recording_id"].isin(ids)]
        if len(own):
            uses.append(_use(run, of_run.get(run.run_id), own))
    return tuple(uses), missing


def _folds(client: Client, run: Run, missing: list[str]) -> "pd.DataFrame":
    with temporary_folder() as folder:
        return StoredFiles(client, run.run_id, folder, missing).table("folds.parquet", FOLDS)


def _use(run: Run, version: Version | None, own: "pd.DataFrame") -> Use:
    parts = {str(part): tuple(sorted(rows["recording_id"])) for part, rows in own.groupby("part", sort=True)}
    return Use(run.tags.get("heartml.task", version.name if version else ""), run.run_id, run.tags["heartml.data"],
               version.number if version else None, version.aliases if version else (),
               version.verdict if version else None, consent.describe(version) if version else "", parts)


def count_of(count: int, what: str = "recording") -> str:
    """A count with its noun in singular or plural.

    >>> count_of(1), count_of(4, "run")
    ('1 recording', '4 runs')
    """
    return f"{count:,} {what}{'s' * (count != 1)}"


def lines(trace: Trace) -> list[str]:
    """The trace for people, one fact a line."""
    found = [f"{trace.asked}: a {trace.kind}, {count_of(len(trace.recordings))}"]
    found += [f"  {one.recording_id[:12]} {one.source_file} (SHA-256 {one.source_sha256[:12]}), patient "
              f"{one.patient_id or 'unknown'}, group {one.group_id}, {one.licence}" for one in trace.recordings]
    found += [f"  the same person or audio (group {other.group_id}): {other.patient_id}, {count_of(other.recordings)}"
              for other in trace.twins]
    found += [f"  quarantined: {row.source_file}: {row.reason}, {row.detail}" for row in trace.refused]
    found += ["data versions", *(_data_line(trace, version) for version in trace.data)]
    found += ["models"] + ([_use_line(use) for use in trace.uses] or ["  none: in no run's folds"])
    return [*found, *(f"could not be read: {words}" for words in trace.missing)]


def _data_line(trace: Trace, version: DataVersion) -> str:
    held = sum(version.md5 in one.data for one in trace.recordings)
    refused = sum(version.md5 in row.data for row in trace.refused)
    where = [f"commit {commit.commit[:12]} of {commit.when[:10]}" for commit in version.commits]
    where += ["in data/ now"] * version.current
    counts = count_of(held) + (f", {refused} in quarantine" if refused else "")
    used = f"used by {count_of(len(version.runs), 'run')}"
    return f"  {version.md5[:12]}: {counts} ({', '.join(where) or used})"


def _use_line(use: Use) -> str:
    where = ", ".join(f"{len(ids)} {'held out' if part == TEST else f'in fold {part}'}"
                      for part, ids in use.parts.items())
    named = f"version {use.version}" if use.version else "not registered"
    state = "".join(f", {word}" for word in (*use.aliases, use.verdict) if word)
    marked = f"; consent withdrawn: {use.withdrawn}" if use.withdrawn else ""
    return f"  {use.task} {named}{state} (run {use.run_id[:12]}, data {use.data[:12]}): {where}{marked}"
