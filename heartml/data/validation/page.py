"""The validation result as one page for a person: offline, light and dark, the same result gives the same bytes.

In: the result (`validation.json`) and one row a recording with its measurements. Out: HTML.
"""

from collections.abc import Mapping
from typing import Any

import jinja2
import pandas as pd

from heartml.core.config import ValidateParams
from heartml.data.validation.histogram import Axis, histogram, number
from heartml.data.validation.template import TEMPLATE

_COLOURS = 4        # in the style sheet


def render(result: Mapping[str, Any], signals: pd.DataFrame, params: ValidateParams) -> str:
    """The page.

    Args:
        result: see `validate.summarise`.
        signals: `Quality` columns and `source`, one row a recording.
    """
    strict = jinja2.StrictUndefined
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=strict)
    environment.filters |= {"cell": cell, "words": words, "span": span}
    open_checks = [c for c in result["checks"] if not c["success"]]
    known = signals.assign(source=_few(signals["source"].fillna("unknown").astype(str)))
    sources = sorted(known["source"].unique())
    return environment.from_string(TEMPLATE).render(
        result=result,
        findings=sorted(open_checks, key=lambda c: ("error", "warning", "note").index(c["severity"])),
        charts=[(axis, histogram(known, axis, sources)) for axis in _axes(params)],
        sources=sources,
        classes=_nested(result["classes"]),
        most_groups=max((c["groups"] for c in result["classes"]), default=1),
        least_groups=params.min_class_groups,
    ) + "\n"


def _few(sources: "pd.Series[str]") -> "pd.Series[str]":
    """The most frequent sources by name, the rest as `others`: as many as there are colours."""
    counts = sources.value_counts()
    names = sorted(counts.index, key=lambda name: (-counts[name], name))
    kept = names if len(names) <= _COLOURS else names[: _COLOURS - 1]
    return sources.where(sources.isin(kept), "others")


def _axes(params: ValidateParams) -> list[Axis]:
    return [
        Axis("seconds", "Length", "s", True, (params.short_seconds,)),
        Axis("peak", "Peak", "of full scale", True, (params.quiet_peak,)),
        Axis("level_db", "Level", "dB full scale"),
        Axis("bandwidth_hz", "Bandwidth (99 % of the energy)", "Hz", True, (params.bandwidth_hz,)),
        Axis("dc", "DC offset", "of full scale", limits=(-params.dc_offset, params.dc_offset)),
        Axis("contrast_db", "Loud over quiet frames", "dB", limits=(params.contrast_db,)),
    ]


def _nested(classes: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(data set, label) -> its rows, in the order of the table."""
    nested: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in classes:
        nested.setdefault((row["dataset"], row["label"]), []).append(row)
    return nested


def cell(value: object) -> str:
    """A value of a table: numbers short, recording ids to twelve characters, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def words(name: str) -> str:
    """A column's name as words."""
    return name.replace("_", " ")


def span(observed: object) -> str:
    """What was observed: a range, a number, or nothing."""
    if isinstance(observed, Mapping):
        return f"{number(observed['min'])} to {number(observed['max'])}"
    return "" if observed is None else cell(observed)
