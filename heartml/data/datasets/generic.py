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
      age: age                         # a group's name, or years from 0 to 120: those become bands of ten
      sex: sex
      source: device                   # part with its own sensor or campaign
    values:                            # what a column's values mean here; '' is nothing
      location: {apex: MV, pulmonary: PV}
      sex: {f: Female, m: Male}
    labels:                            # a task of `heartml/core/tasks.py` -> the column with its labels
      murmur:
        column: diagnosis
        classes: {systolic murmur: Present, normal: Absent}     # not needed where the column has the task's own words

Columns are found whatever their case and spacing. An empty cell, or a word for it (`nan`, `NA`, `N/A`, `#N/A`, `null`,
`none`, `-`), is no label and no patient, unless the mapping gives it a meaning. A value that is no class of the task,
an age with a unit, an id in two spellings (`12` and `12.0`), a file that is not there and a file that no row names go
into quarantine, each with its reason. A label that no task has yet needs one: an entry in `heartml/core/tasks.py`.
The mapping file goes into `data/collections/`, and so into every version of the data.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from heartml.audio.containers import SUFFIXES
from heartml.core.config import Section
from heartml.core.schema import LOCATIONS, label_column
from heartml.core.system import cells, untrusted
from heartml.core.system.cells import CellError
from heartml.core.system.tables import Row
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
    checksums,
    leaves_folder,
)
from heartml.data.datasets.nearby import Nearby

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
        rows, nearby = _by_path(_rows(source, self), self, folder), Nearby(folder)
        recordings = [row for path, group in rows.items() if (row := _recording(source, self, path, group, nearby))]
        _refuse_files_without_a_row(source, recordings)
        if self.description.columns.group:
            return source.layout(source.with_one_spelling(recordings, "group"), [], self.LABELS)
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
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        raise LayoutError(f"{path.name}: this is a table; give the mapping file (.yaml) that describes it, see "
                          "docs/collections.md")
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


def _rows(source: PublisherFolder, of: Collection) -> list[Row]:
    """The table's rows, with cells trimmed; the names of the columns are those of the mapping.

    Raises:
        LayoutError: there is no table, or a column that is mapped is not in it.
    """
    path, description = source.root / of.description.table, of.description
    if leaves_folder(description.table) or not untrusted.is_file(path):
        raise LayoutError(f"{of.NAME}{_SUFFIX}: table: no file {description.table[:200]} in {source.root}")
    wanted = {f"columns.{key}": column for key, column in description.columns.model_dump().items() if column}
    wanted |= {f"labels.{name}.column": mapped.column for name, mapped in description.labels.items()}

    def check(columns: Sequence[str]) -> None:
        missing = [f"{key}: {short(column)}" for key, column in wanted.items() if column not in columns]
        if missing:
            raise LayoutError(f"{of.NAME}{_SUFFIX}: {missing[0]} is no column of {description.table[:80]}, "
                              f"there are {', '.join(filter(None, columns))[:500] or 'none'} in its first line")

    return source.table(path, list(wanted.values()), check=check)


