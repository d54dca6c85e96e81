"""Any labelled collection: a CSV with one row a recording, and beside it a mapping file that explains its columns.

The mapping file's name is the data set's: `clinic.yaml` makes `clinic`, with tasks such as `clinic-murmur`, so several
collections live in one `data/`. `heartml ingest generic DIR/clinic.yaml` (or DIR, where it is the only one) reads it:

    title: Heart sounds of our outpatient clinic
    citation: Personal communication (2026)
    licence: CC-BY-4.0
    table: recordings.csv              # beside this file; paths in it are relative to this file, too
    columns:
      path: file                       # the column with the recording's path; the others may be left out
      patient: subject                 # without it nobody is known: each recording is a group of its own
      group: family                    # what must be in one fold, where that is more than the patient
      location: site
      age: age                         # a group's name, or years: those become bands of ten
      sex: sex
      source: device                   # part with its own sensor or campaign
    values:                            # what a column's values mean here; others are kept as they are
      location: {apex: MV, pulmonary: PV}
      sex: {f: Female, m: Male}
    labels:                            # a task of `heartml/core/tasks.py` -> the column with its labels
      murmur:
        column: diagnosis
        classes: {systolic murmur: Present, normal: Absent}     # not needed where the column has the task's own words

An empty cell is no label. A value that is no class of the task, a file that is not there and a file that no row names
go into quarantine, each with its reason. A label that no task has yet needs one: an entry in `heartml/core/tasks.py`.
The mapping file goes into `data/collections/`, and so into every version of the data.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from heartml.core.config import Section
from heartml.core.schema import label_column
from heartml.core.system import untrusted
from heartml.core.system.text import short
from heartml.core.system.untrusted import DocumentError
from heartml.core.tasks import LABELS as ALL_LABELS
from heartml.core.tasks import TASKS as ALL_TASKS
from heartml.data.datasets import (
    DATASETS,
    Layout,
    LayoutError,
    PublisherFolder,
    Remote,
    age_band,
    checksums,
    leaves_folder,
)

NAME = "generic"
TITLE = "Any labelled collection: a CSV and a mapping file"
CITATION = "see the mapping file"
LICENCE = "see the mapping file"
PUBLISHER = "the mapping file's author"
REMOTES: tuple[Remote, ...] = ()
TASKS = tuple(ALL_TASKS)
LABELS = ALL_LABELS

_SUFFIX = ".yaml"
_NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]*")     # `+` and `-` mean something in a task's name
_LOCATIONS = ("AV", "PV", "TV", "MV", "Phc")
_SOUND_FILES = (".wav", ".flac", ".mp3", ".ogg", ".aif", ".aiff", ".au")
_UNKNOWN_SOURCE = "not given"


class Columns(Section):
    """Which column of the CSV holds what."""

    path: str
    patient: str | None = None
    group: str | None = None
    location: str | None = None
    age: str | None = None
    sex: str | None = None
    source: str | None = None


class Values(Section):
    """What a column's values mean."""

    location: dict[str, str] = Field(default_factory=dict)
    age: dict[str, str] = Field(default_factory=dict)
    sex: dict[str, str] = Field(default_factory=dict)
    source: dict[str, str] = Field(default_factory=dict)


class LabelColumn(Section):
    """The column with a task's labels, and which class each of its values means."""

    column: str
    classes: dict[str, str] = Field(default_factory=dict)


class CollectionMapping(Section):
    """The content of a mapping file."""

    title: str
    citation: str
    licence: str
    publisher: str | None = None
    table: str
    columns: Columns
    values: Values = Values()
    labels: Annotated[dict[str, LabelColumn], Field(min_length=1)]


