"""When another try can help: the network, a server that was away, a process that was killed. Not an answer.

A stage's own error and a user's mistake would only come again, so they end a run at once.
"""

from collections.abc import Iterator
from typing import Any

from prefect.client.schemas.objects import State

KILLED, AWAY = "Killed", "ServerAway"
_OF_THE_NETWORK = frozenset({
    "builtins.ConnectionError", "builtins.TimeoutError", "urllib.error.URLError", "http.client.HTTPException",
    "requests.exceptions.RequestException", "httpx.TransportError", "sqlalchemy.exc.OperationalError",
    "sqlalchemy.exc.InterfaceError", "botocore.exceptions.HTTPClientError",
    "heartml.ingest.download.ServerAway",
})   # by name: most of these libraries are not imported when nothing has failed


def can_help(_: Any, __: Any, state: State[Any]) -> bool:
    """Prefect's `retry_condition_fn` of every task here: whether the state's name says that another try can help."""
    return state.name in (KILLED, AWAY)


def name_of(error: BaseException) -> str:
    """The name of the Failed state that `error` ends a task in."""
    return AWAY if away(error) else "Failed"


def away(error: BaseException) -> bool:
    """Whether a lost or refused connection is behind the error, however it was wrapped."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in _OF_THE_NETWORK
               for cause in _chain(error) for kind in type(cause).__mro__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
