"""Registered models: one version for each content key, its verdict, and the aliases `champion` and `challenger`.

A version goes through three states, each readable from its tags, so that a run killed between any two of them is
finished by the next one:
    registered   tag `heartml.key`; alias `challenger`
    judged       tags `heartml.verdict`, `heartml.reason`, `heartml.compared_with`, `heartml.gate.<criterion>`
    settled      tag `heartml.settled`; alias `champion` where the verdict is `promoted`
Who becomes champion is decided in a journal, see heartml/registry/champions.py; the alias follows it.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from heartml.core.system import processes
from heartml.core.system.errors import HeartMLError
from heartml.registry import champions
from heartml.registry.champions import Decision, Entry
from heartml.registry.mlflow_store import alone

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTED, REFUSED, ABANDONED = "promoted", "refused", "abandoned"
NONE = champions.NONE
_ON_ITS_WAY_S = 2.0     # so long another machine may take between the journal and the alias


class RegistryError(HeartMLError):
    """The registry cannot do what was asked; the message says what stands in the way."""


class ChampionChanged(RegistryError):  # noqa: N818 - reads as what happened
    """Somebody promoted another version since the gate compared: the verdict no longer counts."""


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        name: of the registered model, `circor-murmur`.
        number: counted by the registry, from "1".
        run_id: the MLflow run that logged it.
        source: address of the stored model.
        aliases: `champion`, `challenger`, or others that people set.
        tags: as described at the head of this module.
        created_ms: milliseconds since 1970.
    """

    name: str
    number: str
    run_id: str
    source: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    created_ms: int

    @property
    def verdict(self) -> str | None:
        """`promoted`, `refused`, `abandoned` by a killed run, or `None` while the gate has not spoken."""
        return self.tags.get("heartml.verdict")

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "verdict": self.verdict, "settled": self.settled}

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do for this version."""
        return "heartml.settled" in self.tags


def names(client: "MlflowClient") -> list[str]:
    """All registered models; the journals of champions are none."""
    found, token = [], None
    while True:
        page = client.search_registered_models(page_token=token)
        found += [str(model.name) for model in page if not str(model.name).endswith(champions.SUFFIX)]
        token = page.token
        if not token:
            return sorted(found)


def versions(client: "MlflowClient", name: str) -> list[Version]:
    """All versions of a model, oldest first; empty where there is no such model."""
    aliases = _aliases(client, name)
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{_checked(name)}'", max_results=200, page_token=token)
        found += [_version(entry, aliases) for entry in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.number))


def find(client: "MlflowClient", name: str, key: str) -> Version | None:
    """The version with this content key; the oldest, should there be several."""
    return next((v for v in versions(client, name) if v.tags.get("heartml.key") == key), None)


def champion(client: "MlflowClient", name: str) -> Version | None:
    """The version that serves."""
    return next((v for v in versions(client, name) if CHAMPION in v.aliases), None)


def parse(words: str) -> tuple[str, str, str]:
    """`circor-murmur/3`, `circor-murmur@challenger` -> name, sign, which; a name alone means its champion."""
    for sign in ("@", "/"):
        name, found, which = words.rpartition(sign)
        if found and name and which:
            return name, sign, which
    return words, "@", CHAMPION


def get(client: "MlflowClient", words: str) -> Version:
    """The version that NAME (its champion), NAME@ALIAS or NAME/VERSION means.

    Raises:
        RegistryError: there is none.
    """
    name, sign, which = parse(words)
    known = versions(client, name)
    for version in known:
        if which in (version.aliases if sign == "@" else (version.number,)):
            return version
    there = f"{name} has version{'s' * (len(known) > 1)} {', '.join(v.number for v in known)}; " if known else ""
    raise RegistryError(f"{name}{sign}{which}: not in the registry; {there}`heartml models` lists what is")


def register(client: "MlflowClient", name: str, *, run_id: str, source: str, key: str) -> Version:
    """Add a version, its key in the same transaction, and name it challenger; once for each key."""
    from mlflow.exceptions import MlflowException

    with _alone():
        known = find(client, name, key)
        if known:
            return known
        with contextlib.suppress(MlflowException):   # it exists
            client.create_registered_model(_checked(name), description="Heart-sound classifier. Not a medical device.")
        tags = {"heartml.key": key, "heartml.process": processes.me()}
        made = client.create_model_version(name, source=source, run_id=run_id, tags=tags)
        client.set_registered_model_alias(name, CHALLENGER, str(made.version))
        return _read(client, name, str(made.version))


def record(client: "MlflowClient", version: Version, verdict: Mapping[str, Any], compared_with: str | None) -> None:
    """Store the gate's verdict (`gate.Verdict.as_json`) and each criterion with its number on the version."""
    tags = {"heartml.compared_with": compared_with or NONE, "heartml.reason": verdict["reason"]}
    for criterion in verdict["criteria"]:
        number = "" if criterion["value"] is None else f" ({criterion['value']:.4g})"
        passed = "passed" if criterion["passed"] else "failed"
        tags[f"heartml.gate.{criterion['name']}"] = f"{passed}{number}: {criterion['words']}"
    tags["heartml.verdict"] = PROMOTED if verdict["promote"] else REFUSED   # last: it says that the others are there
    for tag, value in tags.items():
        client.set_model_version_tag(version.name, version.number, tag, value[:5000])
    client.update_model_version(version.name, version.number, description=str(verdict["reason"])[:5000])


