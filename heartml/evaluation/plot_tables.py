"""The tables behind `dvc plots show`: one CSV a plot."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from heartml.core.tasks import Task
from heartml.metrics.scores import Scored, abstention, calibration, confusion_rows, precision_recall, roc


def write_plots(folder: Path, scored: Mapping[str, Scored], task: Task, min_groups: int) -> None:
    """One CSV a plot, both parts one above the other with the column `part`."""
    folder.mkdir()
    plots: dict[str, Callable[[Scored], pd.DataFrame]] = {
        "confusion": confusion_rows, "roc": roc, "precision_recall": precision_recall, "calibration": calibration,
        "abstention": lambda part: abstention(part, task, min_groups),
    }
    for plot, of_part in plots.items():
        tables = [of_part(part).assign(part=name) for name, part in scored.items()]
        pd.concat(tables).to_csv(folder / f"{plot}.csv", index=False, float_format="%.6g", lineterminator="\n")
