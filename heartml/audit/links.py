"""The result of an audit: for each link whether it holds, what was expected, what was found, and what that rests on.

In: what the checks return or raise. Out: `AuditLink`s and an `Audit`, for people and as JSON.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from heartml.core.system.errors import HeartMLError
from heartml.registry.versions import Version

HOLDS, BROKEN, MISSING = "holds", "broken", "missing"
SIGNATURE = "the signature"                 # of a trusted key; the strongest
CONTENT = "content hashes"                  # bytes are hashed again and compared with the lock or the signature
GIT = "git"                                 # a commit's name is the hash of its content
RECOMPUTED = "computed again"               # from stored predictions, with this code
REGISTRY = "the registry's entries"         # whoever can write to the registry can forge them
_SHORT = 300


class LinkMissing(HeartMLError):  # noqa: N818 - reads as what is the case
    """A link is missing, because something it needs is not there. The message says what, and what can be done."""


class LinkBroken(HeartMLError):  # noqa: N818 - reads as what is the case
    """A link is broken. The message says what was found."""


@dataclass(frozen=True)
class AuditLink:
    """One link of the chain.

    Attributes:
        name: key, for programs.
        title: for people.
        state: `holds`, `broken` or `missing`.
        expected, found: in words.
        rests_on: what the result rests on: the signature, content hashes, git, a computation, or the registry.
    """

    name: str
    title: str
    state: str
    expected: str
    found: str
    rests_on: str


@dataclass(frozen=True)
class Audit:
    """All links of one version."""

    version: Version
    links: tuple[AuditLink, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether every link holds."""
        return all(link.state == HOLDS for link in self.links)

    @property
    def verdict(self) -> str:
        """`all 24 links hold`, or how many do not."""
        counts = {state: sum(link.state == state for link in self.links) for state in (BROKEN, MISSING)}
        if self.holds:
            return f"all {len(self.links)} links hold"
        return f"{' and '.join(f'{counts[s]} {s}' for s in (BROKEN, MISSING) if counts[s])} of {len(self.links)} links"

    def as_json(self) -> dict[str, Any]:
        """The audit as plain values, for programs."""
        return {"model": self.version.name, "version": self.version.number, "run_id": self.version.run_id,
                "holds": self.holds, "verdict": self.verdict, "seconds": round(self.seconds, 2),
                "links": [asdict(link) for link in self.links]}


def require_same(values: Mapping[str, object], what: str = "all the same") -> str:
    """Check that one value is the same wherever it is stored; returns it in words.

    Args:
        values: place -> the value that is stored there.

    Raises:
        LinkMissing: a place has no value (`None` or empty).
        LinkBroken: the values differ. The message says what each place has.

    >>> require_same({"the run's tag": "ab12", "lineage.json": "ab12"}, "the same")
    "ab12, the same in the run's tag, lineage.json"
    """
    lacking = [place for place, value in values.items() if value in (None, "")]
    if lacking:
        raise LinkMissing(f"no value in {', '.join(lacking)}")
    different = {str(value) for value in values.values()}
    if len(different) > 1:
        raise LinkBroken("; ".join(f"{place}: {short(value)}" for place, value in values.items()))
    return f"{short(different.pop())}, {what} in {', '.join(values)}"


def short(value: object, most: int = 16) -> str:
    """The first characters of a hash or another value."""
    text = str(value)
    return text if len(text) <= most else text[:most]


def listed(words: list[str], most: int = 3) -> str:
    """The first few of these, and how many more there are.

    >>> listed(["a", "b", "c", "d"])
    'a; b; c; and 1 more'
    """
    more = f"; and {len(words) - most} more" if len(words) > most else ""
    text = "; ".join(words[:most]) + more
    return text if len(text) <= 3 * _SHORT else f"{text[:3 * _SHORT]} ..."
