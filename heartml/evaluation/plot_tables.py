"""The tables behind `dvc plots show`: one CSV a plot."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from heartml.core.tasks import Task
from heartml.metrics.scores import (
    LabelledPredictions,
    calibration_curve,
    confusion_rows,
    coverage_curve,
    precision_recall_curves,
    roc_curves,
)

_NAMES = {"actual": "str", "predicted": "str", "class": "str", "part": "str"}      # a class may be called 1, or NA


def read_plot(file: Path) -> pd.DataFrame:
    """One table that `write_plots` wrote; names of classes stay as they are written."""
    return pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=_NAMES)


def write_plots(folder: Path, scored: Mapping[str, LabelledPredictions], task: Task, min_groups: int) -> None:
    """Write one CSV a plot; the rows of all parts follow each other, the column `part` tells which is which.

    Args:
        scored: part -> its predictions.
        min_groups: the abstention curve ends where fewer groups are left.
    """
    folder.mkdir()
    plots: dict[str, Callable[[LabelledPredictions], pd.DataFrame]] = {
        "confusion": confusion_rows, "roc": roc_curves, "precision_recall": precision_recall_curves,
        "calibration": calibration_curve,
        "abstention": lambda part: coverage_curve(part, task, min_groups),
    }
    for plot, of_part in plots.items():
        tables = [of_part(part).assign(part=name) for name, part in scored.items()]
        pd.concat(tables).to_csv(folder / f"{plot}.csv", index=False, float_format="%.6g", lineterminator="\n")
