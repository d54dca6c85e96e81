"""An outline on the terminal, with shortened hashes: ten lines for people, or the whole tree."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from heartml.core.system.text import printable
from heartml.reporting.outline import Node

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

DIGITS = 12      # of a hash on the terminal; `--json` and the page have the whole hash


def summary(node: Node) -> "Table":
    """The nodes directly below `node`, one in each row. What is missing or wrong further below has a row of its own."""
    from rich.table import Table

    table = Table(title=f"{node.name} {node.words}", title_justify="left", title_style="bold", show_header=False,
                  box=None, pad_edge=False)
    for child in node.under:
        table.add_row(_name(child), _words(child))
        for bad in _bad_below(child):
            table.add_row(_name(bad), _words(bad))
    return table


def tree(node: Node, *, whole: bool) -> "Tree":
    """A tree for rich.

    Args:
        whole: print every line. Otherwise lines below a node that is not `open` are left out, unless one of them is
            missing or wrong.
    """
    from rich.tree import Tree

    return _grow(Tree(_line(node), guide_style="dim", highlight=False), node, whole=whole)


def _grow(branch: "Tree", node: Node, *, whole: bool) -> "Tree":
    for child in node.under:
        below = branch.add(_line(child))
        if whole or child.open or _has_bad(child):
            _grow(below, child, whole=whole)
    return branch


def _has_bad(node: Node) -> bool:
    """Whether something below this node is missing or wrong."""
    return any(True for _ in _bad_below(node))


def _bad_below(node: Node) -> Iterator[Node]:
    for child in node.under:
        if child.bad:
            yield child
        yield from _bad_below(child)


def _line(node: Node) -> "Text":
    from rich.text import Text

    return Text(" ", overflow="fold").join(part for part in (_name(node), _words(node)) if part)


def _name(node: Node) -> "Text":
    from rich.text import Text

    return Text(printable(node.name), style="bold red" if node.bad else "bold")


def _words(node: Node) -> "Text":
    from rich.text import Text

    digest = Text(short(node.digest), style="cyan") if node.digest else Text()
    words = Text(printable(node.words), style="red" if node.bad else "")
    return Text(" ", overflow="fold").join(part for part in (digest, words) if part)


def short(digest: str) -> str:
    """The first 12 digits of a hash; any other text as it is.

    >>> short("d41d8cd98f00b204e9800998ecf8427e.dir")
    'd41d8cd98f00.dir'
    """
    head, dot, kind = digest.partition(".")
    return head[:DIGITS] + dot + kind if len(head) > DIGITS and head.isalnum() else digest
