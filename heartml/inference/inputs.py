"""Files, folders and CSV tables named on the command line -> the recordings to score, with patient and location."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heartml.audio.containers import SUFFIXES
from heartml.core.schema import LOCATIONS
from heartml.core.system import cells, tables, untrusted
from heartml.core.system.cells import CellError, header_key
from heartml.core.system.errors import HeartMLError
from heartml.core.system.tables import Row
from heartml.core.system.text import printable, short
from heartml.core.system.untrusted import DocumentError

LABEL = "label"       # a column that is read where predictions are compared with the truth
_COLUMNS = ("path", "patient_id", "location")
_TABLES, _SPREADSHEETS = (".csv", ".tsv"), (".xlsx", ".xls", ".ods", ".numbers")
_PATIENTS = frozenset({"patient", "patientname", "patientnumber", "subject", "subjectid", "person", "personid"})
_CIRCOR_NAME = re.compile(r"(?P<patient>\d+)_(?P<location>AV|PV|TV|MV|Phc)(_\d+)?")   # 2530_AV.wav, 2530_AV_1.wav


class InputsError(HeartMLError):
    """There is nothing to score, or a table cannot be used; the message names the row and the way out."""


@dataclass(frozen=True)
class InputFile:
    """One file to score.

    Attributes:
        patient_id, location: from a table or from the file's name; `None` where neither has it.
        table: the table with the patient's id; `None` where the id comes from the file's name.
    """

    path: Path
    patient_id: str | None = None
    location: str | None = None
    table: Path | None = None

    @property
    def scope(self) -> Path:
        """Where a patient's id is unique: in the table with the id, or else in the file's folder."""
        return self.table or self.path.parent


def gather(named: Sequence[Path]) -> list[InputFile]:
    """List the files behind `named`, each once, in this order; those of a folder in the order of their names.

    Raises:
        InputsError: a folder without sound files, or a table without a column `path`.
    """
    items = [item for path in named for item in _files_of(path)]
    unique = {(item.path.absolute(), item.patient_id): item for item in items}
    return list(unique.values())


def _files_of(path: Path) -> list[InputFile]:
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not _hidden(p.relative_to(path)))
        if not found:
            raise InputsError(f"{path}: no sound files in this folder ({' '.join(SUFFIXES)})")
        return [from_name(p) for p in found]
    if path.suffix.lower() in _SPREADSHEETS:
        raise InputsError(f"{path}: a spreadsheet, which is not read: save it as CSV UTF-8")
    return _from_table(path) if path.suffix.lower() in _TABLES else [from_name(path)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def from_name(path: Path) -> InputFile:
    """One sound file, with patient and location where its name carries them: 2530_AV.wav."""
    match = _CIRCOR_NAME.fullmatch(path.stem)
    return InputFile(path, match["patient"], match["location"]) if match else InputFile(path)


def _from_table(path: Path) -> list[InputFile]:
    """The rows of a CSV with a column `path` (relative to the CSV's folder) and perhaps `patient_id` and `location`."""
    try:
        names, rows = tables.read(path, _COLUMNS)
        if "path" not in names:
            found = ", ".join(filter(None, names))[:200] or "none"
            raise InputsError(f"{path}: no column `path` among {found}; the columns `patient_id` and `location` are "
                              "optional")
        items = [(row.line, _row(path, row)) for row in rows]
    except DocumentError as error:
        raise InputsError(f"{path}: not a table that can be read: {error}") from None
    if not items:
        raise InputsError(f"{path}: the table has no rows below the names of its columns")
    _refuse_two_spellings(path, items)
    _refuse_two_locations(path, items)
    _name_unread_columns(path, names)
    return [item for _, item in items]


def read_labels(table: Path, classes: Sequence[str]) -> dict[Path, int]:
    """The column `label` of a table: path of each file -> index into `classes`.

    Raises:
        InputsError: there is no such column, or a cell is none of the classes; the message names the line.
    """
    try:
        names, rows = tables.read(table, (*_COLUMNS, LABEL))
        read = list(rows)
    except DocumentError as error:
        raise InputsError(f"{table}: not a table that can be read: {error}") from None
    if LABEL not in names:
        raise InputsError(f"{table}: no column `{LABEL}` with one of {', '.join(classes)}")
    found: dict[Path, int] = {}
    for row in read:
        label = cells.choice(row[LABEL], classes)
        if label is None:
            raise InputsError(f"{table}, line {row.line}: label {short(row[LABEL])} is none of {', '.join(classes)}")
        path = _row(table, row).path
        first = classes[found.setdefault(path, classes.index(label))]
        if first != label:
            raise InputsError(f"{table}, line {row.line}: {short(path.name)} has two labels, {first} and {label}: "
                              "correct the table")
    return found


def _row(table: Path, row: Row) -> InputFile:
    where = f"{table}, line {row.line}"
    if row.too_long:
        raise InputsError(f"{where}: more cells than the table has columns: is a comma not quoted?")
    file = cells.present(row["path"])
    if file is None:
        raise InputsError(f"{where}: the column `path` is empty")
    named = from_name(table.parent / untrusted.spelled_on_disk(table.parent, file))
    try:
        patient = cells.identifier(row["patient_id"])
    except CellError as error:
        raise InputsError(f"{where}: {error}") from None
    location = _location(row["location"], where) or named.location
    if patient is not None:
        return InputFile(named.path, patient, location, table)
    return InputFile(named.path, named.patient_id, location)


def _location(cell: str, where: str) -> str | None:
    location = cells.choice(cell, LOCATIONS)
    if location is None and not cells.is_missing(cell):
        raise InputsError(f"{where}: location {short(cell)} is none of {', '.join(LOCATIONS)}: write one of these, or "
                          "leave the cell empty")
    return location


def _refuse_two_spellings(table: Path, items: Sequence[tuple[int, InputFile]]) -> None:
    """Refuse ids that may be one person: they would be two patients without a word."""
    lines = {item.patient_id: line for line, item in reversed(items) if item.patient_id and item.table}
    for name, others in cells.other_spellings(reversed(lines)).items():
        fault = cells.spelling_fault(name, {other: f"line {lines[other]}" for other in others})
        raise InputsError(f"{table}, line {lines[name]}: {fault}")


def _refuse_two_locations(table: Path, items: Sequence[tuple[int, InputFile]]) -> None:
    """Say on standard error which files stand in several rows of one patient, since each counts once.

    Raises:
        InputsError: such rows name two locations. Only one of them can be true.
    """
    rows: dict[tuple[Path, str | None], list[tuple[int, InputFile]]] = {}
    for line, item in items:
        rows.setdefault((item.path.absolute(), item.patient_id), []).append((line, item))
    for same in (same for same in rows.values() if len(same) > 1):
        item, lines = same[0][1], ", ".join(str(line) for line, _ in same[:5])
        locations = dict.fromkeys(one.location or "none" for _, one in same)
        if len(locations) > 1:
            raise InputsError(f"{table}, line {lines}: {printable(item.path.name)} has the locations "
                              f"{' and '.join(locations)}: leave the row that is true")
        print(f"{table}, line {lines}: {printable(item.path.name)} stands there {len(same)} times and counts once",
              file=sys.stderr)


def _name_unread_columns(table: Path, names: Sequence[str]) -> None:
    """Say on standard error which columns are not read.

    Raises:
        InputsError: one of them seems to name the patients. Without it every recording would be a patient of its own.
    """
    unread = [name for name in names if name and name not in (*_COLUMNS, LABEL)]
    patients = [name for name in unread if header_key(name) in _PATIENTS and "patient_id" not in names]
    if patients:
        raise InputsError(f"{table}: the column {short(patients[0])} is not read: call it `patient_id`, or remove it")
    if unread:
        print(f"{table}: columns that are not read: {printable(', '.join(unread)[:300])}", file=sys.stderr)


def units(items: Sequence[InputFile], unit: Literal["recording", "patient"]) -> list[str]:
    """The unit of each file `[n]`: its patient; or the file, where the patient is unknown or the unit is a recording.

    The same patient id in two folders (or tables) means two patients. Their units then carry the name of the folder
    (the table).
    """
    if unit == "recording":
        return [str(item.path) for item in items]
    places: dict[str, set[Path]] = {}
    for item in items:
        places.setdefault(item.patient_id or "", set()).add(item.scope)
    return [_patient(item, len(places[item.patient_id or ""]) > 1) for item in items]


def _patient(item: InputFile, ambiguous: bool) -> str:
    if item.patient_id is None:
        return str(item.path)
    return str(item.scope / item.patient_id) if ambiguous else item.patient_id


def blocks(unit_of: Iterable[str], size: int) -> list[list[int]]:
    """Divide the positions of the files into blocks of about `size`; the files of one unit stay together."""
    members: dict[str, list[int]] = {}
    for position, unit in enumerate(unit_of):
        members.setdefault(unit, []).append(position)
    found: list[list[int]] = [[]]
    for positions in members.values():
        if len(found[-1]) >= size:
            found.append([])
        found[-1] += positions
    return found
