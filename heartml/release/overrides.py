"""What a person decides over the gate's head: promote a version, or roll back to one that served before.

Each decision goes into the journal of champions (heartml/registry/champions.py) with who, when, why, and what the gate
had said.
The next retraining does not undo it: the version that was rolled back is registered and settled, so it is nothing new.
"""

import getpass
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import scratch
from heartml.lineage import capture
from heartml.registry import champions, consent, model_files, tracking, versions
from heartml.registry.champions import NONE, PERSON, ROLLBACK, Decision, Entry
from heartml.registry.versions import ABANDONED, CHALLENGER, CHAMPION, ChampionChanged, Version

if TYPE_CHECKING:
    from heartml.registry.tracking import Client

_MUST_HOLD = ("validation", "lineage")     # criteria of the gate that no opinion replaces


class PromotionRefused(HeartMLError):  # noqa: N818 - reads as what it is
    """The decision is not carried out; the message says why and what would help."""


@dataclass(frozen=True)
class Decided:
    """What came of it: the version, and its entry in the journal; `None` where it served already."""

    version: Version
    entry: Entry | None

    def in_words(self) -> str:
        """One line for people."""
        if self.entry is None:
            return f"{self.version.name}: version {self.version.number} is the champion already; nothing changed"
        overruled = f" (overruled: {self.entry.decision.forced})" if self.entry.decision.forced else ""
        return f"{self.version.name}: {self.entry.in_words()}{overruled}"


def promote(words: str, reason: str, *, force: bool = False) -> Decided:
    """Make NAME/VERSION (or NAME@challenger) the champion because a person says so.

    Raises:
        Objection: there is no reason; or the version was withdrawn, or failed the gate on validation or lineage, and
            `force` is not given.
        RegistryError: no such version, or its files are gone.
    """
    _reasonable(reason)
    client = tracking.connect()
    version = versions.get(client, words)
    return _carry_out(client, version, PERSON, reason, force=force)


def roll_back(name: str, to: str | None, reason: str, *, force: bool = False) -> Decided:
    """Back to the champion before this one, or to version `to`, which must have served. Again: forth.

    Raises:
        Objection, RegistryError: as `promote`; or there is nothing to go back to.
    """
    _reasonable(reason)
    client = tracking.connect()
    versions.follow(client, name)
    serving = versions.get(client, f"{name}@{CHAMPION}").number
    entries = champions.read(client, name)
    number = to or _before(entries, serving)
    served = {v for e in champions.counted(entries) for v in (e.decision.version, e.decision.before)}
    others = sorted(served - {NONE, serving}, key=int)
    if number is None or number == NONE:
        raise PromotionRefused(f"{name}: version {serving} is the first champion, there is nothing to go back to. "
                               f"`heartml promote {name}/VERSION` makes another version the champion")
    if number not in served and number != serving:
        raise PromotionRefused(f"{name}: version {number} never served (version{'s' * (len(others) != 1)} "
                        f"{', '.join(others) or NONE} did). `heartml promote {name}/{number}` would be its first time")
    return _carry_out(client, versions.get(client, f"{name}/{number}"), ROLLBACK, reason, force=force)


def _before(entries: list[Entry], serving: str) -> str | None:
    """The champion before `serving`; an alias that was moved by hand stands before the journal's last entry."""
    known = champions.last(entries)
    if known is None:
        return None
    return known.decision.before if known.decision.version == serving else known.decision.version


def _carry_out(client: "Client", version: Version, kind: str, reason: str, *, force: bool) -> Decided:
    versions.follow(client, version.name)
    version = versions.get(client, f"{version.name}/{version.number}")
    if CHAMPION in version.aliases:
        return Decided(version, None)
    objections = against(version)
    if objections and not force:
        raise PromotionRefused(f"{version.name} version {version.number}: {'; '.join(objections)}. --force does it all "
                               "the same, and is recorded")
    with scratch() as folder:
        model_files.download(client, version, folder)
    serving = versions.champion(client, version.name)
    decision = Decision(kind, version.number, serving.number if serving else NONE, reason.strip(), current_person(),
                        version.tags.get("heartml.reason", ""), "; ".join(objections))
    try:
        entry = versions.decide(client, version, decision)
    except ChampionChanged as error:
        raise PromotionRefused(f"{error}: somebody else decided at the same time. Look at `heartml models`, then "
                               "decide again") from None
    if CHALLENGER in version.aliases:
        versions.no_challenger(client, version)
    return Decided(versions.get(client, f"{version.name}/{version.number}"), entry)


def against(version: Version) -> list[str]:
    """What speaks against a version so much that only --force overrules it."""
    found = []
    if gone := consent.words(version):
        found.append(f"consent for data in it was withdrawn: {gone}")
    if version.verdict in (None, ABANDONED):
        found.append("the gate never judged it (`heartml retrain` lets it judge what is new)")
    for name in _MUST_HOLD:
        said = version.tags.get(f"heartml.gate.{name}", "")
        if said.startswith("failed"):
            found.append(f"{name} {said}")
    return found


def current_person() -> str:
    """Who decides: `Ada Lovelace <ada@example.org> (ada on machine)`, as far as git and the system know."""
    name, email = (capture.git("config", key).strip() for key in ("user.name", "user.email"))
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "an unknown user"
    known = [name, *([f"<{email}>"] if email else []), f"({user} on {platform.node()})"]
    return " ".join(part for part in known if part)


def _reasonable(reason: str) -> None:
    if not reason.strip():
        raise PromotionRefused("a decision needs a reason: --reason \"...\" is what people will read in a year")
