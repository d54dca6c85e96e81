"""A nested list of lines: how a page shows a lineage, and what a terminal prints as a tree.

heartml/lineage makes it and heartml/reporting draws it. Neither imports the other; both import this module.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """One line.

    Attributes:
        name: what it is, in a word or two.
        words: a short description.
        digest: its hash or id in full; it may be shortened where there is little space.
        under: the lines below it.
        text: a long text that is shown as it is, for instance a diff.
        bad: whether something is missing or wrong here.
        open: whether a page shows the lines below from the start.
    """

    name: str
    words: str = ""
    digest: str = ""
    under: tuple["Node", ...] = ()
    text: str = ""
    bad: bool = False
    open: bool = False


@dataclass(frozen=True)
class Lineage:
    """The lineage of a registered version: `root` with all lines below it, and `brief`, the same in a few nodes."""

    root: Node
    brief: tuple[Node, ...]
