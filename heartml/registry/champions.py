"""Who serves, since when, by whose decision and why: an append-only journal of each model's champions.

MLflow can move an alias, but cannot look whether somebody else moved it meanwhile. What every MLflow store does in one
step is to add a version: the store numbers versions, whoever asks from wherever. So each decision is appended as a
version of a second registered model, `<name>.champions`, and the order in the journal settles who was first: a decision
counts where the champion that it was made against is the one that the journal names just before it. The alias
`champion` follows the journal (`registry.follow`).

What holds, on one machine and between machines that share a server:
    - Of any number of decisions against the same champion exactly one counts, and all see the same one.
    - What has counted never changes: later entries stand behind it.
    - A process that dies between the entry and the alias is finished by the next one that promotes or retrains.
What does not: for the length of a request the alias may stand behind the journal, and a machine that dies in just that
request, after another has decided and moved the alias, leaves the older one there until somebody decides again. An
alias that was moved by hand, in MLflow's own pages, looks the same; both are respected, and entered as `found`.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from heartml.core.system import processes
from heartml.registry.mlflow_store import address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SUFFIX = ".champions"
NONE = "none"                       # in place of a version: nobody serves
GATE, PERSON, ROLLBACK, FOUND = "gate", "person", "rollback", "found"
_TRIES, _PAUSE_S = 6, 0.5
Made = TypeVar("Made")
_LONGEST = 4900                     # what a tag of a version holds, less a little
_DESCRIPTION = "Who became champion, when and why: each version is one decision. HeartML writes it, `heartml models` " \
               "reads it; nothing here is a model of its own."


@dataclass(frozen=True)
class Decision:
    """Somebody's or something's decision that a version shall serve.

    Attributes:
        kind: `gate`, `person`, `rollback`, or `found`: the alias was moved outside HeartML.
        version: that shall serve; `none`: nobody.
        before: that served when this was decided.
        reason: in words, the decider's own.
        who: person and machine, or the gate.
        gate: what the gate had said of the version; empty where it had not spoken.
        forced: whether a refusal was overruled with --force, and which.
    """

    kind: str
    version: str
    before: str
    reason: str
    who: str
    gate: str = ""
    forced: str = ""


@dataclass(frozen=True)
class Entry:
    """A decision in the journal.

    Attributes:
        number: its place, from 1.
        when_ms: milliseconds since 1970, by the store's clock.
        counts: whether it was made against the champion of its time; where not, somebody else was first.
        followed: whether the alias has been moved.
    """

    number: int
    decision: Decision
    when_ms: int
    counts: bool
    followed: bool

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"number": self.number, **asdict(self.decision), "when_ms": self.when_ms, "counts": self.counts}

    def in_words(self) -> str:
        """`version 1 serves since 2026-11-20 17:02 UTC, rolled back by Ada after version 2: too many false alarms`."""
        when, told = datetime.fromtimestamp(self.when_ms / 1000, UTC), self.decision
        how = {GATE: "promoted by the gate", PERSON: f"promoted by {told.who}", FOUND: "found as champion",
               ROLLBACK: f"rolled back by {told.who}"}[told.kind]
        serves = "no version serves" if told.version == NONE else f"version {told.version} serves"
        after = "when none served" if told.before == NONE else f"after version {told.before}"
        return f"{serves} since {when:%Y-%m-%d %H:%M} UTC, {how} {after}: {told.reason}"


def journal(name: str) -> str:
    """The registered model that holds the decisions about `name`."""
    return f"{name}{SUFFIX}"


def read(client: "MlflowClient", name: str) -> list[Entry]:
    """All decisions, oldest first."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{journal(name)}'", max_results=200, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return replay(sorted(found, key=lambda version: int(version.version)))


def replay(versions: "Sequence[ModelVersion]") -> list[Entry]:
    """Which of the decisions count, in the order in which the store numbered them."""
    entries, serving = [], NONE
    for version in versions:
        tags = version.tags
        decision = Decision(**{key: tags.get(f"heartml.{key}", "") for key in Decision.__annotations__})
        counts = decision.before == serving
        serving = decision.version if counts else serving
        entries.append(Entry(int(version.version), decision, int(version.creation_timestamp), counts,
                             "heartml.followed" in tags))
    return entries


def counted(entries: Sequence[Entry]) -> list[Entry]:
    """The decisions that took effect."""
    return [entry for entry in entries if entry.counts]


def last(entries: Sequence[Entry]) -> Entry | None:
    """The decision by which the champion serves."""
    valid = counted(entries)
    return valid[-1] if valid else None


def serving(entries: Sequence[Entry]) -> str:
    """The version that serves by the journal, or `none`."""
    entry = last(entries)
    return entry.decision.version if entry else NONE


def append(client: "MlflowClient", name: str, decision: Decision, *, source: str, run_id: str,
           followed: bool = False) -> Entry:
    """Enter a decision; whether it counts is known once it stands in the journal.

    Args:
        source, run_id: of the version that it is about, so that the entry leads to its files.
        followed: the alias stands there already.
    """
    import mlflow

    mlflow.set_tracking_uri(address())   # a `models:/` source is looked up there, whatever the client's own address
    tags = {f"heartml.{key}": str(value)[:_LONGEST] for key, value in asdict(decision).items() if value}
    tags |= {"heartml.process": processes.me(), **({"heartml.followed": "true"} if followed else {})}
    words = f"{decision.kind}: version {decision.version} after {decision.before}. {decision.reason}"
    if not client.search_registered_models(f"name = '{journal(name)}'"):
        _create(client, name)
    made = insist(client.create_model_version, journal(name), source, run_id, tags, None, words[:_LONGEST])
    return next(entry for entry in read(client, name) if entry.number == int(made.version))


def _create(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(journal(name), description=_DESCRIPTION)
    except MlflowException:
        if not client.search_registered_models(f"name = '{journal(name)}'"):   # or somebody else was faster
            raise


def mark_followed(client: "MlflowClient", name: str, entry: Entry) -> None:
    """Note that the alias stands where this decision wants it."""
    insist(client.set_model_version_tag, journal(name), str(entry.number), "heartml.followed", "true")


def insist(call: Callable[..., Made], *given: Any) -> Made:
    """Call again where the store refuses because two came at once; an entry that got through twice counts once."""
    from mlflow.exceptions import MlflowException

    for _ in range(_TRIES - 1):
        try:
            return call(*given)
        except MlflowException:
            time.sleep(random.uniform(0, _PAUSE_S))
    return call(*given)
