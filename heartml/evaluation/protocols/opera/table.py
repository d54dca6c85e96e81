"""What `heartml protocol opera` prints: one table a task, published numbers above ours."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from heartml.evaluation.protocols.opera.tasks import MACRO_AUC

_TITLES = {"average": "average of time and bands", "mean": "bands kept, mean of time"}
_METRICS = {MACRO_AUC: "AUROC", "icbhi_score": "ICBHI score"}


def show(found: Mapping[str, Any]) -> None:
    """Print the results of `opera.run`."""
    console = Console(width=None if Console().is_terminal else 160)
    for one in found["tasks"].values():
        console.print(_table(one, found["seeds"]))
        for line in remarks(one):
            console.print(line, markup=False, soft_wrap=True)
        console.print()
    for name, why in found["left_out"].items():
        console.print(f"{name} is left out: {why}", markup=False, soft_wrap=True)


def _table(one: Mapping[str, Any], seeds: int) -> Table:
    number = f"{one['number']} " if one["number"] else ""
    table = Table(title=f"{number}{one['title']}", title_justify="left")
    metrics = list(one["encoders"][0]["scores"])
    crossing = one["test_persons_in_training"] > 0
    for name in ("encoder", "pooling", *(_METRICS[metric] for metric in metrics), "of the seeds' mean, interval",
                 *(["new persons"] if crossing else [])):
        table.add_column(name, justify="left" if name in ("encoder", "pooling") else "right", no_wrap=True)
    for encoder, value in one["published"].items():
        table.add_row(f"{encoder}, published", "", f"{value:.3f}", style="dim")
    for row in one["encoders"]:
        first = row["scores"][one["metric"]]
        means = [_spread(row["scores"][metric]["mean"], row["scores"][metric]["sd"], seeds) for metric in metrics]
        interval = f"{_number(first['value'])} [{_number(first['low'])}, {_number(first['high'])}]"
        table.add_row(row["encoder"], _TITLES[row["pooling"]], *means, interval,
                      *([_number(row["new_persons"])] if crossing else []))
    return table


def remarks(one: Mapping[str, Any]) -> list[str]:
    """Lines below a table: the parts, the split, what was refused, what the published numbers can be held against."""
    parts = ", ".join(f"{name} {part['cases']} of {part['persons']} persons" for name, part in one["parts"].items())
    lines = [f"{parts}; {one['split_words']}"]
    if one["not_in_split"]:
        lines.append(f"{one['not_in_split']} cases are not in the published split and are left out")
    if one["test_persons_in_training"]:
        lines.append(f"{one['test_persons_in_training']} persons of the test part are in training too, as published; "
                     "the last column is without them")
    if one["refused"]:
        lines.append("files refused: " + ", ".join(f"{count} {reason}" for reason, count in one["refused"].items()))
    if one["published"] and one["split"] == "drawn":
        lines.append("This is not the published split: the published rows are for orientation only.")
    if not one["published"]:
        lines.append("The benchmark's own numbers for it are not known here.")
    return lines


def _spread(value: float | None, sd: float | None, seeds: int) -> str:
    return _number(value) + (f" ({sd:.3f})" if seeds > 1 and sd is not None and value is not None else "")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
