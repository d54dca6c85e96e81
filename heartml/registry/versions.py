"""Registered models: one version for each content key, its verdict, and the aliases `champion` and `challenger`.

A version goes through three states. Its tags say which, so that the next run can finish what a killed run left:
    registered   tag `heartml.key`; alias `challenger`
    judged       tags `heartml.verdict`, `heartml.reason`, `heartml.compared_with`, `heartml.look`,
                 `heartml.gate.<criterion>`
    settled      tag `heartml.settled`; alias `champion` if the verdict is `promoted`
Which version is champion is decided in a journal (heartml/registry/champions.py). The alias follows the journal. After
a retirement no version has it, until a person promotes one.
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
from heartml.registry.mlflow_store import store_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTED, REFUSED, ABANDONED = "promoted", "refused", "abandoned"
NONE = champions.NONE
ENCODER_PREFIX = "heartml-encoder-"      # of registered encoders, see `heartml.registry.encoder_versions`
_ALIAS_DELAY_S = 2.0     # time that another machine may need between its entry in the journal and the alias


class RegistryError(HeartMLError):
    """The registry cannot do what was asked. The message says why."""


class ChampionChanged(RegistryError):  # noqa: N818 - reads as what happened
    """Another version became champion after the gate compared, so the verdict is no longer valid."""


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        name: of the registered model, `circor-murmur`.
        number: given by the registry, from "1".
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
        """`promoted`, `refused`, `abandoned` by a killed run, or `None` until the gate has judged it."""
        return self.tags.get("heartml.verdict")

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "verdict": self.verdict, "settled": self.settled}

    @property
    def settled(self) -> bool:
        """Whether everything has been done for this version."""
        return "heartml.settled" in self.tags


def model_names(client: "MlflowClient") -> list[str]:
    """Names of all registered classifiers, without the journals of champions and without encoders."""
    found, token = [], None
    while True:
        page = client.search_registered_models(page_token=token)
        found += [name for name in (str(model.name) for model in page)
                  if not name.endswith(champions.SUFFIX) and not name.startswith(ENCODER_PREFIX)]
        token = page.token
        if not token:
            return sorted(found)


def list_versions(client: "MlflowClient", name: str) -> list[Version]:
    """All versions of a model, oldest first; empty if there is no such model."""
    aliases = _aliases(client, name)
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{checked_name(name)}'", max_results=200, page_token=token)
        found += [_version(entry, aliases) for entry in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.number))


def find_by_key(client: "MlflowClient", name: str, key: str) -> Version | None:
    """The version with this content key (the oldest, if there are several); `None` if there is none."""
    return next((v for v in list_versions(client, name) if v.tags.get("heartml.key") == key), None)


def champion(client: "MlflowClient", name: str) -> Version | None:
    """The version with the alias `champion`; `None` if there is none."""
    return next((v for v in list_versions(client, name) if CHAMPION in v.aliases), None)


def retirement(client: "MlflowClient", name: str) -> Entry | None:
    """The decision because of which nothing serves; `None` if a version serves, or if none ever did.

    An alias that a killed process did not remove yet serves no more. One that somebody set in MLflow since does.
    """
    entry = champions.retirement(champions.read(client, name))
    return None if entry and entry.followed and champion(client, name) else entry


def parse(words: str) -> tuple[str, str, str]:
    """Split `circor-murmur/3` or `circor-murmur@challenger` into name, sign, and number or alias.

    A name alone means its champion.

    >>> parse("circor-murmur/3")
    ('circor-murmur', '/', '3')
    >>> parse("circor-murmur")
    ('circor-murmur', '@', 'champion')
    """
    for sign in ("@", "/"):
        name, found, which = words.rpartition(sign)
        if found and name and which:
            return name, sign, which
    return words, "@", CHAMPION


def get(client: "MlflowClient", words: str) -> Version:
    """The version that NAME (its champion), NAME@ALIAS or NAME/VERSION means.

    Raises:
        RegistryError: there is no such version; or the champion is meant, and it was retired.
    """
    name, sign, which = parse(words)
    known = list_versions(client, name)
    retired = retirement(client, name) if known and (sign, which) == ("@", CHAMPION) else None
    if retired:
        raise RegistryError(champions.nothing_serves(name, retired))
    for version in known:
        if which in (version.aliases if sign == "@" else (version.number,)):
            return version
    there = f"{name} has version{'s' * (len(known) > 1)} {', '.join(v.number for v in known)}; " if known else ""
    raise RegistryError(f"{name}{sign}{which}: not in the registry; {there}`heartml models` lists what is")


def register(client: "MlflowClient", name: str, *, run_id: str, source: str, key: str) -> Version:
    """Add a version with its content key, and give it the alias `challenger`. A key is registered only once."""
    from mlflow.exceptions import MlflowException

    with _registry_lock():
        known = find_by_key(client, name, key)
        if known:
            return known
        with contextlib.suppress(MlflowException):   # the model exists already
            client.create_registered_model(checked_name(name),
                                           description="Heart-sound classifier. Not a medical device.")
        tags = {"heartml.key": key, "heartml.process": processes.own_name()}
        made = client.create_model_version(name, source=source, run_id=run_id, tags=tags)
        client.set_registered_model_alias(name, CHALLENGER, str(made.version))
        return _read(client, name, str(made.version))


def record_verdict(
    client: "MlflowClient", version: Version, verdict: Mapping[str, Any], compared_with: str | None
) -> None:
    """Store the gate's verdict (`gate.Verdict.as_json`) as tags of the version, each criterion with its number.

    Args:
        compared_with: number of the champion at that time; `None` if there was none.
    """
    tags = {"heartml.compared_with": compared_with or NONE, "heartml.reason": verdict["reason"]}
    for criterion in verdict["criteria"]:
        number = "" if criterion["value"] is None else f" ({criterion['value']:.4g})"
        passed = "passed" if criterion["passed"] else "failed"
        tags[f"heartml.gate.{criterion['name']}"] = f"{passed}{number}: {criterion['words']}"
    if verdict.get("look"):
        tags["heartml.look"] = str(verdict["look"]["number"])
    tags["heartml.verdict"] = PROMOTED if verdict["promote"] else REFUSED   # last: it means that the others are stored
    for tag, value in tags.items():
        client.set_model_version_tag(version.name, version.number, tag, value[:5000])
    client.update_model_version(version.name, version.number, description=str(verdict["reason"])[:5000])


def describe(client: "MlflowClient", version: Version, reason: str, text: str) -> None:
    """Set what MLflow's pages show of a version, and of the registered model where the version is its champion.

    Args:
        reason: the gate's.
        text: Markdown about the model, at most 4,000 characters.
    """
    client.update_model_version(version.name, version.number, description=f"{reason[:900]}\n\n{text}")
    if CHAMPION in version.aliases:
        client.update_registered_model(version.name, description=text)


def settle(client: "MlflowClient", version: Version) -> Version:
    """Carry out the recorded verdict: move the alias `champion`, or leave it where it is.

    Raises:
        ChampionChanged: the champion is no longer the one that this version was compared with.
    """
    with _registry_lock():
        _follow(client, version.name)
        now = _read(client, version.name, version.number)
        if now.verdict == PROMOTED and CHAMPION not in now.aliases and not _was_champion(client, now):
            _decide(client, now, Decision(champions.GATE, now.number, now.tags["heartml.compared_with"],
                                          now.tags["heartml.reason"], "the gate", now.tags["heartml.reason"]))
        if now.verdict == PROMOTED and CHALLENGER in now.aliases:
            client.delete_registered_model_alias(version.name, CHALLENGER)
        client.set_model_version_tag(version.name, version.number, "heartml.settled", "true")
        return _read(client, version.name, version.number)


def remove_challenger(client: "MlflowClient", version: Version) -> None:
    """Remove the alias `challenger` from a version that serves, unless another version has it by now."""
    with _registry_lock():
        if CHALLENGER in _read(client, version.name, version.number).aliases:
            client.delete_registered_model_alias(version.name, CHALLENGER)


def decide(client: "MlflowClient", version: Version, decision: Decision) -> Entry:
    """Make `version` the champion in place of `decision.before`; or retire `version`, if the decision is that.

    Raises:
        ChampionChanged: `decision.before` is not the champion, or no longer.
    """
    with _registry_lock():
        return _decide(client, version, decision)


def follow_journal(client: "MlflowClient", name: str) -> None:
    """Move the alias `champion` to where the journal says, if a killed process did not come to it."""
    with _registry_lock():
        _follow(client, name)


def _decide(client: "MlflowClient", version: Version, decision: Decision) -> Entry:
    name = version.name
    _follow(client, name)
    number = _note_moved_by_hand(client, version)
    entries = champions.read(client, name)
    if number != decision.before or (decision.kind == champions.GATE and champions.retirement(entries)):
        raise ChampionChanged(_changed_words(version, decision, number))
    entry = champions.append(client, name, decision, source=version.source, run_id=version.run_id)
    if not entry.counts:
        now = champions.serving_version(champions.read(client, name))
        raise ChampionChanged(_changed_words(version, decision, now))
    _follow(client, name)
    return entry


def _changed_words(version: Version, decision: Decision, now: str) -> str:
    serving = "no version serves" if now == NONE else f"champion is version {now}"
    return f"{version.name}: {serving} now, version {version.number} was compared with {decision.before}"


def _was_champion(client: "MlflowClient", version: Version) -> bool:
    """Whether it was champion before. Then it is not promoted again, because somebody has decided otherwise since."""
    return any(entry.decision.version == version.number
               for entry in champions.effective(champions.read(client, version.name)))


def _follow(client: "MlflowClient", name: str) -> None:
    """Move the alias to where the journal says, and once more if the journal has grown meanwhile."""
    done: int | None = None
    while True:
        wanted = champions.last(champions.read(client, name))
        if wanted is None or wanted.number == done or (done is None and wanted.followed):
            return
        if wanted.decision.kind == champions.RETIREMENT:
            champions.retry(client.delete_registered_model_alias, name, CHAMPION)
        elif wanted.decision.version != NONE:
            champions.retry(client.set_registered_model_alias, name, CHAMPION, wanted.decision.version)
        champions.mark_followed(client, name, wanted)
        done = wanted.number


def _note_moved_by_hand(client: "MlflowClient", version: Version) -> str:
    """Number of the version that serves. An alias that was moved by hand is entered in the journal first.

    If another process has made its entry and not yet moved the alias, the alias was not moved by hand, and the journal
    decides. The journal is read before the alias. So if others add entries meanwhile, an entry made here by mistake
    does not count.
    """
    name = version.name
    for wait_s in (_ALIAS_DELAY_S, 0.0):
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
    return number if entry.counts else champions.serving_version(champions.read(client, name))


def set_tag(client: "MlflowClient", version: Version, tag: str, value: str) -> None:
    """Set one tag of a version, unless it has this value already."""
    if version.tags.get(tag) != value:
        client.set_model_version_tag(version.name, version.number, tag, value[:5000])


def forget_verdict(client: "MlflowClient", version: Version) -> Version:
    """Put a version back into the state `registered`, so that the gate judges it again."""
    client.delete_model_version_tag(version.name, version.number, "heartml.verdict")
    return _read(client, version.name, version.number)


def close_abandoned(client: "MlflowClient", name: str) -> None:
    """Settle versions whose process was killed before it settled them, and that no later run finished."""
    for version in list_versions(client, name):
        if version.settled or not processes.has_ended(version.tags.get("heartml.process", "")):
            continue
        if version.verdict != REFUSED and CHAMPION not in version.aliases and not _was_champion(client, version):
            client.set_model_version_tag(name, version.number, "heartml.verdict", ABANDONED)
        client.set_model_version_tag(name, version.number, "heartml.settled", "true")


@contextlib.contextmanager
def _registry_lock() -> Iterator[None]:
    """Only one process changes the registry at a time, as far as `store_lock` reaches.

    Processes of other machines behind a server do not share the lock. The journal settles who was first among them.
    """
    with store_lock("registry", on_wait="waiting for another promotion"):
        yield


def _read(client: "MlflowClient", name: str, number: str) -> Version:
    return _version(client.get_model_version(name, number), _aliases(client, name))


def _aliases(client: "MlflowClient", name: str) -> dict[str, str]:
    """alias -> version number; empty if there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(checked_name(name))
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


def checked_name(name: str) -> str:
    """The name of a registered model, as a user gave it.

    Raises:
        RegistryError: no model can have it.
    """
    if not name or any(c in name for c in "'\"/:`") or not name.isprintable():
        raise RegistryError(f"{name!r} is not a valid name of a model")
    return name
