"""A family: modules of one package that follow one Protocol. A new member is one file, and its name in one list."""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any


def members(package: str, names: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Name -> a function that imports the member's module and returns it.

    A member is imported at the first call, because most need libraries that take seconds to import.

    Args:
        package: the family's package; pass `__name__`.
        names: the modules of `package` that are members; a hyphen stands for the underscore of the module's name.

    >>> sorted(members("json", ["decoder", "encoder"]))
    ['decoder', 'encoder']
    >>> members("json", ["decoder"])["decoder"]().__name__
    'json.decoder'
    """
    return {name: functools.partial(importlib.import_module, f"{package}.{name.replace('-', '_')}") for name in names}
