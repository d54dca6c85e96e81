"""What lies in a folder of recordings: sound files, and a table about them, or folders named after classes.

In: a folder. Out: a `Survey`. Nothing is decoded, and nothing is written.
"""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from heartml.audio.containers import SUFFIXES
from heartml.core.system import cells, tables, untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.tables import Row
from heartml.core.system.text import printable, short
from heartml.core.system.untrusted import DocumentError
from heartml.data.datasets.nearby import Nearby

_TABLES, _SPREADSHEETS = (".csv", ".tsv"), (".xlsx", ".xls", ".ods", ".numbers")
_PARTS_OF_A_SPLIT = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})
FILE, CLASS, PATIENT = "file", "class", "patient"      # the columns of a table that is written for folders
WRITTEN = "_recordings.csv"       # behind the data set's name: the table that is written
MARK = "# Written by `heartml init`."      # the beginning of a mapping file that is written
MARK_WITH_TABLE = f"{MARK} So was its table."
_ENOUGH = 0.5             # of a column's cells have to name files


class CollectionFolderError(HeartMLError):
    """The folder cannot become a collection as it is; the message names what is missing, and the way out."""


class NearlyNamedError(CollectionFolderError):
    """A table names sound files, but not as they lie here. Then folders beside it are no classes."""


@dataclass(frozen=True)
class Survey:
    """A folder of recordings and what is known of them.

    Attributes:
        folder: the folder.
        table: the name of the table in it; `None` where the classes are the names of folders.
        columns: of the table; for folders `FILE` and `CLASS`.
        rows: of the table, or one for each sound file in a class's folder.
        path: the column that names the files.
        named: of `path`: the rows that name a file which is there.
        sounds: the sound files, relative to the folder, sorted.
        apart: sound files that no row names.
        passed_over: why a table in the folder was not taken, where folders are.
    """

    folder: Path
    table: str | None
    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]
    path: str
    named: int
    sounds: Sequence[str]
    apart: Sequence[str]
    passed_over: str = ""

    def cells(self, column: str) -> list[str]:
        """The cells of a column that are not missing, in the order of the rows."""
        return [cell for cell in self.cells_with_nothing(column) if not cells.is_missing(cell)]

    def cells_with_nothing(self, column: str) -> list[str]:
        """The cells of a column, one a row."""
        return [row[column] for row in self.rows]


def read(folder: Path, table: str | None = None) -> Survey:
    """Look into a folder.

    Args:
        table: name of the table to read; `None`: the only one that names sound files, else folders named after classes.

    Raises:
        CollectionFolderError: there are no sound files, no table and no folders of classes, several tables, or the
            table names no file.
    """
    if not folder.is_dir():
        raise CollectionFolderError(f"{folder}: no such folder. Name the one with your sound files")
    sounds = _sounds(folder)
    if not sounds:
        raise CollectionFolderError(f"{folder}: no sound files in it ({' '.join(SUFFIXES[:6])} ...)")
    names = [table] if table else _tables(folder)
    found, faults = [], []
    for name in names:
        try:
            found.append(_of_table(folder, name, sounds))
        except NearlyNamedError:
            raise
        except CollectionFolderError as error:
            faults.append(str(error))
    if len(found) > 1:
        raise CollectionFolderError(f"{folder}: {len(found)} tables name its sound files: choose one with --table "
                                    f"{found[0].table} (or {', '.join(str(one.table) for one in found[1:])})")
    if found:
        return found[0]
    if table or (faults and len(_class_folders(sounds)) < 2):
        raise CollectionFolderError(faults[0])
    return replace(_of_folders(folder, sounds), passed_over=faults[0] if faults else "")


