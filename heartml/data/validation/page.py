"""The validation result as one HTML page. It loads nothing, and the same result gives the same bytes.

In: the result (`validation.json`) and a table of measurements with one row a recording. Out: HTML, from the template
`templates/validation.html.jinja`.
"""

from collections.abc import Mapping
from typing import Any

import jinja2
import pandas as pd

from heartml.core.config import ValidateParams
from heartml.data.validation.histogram import Axis, histogram, number

_COLOURS = 4        # in the style sheet


def render(result: Mapping[str, Any], signals: pd.DataFrame, params: ValidateParams) -> str:
    """The page as HTML.

    Args:
        result: see `result.summarise`.
        signals: `Quality` columns and `source`, one row a recording.
        params: the limits that warn; they are drawn into the histograms.
    """
    open_checks = [c for c in result["checks"] if not c["success"]]
    known = signals.assign(source=_most_frequent(signals["source"].fillna("unknown").astype(str)))
    sources = sorted(known["source"].unique())
    return _environment().get_template("validation.html.jinja").render(
        result=result,
        findings=sorted(open_checks, key=lambda c: ("error", "warning", "note").index(c["severity"])),
        charts=[(axis, histogram(known, axis, sources)) for axis in _axes(params)],
        sources=sources,
        classes=_by_label(result["classes"]),
        most_groups=max((c["groups"] for c in result["classes"]), default=1),
        least_groups=params.min_class_groups,
    ) + "\n"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("heartml.data.validation"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "words": words, "span": span}
    return environment


def _most_frequent(sources: "pd.Series[str]") -> "pd.Series[str]":
    """The most frequent sources under their names, the others as `others`: no more names than there are colours."""
    counts = sources.value_counts()
    names = sorted(counts.index, key=lambda name: (-counts[name], name))
    frequent = names if len(names) <= _COLOURS else names[: _COLOURS - 1]
    return sources.where(sources.isin(frequent), "others")


def _axes(params: ValidateParams) -> list[Axis]:
    return [
        Axis("seconds", "Length", "s", True, (params.short_seconds,)),
        Axis("peak", "Peak", "of full scale", True, (params.quiet_peak,)),
        Axis("level_db", "Level", "dB full scale"),
        Axis("heard_bandwidth_hz", "Bandwidth (99.9 % of the energy above 20 Hz)", "Hz", True, (params.bandwidth_hz,)),
        Axis("dc", "DC offset", "of full scale", limits=(-params.dc_offset, params.dc_offset)),
        Axis("contrast_db", "Loud over quiet frames", "dB", limits=(params.contrast_db,)),
    ]


def _by_label(classes: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(data set, label) -> its rows, in the order of the table."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in classes:
        found.setdefault((row["dataset"], row["label"]), []).append(row)
    return found


def cell(value: object) -> str:
    """A value as a table cell: three digits of a number, twelve characters of a recording id, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def words(name: str) -> str:
    """A column's name as words: `other_source_file` becomes `other source file`."""
    return name.replace("_", " ")


def span(observed: object) -> str:
    """An observed value as text: a range (`{"min": ..., "max": ...}`), a number, or an empty text for None."""
    if isinstance(observed, Mapping):
        return f"{number(observed['min'])} to {number(observed['max'])}"
    return "" if observed is None else cell(observed)
