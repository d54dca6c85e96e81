"""The charts of the report, from tables that the stages wrote: curves, calibration, abstention, trials."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from heartml.core.task_definition import HEART, Organ
from heartml.reporting.svg import Line, chart, domain, strip
from heartml.reporting.task_report.headline import TITLES

CHOICES = ("encoder", "level", "pooling", "head")


@dataclass(frozen=True)
class Figure:
    """A chart: its title, a caption, the SVG, and a legend of (name, series)."""

    title: str
    caption: str
    svg: str
    legend: tuple[tuple[str, int], ...] = ()


def by_class(table: pd.DataFrame, classes: Sequence[str], axes: tuple[str, str]) -> tuple[Line, ...]:
    """One line a class, in the order of `classes`.

    Args:
        axes: the columns for x and y.
    """
    drawn = [(c, name, table[table["class"] == name]) for c, name in enumerate(classes)]
    return tuple(Line(name, list(t[axes[0]]), list(t[axes[1]]), c) for c, name, t in drawn if len(t))


def roc(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """True against false positives of each class against the rest."""
    lines = by_class(table, classes, ("false_positive_rate", "true_positive_rate"))
    svg = chart(lines, "False positive rate", "True positive rate", "ROC curves of each class against the rest",
                diagonal=True)
    return Figure("ROC", "Each class against the rest. The diagonal is chance.", svg, _legend(lines))


def precision_recall(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Precision against recall of each class against the rest."""
    lines = by_class(table, classes, ("recall", "precision"))
    svg = chart(lines, "Recall", "Precision", "Precision-recall curves of each class against the rest")
    return Figure("Precision and recall", "Each class against the rest.", svg, _legend(lines))


def calibration(table: pd.DataFrame) -> Figure:
    """The share of right decisions against the confidence, before and after calibration."""
    lines = []
    for stage, name, series in (("before", "Before calibration", 5), ("after", "Calibrated", 0)):
        bins = table[table["stage"] == stage]
        radii = 2.5 + 5 * np.sqrt(bins["units"] / max(1, bins["units"].max())) if len(bins) else bins["units"]
        lines.append(Line(name, list(bins["confidence"]), list(bins["accuracy"]), series, list(radii)))
    svg = chart(lines, "Confidence", "Share that is right", "Reliability diagram before and after calibration",
                diagonal=True)
    caption = "On the diagonal confidence equals the share of right decisions. Larger dots hold more units."
    return Figure("Calibration", caption, svg, _legend(lines))


def abstention(table: pd.DataFrame, metric: str, referral: Mapping[str, Any]) -> Figure | None:
    """The metrics when the least confident decisions are referred to a human, and the point where the model does so."""
    if len(table) < 2:
        return None
    at = 1 - referral["referred"]["value"]
    shown = [name for name in dict.fromkeys((metric, "accuracy")) if table[name].notna().all()]
    lines = [Line(TITLES[name], list(table["coverage"]), list(table[name]), number)
             for number, name in enumerate(shown)]
    points = [Line(TITLES[name], [at], [referral["scores"][name]["value"]], number, [5.0])
              for number, name in enumerate(shown)] if referral["below"] > 0 and referral["estimable"] else []
    drawn = [*lines, *points]
    limits = domain([value for line in drawn for value in line.y], unit=max(map(max, (x.y for x in drawn))) <= 1)
    svg = chart(drawn, "Share of units decided", "Score on these", "Scores when the least confident are left undecided",
                x_limits=(min([float(table["coverage"].min()), *(at for _ in points)]), 1.0), y_limits=limits)
    caption = "From right to left more of the least confident decisions are referred to a human."
    if points:
        caption += f" Dots: the model's own limit, a confidence of {referral['below']:.2f}."
    return Figure("Deciding only when confident", caption, svg, _legend(lines))


