"""When another try can help: the network, a server that was away, a process that was killed. Not an answer.

A stage's own error and a user's mistake would only come again, so they end a run at once.
"""

from typing import Any

from prefect.client.schemas.objects import State

from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.data.ingest.download import ServerAway

KILLED, AWAY = "Killed", "ServerAway"


def can_help(_: Any, __: Any, state: State[Any]) -> bool:
    """Prefect's `retry_condition_fn` of every task here: whether the state's name says that another try can help."""
    return state.name in (KILLED, AWAY)


def name_of(error: BaseException) -> str:
    """The name of the Failed state that `error` ends a task in."""
    return AWAY if away(error) else "Failed"


def away(error: BaseException) -> bool:
    """Whether a lost or refused connection is behind the error, however it was wrapped."""
    return isinstance(error, ServerAway) or machine_errors.lost_connection(error)


def in_words(error: BaseException) -> str | None:
    """What a run ends with, where the user, the machine or the network is behind the error; else the fault is ours."""
    return str(error) if isinstance(error, HeartMLError) else machine_errors.in_words(error)
