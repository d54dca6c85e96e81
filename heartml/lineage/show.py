"""An outline as a tree on the terminal: one line each, hashes cut, long lists cut with how many were left out."""

from typing import TYPE_CHECKING

from heartml.reporting.outline import Node

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

DIGITS = 12      # of a hash; `--json` and the page have all


def tree(node: Node, *, whole: bool) -> "Tree":
    """A tree for rich.

    Args:
        whole: every line; else what stands below a line that is not `open` is left out.
    """
    from rich.tree import Tree

    return _grow(Tree(_line(node), guide_style="dim", highlight=False), node, whole=whole)


def _grow(branch: "Tree", node: Node, *, whole: bool) -> "Tree":
    for child in node.under:
        below = branch.add(_line(child))
        if whole or child.open or _telling(child):
            _grow(below, child, whole=whole)
    return branch


def _telling(node: Node) -> bool:
    """Whether something below is missing or wrong: that is never left out."""
    return any(child.bad or _telling(child) for child in node.under)


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
    """The first digits of a hash; anything else as it is."""
    head, dot, kind = digest.partition(".")
    return head[:DIGITS] + dot + kind if len(head) > DIGITS and head.isalnum() else digest
