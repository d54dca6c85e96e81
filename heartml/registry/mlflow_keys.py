"""Keys of params, metrics and tags as MLflow accepts them. Pure."""

import re
from collections.abc import Iterable

_NOT_IN_A_KEY = re.compile(r"[^\w\-. :/]", re.ASCII)


def valid_key(name: str) -> str:
    """A key that MLflow accepts, like `seconds/split/circor.simulated-murmur`. The `+` of data sets is not allowed.

    A key is a path for MLflow, so no part of it may be empty or lead elsewhere: a class may be called `..` or `a/`.

    >>> valid_key("class/held_out/Clic mésosystolique/recall"), valid_key("class/held_out/../recall")
    ('class/held_out/Clic m_sosystolique/recall', 'class/held_out/_/recall')
    """
    parts = _NOT_IN_A_KEY.sub("_", name.replace("+", ".")).split("/")
    return "/".join("_" if part in {"", ".", ".."} else part for part in parts)


def valid_keys(names: Iterable[str]) -> dict[str, str]:
    """Name -> `valid_key`, with a number behind those that would be the key of an earlier name.

    >>> valid_keys(["a/Geräusch", "a/Ger?usch"])
    {'a/Geräusch': 'a/Ger_usch', 'a/Ger?usch': 'a/Ger_usch_2'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        first = key = valid_key(name)
        number = 1
        while key in taken:
            number += 1
            key = f"{first}_{number}"
        taken.add(key)
        found[name] = key
    return found
