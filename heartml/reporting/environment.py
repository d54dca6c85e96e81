"""The Jinja environment of every page: values are escaped, plots are marked as markup where they are drawn."""

from typing import TYPE_CHECKING

from heartml.reporting.number_format import figure, signed, span

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """Templates of this package; every value is escaped, plots are marked as markup where they are drawn."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    found = Environment(loader=PackageLoader("heartml.reporting"), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"svg": Markup, "figure": figure, "span": span, "signed": signed}
    return found