def noise(found: Mapping[str, Any], organ: Organ = HEART) -> list[Figure]:
    """The metric, the AUC and the mean confidence against the signal-to-noise ratio, one line a kind of noise."""
    def draw(title: str, caption: str, of: Callable[[Mapping[str, Any]], float | None]) -> Figure | None:
        points: dict[str, list[tuple[float, float]]] = {}
        for condition in found["conditions"]:
            value = of(condition)
            if condition["kind"].endswith("_snr_db") and value is not None:
                points.setdefault(condition["title"], []).append((condition["level"], value))
        return _against_noise(title, caption, points, of(found["clean"]))

    metric = found["metric"]
    wanted = {TITLES[name]: _score(name) for name in dict.fromkeys((metric, "macro_auc"))}
    figures = [draw(title, f"From right to left the noise grows; at 0 dB it is as loud as the {organ}.", of)
               for title, of in wanted.items()]
    confidence = draw("Confidence", "Mean confidence of the decisions: it should fall as the scores do.",
                      lambda entry: entry["sureness"])
    return [figure for figure in (*figures, confidence) if figure]


def _score(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda entry: entry["scores"][name]["value"]


def _against_noise(
    title: str, caption: str, points: Mapping[str, list[tuple[float, float]]], clean: float | None
) -> Figure | None:
    lines = [Line(name, [x for x, _ in sorted(of)], [y for _, y in sorted(of)], series)
             for series, (name, of) in enumerate(points.items()) if len(of) > 1]
    if not lines or clean is None:
        return None
    limits = (min(min(line.x) for line in lines), max(max(line.x) for line in lines))
    lines.append(Line("As recorded", limits, (clean, clean), 5))
    y_limits = domain([value for line in lines for value in line.y], unit=max(max(line.y) for line in lines) <= 1)
    svg = chart(lines, "Signal-to-noise ratio, dB", title, f"{title} against the loudness of added noise",
                x_limits=limits, y_limits=y_limits)
    return Figure(title, caption, svg, _legend(lines))


def trials(table: pd.DataFrame, metric: str) -> Figure | None:
    """Every finished trial: a row for each head, a colour for each encoder."""
    done = table.dropna(subset=["value"])
    if not len(done):
        return None
    encoders = sorted(done["encoder"].unique())
    best = done.groupby("head")["value"].max().sort_values(ascending=False, kind="stable")
    rows = {
        str(head): [(float(t["value"]), encoders.index(t["encoder"]), _trial(t))
                    for t in done[done["head"] == head].to_dict("records")]
        for head in best.index
    }
    limits = domain(list(done["value"]), unit=bool(done["value"].between(0, 1).all()))
    svg = strip(rows, f"{TITLES[metric]}, out of fold", "Trials of the search by head and encoder", limits)
    return Figure("Trials", "One dot a finished trial, heads ordered by their best one.", svg,
                  tuple((name, number) for number, name in enumerate(encoders)))


def history(table: pd.DataFrame, metric: str) -> Figure | None:
    """Each finished trial in the order of the plan, and the best value so far."""
    done = table.dropna(subset=["value"]).sort_values("trial")
    if len(done) < 2:
        return None
    numbers, values = [float(trial) for trial in done["trial"]], [float(value) for value in done["value"]]
    best = [float(value) for value in np.maximum.accumulate(values)]
    lines = (Line("Best so far", numbers, best, 0), Line("Trial", numbers, values, 5, [3.0] * len(values)))
    limits = domain(values, unit=bool(done["value"].between(0, 1).all()))
    svg = chart(lines, "Trial", f"{TITLES[metric]}, out of fold", "Trials of the search in their order",
                x_limits=(numbers[0], numbers[-1]), y_limits=limits)
    return Figure("History of the search", "Where the upper line still rises at the end, more trials may help.", svg,
                  _legend(lines))


def _trial(trial: Mapping[Any, Any]) -> str:
    pooling = "no pooling" if pd.isna(trial["pooling"]) else trial["pooling"]
    return f"trial {trial['trial']}: {trial['value']:.3f}, {trial['encoder']}, {pooling}"


def importance(table: pd.DataFrame) -> list[tuple[str, float]]:
    """The share of the variance between trials that each choice explains (eta squared, one-way), largest first."""
    done = table.dropna(subset=["value"])
    total = float(((done["value"] - done["value"].mean()) ** 2).sum()) if len(done) else 0.0
    if total == 0:
        return []
    explained = {}
    for choice in CHOICES:
        groups = done.groupby(choice, dropna=False)["value"]
        explained[choice] = float((groups.size() * (groups.mean() - done["value"].mean()) ** 2).sum()) / total
    return sorted(explained.items(), key=lambda pair: (-pair[1], pair[0]))


def _legend(lines: Sequence[Any]) -> tuple[tuple[str, int], ...]:
    return tuple((line.name, line.series) for line in lines)
