"""Lines in lines: what a page shows of a lineage, and what a terminal prints as a tree.

Made by heartml/lineage, drawn by heartml/reporting; each knows this and not the other.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """One line.

    Attributes:
        name: what it is, in a word or two.
        words: what there is to say.
        digest: its hash or id in full; a narrow place may cut it.
        under: what stands below it.
        text: something long that is shown as it is (a diff).
        bad: whether something is missing or wrong here.
        open: whether a page shows at once what stands below.
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
    """What is known of a registered version: line in line, and in one line."""

    root: Node
    brief: tuple[Node, ...]
