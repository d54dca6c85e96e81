"""When a retry can help: after a lost connection, a server that was away, or a killed process.

An error of a stage itself and a user's mistake would only come again, so they end a run at once.
"""

from typing import Any

from prefect.client.schemas.objects import State

from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.data.ingest.download import ServerAway

KILLED, AWAY = "Killed", "ServerAway"     # names of Failed states that are tried again


def can_help(_: Any, __: Any, state: State[Any]) -> bool:
    """Whether a retry can help, by the name of the Failed state: Prefect's `retry_condition_fn` of the tasks here."""
    return state.name in (KILLED, AWAY)


def state_name(error: BaseException) -> str:
    """The name of the Failed state in which a task ends that raised `error`."""
    return AWAY if is_lost_connection(error) else "Failed"


def is_lost_connection(error: BaseException) -> bool:
    """Whether a lost or refused connection is behind the error, however deep it is wrapped."""
    return isinstance(error, ServerAway) or machine_errors.is_lost_connection(error)


def explain(error: BaseException) -> str | None:
    """One line about an error that the user, the machine or the network caused; `None` where the fault is ours."""
    return str(error) if isinstance(error, HeartMLError) else machine_errors.explain(error)
