"""The journal of champions: an append-only list of which version serves, since when, who decided it and why.

In: decisions about one registered model. Out: the entries of its journal, oldest first, and the version that serves.

MLflow can move an alias, but it cannot check in the same step that nobody else moved it. It can add a version in one
step: the store gives each version its number, whichever machine asks. So each decision is added as a version of a
second registered model, `<name>.champions`. A decision names the champion that it was made against. It counts only if
the journal names the same champion just before it. The alias `champion` follows the journal
(`versions.follow_journal`).

A champion is retired by an entry whose version is `none`. After it a gate's decision does not count, only a person's:
no retraining puts a model into service again that a person took out.

Guaranteed, on one machine and between machines that share a server:
    - Of several decisions against the same champion exactly one counts. All processes see the same one.
    - A decision that counted stays valid, because entries are only added at the end.
    - If a process dies after its entry and before it moved the alias, the next promotion or retraining moves it.
Not guaranteed:
    - For the length of one request the alias may be behind the journal.
    - If a machine dies in just that request, after another machine decided and moved the alias, the alias may go back
      to the older version until the next decision. An alias that somebody moved in MLflow's own pages looks the same.
      Both are accepted as they are, and entered as `found`.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from heartml.core.system import processes
from heartml.core.system.text import one_line
from heartml.registry.mlflow_store import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SUFFIX = ".champions"
NONE = "none"                       # in place of a version number: no version serves
GATE, PERSON, ROLLBACK, FOUND, RETIREMENT = "gate", "person", "rollback", "found", "retirement"
BY_A_PERSON = (PERSON, ROLLBACK, RETIREMENT)
_TRIES, _PAUSE_S = 6, 0.5
Result = TypeVar("Result")
MAX_TAG_LENGTH = 4900              # characters; MLflow's limit for a version's tag is 5,000
_DESCRIPTION = "Who became champion, when and why: each version is one decision. HeartML writes it, `heartml models` " \
               "reads it; nothing here is a model of its own."


@dataclass(frozen=True)
class Decision:
    """The decision that a version becomes the champion, or that the champion is retired.

    Attributes:
        kind: `gate`, `person`, `rollback`, `retirement`, or `found` (the alias was moved outside HeartML).
        version: number of the version that becomes champion; `none` if no version serves.
        before: number of the champion that the decision was made against.
        reason: in the words of whoever decided.
        who: person and machine, or the gate.
        gate: the gate's reason for this version; empty if the gate has not judged it.
        forced: the reasons for a refusal that --force overruled; empty if there were none.
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
        number: position in the journal, from 1.
        when_ms: milliseconds since 1970, by the store's clock.
        counts: true if `decision.before` was the champion at that time. False if another decision was first, or if
            the gate decided after a retirement.
        followed: true if the alias has been moved.
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
        when, decision = self.when, self.decision
        if decision.kind == RETIREMENT:
            return (f"no version serves since {when}, version {decision.before} was retired by {decision.who}: "
                    f"{decision.reason}")
        how = {GATE: "promoted by the gate", PERSON: f"promoted by {decision.who}", FOUND: "found as champion",
               ROLLBACK: f"rolled back by {decision.who}"}[decision.kind]
        serves = "no version serves" if decision.version == NONE else f"version {decision.version} serves"
        after = "when none served" if decision.before == NONE else f"after version {decision.before}"
        return f"{serves} since {when}, {how} {after}: {decision.reason}"

    @property
    def when(self) -> str:
        """`2026-11-20 17:02 UTC`."""
        return f"{datetime.fromtimestamp(self.when_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"

    @property
    def subject(self) -> str:
        """Number of the version that the decision is about: the one that was retired, else the one that serves."""
        return self.decision.before if self.decision.kind == RETIREMENT else self.decision.version


def journal_name(name: str) -> str:
    """Name of the registered model that holds the journal of `name`."""
    return f"{name}{SUFFIX}"


