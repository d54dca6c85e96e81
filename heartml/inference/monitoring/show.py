"""What `heartml monitor` prints: the verdict, then one row for each measure."""

from typing import TYPE_CHECKING

from heartml.core.config import MonitorParams
from heartml.inference.monitoring import DriftReport
from heartml.inference.monitoring.drift import DRIFT, FEW, SMALL, Finding

if TYPE_CHECKING:
    from rich.table import Table

STATES = {DRIFT: "drift", SMALL: "certain, but small", FEW: "too few groups"}


def headline(report: DriftReport) -> str:
    """The verdict in one sentence."""
    if report.verdict == DRIFT:
        return f"Drift: {names(report)}"
    if report.verdict == FEW:
        return "Too few new recordings to say"
    return "No drift"


def names(report: DriftReport) -> str:
    """The measures that drifted: `level, bandwidth`."""
    return ", ".join(finding.measure.title.lower() for finding in report.drifted)


def counted(report: DriftReport) -> str:
    """What was compared and what was left out, in a sentence or two."""
    left = [f"{report.seen} known from training or testing" if report.seen else "",
            f"{report.faults} that cannot be scored" if report.faults else ""]
    words = f"; left out: {', '.join(filter(None, left))}" if any(left) else ""
    nameless = (f" {report.unnamed} of the groups are recordings without a patient's name: if some are of one person, "
                "the result is too certain.") if report.unnamed else ""
    return (f"{report.recordings} new recordings of {report.groups} independent groups in {report.files} files"
            f"{words}. One recording of each group is compared.{nameless}")


def rule(params: MonitorParams) -> str:
    """The definition of a drift, with its thresholds."""
    return (f"A drift is certain (p after Holm's correction below {params.alpha:g}) and large (effect of at least "
            f"{params.effect:g}, for embeddings an AUC of at least {params.embedding_auc:g}). A measure needs at least "
            f"{params.min_groups} groups on either side.")


def effect(finding: Finding) -> str:
    """The effect and its threshold: `0.31 / 0.25`, or `AUC 0.74 / 0.7`."""
    if finding.effect is None:
        return ""
    return f"{'AUC ' if finding.measure.kind == 'embedding' else ''}{finding.effect:.2f} / {finding.threshold:g}"


def side(value: float | dict[str, float] | None, unit: str) -> str:
    """A median with its unit, or the shares of the classes."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:.0%}" for name, share in value.items())
    if unit == "share":
        return f"{value:.1%}"
    return f"{value:.0f} {unit}" if abs(value) >= 1000 else f"{value:.3g} {unit}".strip()


def p_value(finding: Finding) -> str:
    """The corrected p value with two digits; empty where there is none."""
    return "" if finding.p_holm is None else f"{finding.p_holm:.2g}"


def show(report: DriftReport, params: MonitorParams) -> None:
    """Print the report to standard output."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(f"{headline(report)}.", style="bold", markup=False, highlight=False)
    console.print(_table(report))
    cautions = [f"Caution: {words}" for words in report.cautions]
    for line in (counted(report), rule(params), f"Model: {report.model}.", *cautions):
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _table(report: DriftReport) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("measure", "", "effect / threshold", "p", "reference", "new", "groups"):
        table.add_column(name, overflow="fold")
    for f in report.findings:
        groups = f"{f.groups[0]} and {f.groups[1]}"
        cells = [f.measure.title, STATES.get(f.state, "no drift"), effect(f), p_value(f),
                 side(f.reference, f.measure.unit), side(f.new, f.measure.unit), groups]
        table.add_row(*map(Text, cells), style="bold red" if f.state == DRIFT else "")
    return table
