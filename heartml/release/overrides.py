"""Decisions of a person that override the gate: promote a version, roll back to one that served before, or retire one.

In: a version's name and the person's reason. Out: an entry in the journal of champions (heartml/registry/champions.py)
with who, when, why, and the gate's reason.

The next retraining does not undo such a decision. The version that was rolled back is registered and settled, so it is
nothing new. After a retirement the gate refuses every version, until a person promotes one.
"""

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heartml.core.system import processes
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import temporary_folder
from heartml.pipeline import git
from heartml.registry import champions, consent, model_files, tracking, versions
from heartml.registry.champions import NONE, PERSON, RETIREMENT, ROLLBACK, Decision, Entry
from heartml.registry.versions import ABANDONED, CHALLENGER, CHAMPION, ChampionChanged, Version

if TYPE_CHECKING:
    from heartml.registry.tracking import Client

_REQUIRED = ("validation", "lineage")     # criteria of the gate that a person overrules only with --force


class PromotionRefused(HeartMLError):  # noqa: N818 - reads as what it is
    """The decision is not carried out. The message says why, and what can be done."""


@dataclass(frozen=True)
class OverrideResult:
    """The version, and its entry in the journal; `None` if it was the champion already."""

    version: Version
    entry: Entry | None

    def in_words(self) -> str:
        """One line for people."""
        if self.entry is None:
            return f"{self.version.name}: version {self.version.number} is the champion already; nothing changed"
        overruled = f" (overruled: {self.entry.decision.forced})" if self.entry.decision.forced else ""
        return f"{self.version.name}: {self.entry.in_words()}{overruled}"


def promote(words: str, reason: str, *, force: bool = False) -> OverrideResult:
    """Make NAME/VERSION (or NAME@challenger) the champion by a person's decision.

    Args:
        reason: why, in the person's words.
        force: promote it although `refusal_reasons` finds some.

    Raises:
        PromotionRefused: the reason is empty, or `refusal_reasons` finds some and `force` is not given.
        RegistryError: there is no such version, or its files are gone.
    """
    _check_reason(reason)
    client = tracking.connect_to_existing()
    version = versions.get(client, words)
    return _carry_out(client, version, PERSON, reason, force=force)


def roll_back(name: str, to: str | None, reason: str, *, force: bool = False) -> OverrideResult:
    """Make the previous champion the champion again, or version `to`, which must have served before.

    A second rollback goes forward again, to the version that was champion before the first.

    Raises:
        PromotionRefused: as `promote`; or there is no previous champion, or version `to` never served.
        RegistryError: as `promote`.
    """
    _check_reason(reason)
    versions.checked_name(name)
    client = tracking.connect_to_existing()
    versions.follow_journal(client, name)
    serving = versions.get(client, f"{name}@{CHAMPION}").number
    entries = champions.read(client, name)
    number = to or _champion_before(entries, serving)
    served = {v for e in champions.effective(entries) for v in (e.decision.version, e.decision.before)}
    others = sorted(served - {NONE, serving}, key=int)
    if number == NONE and others:
        raise PromotionRefused(f"{name}: nothing served before version {serving}. Choose an earlier champion with --to "
                               f"({', '.join(others)})")
    if number is None or number == NONE:
        raise PromotionRefused(f"{name}: version {serving} is the first champion, there is nothing to go back to. "
                               f"`heartml promote {name}/VERSION` makes another version the champion")
    if number not in served and number != serving:
        raise PromotionRefused(f"{name}: version {number} never served (version{'s' * (len(others) != 1)} "
                        f"{', '.join(others) or NONE} did). `heartml promote {name}/{number}` would be its first time")
    return _carry_out(client, versions.get(client, f"{name}/{number}"), ROLLBACK, reason, force=force)


