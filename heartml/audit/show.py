"""An audit for people: ten lines or a table on the terminal, an HTML page, rows for a Prefect artifact."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from heartml.audit.links import BROKEN, HOLDS, MISSING, Audit
from heartml.core.system.text import printable
from heartml.reporting.environment import environment

if TYPE_CHECKING:
    from rich.console import Console

    from heartml.audit.reproduce import Reproduction

_WIDE = 120        # columns
# What the links are about: the links whose findings stand for them all, and all of them.
AREAS = {
    "Signature": (("signature",), ("export", "signature", "record", "no_pickle")),
    "Code": (("commit",), ("commit", "difference", "stage_code", "model_code", "pipeline", "parameters", "packages")),
    "Data": (("data",), ("data_version", "data", "data_here", "validation", "groups")),
    "Stages": (("outputs",), ("lock", "stages", "outputs", "reproduced")),
    "Model": (("model",), ("model", "weights", "results")),
    "Scores": (("metrics",), ("metrics", "decisions")),
    "Release": (("gate", "alias"), ("gate", "alias")),
    "Consent": (("withdrawn",), ("withdrawn",)),
}
_STYLES = {HOLDS: "green", BROKEN: "bold red", MISSING: "bold yellow"}


def summary(audit: Audit, console: "Console") -> None:
    """Print what was audited, one line for each of `AREAS`, and every link that does not hold."""
    from rich.table import Table
    from rich.text import Text

    version = audit.version
    lines = Table.grid(padding=(0, 2))
    for area, (first, names) in AREAS.items():
        own = [link for link in audit.links if link.name in names]
        if not own:
            continue
        bad = [link for link in own if link.state != HOLDS]
        state = bad[0].state if bad else HOLDS
        found = "; ".join([link.found for link in own if link.name in first] or [own[0].found])
        lines.add_row(Text(area, "bold"), Text(state, _STYLES[state]), f"{len(own)} link{'s' * (len(own) > 1)}",
                      "" if bad else Text(printable(found)))
        for link in bad:
            lines.add_row("", "", "", Text(printable(f"{link.title}: {link.found} (expected: {link.expected})"), "red"))
    registered = f"registered {datetime.fromtimestamp(version.created_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    console.print(Text(", ".join((f"{version.name} version {version.number}", *version.aliases, registered)), "bold"))
    console.print(lines)
    _verdict(audit, console)


def _verdict(audit: Audit, console: "Console") -> None:
    from rich.text import Text

    console.print(Text(f"{audit.verdict}, {audit.seconds:.1f} s", "bold green" if audit.holds else "bold red"))


def table(audit: Audit, console: "Console") -> None:
    """Print every link; for one that does not hold also what was expected. A wide terminal shows what each rests on."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    version, wide = audit.version, console.width >= _WIDE
    links = Table("State", "Link", "Found", *(["Rests on"] if wide else []), box=box.SIMPLE_HEAD, pad_edge=False,
                  title=f"{version.name} version {version.number}", title_justify="left")
    for link in audit.links:
        expected = Text(f"Expected: {link.expected}\n", "dim") if link.state != HOLDS else Text()
        links.add_row(Text(link.state, _STYLES[link.state]), link.title, expected + Text(printable(link.found)),
                      *([link.rests_on] if wide else []))
    console.print(links)
    _verdict(audit, console)


def reproduction(found: "Reproduction", console: "Console") -> None:
    """Print every output of a reproduction."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    outputs = Table("Compared", "Output", box=box.SIMPLE_HEAD, pad_edge=False,
                    title=f"Reproduced in {found.seconds:.0f} s", title_justify="left")
    for one in found.outputs:
        outputs.add_row(one.state, Text(printable(f"{one.path}: {one.words}" if one.words else one.path)))
    console.print(outputs)


def page(audit: Audit) -> str:
    """The links as one HTML page. It loads nothing from elsewhere."""
    template = environment().get_template("audit.html.jinja")
    return template.render(audit=audit, version=audit.version, links=audit.links, holds=HOLDS)


def rows(audit: Audit) -> list[dict[str, str]]:
    """One row for each link, for Prefect's table artifact."""
    return [{"Link": link.title, "State": link.state, "Found": printable(link.found), "Rests on": link.rests_on}
            for link in audit.links]
