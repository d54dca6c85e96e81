"""Tables that commands print to standard output."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heartml.core.system.text import printable

_WIDE = 140      # columns of a table that does not go to a terminal

if TYPE_CHECKING:
    from heartml.data.ingest import IngestOutcome
    from heartml.data.ingest.available_tasks import AvailableTask
    from heartml.inference.weights import ListedWeights


def ingest(outcome: "IngestOutcome") -> None:
    """Print the result of an ingest."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"data set {outcome.dataset}", title_justify="left")
    table.add_column("would be in data/" if outcome.dry_run else "in data/")
    table.add_column("number", justify="right")
    for name, number in outcome.counts():
        table.add_row(name, str(number))
    console = Console()
    console.print(table)
    for words in outcome.notes:
        console.print(printable(words), markup=False, highlight=False, soft_wrap=True)
    if outcome.persons:
        console.print(outcome.persons, markup=False, highlight=False, soft_wrap=True)
    if outcome.first_refused:
        number = sum(outcome.quarantined.values())
        some = number > len(outcome.first_refused)
        first = f"the first {len(outcome.first_refused)} of " if some else ""
        every = " (--dry-run --json lists all)" if some and outcome.dry_run else ""
        console.print(f"Refused, {first}{number}{every}:")
        for words in outcome.first_refused:
            console.print(f"  {printable(words)}", markup=False, highlight=False, soft_wrap=True)
    for words in _consequences(outcome):
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    if outcome.dry_run:
        console.print("A dry run: nothing was written.")
        return
    console.print("data.dvc names the new version: commit it." if outcome.changed else "Nothing has changed.")
    if outcome.quarantined:
        console.print("Refused files, each with its reason: data/quarantine.parquet")


def _consequences(outcome: "IngestOutcome") -> list[str]:
    """What an ingest changes besides the data set, or would change after a dry run."""
    found = []
    if outcome.tasks_changed:
        changes = "would become" if outcome.dry_run else "is now"
        found.append(f"params.yaml: tasks {changes} [{', '.join(outcome.tasks)}] (--keep-tasks leaves it).")
    if outcome.demo_left:
        leaves = "would leave" if outcome.dry_run else "has left"
        found.append(f"The demo corpus ({outcome.demo_left} simulated recordings) {leaves} data/. `heartml simulate "
                     "demo` and `heartml ingest simulated demo` bring it back.")
    return found