def retire(name: str, reason: str) -> OverrideResult:
    """Take the champion out of service. Nothing serves until a person promotes a version.

    If a process was killed while it retired the champion, the next call finishes that, with the reason given then.

    Raises:
        PromotionRefused: the reason is empty, nothing serves already, or somebody else decided at the same time.
        RegistryError: there is no such model, or it has no champion.
    """
    _check_reason(reason)
    versions.checked_name(name)
    client = tracking.connect_to_existing()
    entry = champions.retirement(champions.read(client, name))
    if entry and not entry.followed:
        versions.follow_journal(client, name)
        return OverrideResult(versions.get(client, f"{name}/{entry.subject}"), entry)
    versions.follow_journal(client, name)
    if entry := versions.retirement(client, name):
        raise PromotionRefused(champions.nothing_serves(name, entry))
    version = versions.get(client, f"{name}@{CHAMPION}")
    decision = Decision(RETIREMENT, NONE, version.number, reason.strip(), current_person(),
                        version.tags.get("heartml.reason", ""))
    entry = _decide(client, version, decision)
    return OverrideResult(versions.get(client, f"{name}/{version.number}"), entry)


def _champion_before(entries: list[Entry], serving: str) -> str | None:
    """Number of the champion before `serving`. If the alias was moved by hand, this is the journal's last one."""
    entry = champions.last(entries)
    if entry is None:
        return None
    return entry.decision.before if entry.decision.version == serving else entry.decision.version


def _carry_out(client: "Client", version: Version, kind: str, reason: str, *, force: bool) -> OverrideResult:
    versions.follow_journal(client, version.name)
    version = versions.get(client, f"{version.name}/{version.number}")
    if CHAMPION in version.aliases:
        return OverrideResult(version, None)
    reasons = refusal_reasons(version)
    if reasons and not force:
        raise PromotionRefused(f"{version.name} version {version.number}: {'; '.join(reasons)}. --force does it "
                               "nevertheless, and is recorded")
    with temporary_folder() as folder:
        model_files.download(client, version, folder)
    serving = versions.champion(client, version.name)
    decision = Decision(kind, version.number, serving.number if serving else NONE, reason.strip(), current_person(),
                        version.tags.get("heartml.reason", ""), "; ".join(reasons))
    entry = _decide(client, version, decision)
    if CHALLENGER in version.aliases:
        versions.remove_challenger(client, version)
    return OverrideResult(versions.get(client, f"{version.name}/{version.number}"), entry)


def _decide(client: "Client", version: Version, decision: Decision) -> Entry:
    try:
        return versions.decide(client, version, decision)
    except ChampionChanged as error:
        raise PromotionRefused(f"{error}: somebody else decided at the same time. Look at `heartml models`, then "
                               "decide again") from None


def refusal_reasons(version: Version) -> list[str]:
    """Why a version may not be promoted without --force, in words; empty if nothing is wrong.

    These are withdrawn consent, no verdict of the gate, and a failed criterion `validation` or `lineage`.
    """
    found = []
    if gone := consent.describe(version):
        found.append(f"consent for data in it was withdrawn: {gone}")
    if version.verdict in (None, ABANDONED):
        found.append("the gate never judged it (`heartml retrain` lets it judge what is new)")
    for name in _REQUIRED:
        result = version.tags.get(f"heartml.gate.{name}", "")
        if result.startswith("failed"):
            found.append(f"{name} {result}")
    return found


def current_person() -> str:
    """The person at this computer: `Ada Lovelace <ada@example.org> (ada on machine)`, as far as git and system know."""
    name, email = (git.run("config", key).stdout.decode("utf-8", errors="replace").strip()
                   for key in ("user.name", "user.email"))
    known = [name, *([f"<{email}>"] if email else []), f"({processes.user_name()} on {platform.node()})"]
    return " ".join(part for part in known if part)


def _check_reason(reason: str) -> None:
    try:
        reason.encode()
    except UnicodeEncodeError:
        raise PromotionRefused("the reason is not UTF-8: a registry can keep no other text. Set the terminal to "
                               "UTF-8, or write it without accents") from None
    if not reason.strip():
        raise PromotionRefused("a decision needs a reason: --reason \"...\" is what people will read in a year")
    if len(reason.strip()) > champions.MAX_TAG_LENGTH:
        raise PromotionRefused(f"the reason has {len(reason.strip()):,} characters, and a registry keeps "
                               f"{champions.MAX_TAG_LENGTH:,}: shorten it, and name a document with the rest")
