"""Files, folders and CSV tables named on the command line -> the recordings to score, with patient and location."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heartml.core.system import untrusted
from heartml.core.system.errors import HeartMLError

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
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
        return [_from_name(p) for p in found]
    return _from_table(path) if path.suffix.lower() == ".csv" else [_from_name(path)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _from_name(path: Path) -> InputFile:
    match = _CIRCOR_NAME.fullmatch(path.stem)
    return InputFile(path, match["patient"], match["location"]) if match else InputFile(path)


def _from_table(path: Path) -> list[InputFile]:
    """The rows of a CSV with a column `path` (relative to the CSV's folder) and perhaps `patient_id` and `location`."""
    try:
        text = untrusted.read_text(path)
        head = text.partition("\n")[0]
        names, rows = untrusted.parse_table(text, ";" if head.count(";") > head.count(",") else ",")
        columns = {name.lower(): name for name in names}
        if "path" not in columns:
            found = ", ".join(columns)[:200] or "none"
            raise InputsError(f"{path}: no column `path` among {found}; the columns `patient_id` and `location` are "
                              "optional")
        items = [_row(path, row, columns) for row in rows]
    except untrusted.DocumentError as error:
        raise InputsError(f"{path}: not a table that can be read: {error}") from None
    if not items:
        raise InputsError(f"{path}: the table has no rows")
    return items


def _row(table: Path, row: untrusted.TableRow, columns: Mapping[str, str]) -> InputFile:
    cells = {key: row.cells.get(name, "") for key, name in columns.items()}
    if row.too_long:
        raise InputsError(f"{table}, line {row.line}: more cells than the table has columns: is a comma not quoted?")
    if not cells["path"]:
        raise InputsError(f"{table}, line {row.line}: the column `path` is empty")
    named = _from_name(table.parent / cells["path"])
    location = cells.get("location") or named.location
    if cells.get("patient_id"):
        return InputFile(named.path, cells["patient_id"], location, table)
    return InputFile(named.path, named.patient_id, location)


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
