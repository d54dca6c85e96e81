"""A flow that ends in a Failed state has answered in one line; Prefect's engine adds a traceback of its own to it.

The traceback shows nothing but Prefect reading that state, and buries the line in the run's log. A fault of ours keeps
its traceback.
"""

import logging
from types import TracebackType

_LOGGERS = ("prefect.flow_runs", "prefect.engine")
_READS_STATES = "prefect.states"


class _Filter(logging.Filter):
    """Drops what was raised by reading a state."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and _last(record.exc_info[2]) == _READS_STATES)


_FILTER = _Filter()


def without_traceback() -> None:
    """From now on in this process; a second time changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)


def _last(traceback: TracebackType | None) -> str:
    """Name of the module in which the error was raised."""
    name = ""
    while traceback:
        name, traceback = traceback.tb_frame.f_globals.get("__name__", ""), traceback.tb_next
    return name
