"""A self-contained HTML page about a probe of encoders: ranks, worth against cost, and every number in tables.

In: the numbers of `heartml.evaluation.probe.summary`. Out: HTML text without a date that loads nothing from elsewhere.
The same numbers give the same bytes.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartml.core.system.files import replacing
from heartml.evaluation.probe.summary import CHOSEN
from heartml.reporting.environment import environment
from heartml.reporting.svg import SERIES, Line, chart, domain

_RADIUS = 5.0


def write(found: Mapping[str, Any], to: Path) -> None:
    """Write the page to a file, completely or not at all."""
    with replacing(to) as temporary:
        temporary.write_text(render(found), encoding="utf-8")


def render(found: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    from jinja2 import ChoiceLoader, PackageLoader

    pages = environment()
    pages.loader = ChoiceLoader([PackageLoader("heartml.reporting.probe_page"), PackageLoader("heartml.reporting")])
    colours = {row["encoder"]: number % SERIES for number, row in enumerate(found["ranks"])}
    tasks = [{**own, "name": name, "plot": worth_against_cost(name, own, colours),
              "rows": [_row(row) for row in own["encoders"]]} for name, own in found["tasks"].items()]
    return pages.get_template("probe.html.jinja").render(ranks=found["ranks"], tasks=tasks, colours=colours)


def worth_against_cost(name: str, task: Mapping[str, Any], colours: Mapping[str, int]) -> str:
    """AUC of each encoder over the logarithm of its cost, as SVG."""
    rows = task["encoders"]
    costs = [math.log10(max(row["cost"]["seconds_an_hour"], 1e-3)) for row in rows]
    values = [row["scores"][CHOSEN]["macro_auc"]["value"] for row in rows]
    lines = [Line(row["encoder"], [x], [y], colours[row["encoder"]], [_RADIUS])
             for row, x, y in zip(rows, costs, values, strict=True)]
    low, high = domain(costs, unit=False)
    return chart(lines, "log10 of seconds for an hour of sound", "AUC", f"{name}: worth against cost",
                 x_limits=(low, high), y_limits=domain(values))


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One encoder's cells; layers and poolings with their scores below it."""
    chosen = row["scores"][CHOSEN]
    others = {name: scores for name, scores in row["scores"].items() if name != CHOSEN}
    return {"encoder": row["encoder"], "chosen": chosen, "cost": row["cost"], "others": others,
            "features": row["features"], "logspec": _change(row["against_logspec"]),
            "random": _change(row["against_random"])}


def _change(difference: Mapping[str, Mapping[str, float]] | None) -> dict[str, Any] | None:
    """The difference in AUC, and whether its interval leaves zero out."""
    if difference is None:
        return None
    auc = difference["macro_auc"]
    known = auc["low"] is not None and auc["high"] is not None
    return {**auc, "certain": known and (auc["low"] > 0 or auc["high"] < 0)}
