"""How far a long piece of work is, and how long it will take: shown on stderr in one way everywhere.

On a terminal there is a bar. Elsewhere a line is printed every 30 seconds, so that a log shows that the work goes on. A
stage that `heartml retrain` started writes such lines more often, with a mark; `heartml.pipeline.run_stage` reads them.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

T = TypeVar("T")
EVERY_S = 30.0                       # between two lines where stderr is no terminal
PERIOD = "HEARTML_PROGRESS_S"        # environment variable: another number of seconds, and lines with the mark
MARK = "progress: "
_LEAST_S = 2.0                       # a time left is not estimated from less
_shown: list["Progress"] = []        # what is under way; the last one is inside the others


class Progress:
    """One piece of work under way.

    Attributes:
        words: what is done now; may be changed at any time.
        total: amount of work; `None` where it is not known.
        done: amount that is done.
        counted: whether the amounts are numbers of things, shown as `3 of 20`; else a percentage is shown.
    """

    def __init__(self, words: str, total: float | None, *, counted: bool = True) -> None:
        self.words, self.total, self.done, self.counted = words, total, 0.0, counted
        self._since = time.monotonic()

    def advance(self, amount: float = 1.0) -> None:
        """Add to the work that is done."""
        self.done += amount

    def __str__(self) -> str:
        """The state in words: `decoding: 120 of 399, 31 s, about 1 min 12 s left`."""
        elapsed = time.monotonic() - self._since
        words = [f"{self.words}: {self._amount()}", duration(elapsed)]
        if self.total and self.done and elapsed >= _LEAST_S:
            words.append(f"about {duration(elapsed * max(0.0, self.total / self.done - 1))} left")
        return ", ".join(words)

    def _amount(self) -> str:
        if not self.total:
            return f"{self.done:.0f} done"
        return f"{self.done:.0f} of {self.total:.0f}" if self.counted else f"{min(1.0, self.done / self.total):.0%}"


def duration(seconds: float) -> str:
    """A time in words, to two units.

    >>> duration(8), duration(75), duration(4000)
    ('8 s', '1 min 15 s', '1 h 6 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def track(items: Iterable[T], words: str, total: float | None = None) -> Iterator[T]:
    """Yield `items` while it is shown how many of `total` are done."""
    with show(words, total) as shown:
        for item in items:
            yield item
            shown.advance()


@contextlib.contextmanager
def show(words: str, total: float | None, *, counted: bool = True) -> Iterator[Progress]:
    """Show how far the work in the block is; the block calls `advance`, and may change `words`."""
    shown = Progress(words, total, counted=counted)
    _shown.append(shown)
    try:
        if len(_shown) > 1:      # whoever shows the outer one shows this one too
            yield shown
        else:
            with _on_terminal() if _to_terminal() else _in_lines():
                yield shown
    finally:
        _shown.remove(shown)


def _to_terminal() -> bool:
    return PERIOD not in os.environ and sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def _in_lines() -> Iterator[None]:
    if sys.stderr is None:      # closed by whoever started this
        yield
        return
    marked = PERIOD in os.environ

    def write() -> None:
        line = f"{MARK * marked}{'; '.join(map(str, list(_shown)))}"
        with contextlib.suppress(OSError, ValueError):      # nobody listens any more
            print(line, file=sys.stderr, flush=True)

    with every(_period_s(), write):
        yield


def _period_s() -> float:
    """Seconds between two lines: those in the environment, if that is a number above zero."""
    try:
        wanted = float(os.environ.get(PERIOD, EVERY_S))
    except ValueError:
        return EVERY_S
    return wanted if 0 < wanted < threading.TIMEOUT_MAX else EVERY_S


@contextlib.contextmanager
def _on_terminal() -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=20)
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        rows: dict[Progress, TaskID] = {}
        with every(0.2, lambda: _update(bars, rows)):
            yield


def _update(bars: "Bars", rows: "dict[Progress, TaskID]") -> None:
    under_way = list(_shown)
    for gone in set(rows) - set(under_way):
        bars.remove_task(rows.pop(gone))
    for one in under_way:
        if one not in rows:
            rows[one] = bars.add_task("", total=one.total)
        bars.update(rows[one], description=str(one), completed=one.done)


@contextlib.contextmanager
def every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` in a thread every so many seconds, for as long as the block runs."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(seconds):
            act()

    clock = threading.Thread(target=tick, daemon=True)
    clock.start()
    try:
        yield
    finally:
        ended.set()
        clock.join()
