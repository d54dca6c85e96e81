"""What `heartml retrain` lets be heard while its flow runs: the stages' own lines, and on a terminal what runs now.

Prefect's console is silent then (flows/support/private_server.py); the lines go to Prefect's log as well.
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

AUDIBLE: Mapping[str, bool] = {"audible": True}
BEGUN: Mapping[str, bool] = {"begun": True}     # heard where no line on a terminal says what runs
_running: dict[str, float] = {}


class _Handler(logging.Handler):
    """Prints the records that are meant to be heard."""

    def __init__(self, console: "Console") -> None:
        super().__init__()
        self._console = console
        self._heard = ("audible",) if console.is_terminal else ("audible", "begun")

    def emit(self, record: logging.LogRecord) -> None:
        if any(getattr(record, how, False) for how in self._heard) or record.levelno == logging.WARNING:
            self._console.print(one_line(record.getMessage()), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def running(what: str) -> Iterator[None]:
    """Name `what` among the things that run now."""
    _running[what] = time.monotonic()
    try:
        yield
    finally:
        del _running[what]


@contextmanager
def verbose() -> Iterator[None]:
    """Print audible records to stderr; on a terminal a line below them says what runs, and for how long."""
    from rich.console import Console

    console = Console(stderr=True)
    handler = _Handler(console)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with _line(console):
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextmanager
def _line(console: "Console") -> Iterator[None]:
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