@dataclass(frozen=True)
class Collection:
    """One collection as a data set of the family; `text` is its mapping file."""

    NAME: str
    text: str
    description: CollectionMapping

    @property
    def TITLE(self) -> str:  # noqa: N802 - the family's name for it, here and below
        return self.description.title

    @property
    def CITATION(self) -> str:  # noqa: N802
        return self.description.citation

    @property
    def LICENCE(self) -> str:  # noqa: N802
        return self.description.licence

    @property
    def PUBLISHER(self) -> str:  # noqa: N802
        return self.description.publisher or self.description.citation

    @property
    def REMOTES(self) -> tuple[Remote, ...]:  # noqa: N802
        return ()

    @property
    def TASKS(self) -> tuple[str, ...]:  # noqa: N802
        return tuple(self.description.labels)

    @property
    def LABELS(self) -> Mapping[str, tuple[str, ...]]:  # noqa: N802
        """Classes by label: for each task its label, and its label of a single recording where it has one."""
        return {label: ALL_TASKS[name].classes for name in self.TASKS for label in _labels_of(name)}

    def read(self, folder: Path) -> Layout:
        """Read the collection whose files lie in `folder`.

        Raises:
            LayoutError: the table is missing or lacks a column, or a location is unknown.
        """
        source = PublisherFolder(folder, self.NAME, checksums(folder / "SHA256SUMS.txt"))
        rows = _rows(source, self)
        recordings = [row for group in _by_path(rows, self).values() if (row := _recording(source, self, group))]
        _refuse_files_without_a_row(source, recordings)
        return source.layout(recordings, [], self.LABELS)


def read(folder: Path) -> Layout:
    """Read the only collection described in `folder`.

    Raises:
        LayoutError: there is no mapping file or several, or it does not fit the table.
    """
    collection, root = open_collection(folder)
    return collection.read(root)


def open_collection(path: Path) -> tuple[Collection, Path]:
    """The collection that a mapping file describes, and the folder of its files.

    Args:
        path: the mapping file, or the folder of the only one.

    Raises:
        LayoutError: there is no mapping file or several, or it cannot be used; the message names the key.
    """
    if not path.is_dir():
        return read_collection(path), path.parent
    found = sorted(path.glob(f"*{_SUFFIX}"))
    if not found:
        raise LayoutError(f"{path}: no mapping file (*{_SUFFIX}). Name the folder that holds one, or the file itself.")
    if len(found) > 1:
        raise LayoutError(f"{path}: {len(found)} mapping files: name one of {', '.join(p.name for p in found)}")
    return read_collection(found[0]), path


def read_collection(path: Path) -> Collection:
    """Read one mapping file.

    Raises:
        LayoutError: it is missing or not usable; the message names the key.
    """
    name = path.name.removesuffix(_SUFFIX)
    if not _NAME_PATTERN.fullmatch(name) or (name in DATASETS and name != NAME):
        taken = ", ".join(other for other in DATASETS if other != NAME)
        raise LayoutError(f"{path.name}: its name is the data set's: small letters, digits and _, and not {taken}")
    try:
        text = untrusted.read_text(path, max_bytes=untrusted.MAX_YAML_BYTES)
        values = untrusted.parse_yaml(text, yaml.BaseLoader)    # all text: `yes` and 1 are words of the CSV, not values
        description = CollectionMapping.model_validate(values)
    except DocumentError as error:
        raise LayoutError(f"{path}: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg']}" for e in error.errors()[:5]]
        raise LayoutError(f"{path.name}: " + "; ".join(lines)[:1000]) from None
    _check_labels(path.name, description)
    return Collection(name, text, description)


def _check_labels(file: str, description: CollectionMapping) -> None:
    """Check that every label belongs to a task, has its classes, and that patients are known where it needs them."""
    for name, mapped in description.labels.items():
        if name not in ALL_TASKS:
            raise LayoutError(f"{file}: labels.{name[:80]}: no such task, there are {', '.join(ALL_TASKS)}")
        task = ALL_TASKS[name]
        unknown = [value for value in mapped.classes.values() if value not in task.classes]
        if unknown:
            raise LayoutError(f"{file}: labels.{name}.classes: {short(unknown[0])} is none of "
                              f"{', '.join(task.classes)}")
        if task.unit == "patient" and description.columns.patient is None:
            raise LayoutError(f"{file}: columns.patient: labels.{name} is about patients, so a column must name them")


def _labels_of(task: str) -> tuple[str, ...]:
    found = ALL_TASKS[task]
    return (found.label,) if found.recording_label is None else (found.label, found.recording_label)


