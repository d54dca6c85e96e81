"""An audit for people: a table on the terminal, an HTML page, rows for a Prefect artifact."""

from typing import TYPE_CHECKING

from heartml.audit.links import BROKEN, HOLDS, MISSING, Audit
from heartml.core.system.text import printable
from heartml.reporting.environment import environment

if TYPE_CHECKING:
    from rich.console import Console

    from heartml.audit.reproduce import Reproduction

_WIDE = 120        # columns
_STYLES = {HOLDS: "green", BROKEN: "bold red", MISSING: "bold yellow"}


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
    console.print(Text(f"{audit.verdict}, {audit.seconds:.1f} s", "bold green" if audit.holds else "bold red"))


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
