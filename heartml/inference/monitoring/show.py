"""What `heartml monitor` prints: the verdict, then one line a measure."""

from typing import TYPE_CHECKING

from heartml.core.config import MonitorParams
from heartml.inference.monitoring import DriftReport
from heartml.inference.monitoring.drift import DRIFT, FEW, SMALL, Finding

if TYPE_CHECKING:
    from rich.table import Table

STATES = {DRIFT: "drift", SMALL: "certain, but small", FEW: "not enough to say"}


def headline(watch: DriftReport) -> str:
    """The verdict in one sentence."""
    if watch.verdict == DRIFT:
        return f"Drift: {names(watch)}"
    if watch.verdict == FEW:
        return "Not enough new recordings to say"
    return "No drift"


def names(watch: DriftReport) -> str:
    """What drifted: `level, bandwidth`."""
    return ", ".join(finding.measure.title.lower() for finding in watch.drifted)


def counted(watch: DriftReport) -> str:
    """What was looked at, in a sentence or two."""
    left = [f"{watch.seen} known from training or testing" if watch.seen else "",
            f"{watch.faults} that cannot be scored" if watch.faults else ""]
    words = f"; left out: {', '.join(filter(None, left))}" if any(left) else ""
    nameless = (f" {watch.unnamed} of the groups are recordings without a patient's name: if some are of one person, "
                "this says too much.") if watch.unnamed else ""
    return (f"{watch.recordings} new recordings of {watch.groups} independent groups in {watch.files} files"
            f"{words}. One recording of each group is compared.{nameless}")


def rule(params: MonitorParams) -> str:
    """When it is a drift."""
    return (f"A drift is certain (p after Holm's correction below {params.alpha:g}) and large (effect of at least "
            f"{params.effect:g}, of embeddings an AUC of at least {params.embedding_auc:g}). With fewer than "
            f"{params.min_groups} groups on either side nothing is said.")


def effect(finding: Finding) -> str:
    """`0.31 of 0.25`: the effect and its threshold; AUCs say that they are."""
    if finding.effect is None:
        return ""
    return f"{'AUC ' if finding.measure.kind == 'embedding' else ''}{finding.effect:.2f} / {finding.threshold:g}"


def side(value: float | dict[str, float] | None, unit: str) -> str:
    """A median with its unit, or shares of classes."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:.0%}" for name, share in value.items())
    if unit == "share":
        return f"{value:.1%}"
    return f"{value:.0f} {unit}" if abs(value) >= 1000 else f"{value:.3g} {unit}".strip()


def p_value(finding: Finding) -> str:
    """Of the corrected p, two digits."""
    return "" if finding.p_holm is None else f"{finding.p_holm:.2g}"


def show(watch: DriftReport, params: MonitorParams) -> None:
    """Print it on standard output."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(f"{headline(watch)}.", style="bold", markup=False, highlight=False)
    console.print(_table(watch))
    for line in (counted(watch), rule(params), f"Model: {watch.model}."):
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _table(watch: DriftReport) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("measure", "", "effect / threshold", "p", "reference", "new", "groups"):
        table.add_column(name, overflow="fold")
    for f in watch.findings:
        groups = f"{f.groups[0]} and {f.groups[1]}"
        cells = [f.measure.title, STATES.get(f.state, "no drift"), effect(f), p_value(f),
                 side(f.reference, f.measure.unit), side(f.new, f.measure.unit), groups]
        table.add_row(*map(Text, cells), style="bold red" if f.state == DRIFT else "")
    return table
