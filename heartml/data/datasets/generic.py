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
    tasks:                             # a task of your own: any name, any classes
      pedal:
        column: finding
        classes: [click, rumble, none]      # in the words of the column; or {word of the column: class}, '' is no label
        unit: recording                # or patient; this and the following may be left out
        positive: rumble               # the class whose recall and predictive value are of interest
        metric: uar                    # what is optimised: uar, accuracy, macro_f1 or accuracy_and_uar

Columns are found whatever their case and spacing. An empty cell, or a word for it (`nan`, `NA`, `N/A`, `#N/A`, `null`,
`none`, `-`), is no label and no patient, unless the mapping gives it a meaning. A value that is no class of the task,
an age with a unit, an id in two spellings (`12` and `12.0`), a file that is not there and a file that no row names go
into quarantine, each with its reason. The mapping file goes into `data/collections/`, and the tasks that it declares
into `data/tasks/`, and so into every version of the data.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from heartml.audio.containers import SUFFIXES
from heartml.core.schema import LOCATIONS, label_column
from heartml.core.system import cells, untrusted
from heartml.core.system.cells import CellError
from heartml.core.system.tables import Row
from heartml.core.system.text import short
from heartml.core.tasks import LABELS as ALL_LABELS
from heartml.core.tasks import TASKS as ALL_TASKS
from heartml.core.tasks import Task
from heartml.data.datasets import (
    DATASETS,
    Dataset,
    Layout,
    LayoutError,
    PublisherFolder,
    Remote,
    checksums,
    leaves_folder,
    mapping_file,
)
from heartml.data.datasets.mapping_file import CollectionMapping
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
        return (*self.description.labels, *self.description.tasks)

    @cached_property
    def own_tasks(self) -> Mapping[str, Task]:
        """The tasks that the mapping file declares, with all of their classes."""
        return {name: own.task(name) for name, own in self.description.tasks.items()}

    @property
    def LABELS(self) -> Mapping[str, tuple[str, ...]]:  # noqa: N802
        """Classes by label: for each task its label, and its label of a single recording where it has one."""
        tasks = [task_of(self, name) for name in self.TASKS]
        return {label: task.classes for task in tasks for label in _labels_of(task)}

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
    text, description = mapping_file.read(path)
    return Collection(name, text, description)


def own_tasks(source: Dataset) -> Mapping[str, Task]:
    """The tasks that a data set declares itself, with all classes of its mapping file; none of a published data set."""
    return source.own_tasks if isinstance(source, Collection) else {}


def task_of(source: Dataset, name: str) -> Task:
    """One of a data set's `TASKS`, published or its own."""
    return own_tasks(source).get(name) or ALL_TASKS[name]


def _labels_of(found: Task) -> tuple[str, ...]:
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
    wanted |= {f"tasks.{name}.column": own.column for name, own in description.tasks.items()}

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
    columns = {name: (mapped.column, mapped.classes) for name, mapped in of.description.labels.items()}
    columns |= {name: (own.column, own.meanings) for name, own in of.description.tasks.items()}
    for name, (column, meanings) in columns.items():
        cell, task = row[column], task_of(of, name)
        named = cells.choice(cell, meanings)
        value = meanings[named] or None if named is not None else cells.present(cell)
        for label in _labels_of(task):
            yield label_column(label), value and (cells.choice(value, task.classes) or value)


def _refuse_files_without_a_row(source: PublisherFolder, recordings: list[dict[str, object]]) -> None:
    """Refuse sound files that no row names, in the folders of those that the table names."""
    named = {str(row["source_file"]) for row in recordings} | {str(row["source_file"]) for row in source.refused}
    folders = sorted({(source.root / str(row["source_file"])).parent for row in recordings})
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.suffix.lower() in SUFFIXES and source.relative(path) not in named:
            source.refuse(source.relative(path), None, "missing_row", "no row of the table names it")