def _tables(folder: Path) -> list[str]:
    """The tables in a folder, without those that `heartml init` wrote."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _TABLES)
    sheets = [path.name for path in folder.iterdir() if path.suffix.lower() in _SPREADSHEETS]
    if sheets and not found:
        raise CollectionFolderError(f"{folder / sheets[0]}: a spreadsheet, which is not read: save it as CSV UTF-8")
    return [name for name in found if not (name.endswith(WRITTEN) and wrote_table(folder, name.removesuffix(WRITTEN)))]


def is_ours(folder: Path, name: str) -> bool:
    """Whether there is a mapping file of this name that `heartml init` wrote."""
    return _begins_with(folder / f"{name}.yaml", MARK)


def wrote_table(folder: Path, name: str) -> bool:
    """Whether `heartml init` wrote the table beside the mapping file of this name, and did not only read it."""
    return _begins_with(folder / f"{name}.yaml", MARK_WITH_TABLE)


def _begins_with(path: Path, mark: str) -> bool:
    return untrusted.is_file(path) and path.read_bytes().startswith(mark.encode())


def _sounds(folder: Path) -> list[str]:
    """The sound files in a folder and below it, hidden ones left out, with slashes, in the Unicode form of the disk."""
    found = []
    for parent, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        inside = Path(parent).relative_to(folder)
        found += [(inside / name).as_posix() for name in sorted(names)
                  if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")]
    return sorted(found)


def _of_table(folder: Path, name: str, sounds: Sequence[str]) -> Survey:
    path = folder / name
    if path.parent.resolve() != folder.resolve() or not untrusted.is_file(path):
        raise CollectionFolderError(f"{path}: no such table in this folder")
    try:
        columns, found = tables.read(path)
        rows = tables.refuse_empty(list(found))
    except DocumentError as error:
        raise CollectionFolderError(f"{path}: {error}") from None
    there = set(map(_key, sounds))
    columns = [column for column in columns if column and column.isprintable()]
    shares = {column: sum(_key(row[column]) in there for row in rows) for column in columns}
    best = max(shares, key=lambda column: shares[column], default="")
    if not best or shares[best] < _ENOUGH * len(rows):
        raise _no_path(folder, name, columns, rows, shares)
    named = {_key(row[best]) for row in rows}
    apart = [sound for sound in sounds if _key(sound) not in named]
    return Survey(folder, name, columns, rows, best, shares[best], sounds, apart)


def _key(name: str) -> str:
    """What is compared of a path: slashes, and one Unicode form."""
    text = unicodedata.normalize("NFC", cells.trimmed(name)).replace("\\", "/")
    return PurePosixPath(text).as_posix()


def _no_path(
    folder: Path, name: str, columns: Sequence[str], rows: Sequence[Row], shares: Mapping[str, int]
) -> CollectionFolderError:
    """Why no column of a table is its paths, with the file that may be meant where one is similar."""
    nearby = Nearby(folder)
    for column, row in ((column, row) for column in columns for row in rows[:20] if row[column]):
        hint = nearby.hint(row[column].replace("\\", "/")) if _looks_like_a_file(row[column]) else ""
        if hint:
            return NearlyNamedError(
                f"{folder / name}: column {column} names {shares[column]} of {len(rows)} sound files as they lie here. "
                f"Line {row.line}: {short(row[column])}{hint} Write paths relative to the table, with their endings")
    return CollectionFolderError(
        f"{folder / name}: no column names the sound files of this folder among {', '.join(columns)[:300]}. One column "
        "has to hold their paths, relative to the table, with their endings")


def _looks_like_a_file(cell: str) -> bool:
    return not cell.isalpha() or "/" in cell


def _class_folders(sounds: Sequence[str]) -> list[str]:
    return sorted({sound.split("/")[0] for sound in sounds if "/" in sound})


def _refuse_undecodable(folder: Path, sounds: Sequence[str]) -> None:
    """Refuse names that are not UTF-8: no table can hold them."""
    wrong = next((sound for sound in sounds if any("\ud800" <= letter <= "\udfff" for letter in sound)), None)
    if wrong is not None:
        raise CollectionFolderError(f"{folder}: the name {printable(wrong)} is not UTF-8: rename the file or its "
                                    "folder, as in `convmv -f latin1 -t utf8`")


def _of_folders(folder: Path, sounds: Sequence[str]) -> Survey:
    """One row for each sound file below a class's folder."""
    _refuse_undecodable(folder, sounds)
    names = _class_folders(sounds)
    if len(names) < 2:
        there = f"all sound files lie in {names[0]}/" if names else "its sound files lie side by side"
        raise CollectionFolderError(
            f"{folder}: no table, and {there}. Put the recordings of each class into a folder with the class's name, "
            "or write a CSV with the columns file and class")
    if {name.casefold() for name in names} <= _PARTS_OF_A_SPLIT:
        raise CollectionFolderError(f"{folder}: {', '.join(names)} look like parts of a split and not like classes. "
                                    "Name one of them, or make one folder for each class; heartml splits by itself")
    rows = [{FILE: sound, CLASS: unicodedata.normalize("NFC", sound.split("/")[0])} for sound in sounds if "/" in sound]
    apart = [sound for sound in sounds if "/" not in sound]
    return Survey(folder, None, (FILE, CLASS), rows, FILE, len(rows), sounds, apart)


def stems(paths: Iterable[str]) -> list[str]:
    """The names of files without folder and ending."""
    return [PurePosixPath(path.replace("\\", "/")).stem for path in paths]
