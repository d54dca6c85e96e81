"""What commands print for a person: tables on standard output."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heartml.ingest import Outcome
    from heartml.ingest.inventory import Allowed


def ingest(outcome: "Outcome") -> None:
    """Print what an ingest did."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"data set {outcome.dataset}", title_justify="left")
    table.add_column("in data/")
    table.add_column("number", justify="right")
    for name, number in outcome.counts():
        table.add_row(name, str(number))
    console = Console()
    console.print(table)
    console.print("data.dvc names the new version: commit it." if outcome.changed else "Nothing has changed.")
    if outcome.quarantined:
        console.print("Every refused file and why: data/quarantine.parquet")
    if outcome.tasks_changed:
        console.print(f"params.yaml: tasks is now [{', '.join(outcome.tasks)}] (--keep-tasks leaves it).", markup=False)


def tasks(allowed: Sequence["Allowed"], chosen: Sequence[str], min_groups: int) -> None:
    """Print the tasks that the data allow; `chosen` ones stand in params.yaml."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="what the ingested data allow", title_justify="left")
    for name in ("task", "unit", "class"):
        table.add_column(name, no_wrap=True)
    for name in ("units", "groups"):
        table.add_column(name, justify="right")
    table.add_column("")
    for task in allowed:
        for row, entry in enumerate(task.classes):
            name = f"{task.name}{' *' if task.name in chosen else ''}" if row == 0 else ""
            few = "not estimable" if entry.groups < min_groups else ""
            table.add_row(name, task.unit if row == 0 else "", entry.name, str(entry.units), str(entry.groups), few)
        table.add_row("", "", "without a label", str(task.unlabelled), "", "", style="dim", end_section=True)
    Console().print(table)
    Console().print(f"* in tasks of params.yaml; a class with fewer than {min_groups} groups is not estimable")
    for group, count in Counter(task.group for task in allowed if task.group).items():
        Console().print(f"{group} stands for {count} of these: heartml tasks --use {group}")
