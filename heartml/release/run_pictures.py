"""Plots of a version for MLflow's pages, as PNG. The numbers behind them lie beside them in the run, as CSV and JSON.

In: the tables that the stages wrote for `dvc plots`, and the trials. Out: name in the run -> PNG. The report draws its
own plots, as SVG and without a library. MLflow's pages show PNG beside a run, and compare it between runs.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heartml.core import paths
from heartml.core.system.files import canonical_json, read_json
from heartml.evaluation import plot_tables
from heartml.reporting.task_report import charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = "plots"
_TITLES = {"held_out": "held out", "out_of_fold": "out of fold"}
_DPI, _INCHES = 80, (5.0, 4.0)       # of one panel
_LEFT = 0.25      # of a panel's width, for its labels


def of(name: str) -> dict[str, bytes]:
    """The pictures of one task's model by their name in the run, and the numbers of the one that has no table.

    What a stage did not write is left out.
    """
    tables = paths.evaluation(name) / "plots"
    metrics = read_json(paths.evaluation(name) / "metrics.json")
    found: dict[str, bytes] = {}
    for plot, draw in _plots(metrics).items():
        file = tables / f"{plot}.csv"
        if file.exists():
            table = plot_tables.read_plot(file)
            parts = {part: rows for part, rows in table.groupby("part", sort=False) if len(rows)}
            found[f"{FOLDER}/{plot}.png"] = _picture([partial(draw, part=str(part), table=rows)
                                                      for part, rows in parts.items()])
    if paths.robustness(name).exists():
        found[f"{FOLDER}/robustness.png"] = _picture([partial(_robustness, found=read_json(paths.robustness(name)))])
    trials = paths.search(name) / "trials.parquet"
    if trials.exists():
        shares = charts.importance(pd.read_parquet(trials))
        if shares:
            found[f"{FOLDER}/importance.png"] = _picture([partial(_importance, shares=shares)])
            found[f"{FOLDER}/importance.json"] = canonical_json(dict(shares)).encode()
    return found


def _plots(metrics: Mapping[str, Any]) -> dict[str, Callable[..., None]]:
    """Name of a table in `evaluation/plots` -> the function that draws one part of it."""
    classes = metrics["classes"]
    return {
        "confusion": partial(_confusion, classes=classes),
        "roc": partial(_curves, classes=classes, axes=("false_positive_rate", "true_positive_rate")),
        "precision_recall": partial(_curves, classes=classes, axes=("recall", "precision")),
        "calibration": _calibration,
        "abstention": partial(_abstention, metric=metrics["metric"]),
    }


def _picture(panels: Sequence[Callable[["Axes"], None]]) -> bytes:
    """A PNG with the panels side by side. No global state of matplotlib is touched, and no font is looked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES[0] * max(1, len(panels)), _INCHES[1]), dpi=_DPI)
    figure.subplots_adjust(left=_LEFT / max(1, len(panels)), right=0.98, bottom=0.14, top=0.92, wspace=0.3)
    for number, draw in enumerate(panels, start=1):
        draw(figure.add_subplot(1, len(panels), number))
    written = io.BytesIO()
    FigureCanvasAgg(figure).print_png(written, metadata={"Software": None})
    return written.getvalue()


def _confusion(panel: "Axes", table: pd.DataFrame, part: str, classes: Sequence[str]) -> None:
    counts = pd.crosstab(table["actual"], table["predicted"])
    cells = counts.reindex(index=list(classes), columns=list(classes), fill_value=0).to_numpy()
    panel.imshow(cells / np.maximum(1, cells.sum(axis=1, keepdims=True)), vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(cells.shape):
        panel.text(column, row, str(cells[row, column]), ha="center", va="center")
    panel.set_xticks(range(len(classes)), classes)
    panel.set_yticks(range(len(classes)), classes)
    _label(panel, f"Confusion, {_TITLES.get(part, part)}", "predicted", "actual")


def _curves(panel: "Axes", table: pd.DataFrame, part: str, classes: Sequence[str], axes: tuple[str, str]) -> None:
    for label in classes:
        own = table[table["class"] == label]
        if len(own):
            panel.plot(own[axes[0]], own[axes[1]], label=label)
    panel.legend(loc="lower right", fontsize="small")
    x, y = (axis.replace("_", " ") for axis in axes)
    _label(panel, f"Each class against the rest, {_TITLES.get(part, part)}", x, y)


def _calibration(panel: "Axes", table: pd.DataFrame, part: str) -> None:
    panel.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for stage, rows in table.groupby("stage", sort=False):
        panel.plot(rows["confidence"], rows["accuracy"], marker="o", label=f"{stage} calibration")
    panel.legend(loc="lower right", fontsize="small")
    _label(panel, f"Calibration, {_TITLES.get(part, part)}", "confidence", "share that is right")


def _abstention(panel: "Axes", table: pd.DataFrame, part: str, metric: str) -> None:
    for name in dict.fromkeys((metric, "accuracy")):
        panel.plot(table["coverage"], table[name], label=name)
    panel.legend(loc="lower right", fontsize="small")
    _label(panel, f"Deciding only when confident, {_TITLES.get(part, part)}", "share decided", "score on these")


def _robustness(panel: "Axes", found: Mapping[str, Any]) -> None:
    metric = found["metric"]
    scored = [(f"{one['kind']} {one['level']:g}", one["scores"][metric]["value"]) for one in found["conditions"]]
    shown = [(name, value) for name, value in scored if value is not None][::-1]
    panel.barh([name for name, _ in shown], [value for _, value in shown])
    panel.tick_params(axis="y", labelsize="x-small")
    clean = found["clean"]["scores"][metric]["value"]
    if clean is not None:
        panel.axvline(clean, color="black", linewidth=0.8)
    _label(panel, "On degraded recordings; the line: as recorded", metric, "")


def _importance(panel: "Axes", shares: Sequence[tuple[str, float]]) -> None:
    panel.barh([choice for choice, _ in shares][::-1], [share for _, share in shares][::-1])
    panel.set_xlim(0, 1)
    _label(panel, "What mattered in the search", "share of the variance between trials", "")


def _label(panel: "Axes", title: str, x: str, y: str) -> None:
    panel.set_title(title, fontsize="medium")
    panel.set_xlabel(x)
    panel.set_ylabel(y)
