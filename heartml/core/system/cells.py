"""What a cell of other people's tables means: nothing, a whole number, yes or no, an age, a sex, an id, one of a list.

One rule for every table: those of publishers and clinics at ingest, those of predict, score and monitor. A value that
no rule knows raises `CellError`; the caller adds the file and the line, and refuses the row. Nothing is guessed.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal

from heartml.core.system.text import short

MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "-"})      # in any case
_NOBODY_KNOWS = frozenset({"unknown", "unk", "?", "missing", "not known", "not given", "anonymous"})
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"        # no width, and no whitespace for `str.strip`
_WHOLE = re.compile(r"(?P<sign>-?)0*(?P<digits>[0-9]+)(\.0*)?")
_DIGITS = 15                     # more do not fit a spreadsheet's number
_EXPONENT = re.compile(r"[0-9]+([.,][0-9]+)?[eE]\+?[0-9]{1,2}")
_SHORTENED = re.compile(r"[0-9]+([.,][0-9]+)?E\+[0-9]{1,3}")     # how a spreadsheet shows a long number
_DECIMAL = re.compile(r"[0-9]{1,6}([.,][0-9]*)?")
_AGE_RANGE = re.compile(r"([0-9]{1,3}) ?[-–] ?([0-9]{1,3})|[<>≤≥]=? ?[0-9]{1,3}|[0-9]{1,3} ?\+")
_OLDEST_YEARS = 120
_BAND_YEARS = 10
_SEXES = {"f": "Female", "female": "Female", "m": "Male", "male": "Male", "other": "Other", "diverse": "Diverse",
          "intersex": "Intersex"}
_BOOLEANS = {"true": True, "false": False}


class CellError(ValueError):
    """A cell has a value that cannot be used. The message names the value and the way out, not the file or the line."""


def trimmed(cell: str) -> str:
    r"""The cell without spaces of any kind (also no-break and zero-width ones) at its ends.

    >>> trimmed("\u200b p1\u00a0")
    'p1'
    """
    cell = cell.strip()
    while cell and (cell[0] in _INVISIBLE or cell[-1] in _INVISIBLE):
        cell = cell.strip(_INVISIBLE).strip()
    return cell


def is_missing(cell: str) -> bool:
    """Whether the cell says that there is no value: it is empty or one of `MISSING`, in any case.

    >>> [is_missing(cell) for cell in ("", "NaN", "#N/A", "-", "0", "Unknown")]
    [True, True, True, True, False, False]
    """
    return trimmed(cell).casefold() in MISSING


def present(cell: str) -> str | None:
    """The trimmed cell, or `None` where it is missing."""
    cell = trimmed(cell)
    return None if cell.casefold() in MISSING else cell


def header_key(name: str) -> str:
    r"""What is compared of a column's name: neither case nor spaces, `_`, `-` and characters without width.

    >>> header_key("Patient\u00a0ID") == header_key("patient_id") == header_key("\u200bPATIENT ID ")
    True
    """
    folded = _without_invisible(unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in folded if not (c.isspace() or c in "_-"))


def _without_invisible(text: str) -> str:
    return text if text.isascii() else "".join(c for c in text if unicodedata.category(c) != "Cf")


def whole(cell: str) -> int | None:
    """A whole number of at most 15 digits, also written `1.0` or `0012`; `None` for anything else.

    >>> whole("12"), whole("0012"), whole("12.0"), whole("-1.0"), whole("12.5"), whole("12,000")
    (12, 12, 12, -1, None, None)
    """
    match = _WHOLE.fullmatch(trimmed(cell))
    return int(match["sign"] + match["digits"]) if match and len(match["digits"]) <= _DIGITS else None


def boolean(cell: str) -> bool | None:
    """Yes or no, written TRUE or FALSE in any case, 1 or 0, 1.0 or 0.0; `None` for anything else.

    >>> boolean("TRUE"), boolean("0.0"), boolean("2"), boolean("")
    (True, False, None, None)
    """
    number = whole(cell)
    return bool(number) if number in (0, 1) else _BOOLEANS.get(trimmed(cell).casefold())


def same(first: str, second: str) -> bool:
    """Whether two cells say the same: both nothing, the same number, the same yes or no, or the same words.

    >>> same("nan", ""), same("FALSE", "False"), same("12.0", "12"), same("Present", "Absent")
    (True, True, True, False)
    """
    return _value_key(first) == _value_key(second)


def _value_key(cell: str) -> str:
    return "" if is_missing(cell) else spelling_key(cell)


def choice(cell: str, allowed: Iterable[str]) -> str | None:
    """That of `allowed` which the cell names, whatever its case, its spaces or the form of its number; else `None`.

    >>> choice("PRESENT ", ["Present", "Absent"]), choice("1.0", ["0", "1"]), choice("perhaps", ["Present", "Absent"])
    ('Present', '1', None)
    """
    names = list(allowed)
    if cell in names:
        return cell
    key = spelling_key(cell)
    found = [name for name in names if spelling_key(name) == key]
    return found[0] if len(found) == 1 else None


def identifier(cell: str) -> str | None:
    """The id of a person or a family, as it is written; `None` where it is missing.

    Raises:
        CellError: it is a word that stands for an unknown person, or a long number that a spreadsheet has shortened.

    >>> identifier("0012"), identifier("NULL")
    ('0012', None)
    """
    found = present(cell)
    if found is not None and found.casefold() in _NOBODY_KNOWS:
        raise CellError(f"{short(found)} is no id, and several people may have it: leave the cell empty where nobody "
                        "knows who it is")
    if found is not None and _SHORTENED.fullmatch(found):
        raise CellError(f"{short(found)} is a long number that a spreadsheet has shortened, and several people may "
                        "have it: format the column as text and enter the ids again")
    return found


def spelling_key(cell: str) -> str:
    """What two spellings of one value share: neither case nor more spaces nor the form of a number tell them apart.

    >>> spelling_key("12") == spelling_key("0012") == spelling_key("12.0") == spelling_key("1.2e1")
    True
    >>> spelling_key("P1") == spelling_key("p1"), spelling_key("12") == spelling_key("1-2")
    (True, False)
    """
    text = trimmed(cell)
    if match := _WHOLE.fullmatch(text):
        return match["sign"] + match["digits"] if match["digits"] != "0" else "0"
    if _EXPONENT.fullmatch(text):
        value = Decimal(text.replace(",", "."))
        if value == value.to_integral_value():
            return str(int(value))
    return " ".join(_without_invisible(unicodedata.normalize("NFKC", text).casefold()).split())


def other_spellings(values: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Each value that is also there in another spelling -> the other spellings, in order.

    >>> other_spellings(["12", "12.0", "13", "p1", "P1", "12"])
    {'12': ('12.0',), '12.0': ('12',), 'p1': ('P1',), 'P1': ('p1',)}
    """
    found: dict[str, dict[str, None]] = {}
    for value in values:
        found.setdefault(spelling_key(value), {})[value] = None
    return {value: tuple(other for other in several if other != value)
            for several in found.values() if len(several) > 1 for value in several}


