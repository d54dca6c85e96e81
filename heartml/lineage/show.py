"""An outline as a tree on the terminal: one line for each node, with shortened hashes."""

from typing import TYPE_CHECKING

from heartml.reporting.outline import Node

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

DIGITS = 12      # of a hash on the terminal; `--json` and the page have the whole hash


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
    return any(child.bad or _has_bad(child) for child in node.under)


def _line(node: Node) -> "Text":
    from rich.text import Text

    line = Text(no_wrap=False, overflow="fold")
    line.append(node.name, style="bold red" if node.bad else "bold")
    if node.digest:
        line.append(f" {short(node.digest)}", style="cyan")
    if node.words:
        line.append(f" {node.words}", style="red" if node.bad else "")
    return line


def short(digest: str) -> str:
    """The first 12 digits of a hash; any other text as it is.

    >>> short("d41d8cd98f00b204e9800998ecf8427e.dir")
    'd41d8cd98f00.dir'
    """
    head, dot, kind = digest.partition(".")
    return head[:DIGITS] + dot + kind if len(head) > DIGITS and head.isalnum() else digest