def read(client: "MlflowClient", name: str) -> list[Entry]:
    """All entries of the journal, oldest first."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{journal_name(name)}'", max_results=200, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return replay(sorted(found, key=lambda version: int(version.version)))


def replay(versions: "Sequence[ModelVersion]") -> list[Entry]:
    """Decide which entries count, by going through the journal's versions in the store's order."""
    entries, serving, retired = [], NONE, False
    for version in versions:
        tags = version.tags
        decision = Decision(**{key: tags.get(f"heartml.{key}", "") for key in Decision.__annotations__})
        counts = decision.before == serving and not (retired and decision.kind == GATE)
        if counts:
            serving, retired = decision.version, decision.kind == RETIREMENT
        entries.append(Entry(int(version.version), decision, int(version.creation_timestamp), counts,
                             "heartml.followed" in tags))
    return entries


def effective(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that count."""
    return [entry for entry in entries if entry.counts]


def last(entries: Sequence[Entry]) -> Entry | None:
    """The newest entry that counts; it names the champion. `None` if there is none."""
    valid = effective(entries)
    return valid[-1] if valid else None


def serving_version(entries: Sequence[Entry]) -> str:
    """Number of the version that serves according to the journal, or `none`."""
    entry = last(entries)
    return entry.decision.version if entry else NONE


def retirement(entries: Sequence[Entry]) -> Entry | None:
    """The entry that took the last champion out of service; `None` if something was decided since, or none was."""
    entry = last(entries)
    return entry if entry and entry.decision.kind == RETIREMENT else None


def newest(entries: Sequence[Entry], number: str) -> Entry | None:
    """The newest entry that counts and is about version `number`; `None` if there is none."""
    return next((entry for entry in reversed(effective(entries)) if entry.subject == number), None)


def retired(entries: Sequence[Entry], number: str) -> Entry | None:
    """The entry that retired version `number`; `None` if it was not retired, or if it served again since."""
    entry = newest(entries, number)
    return entry if entry and entry.decision.kind == RETIREMENT else None


def nothing_serves(name: str, entry: Entry) -> str:
    """What a retirement means for whoever asks for the champion, in one line with the way out."""
    decision = entry.decision
    return (f"{name}: nothing serves: version {decision.before} was retired on {entry.when} by {decision.who} because "
            f"\"{one_line(decision.reason)}\". Promote a version with `heartml promote {name}/VERSION --reason "
            f"\"...\"` (`heartml models` lists them). `audit`, `lineage` and `card` take {name}/{decision.before}")


def append(client: "MlflowClient", name: str, decision: Decision, *, source: str, run_id: str,
           followed: bool = False) -> Entry:
    """Add a decision to the journal. Only the entry that comes back says whether it counts.

    Args:
        source, run_id: of the version that the decision is about, so that the entry leads to its files.
        followed: true if the alias is there already.
    """
    import mlflow

    mlflow.set_tracking_uri(tracking_uri())   # MLflow looks up a `models:/` source there, not at the client's address
    tags = {f"heartml.{key}": str(value)[:MAX_TAG_LENGTH] for key, value in asdict(decision).items() if value}
    tags |= {"heartml.process": processes.own_name(), **({"heartml.followed": "true"} if followed else {})}
    words = f"{decision.kind}: version {decision.version} after {decision.before}. {decision.reason}"
    if not client.search_registered_models(f"name = '{journal_name(name)}'"):
        _create(client, name)
    made = retry(client.create_model_version, journal_name(name), source, run_id, tags, None, words[:MAX_TAG_LENGTH])
    return next(entry for entry in read(client, name) if entry.number == int(made.version))


def _create(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(journal_name(name), description=_DESCRIPTION)
    except MlflowException:
        if not client.search_registered_models(f"name = '{journal_name(name)}'"):   # another process may have made it
            raise


def mark_followed(client: "MlflowClient", name: str, entry: Entry) -> None:
    """Note in the journal that the alias has been moved as this entry says."""
    retry(client.set_model_version_tag, journal_name(name), str(entry.number), "heartml.followed", "true")


def retry(call: Callable[..., Result], *arguments: Any) -> Result:
    """Call again if the store refuses, as it does when two processes write at once: at most 6 times.

    An entry that was added twice does no harm, because only the first counts.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(_TRIES - 1):
        try:
            return call(*arguments)
        except MlflowException:
            time.sleep(random.uniform(0, _PAUSE_S))
    return call(*arguments)