def spelling_fault(value: str, others: Mapping[str, str]) -> str:
    """The words for an id that is there in other spellings, too.

    Args:
        others: other spelling -> where it is: the name of a file, or a line.

    >>> spelling_fault("12", {"12.0": "r7.wav"})
    "id '12' here, '12.0' at r7.wav: perhaps one person. Write one spelling in every row, or other ids if they are two"
    """
    listed = ", ".join(f"{short(other)} at {where}" for other, where in others.items())
    return (f"id {short(value)} here, {listed}: perhaps one person. Write one spelling in every row, or other ids if "
            "they are two")


def age_group(cell: str) -> str | None:
    """The age group of an age: years become a band of ten, the name of a group stays; `None` where it is missing.

    Raises:
        CellError: it has a unit, or is not between 0 and 120 years.

    >>> age_group("23.5"), age_group("45,5"), age_group("Child"), age_group("30-39"), age_group("NA")
    ('20-29', '40-49', 'Child', '30-39', None)
    """
    found = present(cell)
    if found is None or found.casefold() in _NOBODY_KNOWS:
        return None
    if _DECIMAL.fullmatch(found) and (years := float(found.replace(",", "."))) <= _OLDEST_YEARS:
        first = int(years) // _BAND_YEARS * _BAND_YEARS
        return f"{first}-{first + _BAND_YEARS - 1}"
    limits = _AGE_RANGE.fullmatch(found)
    wrong = limits and limits[1] and not int(limits[1]) <= int(limits[2]) <= _OLDEST_YEARS + _BAND_YEARS
    if wrong or (not limits and any(c.isdigit() for c in found)):
        raise CellError(f"age {short(found)} is neither years from 0 to {_OLDEST_YEARS} nor the name of a group: write "
                        "years without a unit (four months are 0.33)")
    return found


def sex(cell: str) -> str | None:
    """Female or Male, also written F or M in any case, or Other, Diverse, Intersex; `None` where it is missing.

    Raises:
        CellError: it is another word or a code.

    >>> sex("f"), sex("MALE"), sex("unknown")
    ('Female', 'Male', None)
    """
    found = present(cell)
    if found is None or found.casefold() in _NOBODY_KNOWS:
        return None
    if found.casefold() not in _SEXES:
        raise CellError(f"sex {short(found)} is not known: write Female or Male, or leave the cell empty")
    return _SEXES[found.casefold()]
