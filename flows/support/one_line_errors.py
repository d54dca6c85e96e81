"""One rule for every flow: a user's mistake ends the run Failed with one line; a fault of ours keeps its traceback.

A mistake is a `HeartMLError`: an unknown model, a missing folder, params.yaml that cannot be used. Its message becomes
the message of a Failed state. Prefect's engine logs a traceback of its own for such a state, which shows nothing but
Prefect reading it, and would hide the line. `without_traceback` keeps that out of the log.
"""

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Failed

from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import one_line

_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")
_READS_STATES = "prefect.states"
P = ParamSpec("P")
T = TypeVar("T")


def as_failed(body: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | State[Any]:
    """Call the body of a flow or task with these arguments; a user's mistake becomes a Failed state.

    Not a decorator: Prefect finds a flow's file and entry point by the function that it decorates.

    Returns:
        What the body returns, or the Failed state for Prefect to take as the end of the run.
    """
    try:
        return body(*args, **kwargs)
    except HeartMLError as error:
        return Failed(message=one_line(error))


def without_traceback() -> None:
    """Keep tracebacks of returned Failed states out of the log from now on; a second call changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)


class _Filter(logging.Filter):
    """Drops what was raised by reading a state, and the empty traceback of a task's returned state."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0] is None:
            record.exc_info = None     # it would print "NoneType: None"
        return not (record.exc_info and _raised_in(record.exc_info[2]) == _READS_STATES)


_FILTER = _Filter()


def _raised_in(traceback: TracebackType | None) -> str:
    """Name of the module in which the error was raised."""
    name = ""
    while traceback:
        name, traceback = traceback.tb_frame.f_globals.get("__name__", ""), traceback.tb_next
    return name
