"""What commands print for a person: tables on standard output."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heartml.core.system.text import printable

if TYPE_CHECKING:
    from heartml.data.ingest import IngestOutcome
    from heartml.data.ingest.available_tasks import Allowed


def ingest(outcome: "IngestOutcome") -> None:
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


def leave_out(found: Mapping[str, Any]) -> None:
    """Print what `heartml leave-out` found: one row a collection that was left out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from heartml.metrics import METRICS
    from heartml.metrics.scores import in_words

    metric = found["metric"]
    table = Table(title=Text(f"{found['task']}, one {found['by']} left out"), title_justify="left")
    for name in ("left out", "", METRICS[metric].title, METRICS["macro_auc"].title):
        table.add_column(name, no_wrap=True)
    for one in found["left_out"]:
        best, floors = one["best_floor"], one["floors"]
        rows = [("learnt without", one["scores"]), ("learnt with", one["in_collection"]),
                ("difference", {metric: one["difference"]}), *([(f"floor: {best}", floors[best])] if best else [])]
        for row, (what, numbers) in enumerate(rows):
            name = (one["value"], f"{one['units']} units", f"{one['groups']} groups", "")[row]
            auc = in_words(numbers["macro_auc"]) if "macro_auc" in numbers else ""
            table.add_row(Text(printable(name)), what, Text(in_words(numbers[metric])), Text(auc),
                          end_section=row == len(rows) - 1)
    console = Console()
    console.print(table)
    for one in found["left_out"]:
        few = [name for name, entry in one["per_class"].items() if entry["units"] and not entry["estimable"]]
        if few:
            console.print(printable(f"{one['value']}: fewer than {found['min_groups']} groups of {', '.join(few)}: "
                                    "its numbers rest on few"), markup=False)
        if one["unheard"]:
            console.print(printable(f"{one['value']}: nothing else carries {', '.join(one['unheard'])}: it cannot be "
                                    "recognised"), markup=False)
    console.print(f"Intervals at {found['confidence']:.0%}, over groups. Learnt with: the task's own model, which "
                  "knows the collection; each unit by a fit that had not seen its group.")


def tasks(allowed: Sequence["Allowed"], chosen: Sequence[str], min_groups: int) -> None:
    """Print the tasks that the data allow; `chosen` ones stand in params.yaml."""
    from rich.console import Console
    from rich.table import Table

    from heartml.data.ingest.available_tasks import teachable

    table = Table(title="what the ingested data allow", title_justify="left", show_edge=False, pad_edge=False)
    for name in ("task", "unit", "class"):
        table.add_column(name, overflow="fold")
    for name in ("units", "groups"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for task in allowed:
        for row, entry in enumerate(task.classes):
            name = f"{task.name}{' *' if task.name in chosen else ''}" if row == 0 else ""
            few = "few" if entry.groups < min_groups else ""
            table.add_row(name, task.unit if row == 0 else "", entry.name, str(entry.units), str(entry.groups), few)
        lost = "few" if sum(entry.groups >= min_groups for entry in task.classes) < 2 else ""
        table.add_row("", "", "without a label", str(task.unlabelled), "", lost, style="dim", end_section=True)
    console = Console()
    console.print(table)
    console.print(f"* in tasks of params.yaml; few: a class with fewer than {min_groups} groups is not estimable, "
                  "nor a task with fewer than two others")
    groups = Counter(task.group for task in allowed if task.group and teachable(task, min_groups))
    for group, count in groups.items():
        console.print(f"{group} stands for {count} of these: heartml tasks --use {group}", soft_wrap=True)


def chosen(tasks: Sequence[str], left_out: Sequence[str]) -> None:
    """Print what `heartml tasks --use` wrote, and which tasks of a group the data cannot teach."""
    from rich.console import Console

    console = Console()
    console.print(f"params.yaml: tasks is now [{', '.join(tasks)}]", markup=False, soft_wrap=True)
    if left_out:
        console.print(f"Left out, for want of two classes with enough groups: {', '.join(left_out)}", markup=False,
                      soft_wrap=True)