def _by_path(rows: list[Row], of: Collection, folder: Path) -> dict[str, list[Row]]:
    """Path, as it is written in `folder`, -> its rows. There may be several, but they must not differ."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        path = PurePosixPath((cells.present(row[of.description.columns.path]) or "").replace("\\", "/")).as_posix()
        found.setdefault("" if path == "." else untrusted.spelled_on_disk(folder, path), []).append(row)
    return found


def _recording(
    source: PublisherFolder, of: Collection, path: str, rows: list[Row], nearby: Nearby
) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    columns, row, table = of.description.columns, rows[0], of.description.table
    patient_id = None
    try:
        patient = cells.identifier(row[columns.patient]) if columns.patient else None
        patient_id = f"{of.NAME}-{patient}" if patient else None
        fault = _fault(source, path, rows, table, nearby)
        values = {} if fault else _values(of, row)
    except CellError as error:
        fault = "unknown_value", f"{table}, line {row.line}: {error}"
    if fault:
        source.refuse(path or table, patient_id, *fault)
        source.stated.append({"source_file": path or table, "patient_id": patient_id, **dict(_labels(of, row))})
        return None
    group = values.pop("group")
    return {
        "source_file": path,
        "file_sha256": source.sums.get(path),
        "patient_id": patient_id,
        "group": f"{of.NAME}-{group}" if group else patient_id or f"{of.NAME}-{path}",
        **values,
        **dict(_labels(of, row)),
    }


def _values(of: Collection, row: Row) -> dict[str, str | None]:
    """What a row says besides the file, the patient and the labels.

    Raises:
        CellError: a value is neither mapped nor known.
        LayoutError: a location is unknown.
    """
    columns = of.description.columns
    return {
        "group": cells.identifier(row[columns.group]) if columns.group else None,
        "source": _value(of, row, "source") or _UNKNOWN_SOURCE,
        "location": _location(of, row),
        "age_group": cells.age_group(_value(of, row, "age") or ""),
        "sex": _mapped(of, row, "sex") or cells.sex(_value(of, row, "sex") or ""),
    }


def _fault(
    source: PublisherFolder, path: str, rows: list[Row], table: str, nearby: Nearby
) -> tuple[str, str] | None:
    """Why a row cannot be used (reason, detail)."""
    lines = ", ".join(str(row.line) for row in rows[:5])
    if not path:
        return "missing_file", f"{table}: {len(rows)} rows name no file (line {lines})"
    if leaves_folder(path):
        return "outside", f"{table} names it, and it leads out of the folder"
    if any(row != rows[0] for row in rows[1:]):
        return "contradiction", f"{table} has {len(rows)} rows for it, and they differ (line {lines})"
    if not untrusted.exists(source.root / path):
        return "missing_file", f"{table} names it, but there is no such file{nearby.hint(path)}"
    return None


def _mapped(of: Collection, row: Row, what: str) -> str | None:
    """What the mapping says that a cell means; `None` where it does not name it, and also where it means nothing."""
    column, meanings = getattr(of.description.columns, what), getattr(of.description.values, what)
    named = cells.choice(row[column], meanings) if column else None
    return meanings[named] or None if named is not None else None


def _value(of: Collection, row: Row, what: str) -> str | None:
    """A cell's value, translated by the mapping; `None` where it is missing or no column is mapped."""
    column, meanings = getattr(of.description.columns, what), getattr(of.description.values, what)
    named = cells.choice(row[column], meanings) if column else None
    if named is not None:
        return meanings[named] or None
    return cells.present(row[column]) if column else None


def _location(of: Collection, row: Row) -> str | None:
    value = _value(of, row, "location")
    location = value and cells.choice(value, LOCATIONS)
    if value is not None and location is None:
        raise LayoutError(f"{of.NAME}{_SUFFIX}: values.location: {short(value)} is none of {', '.join(LOCATIONS)} "
                          f"({of.description.table[:80]}, line {row.line}): map it to one, or to nothing ('')")
    return location


def _labels(of: Collection, row: Row) -> Iterator[tuple[str, str | None]]:
    """Label columns and their values. A value that is no class stays as it is; ingest then refuses it by name."""
    for name, mapped in of.description.labels.items():
        cell = row[mapped.column]
        named = cells.choice(cell, mapped.classes)
        value = mapped.classes[named] if named is not None else cells.present(cell)
        for label in _labels_of(name):
            yield label_column(label), value and (cells.choice(value, ALL_TASKS[name].classes) or value)


def _refuse_files_without_a_row(source: PublisherFolder, recordings: list[dict[str, object]]) -> None:
    """Refuse sound files that no row names, in the folders of those that the table names."""
    named = {str(row["source_file"]) for row in recordings} | {str(row["source_file"]) for row in source.refused}
    folders = sorted({(source.root / str(row["source_file"])).parent for row in recordings})
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.suffix.lower() in SUFFIXES and source.relative(path) not in named:
            source.refuse(source.relative(path), None, "missing_row", "no row of the table names it")
