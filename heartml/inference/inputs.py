"""What a person names on the command line -> recordings to score: files, folders, tables of patients and locations."""

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
    """Nothing to score, or a table that does not say what to score; the message names the row and the way out."""


@dataclass(frozen=True)
class Item:
    """One file to score; patient and location as far as a table or the file's name says them.

    Attributes:
        said_by: the table that names the patient; `None` where the file's name does.
    """

    path: Path
    patient_id: str | None = None
    location: str | None = None
    said_by: Path | None = None

    @property
    def where(self) -> Path:
        """Within what a patient's id means one patient: the table that names it, else the file's folder."""
        return self.said_by or self.path.parent


def gather(named: Sequence[Path]) -> list[Item]:
    """Every file behind `named`, each once, in the order named; a folder's in the order of their names.

    Raises:
        InputsError: a folder without sound files, or a table without a column `path`.
    """
    items = [item for path in named for item in _behind(path)]
    unique = {(item.path.absolute(), item.patient_id): item for item in items}
    return list(unique.values())


def _behind(path: Path) -> list[Item]:
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not _hidden(p.relative_to(path)))
        if not found:
            raise InputsError(f"{path}: no sound files in this folder ({' '.join(SUFFIXES)})")
        return [_named(p) for p in found]
    return _table(path) if path.suffix.lower() == ".csv" else [_named(path)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _named(path: Path) -> Item:
    match = _CIRCOR_NAME.fullmatch(path.stem)
    return Item(path, match["patient"], match["location"]) if match else Item(path)


def _table(path: Path) -> list[Item]:
    """Rows of a CSV: `path` (relative to the CSV's folder), and `patient_id`, `location` where it has these columns."""
    try:
        text = untrusted.text(path)
        head = text.partition("\n")[0]
        names, rows = untrusted.table(text, ";" if head.count(";") > head.count(",") else ",")
        columns = {name.lower(): name for name in names}
        if "path" not in columns:
            there = ", ".join(columns)[:200] or "none"
            raise InputsError(f"{path}: no column `path` among {there}; `patient_id` and `location` are read as well "
                              "where they are there")
        items = [_row(path, row, columns) for row in rows]
    except untrusted.DocumentError as error:
        raise InputsError(f"{path}: not a table that can be read: {error}") from None
    if not items:
        raise InputsError(f"{path}: the table has no rows")
    return items


def _row(table: Path, row: untrusted.TableRow, columns: Mapping[str, str]) -> Item:
    said = {key: row.cells.get(name, "") for key, name in columns.items()}
    if row.too_long:
        raise InputsError(f"{table}, line {row.line}: more cells than the table has columns: is a comma not quoted?")
    if not said["path"]:
        raise InputsError(f"{table}, line {row.line}: the column `path` is empty")
    named = _named(table.parent / said["path"])
    location = said.get("location") or named.location
    return Item(named.path, said["patient_id"], location, table) if said.get("patient_id") else Item(
        named.path, named.patient_id, location)


def units(items: Sequence[Item], unit: Literal["recording", "patient"]) -> list[str]:
    """The unit of each item [n]: its patient, or itself where the task or the patient says nothing of others.

    Patients that two folders (or tables) number alike are two patients, and carry the folder's (the table's) name.
    """
    if unit == "recording":
        return [str(item.path) for item in items]
    places: dict[str, set[Path]] = {}
    for item in items:
        places.setdefault(item.patient_id or "", set()).add(item.where)
    return [_patient(item, len(places[item.patient_id or ""]) > 1) for item in items]


def _patient(item: Item, ambiguous: bool) -> str:
    if item.patient_id is None:
        return str(item.path)
    return str(item.where / item.patient_id) if ambiguous else item.patient_id


def blocks(unit_of: Iterable[str], size: int) -> list[list[int]]:
    """Positions in blocks of about `size`; a unit's positions are never divided."""
    members: dict[str, list[int]] = {}
    for position, unit in enumerate(unit_of):
        members.setdefault(unit, []).append(position)
    found: list[list[int]] = [[]]
    for positions in members.values():
        if len(found[-1]) >= size:
            found.append([])
        found[-1] += positions
    return found
