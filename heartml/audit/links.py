"""What an audit says: one line a link, whether it holds, what was expected, what was found, and what that rests on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from heartml.core.system.errors import HeartMLError
from heartml.registry.versions import Version

HOLDS, BROKEN, MISSING = "holds", "broken", "missing"
SIGNATURE = "the signature"                 # of a key that is trusted here; the strongest
CONTENT = "content hashes"                  # bytes, hashed again, against what the lock or the signature names
GIT = "git"                                 # a commit's name is the hash of its content
AGAIN = "computed again"                    # from stored answers, with this code
REGISTRY = "the registry's own words"       # whoever can write to it can forge them
_SHORT = 300


class Lost(HeartMLError):  # noqa: N818 - reads as what is the case
    """What a link needs is not there: the link is missing. The message says what, and the way out."""


class Wrong(HeartMLError):  # noqa: N818 - reads as what is the case
    """A link is broken; the message says what was found."""


@dataclass(frozen=True)
class AuditLink:
    """One link of the chain.

    Attributes:
        name: key, for programs.
        title: for people.
        state: `holds`, `broken` or `missing`.
        expected, found: in words.
        rests_on: what makes it worth something.
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
        """Whether every link does."""
        return all(link.state == HOLDS for link in self.links)

    @property
    def verdict(self) -> str:
        """`all 24 links hold`, or how many do not."""
        counts = {state: sum(link.state == state for link in self.links) for state in (BROKEN, MISSING)}
        if self.holds:
            return f"all {len(self.links)} links hold"
        return f"{' and '.join(f'{counts[s]} {s}' for s in (BROKEN, MISSING) if counts[s])} of {len(self.links)} links"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"model": self.version.name, "version": self.version.number, "run_id": self.version.run_id,
                "holds": self.holds, "verdict": self.verdict, "seconds": round(self.seconds, 2),
                "links": [asdict(link) for link in self.links]}


def agree(said: Mapping[str, object], what: str = "all the same") -> str:
    """What all witnesses say, in words.

    Raises:
        Lost: one says nothing (`None` or empty).
        Wrong: they differ; the message says who says what.
    """
    silent = [who for who, value in said.items() if value in (None, "")]
    if silent:
        raise Lost(f"{', '.join(silent)} say{'s' * (len(silent) == 1)} nothing of it")
    values = {str(value) for value in said.values()}
    if len(values) > 1:
        raise Wrong("; ".join(f"{who}: {short(value)}" for who, value in said.items()))
    return f"{short(values.pop())}, {what} in {', '.join(said)}"


def short(value: object, most: int = 16) -> str:
    """The beginning of a hash."""
    text = str(value)
    return text if len(text) <= most else text[:most]


def listed(words: list[str], most: int = 3) -> str:
    """The first few, and how many more."""
    more = f"; and {len(words) - most} more" if len(words) > most else ""
    text = "; ".join(words[:most]) + more
    return text if len(text) <= 3 * _SHORT else f"{text[:3 * _SHORT]} ..."
