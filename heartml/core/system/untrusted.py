"""Texts and YAML that other people wrote: read whole, or refused with the line, within limits of size and depth.

A document cannot choose which objects are made (`SafeLoader`, `BaseLoader`). Aliases are refused, because they make
gigabytes of a kilobyte of YAML.
"""

import codecs
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import short

MAX_TABLE_BYTES = 1 << 29        # a million rows take a fifth of it
MAX_YAML_BYTES = 1 << 18
MAX_DEPTH = 20
SAVE_AS_UTF8 = ('save it as UTF-8: in a spreadsheet as "CSV UTF-8", in a shell with '
                "`iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` (or -f UTF-16, -f UTF-32)")

_MARKS = {"UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}


class DocumentError(HeartMLError):
    """A document cannot be used. The message says where it is wrong; the caller adds the name of the file."""


def is_file(path: Path) -> bool:
    """Whether the file exists; false also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def spelled_on_disk(folder: Path, name: str) -> str:
    """The name under which a file that a table names lies in `folder`; `name` itself where there is none.

    A Mac writes `ä` as two characters, other systems as one. So a name is looked for in both Unicode forms (NFC, NFD).
    """
    forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return next((form for form in forms if exists(folder / form)), name)


def exists(path: Path) -> bool:
    """Whether there is something at `path`, also a folder or a pipe; false, too, for a name that no file can have."""
    try:
        return path.exists()
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
        raise DocumentError(_not_utf8(data, error.start)) from None


def _not_utf8(data: bytes, at: int) -> str:
    """Which byte is wrong, on which line and what it would be in the encoding that is most likely."""
    for name, marks in _MARKS.items():
        if data.startswith(marks):
            return f"not UTF-8 but {name}: {SAVE_AS_UTF8}"
    line = max(data.count(end, 0, at) for end in (b"\n", b"\r")) + 1
    letter = data[at : at + 1].decode("cp1252", "replace")
    return f"not UTF-8: line {line:,}, byte {at:,} is 0x{data[at]:02x} ({letter!r} in Windows-1252). So {SAVE_AS_UTF8}"


def parse_yaml(content: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> Any:
    """The content of a YAML document as plain values.

    Args:
        loader: `SafeLoader`, or `BaseLoader`, which reads every value as text.

    Raises:
        DocumentError: it is too large or too deep, is not YAML, or has an alias, a key twice or an impossible value
            (a 45th day).

    >>> parse_yaml("folds: 5", yaml.SafeLoader), parse_yaml("folds: 5", yaml.BaseLoader)
    ({'folds': 5}, {'folds': '5'})
    """
    if len(content) > MAX_YAML_BYTES:
        raise DocumentError(f"more than {MAX_YAML_BYTES:,} characters")
    try:
        _check_structure(content)
        return yaml.load(content, Loader=_in_c(loader))
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        # PyYAML's constructors raise these for an impossible date or number
        raise DocumentError(f"not valid YAML: {str(error)[:500]}") from None


def _in_c(loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> Any:
    """The same loader with libyaml's parser, where that is installed: ten times as fast."""
    return getattr(yaml, f"C{loader.__name__}", loader)


def _check_structure(content: str) -> None:
    """Refuse aliases, deep nesting and a key that is there twice before any object is made."""
    keys = _Keys()
    depth = 0
    for event in yaml.parse(content, Loader=_in_c(yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"line {line}: *{str(event.anchor)[:50]} is an alias; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise DocumentError(f"line {line}: more than {MAX_DEPTH} levels deep")
        keys.see(event, line)


class _Keys:
    """The keys of the mappings that are open, with their lines. YAML allows a key once; PyYAML takes the last one."""

    def __init__(self) -> None:
        self.open: list[dict[str, int] | None] = []     # `None`: a sequence
        self.at_key: list[bool] = []

    def see(self, event: yaml.Event, line: int) -> None:
        """Follow the next event.

        Raises:
            DocumentError: it is a key that its mapping has already.
        """
        if isinstance(event, yaml.CollectionEndEvent):
            self.open.pop()
            self.at_key.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._see_node(event, line)

    def _see_node(self, event: yaml.NodeEvent, line: int) -> None:
        if self.open:
            keys = self.open[-1]
            if keys is not None and self.at_key[-1] and isinstance(event, yaml.ScalarEvent):
                if event.value in keys:
                    raise DocumentError(f"line {line}: the key {short(event.value)} is there twice, first in line "
                                        f"{keys[event.value]}; keep one")
                keys[event.value] = line
            self.at_key[-1] = not self.at_key[-1]
        if isinstance(event, yaml.CollectionStartEvent):
            self.open.append({} if isinstance(event, yaml.MappingStartEvent) else None)
            self.at_key.append(True)
