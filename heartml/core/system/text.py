"""Make text from outside (names of files and patients, cells, messages) safe for a terminal and a spreadsheet."""

from collections.abc import Iterable

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")     # a spreadsheet would calculate such a cell


def printable(text: object) -> str:
    r"""`text` with control characters and undecodable bytes escaped.

    >>> printable("Ann\x1b[2J")
    'Ann\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def one_line(text: object) -> str:
    r"""`printable` for a message of several lines.

    >>> one_line("two\nlines")
    'two lines'
    """
    return printable(" ".join(str(text).split("\n")))


def short(value: object, max_length: int = 80) -> str:
    """A value as Python writes it, cut where it is long.

    >>> short("murmur", max_length=4)
    "'mur..."
    """
    shown = repr(value)
    return shown if len(shown) <= max_length else f"{shown[:max_length]}..."


def csv_cell(value: object) -> str:
    """Text for a cell that a spreadsheet shows and never calculates (OWASP, CSV injection). Not for numbers.

    >>> csv_cell("=1+1"), csv_cell("normal")
    ("'=1+1", 'normal')
    """
    text = printable(value)
    return f"'{text}" if would_be_calculated(text) else text


def would_be_calculated(text: str) -> bool:
    """Whether a spreadsheet takes a cell with this text for a formula.

    >>> would_be_calculated("=1+1"), would_be_calculated("normal")
    (True, False)
    """
    return text.startswith(_FORMULA)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question for the end of a message; empty where no known name is similar.

    >>> did_you_mean("circor-murmer", ["circor-murmur", "pascal-sounds"])
    ' Did you mean circor-murmur?'
    >>> did_you_mean("xyz", ["circor-murmur"])
    ''
    """
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), 1)
    return f" Did you mean {near[0]}?" if near else ""
