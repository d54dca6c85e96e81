"""Words that others chose (names of files and patients, cells, messages), made fit for a terminal and a spreadsheet."""

from collections.abc import Iterable

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")     # what a spreadsheet would calculate


def printable(text: object) -> str:
    """`text` without what a terminal or a file would choke on: control characters and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def one_line(text: object) -> str:
    """The same of a message that may have been written over several lines."""
    return printable(" ".join(str(text).split("\n")))


def short(value: object, most: int = 80) -> str:
    """A value as Python writes it, its end left out where it is long."""
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}..."


def cell(value: object) -> str:
    """A text that a spreadsheet shows and never calculates (OWASP, CSV injection); numbers do not come through here."""
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean circor-murmur?`, for the end of a sentence; empty where nothing known is like `name`."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), 1)
    return f" Did you mean {near[0]}?" if near else ""
