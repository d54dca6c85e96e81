"""The Jinja environment of every HTML page."""

from typing import TYPE_CHECKING

from heartml.reporting.number_format import criterion, figure, signed, span

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """Load templates of `heartml.reporting`. Every value is escaped, except plots that pass through the filter `svg`.

    Other packages put their own loader in front of this one's.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    found = Environment(loader=PackageLoader("heartml.reporting"), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"svg": Markup, "figure": figure, "span": span, "signed": signed,
                      "criterion": criterion}
    return found
