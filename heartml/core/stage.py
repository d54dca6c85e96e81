"""What every stage of `dvc.yaml` does around its own work: end with DVC, hold its lock, log one line."""

import contextlib
import sys
import time
from collections.abc import Iterator

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.locks import exclusive
from heartml.core.system.parallel import single_thread
from heartml.core.system.processes import die_with_parent


class StageError(HeartMLError):
    """The stage cannot go on; the message names the row and what to do. Printed without a traceback, exit status 1."""


class Log:
    """Collects the parts of the one line that a stage logs at its end."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, part: str) -> None:
        """Add a part to the line: `398 recordings in`, `12 quarantined`."""
        self.parts.append(part)


@contextlib.contextmanager
def stage(name: str, *, task: str = "", encoder: str = "") -> Iterator[Log]:
    """Run one stage: no second copy of it at the same time, one thread, and it ends when its parent ends.

    When the block ends well, one line goes to stderr: `split@circor-murmur: 398 recordings in, 0.3 s`.
    """
    full = "@".join(part for part in (name, "-".join(p for p in (task, encoder) if p)) if part)     # as DVC names it
    die_with_parent()
    single_thread()
    started = time.monotonic()
    log = Log()
    with exclusive(paths.LOCKS / f"{full}.lock", on_wait=f"{full}: waiting for another run of this stage"):
        yield log
    print(f"{full}: {', '.join([*log.parts, f'{time.monotonic() - started:.1f} s'])}", file=sys.stderr, flush=True)
