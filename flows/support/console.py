"""What `heartml retrain` prints to stderr while its flow runs: the stages' lines, and what runs and how far it is.

On a terminal a status line says what runs; elsewhere a line says so whenever nothing was printed for 30 seconds.
Prefect's own console output is off during that time (flows/support/private_server.py). All lines also go to Prefect's
log. A log record is printed when it carries the mark `VERBOSE` or `STARTED`, or is a warning.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from heartml.core.system import progress
from heartml.core.system.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

VERBOSE: Mapping[str, bool] = {"verbose": True}
STARTED: Mapping[str, bool] = {"started": True}     # printed only where there is no status line
_running: dict[str, float] = {}
_how_far: dict[str, str] = {}


class _Handler(logging.Handler):
    """Prints the records that carry one of the marks."""

    def __init__(self, console: "Console") -> None:
        super().__init__()
        self._console = console
        self.printed_at = time.monotonic()
        self._marks = (*VERBOSE,) if console.is_terminal else (*VERBOSE, *STARTED)

    def emit(self, record: logging.LogRecord) -> None:
        if any(getattr(record, mark, False) for mark in self._marks) or record.levelno == logging.WARNING:
            self.say(one_line(record.getMessage()))

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.printed_at = time.monotonic()


@contextmanager
def running(what: str) -> Iterator[None]:
    """Show that `what` runs while the block runs."""
    _running[what] = time.monotonic()
    try:
        yield
    finally:
        del _running[what]
        _how_far.pop(what, None)


def report(what: str, how_far: str) -> None:
    """Show how far `what` is, in words, from now on."""
    _how_far[what] = how_far


@contextmanager
def verbose() -> Iterator[None]:
    """Print marked records to stderr, and say what runs, for how long and how far it is."""
    from rich.console import Console

    console = Console(stderr=True)
    handler = _Handler(console)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with _status_line(console) if console.is_terminal else _lines(handler):
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextmanager
def _status_line(console: "Console") -> Iterator[None]:
    status = console.status("starting")
    with status, progress.every(1, lambda: status.update(_under_way() or "between stages")):
        yield


@contextmanager
def _lines(handler: _Handler) -> Iterator[None]:
    def say() -> None:
        if (words := _under_way()) and time.monotonic() - handler.printed_at >= progress.EVERY_S:
            handler.say(f"running: {words}")

    with progress.every(1, say):
        yield


def _under_way() -> str:
    now = time.monotonic()
    return ", ".join(f"{what} ({_how_far[what]})" if what in _how_far else f"{what} ({progress.duration(now - since)})"
                     for what, since in list(_running.items()))