def settle(client: "MlflowClient", version: Version) -> Version:
    """Act on the recorded verdict: move the alias `champion`, or leave it where it is.

    Raises:
        ChampionChanged: the champion is no longer the one that this version was compared with.
    """
    with _alone():
        _follow(client, version.name)
        now = _read(client, version.name, version.number)
        if now.verdict == PROMOTED and CHAMPION not in now.aliases and not _was_promoted(client, now):
            _decide(client, now, Decision(champions.GATE, now.number, now.tags["heartml.compared_with"],
                                          now.tags["heartml.reason"], "the gate", now.tags["heartml.reason"]))
        if now.verdict == PROMOTED and CHALLENGER in now.aliases:
            client.delete_registered_model_alias(version.name, CHALLENGER)
        client.set_model_version_tag(version.name, version.number, "heartml.settled", "true")
        return _read(client, version.name, version.number)


def no_challenger(client: "MlflowClient", version: Version) -> None:
    """Take the alias `challenger` from a version that serves, unless another one has it by now."""
    with _alone():
        if CHALLENGER in _read(client, version.name, version.number).aliases:
            client.delete_registered_model_alias(version.name, CHALLENGER)


def decide(client: "MlflowClient", version: Version, decision: Decision) -> Entry:
    """Make `version` the champion by a decision against `decision.before`.

    Raises:
        ChampionChanged: that is not the champion, or no longer.
    """
    with _alone():
        return _decide(client, version, decision)


def follow(client: "MlflowClient", name: str) -> None:
    """Finish a promotion that a killed process left between the journal and the alias."""
    with _alone():
        _follow(client, name)


def _decide(client: "MlflowClient", version: Version, decision: Decision) -> Entry:
    name = version.name
    _follow(client, name)
    number = _note_moved_by_hand(client, version)
    if number != decision.before:
        raise ChampionChanged(_changed(version, decision, number))
    entry = champions.append(client, name, decision, source=version.source, run_id=version.run_id)
    if not entry.counts:
        raise ChampionChanged(_changed(version, decision, champions.serving(champions.read(client, name))))
    _follow(client, name)
    return entry


def _changed(version: Version, decision: Decision, now: str) -> str:
    return (f"{version.name}: champion is version {now} now, version {version.number} was compared with "
            f"{decision.before}")


def _was_promoted(client: "MlflowClient", version: Version) -> bool:
    """Whether it served once: what a person decided since is not undone."""
    return any(entry.decision.version == version.number
               for entry in champions.counted(champions.read(client, version.name)))


def _follow(client: "MlflowClient", name: str) -> None:
    """Move the alias to where the journal says, again where somebody entered more meanwhile."""
    done: int | None = None
    while True:
        wanted = champions.last(champions.read(client, name))
        if wanted is None or wanted.number == done or (done is None and wanted.followed):
            return
        if wanted.decision.version != NONE:
            champions.insist(client.set_registered_model_alias, name, CHAMPION, wanted.decision.version)
        champions.mark_followed(client, name, wanted)
        done = wanted.number


def _note_moved_by_hand(client: "MlflowClient", version: Version) -> str:
    """The version that serves; where the alias is not where the journal left it, that is entered first.

    An alias on its way is no alias that was moved by hand: then the journal has the word. It is read before the alias,
    so that what others enter meanwhile makes a hasty entry of ours one that does not count.
    """
    name = version.name
    for wait_s in (_ON_ITS_WAY_S, 0.0):
        last = champions.last(champions.read(client, name))
        known = last.decision.version if last else NONE
        alias = champion(client, name)
        number = alias.number if alias else NONE
        if number == known or (last and not last.followed):
            return known
        time.sleep(wait_s if last else 0.0)
    shown = alias or version
    found = Decision(champions.FOUND, number, known, "the alias was found here: set outside HeartML, or before it "
                     "kept this journal", "unknown", alias.tags.get("heartml.reason", "") if alias else "")
    entry = champions.append(client, name, found, source=shown.source, run_id=shown.run_id, followed=True)
    return number if entry.counts else champions.serving(champions.read(client, name))


def mark(client: "MlflowClient", version: Version, tag: str, value: str) -> None:
    """Set one tag of a version; nothing is written where it says so already."""
    if version.tags.get(tag) != value:
        client.set_model_version_tag(version.name, version.number, tag, value[:5000])


def forget_verdict(client: "MlflowClient", version: Version) -> Version:
    """Back to `registered`: the gate has to look again."""
    client.delete_model_version_tag(version.name, version.number, "heartml.verdict")
    return _read(client, version.name, version.number)


def close_abandoned(client: "MlflowClient", name: str) -> None:
    """Versions whose process was killed before they were settled, and that no later run came back to."""
    for version in versions(client, name):
        if version.settled or not processes.dead(version.tags.get("heartml.process", "")):
            continue
        if version.verdict != REFUSED and CHAMPION not in version.aliases and not _was_promoted(client, version):
            client.set_model_version_tag(name, version.number, "heartml.verdict", ABANDONED)
        client.set_model_version_tag(name, version.number, "heartml.settled", "true")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One change at a time, see `store.alone`; behind a server `compared_with` is checked before the alias moves."""
    with alone("registry", on_wait="waiting for another promotion"):
        yield


def _read(client: "MlflowClient", name: str, number: str) -> Version:
    return _version(client.get_model_version(name, number), _aliases(client, name))


def _aliases(client: "MlflowClient", name: str) -> dict[str, str]:
    """alias -> version number; empty where there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(_checked(name))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: str(number) for alias, number in model.aliases.items()}


def _version(entry: Any, aliases: Mapping[str, str]) -> Version:
    number = str(entry.version)
    own = tuple(sorted(alias for alias, of in aliases.items() if of == number))
    return Version(str(entry.name), number, str(entry.run_id), str(entry.source), own, dict(entry.tags),
                   int(entry.creation_timestamp))


def _checked(name: str) -> str:
    if not name or any(c in name for c in "'\"/:`"):
        raise RegistryError(f"{name!r} is no name of a model")
    return name