def leave_out(found: Mapping[str, Any]) -> None:
    """Print the result of `heartml leave-out`: a few rows for each collection that was left out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from heartml.metrics import METRICS
    from heartml.metrics.scores import interval_text

    metric = found["metric"]
    table = Table(title=Text(f"{found['task']}, one {found['by']} left out"), title_justify="left")
    for name in ("left out", "", METRICS[metric].title, METRICS["macro_auc"].title):
        table.add_column(name, no_wrap=True)
    for one in found["left_out"]:
        best, baselines = one["best_floor"], one["floors"]
        rows = [("trained without it", one["scores"]), ("trained with it", one["in_collection"]),
                ("difference", {metric: one["difference"]}),
                *([(f"baseline: {best}", baselines[best])] if best else [])]
        for row, (what, numbers) in enumerate(rows):
            name = (one["value"], f"{one['units']} units", f"{one['groups']} groups", "")[row]
            auc = interval_text(numbers["macro_auc"]) if "macro_auc" in numbers else ""
            table.add_row(Text(printable(name)), what, Text(interval_text(numbers[metric])), Text(auc),
                          end_section=row == len(rows) - 1)
    console = Console()
    console.print(table)
    for one in found["left_out"]:
        few = [name for name, entry in one["per_class"].items() if entry["units"] and not entry["estimable"]]
        if few:
            console.print(printable(f"{one['value']}: fewer than {found['min_groups']} groups of {', '.join(few)}: "
                                    "its numbers are uncertain"), markup=False)
        if one["unheard"]:
            console.print(printable(f"{one['value']}: no other collection has {', '.join(one['unheard'])}: it cannot "
                                    "be recognised"), markup=False)
    console.print(f"Intervals at {found['confidence']:.0%}, over groups. Trained with it: the task's own model, whose "
                  "training data hold the collection; its predictions are out-of-fold.")


def tasks(allowed: Sequence["AvailableTask"], chosen: Sequence[str], min_groups: int) -> None:
    """Print the tasks that the data allow; those in `chosen` are in params.yaml."""
    from rich.console import Console
    from rich.table import Table

    from heartml.data.ingest.available_tasks import is_trainable

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
                  "nor is a task without two estimable classes")
    groups = Counter(task.group for task in allowed if task.group and is_trainable(task, min_groups))
    for group, count in groups.items():
        console.print(f"{group} stands for {count} of these: heartml tasks --use {group}", soft_wrap=True)


def chosen_tasks(tasks: Sequence[str], left_out: Sequence[str]) -> None:
    """Print what `heartml tasks --use` wrote, and which tasks of a group have too few data."""
    from rich.console import Console

    console = Console()
    console.print(f"params.yaml: tasks is now [{', '.join(tasks)}]", markup=False, soft_wrap=True)
    if left_out:
        console.print(f"Left out, because two classes with enough groups are missing: {', '.join(left_out)}",
                      markup=False, soft_wrap=True)


def weights(found: Sequence["ListedWeights"]) -> None:
    """Print the weights that the project tracks."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not found:
        console.print("No weights yet: heartml weights add PATH --kind KIND --licence WORDS", markup=False)
        return
    table = Table(title="weights of pre-trained encoders", title_justify="left")
    for name in ("name", "kind", "MB", "here", "licence", "may be passed on", "SHA-256"):
        table.add_column(name, justify="right" if name == "MB" else "left")
    for one in found:
        table.add_row(*(Text(printable(cell)) for cell in (
            one.name, one.kind, f"{one.megabytes:.1f}", "yes" if one.here else "no: dvc pull", one.licence,
            "yes" if one.redistribute else "no", one.sha256[:12])))
    console.print(table)


def probe(found: Mapping[str, Any]) -> None:
    """Print a probe: for each task its encoders, best first; then the ranks where there are several tasks."""
    from rich.console import Console
    from rich.table import Table

    from heartml.metrics.scores import interval_text

    console = Console()
    if not console.is_terminal:      # a file is not as narrow as rich takes it to be
        console = Console(width=_WIDE + _WIDE // 4)
    for task, own in found["tasks"].items():
        table = Table(title=f"{task}: {own['units']} units of {own['groups']} groups", title_justify="left",
                      show_edge=False, pad_edge=False)
        against = {"AUC - logspec": "against_logspec", "AUC - random weights": "against_random"}
        if first := found.get("first"):      # not in results of before it
            against[f"AUC - {first}"] = "against_first"
        for name in ("encoder", "AUC", "UAR", "log loss", *against, "s/h", "MB/h"):
            table.add_column(name, justify="left" if name == "encoder" else "right")
        for row in own["encoders"]:
            chosen = row["scores"]["chosen"]
            changes = [_change(row[key]) for key in against.values()]
            table.add_row(row["encoder"], interval_text(chosen["macro_auc"]), f"{chosen['uar']['value']:.3f}",
                          f"{chosen['log_loss']['value']:.3f}", *changes, f"{row['cost']['seconds_an_hour']:.1f}",
                          f"{row['cost']['megabytes_an_hour']:.0f}")
            for name, scores in row["scores"].items():
                if name != "chosen" and len(row["scores"]) > 2:
                    table.add_row(f"  {name}", interval_text(scores["macro_auc"]), f"{scores['uar']['value']:.3f}",
                                  f"{scores['log_loss']['value']:.3f}", style="dim")
        console.print(table)
    if len(found["tasks"]) > 1:
        console.print("Mean rank: " + ", ".join(f"{row['encoder']} {row['mean_rank']:.1f}" for row in found["ranks"]),
                      markup=False, soft_wrap=True)
    console.print("Pooling and penalty of an encoder's row were chosen inside the training folds; intervals are over "
                  "groups; s/h and MB/h are for an hour of sound", soft_wrap=True)


def _change(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return ""
    one = difference["macro_auc"]
    return "not defined" if one["low"] is None else f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
