"""Tables and YAML that other people wrote: read whole or refused with the line, within limits of size and depth.

Nothing here makes objects of a document's choice (`SafeLoader`, `BaseLoader`), and nothing grows beyond its file:
aliases, with which a kilobyte of YAML becomes gigabytes, are not taken.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from heartml.core.system.errors import HeartMLError

MOST_TABLE_BYTES = 1 << 29        # a million rows have a fifth of it
MOST_YAML_BYTES = 1 << 18
DEEPEST = 20


class DocumentError(HeartMLError):
    """A document cannot be used; the message says where it is wrong, not in which file: the reader knows that."""


@dataclass(frozen=True)
class TableRow:
    """One row of a table: its line in the file, column -> cell (missing ones are empty), and whether cells are over."""

    line: int
    cells: Mapping[str, str]
    too_long: bool


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is no error."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def text(path: Path, *, errors: str = "strict", most_bytes: int = MOST_TABLE_BYTES) -> str:
    """The text of a file (UTF-8, with a mark at the start or without); line ends stay as they are.

    Raises:
        DocumentError: it cannot be read, is no UTF-8 (unless `errors` says what to do), or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise DocumentError(str(error.strerror)) from None
    if len(data) > most_bytes:
        raise DocumentError(f"more than {most_bytes:,} bytes")
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 (byte {error.start:,}): save it as UTF-8") from None


def table(
    content: str, delimiter: str = ",", names: Sequence[str] | None = None
) -> tuple[Sequence[str], Iterator[TableRow]]:
    """Names of a CSV's columns, trimmed, and its rows as they are read; empty lines are no rows.

    Args:
        names: of the columns, where the first line is a row already.

    Raises:
        DocumentError: also while rows are read: two columns have one name, a quote is never closed, a cell has no end.
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


def yaml_of(content: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> Any:
    """What a YAML document says, as plain values.

    Args:
        loader: `SafeLoader`, or `BaseLoader` for texts alone.

    Raises:
        DocumentError: it is no YAML, holds something that is not what it says (a 45th day), an alias, or is too deep.
    """
    if len(content) > MOST_YAML_BYTES:
        raise DocumentError(f"more than {MOST_YAML_BYTES:,} characters")
    try:
        _measure(content)
        return yaml.load(content, Loader=loader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        # PyYAML's constructors raise these for a date or a number that is none
        raise DocumentError(f"not valid YAML: {str(error)[:500]}") from None


def _measure(content: str) -> None:
    """Refuse what would grow or would not end, before anything is made of it."""
    depth = 0
    for event in yaml.parse(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):     # libyaml's, if there
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"line {line}: *{str(event.anchor)[:50]} is an alias; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise DocumentError(f"line {line}: more than {DEEPEST} levels deep")