def _rows(source: PublisherFolder, of: Collection) -> list[dict[str, str]]:
    """The table's rows, with cells trimmed.

    Raises:
        LayoutError: there is no table, or a column that is mapped is not in it.
    """
    path, description = source.root / of.description.table, of.description
    if leaves_folder(description.table) or not untrusted.is_file(path):
        raise LayoutError(f"{of.NAME}{_SUFFIX}: table: no file {description.table[:200]} in {source.root}")
    rows = source.table(path)
    columns = list(rows[0]) if rows else []
    wanted = {f"columns.{key}": column for key, column in description.columns.model_dump().items() if column}
    wanted |= {f"labels.{name}.column": mapped.column for name, mapped in description.labels.items()}
    missing = [f"{key}: {short(column)}" for key, column in wanted.items() if column not in columns]
    if missing:
        raise LayoutError(f"{of.NAME}{_SUFFIX}: {missing[0]} is no column of {description.table[:80]}, "
                          f"there are {', '.join(columns)[:500] or 'none, or no rows'}")
    return rows


def _by_path(rows: list[dict[str, str]], of: Collection) -> dict[str, list[dict[str, str]]]:
    """Path -> its rows. There may be several, but they must not differ."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(row[of.description.columns.path].replace("\\", "/"), []).append(row)
    return found


def _recording(source: PublisherFolder, of: Collection, rows: list[dict[str, str]]) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    columns, row = of.description.columns, rows[0]
    path = row[columns.path].replace("\\", "/")
    patient = row[columns.patient] if columns.patient else ""
    patient_id = f"{of.NAME}-{patient}" if patient else None
    fault = _fault(source, path, rows, of.description.table)
    if fault:
        source.refuse(path or of.description.table, patient_id, *fault)
        return None
    group = row[columns.group] if columns.group else ""
    return {
        "source_file": path,
        "file_sha256": source.sums.get(path),
        "patient_id": patient_id,
        "group": f"{of.NAME}-{group}" if group else patient_id or f"{of.NAME}-{path}",
        "source": _value(of, row, "source") or _UNKNOWN_SOURCE,
        "location": _location(of, row),
        "age_group": age_band(_value(of, row, "age") or ""),
        "sex": _value(of, row, "sex"),
        **dict(_labels(of, row)),
    }


def _fault(source: PublisherFolder, path: str, rows: list[dict[str, str]], table: str) -> tuple[str, str] | None:
    """Why a row cannot be used (reason, detail)."""
    if not path:
        return "missing_file", f"{table}: {len(rows)} rows name no file"
    if leaves_folder(path):
        return "outside", f"{table} names it, and it leads out of the folder"
    if any(row != rows[0] for row in rows[1:]):
        return "contradiction", f"{table} has {len(rows)} rows for it, and they differ"
    if not _exists(source.root / path):
        return "missing_file", f"{table} names it, but there is no such file"
    return None


def _exists(path: Path) -> bool:
    """Whether there is something at `path`, also a folder or a pipe, which ingest refuses with its own reason.

    False, too, for a name that no file can have.
    """
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _value(of: Collection, row: Mapping[str, str], what: str) -> str | None:
    """A cell's value, translated by the mapping; `None` where it is empty or no column is mapped."""
    column = getattr(of.description.columns, what)
    cell = row[column] if column else ""
    value: str = getattr(of.description.values, what).get(cell, cell)
    return value or None


def _location(of: Collection, row: Mapping[str, str]) -> str | None:
    location = _value(of, row, "location")
    if location is not None and location not in _LOCATIONS:
        raise LayoutError(f"{of.NAME}{_SUFFIX}: values.location: {short(location)} is none of {', '.join(_LOCATIONS)}: "
                          "map it to one, or to nothing ('')")
    return location


def _labels(of: Collection, row: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Label columns and their values. A value that is no class stays as it is; ingest then refuses it by name."""
    for name, mapped in of.description.labels.items():
        cell = row[mapped.column]
        for label in _labels_of(name):
            yield label_column(label), mapped.classes.get(cell, cell) or None


def _refuse_files_without_a_row(source: PublisherFolder, recordings: list[dict[str, object]]) -> None:
    """Refuse sound files that no row names, in the folders of those that the table names."""
    named = {str(row["source_file"]) for row in recordings} | {str(row["source_file"]) for row in source.refused}
    folders = sorted({(source.root / str(row["source_file"])).parent for row in recordings})
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.suffix.lower() in _SOUND_FILES and source.relative(path) not in named:
            source.refuse(source.relative(path), None, "missing_row", "no row of the table names it")
