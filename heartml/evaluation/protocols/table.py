"""What `heartml protocol` prints: the paper's columns for every system, below the numbers that the paper reports."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from heartml.core.tasks import TASKS

PAPER = (("M2D, published (arXiv 2404.17107)", ".832", ".713"), ("its ensemble of best W.acc", ".837", ".716"),
         ("its ensemble of best UAR", ".832", ".733"))
CLASSES = TASKS["murmur"].classes
TITLES = {"single": "one network, the paper's rule", "ensemble": "ensemble, stacked per patient",
          "finetune": "fine-tuned, the paper's rule"}


def show(found: Mapping[str, Any]) -> None:
    """Print the results of `circor_m2d.run`."""
    runs = len(found["splits"])
    table = Table(title=f"CirCor murmur, mean and SD over {runs} splits and seeds", title_justify="left")
    for name in ("", "W.acc", "UAR", *CLASSES, "W.acc, new children", "UAR, new children", "outcome cost"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for title, w_acc, uar in PAPER:
        table.add_row(title, w_acc, uar, style="dim")
    for system, title in _titles(found):
        row, sd = found[system], found[system]["sd"]
        cells = [_cell(row.get(key), sd.get(key)) for key in ("w_acc", "uar")]
        cells += [_cell(row["recall"].get(name), sd["recall"].get(name)) for name in CLASSES]
        cells += [_cell(row.get(key), sd.get(key)) for key in ("w_acc_twin_free", "uar_twin_free")]
        cost = row.get("outcome_cost")
        table.add_row(title, *cells, "" if cost is None else f"{cost:,.0f}")
    console = Console(width=None if Console().is_terminal else 180)
    console.print(table)
    for line in remarks(found):
        console.print(line, markup=False)


def _titles(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The systems that were scored, and their titles."""
    return [(system, title) for system, title in TITLES.items() if system in found]


def remarks(found: Mapping[str, Any]) -> list[str]:
    """Lines below the table: counts of the data and of each split, pooled scores, a warning about other splits."""
    data = found["data"]
    lines = [f"{data['patients']} ids of {data['children']} children, {data['recordings']} recordings; files refused: "
             f"{', '.join(f'{n} {reason}' for reason, n in data['refused'].items()) or 'none'}"]
    for one in found["splits"]:
        parts = " / ".join(str(one["patients"][name]) for name in ("train", "validation", "test"))
        lacking = f", {one['not_here']} of its patients are not in this folder" if one["not_here"] else ""
        lines.append(f"{one['split']}, seed {one['seed']}: {parts} patients, {one['twins']} test patients are children "
                     f"with another id in development{lacking}")
    for system, title in _titles(found) if found["pooled"] else ():
        numbers = ", ".join(f"{name} {value:.3f} [{low:.3f}, {high:.3f}]"
                            for name, (value, low, high) in found["pooled"][system].items())
        lines.append(f"all {found['pooled']['patients']} test patients together, {title}: {numbers}")
    if not all(one["patients"]["test"] == 236 for one in found["splits"]):
        lines.append("These are not the paper's test parts: the published rows are for orientation only.")
    return lines


def _cell(value: float | None, sd: float | None) -> str:
    if value is None:
        return "not defined"
    return f"{value:.3f}" + ("" if sd is None else f" ({sd:.3f})")
