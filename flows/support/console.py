"""What `heartml retrain` prints to stderr while its flow runs: the stages' lines, and on a terminal a status line.

Prefect's own console output is off during that time (flows/support/private_server.py). All lines also go to Prefect's
log. A log record is printed when it carries the mark `VERBOSE` or `STARTED`, or is a warning.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from heartml.core.system.text import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

VERBOSE: Mapping[str, bool] = {"verbose": True}
STARTED: Mapping[str, bool] = {"started": True}     # printed only where there is no status line
_running: dict[str, float] = {}


class _Handler(logging.Handler):
    """Prints the records that carry one of the marks."""

    def __init__(self, console: "Console") -> None:
        super().__init__()
        self._console = console
        self._marks = (*VERBOSE,) if console.is_terminal else (*VERBOSE, *STARTED)

    def emit(self, record: logging.LogRecord) -> None:
        if any(getattr(record, mark, False) for mark in self._marks) or record.levelno == logging.WARNING:
            self._console.print(one_line(record.getMessage()), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def running(what: str) -> Iterator[None]:
    """Show `what` in the status line while the block runs."""
    _running[what] = time.monotonic()
    try:
        yield
    finally:
        del _running[what]


@contextmanager
def verbose() -> Iterator[None]:
    """Print marked records to stderr; on a terminal a status line below them names what runs and for how long."""
    from rich.console import Console

    console = Console(stderr=True)
    handler = _Handler(console)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with _status_line(console):
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextmanager
def _status_line(console: "Console") -> Iterator[None]:
    if not console.is_terminal:
        yield
        return
    ended = threading.Event()
    with console.status("starting") as status:
        clock = threading.Thread(target=_tick, args=(status, ended), daemon=True)
        clock.start()
        try:
            yield
        finally:
            ended.set()
            clock.join()


def _tick(status: "Status", ended: threading.Event) -> None:
    while not ended.wait(1):
        now = time.monotonic()
        words = [f"{what} {now - since:.0f} s" for what, since in list(_running.items())]
        status.update(", ".join(words) or "between stages")
