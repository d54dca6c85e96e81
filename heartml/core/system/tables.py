"""Tables as CSV that other people wrote: one way to read them, for every command.

The text is strict UTF-8, with or without a byte order mark. Cells are separated by commas, semicolons or tabs. Names of
columns are found whatever their case and spacing. What the cells mean is in `heartml.core.system.cells`.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from heartml.core.system import untrusted
from heartml.core.system.cells import header_key, trimmed
from heartml.core.system.untrusted import DocumentError

_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r"""["']?sep=(?P<separator>[,;\t])["']?\r?\n?""", re.IGNORECASE)   # of a spreadsheet
_MAX_COLUMNS = 10_000


class Row(dict[str, str]):
    """One row of a table: column -> trimmed cell; cells that it lacks are empty.

    Attributes:
        line: its line in the file, from 1; the last one, where a cell has several.
        too_long: whether there are more cells than columns.
    """

    def __init__(self, cells: Mapping[str, str], line: int, *, too_long: bool = False) -> None:
        super().__init__(cells)
        self.line = line
        self.too_long = too_long

    def __missing__(self, column: str) -> str:      # nothing is stored: a short file does not become a large table
        return ""


def read(path: Path, wanted: Sequence[str] = (), names: Sequence[str] | None = None) -> tuple[
        Sequence[str], Iterator[Row]]:
    """`parse` for a file.

    Raises:
        DocumentError: see `parse`; also where the file cannot be read, is too large, or is not UTF-8.
    """
    return parse(untrusted.read_text(path), wanted, names)


def parse(
    content: str, wanted: Sequence[str] = (), names: Sequence[str] | None = None
) -> tuple[Sequence[str], Iterator[Row]]:
    """The names of the columns of a CSV text and its rows, read one by one; lines without a cell are skipped.

    Args:
        wanted: names of columns under which the caller looks for cells. A column that has such a name in another case
            or spacing gets it; the others keep their own.
        names: of the columns, where the first line is already a row.

    Raises:
        DocumentError: two columns have one name, there are too many, a quote is not closed, or a cell is too large.
            Also raised while the rows are read.

    >>> names, rows = parse("Patient ID;label\\n0012;murmur\\n", ["patient_id"])
    >>> names, [dict(row) for row in rows]
    (['patient_id', 'label'], [{'patient_id': '0012', 'label': 'murmur'}])
    """
    if "\0" in content:
        raise DocumentError("it has bytes that are zero. If it is UTF-16 or UTF-32, " + untrusted.SAVE_AS_UTF8)
    marked = _SEPARATOR_LINE.match(content)
    body = content[marked.end():] if marked else content
    separator = marked["separator"] if marked else _separator(body)
    lines = csv.reader(io.StringIO(body, newline=""), delimiter=separator, strict=True)
    first_line = 1 if marked else 0
    if names is None:
        names = _renamed(_first_line_with_a_cell(_checked(lines, first_line)), wanted)
    return names, _rows(lines, names, first_line)


def _separator(content: str) -> str:
    """That of `_SEPARATORS` which the first line has most often, outside quotes; a comma where it has none."""
    first = next((line for line in content[:1 << 20].splitlines() if line.strip()), "")
    counts = Counter(re.sub(r'"[^"]*"', "", first))
    return max(_SEPARATORS, key=lambda one: counts[one])


def _first_line_with_a_cell(lines: Iterator[list[str]]) -> list[str]:
    for line in lines:
        if len(line) > _MAX_COLUMNS:
            raise DocumentError(f"{len(line):,} columns, and at most {_MAX_COLUMNS:,} are read: keep those that are "
                                "used")
        cells = [trimmed(cell) for cell in line]
        if any(cells):
            return cells
    return []


def _renamed(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The names, with those that only differ from a wanted one in case or spacing written as it is."""
    keys = {header_key(name): name for name in wanted}
    renamed = [name if name in wanted else keys.get(header_key(name), name) for name in names]
    taken = set(names) & set(wanted)          # the exact name goes first, and a similar one keeps its own
    renamed = [old if new in taken else new for old, new in zip(names, renamed, strict=True)]
    twice = next((name for name, count in Counter(renamed).items() if name and count > 1), None)
    if twice is not None:
        several = ", ".join(dict.fromkeys(old for old, new in zip(names, renamed, strict=True) if new == twice))
        raise DocumentError(f"two columns are called {several[:160]}: leave one, or rename it")
    return renamed


def _checked(lines: Any, first_line: int) -> Iterator[list[str]]:
    try:
        yield from lines
    except csv.Error as error:
        raise DocumentError(f"line {lines.line_num + first_line}: {error}. Is a quote not closed?") from None


def _rows(lines: Any, names: Sequence[str], first_line: int) -> Iterator[Row]:
    for row in _checked(lines, first_line):
        cells = [trimmed(cell) for cell in row]
        if any(cells) or len(cells) == 1:       # not a line of separators alone, which spreadsheets leave at the end
            yield Row(dict(zip(names, cells, strict=False)), lines.line_num + first_line,
                      too_long=any(cells[len(names):]))


def refuse_empty(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of a table, which must have one.

    Raises:
        DocumentError: there is none.
    """
    if not rows:
        raise DocumentError("the table has no rows below the names of its columns")
    return rows


def refuse_missing(names: Sequence[str], needed: Sequence[str]) -> None:
    """Check that a table has its columns.

    Raises:
        DocumentError: it lacks one; the message names it and those that there are.

    >>> refuse_missing(["fname", "label"], ["fname"])
    """
    lacking = [name for name in needed if name not in names]
    if lacking:
        there = ", ".join(name for name in names if name)[:500] or "none"
        raise DocumentError(f"no column {', '.join(f'`{name}`' for name in lacking)} among {there}")
