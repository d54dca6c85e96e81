"""A self-contained HTML page about one `DriftReport`: the verdict first, then every measure with its plot.

It holds no date and loads nothing from elsewhere. The same inputs give the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartml.core.config import MonitorParams
from heartml.core.system.files import replacing
from heartml.inference.monitoring import MonitoredData, show
from heartml.inference.monitoring.drift import DRIFT, Finding, rounded
from heartml.reporting.environment import environment
from heartml.reporting.svg import Line, chart, domain

STEPS = 120      # points of a curve
NEW, BEFORE = 0, 1      # series, and with it the colour


def write(data: MonitoredData, params: MonitorParams, to: Path) -> None:
    """Write the page to a file, completely or not at all."""
    with replacing(to) as temporary:
        temporary.write_text(render(data, params), encoding="utf-8")


def render(data: MonitoredData, params: MonitorParams) -> str:
    """The page as HTML text."""
    from jinja2 import ChoiceLoader, PackageLoader

    pages = environment()
    pages.loader = ChoiceLoader([PackageLoader("heartml.inference.monitoring"), PackageLoader("heartml.reporting")])
    report = data.report
    order = sorted(report.findings, key=lambda finding: finding.state != DRIFT)      # stable: drifts first
    return pages.get_template("monitor.html.jinja").render(
        report=report, headline=show.headline(report), counted=show.counted(report), rule=show.rule(params),
        rows=[_row(finding) for finding in order],
        pictures=[picture for finding in order if (picture := _picture(finding, data))],
    )


def _row(finding: Finding) -> dict[str, Any]:
    unit = finding.measure.unit
    return {
        "title": finding.measure.title, "drifted": finding.state == DRIFT,
        "state": show.STATES.get(finding.state, "no drift"), "effect": show.effect(finding), "p": show.p_value(finding),
        "reference": show.side(finding.reference, unit), "new": show.side(finding.new, unit),
        "groups": f"{finding.groups[0]} and {finding.groups[1]}",
    }


def _picture(finding: Finding, data: MonitoredData) -> dict[str, Any] | None:
    """Title, verdict and plot of one measure; `None` where there is nothing to draw."""
    if finding.effect is None:
        return None
    measure = finding.measure
    words = {"title": measure.title, "drifted": finding.state == DRIFT,
             "state": show.STATES.get(finding.state, "no drift"), "effect": show.effect(finding)}
    if isinstance(finding.reference, dict) and isinstance(finding.new, dict):
        shares = [(name, round(100 * finding.reference[name]), round(100 * finding.new[name]))
                  for name in finding.reference]
        return {**words, "plot": "", "shares": shares}
    if finding.scores:
        return {**words, "plot": _curves(*finding.scores, "score of the classifier", measure.title), "shares": []}
    tables = (data.reference, data.new)
    sides = [rounded(table[measure.column].dropna().to_numpy(np.float64), measure.step) for table in tables]
    if np.ptp(np.concatenate(sides)) == 0:
        return None
    title = f"{measure.title}{f' [{measure.unit}]' if measure.unit else ''}"
    return {**words, "plot": _curves(sides[0], sides[1], title, measure.title), "shares": []}


def _curves(reference: Sequence[float] | Any, new: Sequence[float] | Any, x_title: str, name: str) -> str:
    """Both distribution functions. The effect is the largest distance between them."""
    both = np.concatenate([np.asarray(reference, np.float64), np.asarray(new, np.float64)])
    low, high = np.percentile(both, [0.5, 99.5])       # a single far value would flatten the rest
    limits = domain([float(low), float(high)], unit=False)
    grid = np.linspace(*limits, STEPS)
    lines = [Line(words, grid.tolist(), _below(side, grid), series)
             for words, side, series in (("reference", reference, BEFORE), ("new", new, NEW))]
    return chart(lines, x_title, "share of the groups below", f"{name}: reference and new", x_limits=limits)


def _below(values: Sequence[float] | Any, grid: "np.ndarray[Any, np.dtype[np.float64]]") -> list[float]:
    ordered = np.sort(np.asarray(values, np.float64))
    return [float(share) for share in np.searchsorted(ordered, grid, side="right") / len(ordered)]


