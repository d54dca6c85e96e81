"""Tables and YAML that other people wrote: read whole, or refused with the line, within limits of size and depth.

A document cannot choose which objects are made (`SafeLoader`, `BaseLoader`). Aliases are refused, because they make
gigabytes of a kilobyte of YAML.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from heartml.core.system.errors import HeartMLError

MAX_TABLE_BYTES = 1 << 29        # a million rows take a fifth of it
MAX_YAML_BYTES = 1 << 18
MAX_DEPTH = 20


class DocumentError(HeartMLError):
    """A document cannot be used. The message says where it is wrong; the caller adds the name of the file."""


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        line: its line in the file, from 1.
        cells: column -> cell; missing cells are empty.
        too_long: whether there are more cells than columns.
    """

    line: int
    cells: Mapping[str, str]
    too_long: bool


def is_file(path: Path) -> bool:
    """Whether the file exists; false also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_text(path: Path, *, errors: str = "strict", max_bytes: int = MAX_TABLE_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte order mark; line ends stay as they are.

    Args:
        errors: as in `bytes.decode`.
        max_bytes: a larger file is refused.

    Raises:
        DocumentError: the file cannot be read, is not UTF-8 (with `errors` strict), or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise DocumentError(str(error.strerror)) from None
    if len(data) > max_bytes:
        raise DocumentError(f"more than {max_bytes:,} bytes")
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 (byte {error.start:,}): save it as UTF-8") from None


def parse_table(
    content: str, delimiter: str = ",", names: Sequence[str] | None = None
) -> tuple[Sequence[str], Iterator[TableRow]]:
    """The column names of a CSV text, trimmed, and its rows, read one by one; empty lines are skipped.

    Args:
        names: the column names, where the first line is already a row.

    Raises:
        DocumentError: two columns have one name, a quote is not closed, or a cell is too large. Also raised while the
            rows are read.

    >>> names, rows = parse_table("id, label\\n1, murmur\\n")
    >>> names, [dict(row.cells) for row in rows]
    (['id', 'label'], [{'id': '1', 'label': 'murmur'}])
    """
    lines = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    names = [name.strip() for name in next(_checked(lines), [])] if names is None else names
    twice = next((name for name in names if name and names.count(name) > 1), None) if len(names) < 1000 else "..."
    if twice is not None:
        raise DocumentError(f"two columns are called {twice[:80]}, or there are a thousand: leave one, or rename it")
    return names, _rows(lines, names)


def _checked(lines: Any) -> Iterator[list[str]]:
    try:
        yield from lines
    except csv.Error as error:
        raise DocumentError(f"line {lines.line_num}: {error}. Is a quote not closed?") from None


def _rows(lines: Any, names: Sequence[str]) -> Iterator[TableRow]:
    for cells in _checked(lines):
        if cells:
            trimmed = [cell.strip() for cell in cells]
            filled = trimmed + [""] * (len(names) - len(trimmed))
            yield TableRow(lines.line_num, dict(zip(names, filled, strict=False)), any(trimmed[len(names) :]))


def parse_yaml(content: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> Any:
    """The content of a YAML document as plain values.

    Args:
        loader: `SafeLoader`, or `BaseLoader`, which reads every value as text.

    Raises:
        DocumentError: it is too large or too deep, is not YAML, or has an alias or an impossible value (a 45th day).

    >>> parse_yaml("folds: 5", yaml.SafeLoader), parse_yaml("folds: 5", yaml.BaseLoader)
    ({'folds': 5}, {'folds': '5'})
    """
    if len(content) > MAX_YAML_BYTES:
        raise DocumentError(f"more than {MAX_YAML_BYTES:,} characters")
    try:
        _check_structure(content)
        return yaml.load(content, Loader=loader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        # PyYAML's constructors raise these for an impossible date or number
        raise DocumentError(f"not valid YAML: {str(error)[:500]}") from None


def _check_structure(content: str) -> None:
    """Refuse aliases and deep nesting before any object is made."""
    depth = 0
    for event in yaml.parse(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):     # libyaml if installed
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"line {line}: *{str(event.anchor)[:50]} is an alias; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise DocumentError(f"line {line}: more than {MAX_DEPTH} levels deep")
