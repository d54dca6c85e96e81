"""What every stage of `dvc.yaml` does around its own work: die with DVC, keep others out, say one line."""

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
    """The stage cannot go on; the message names the row and the way out. Printed without a traceback, exit status 1."""


class Log:
    """Collects what the closing line of a stage says."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def say(self, words: str) -> None:
        """Add to the closing line: `398 recordings in`, `12 quarantined`."""
        self.words.append(words)


@contextlib.contextmanager
def stage(name: str, *, task: str = "", encoder: str = "") -> Iterator[Log]:
    """Run one stage alone: no second copy beside it, one thread a process, dead when its parent dies."""
    full = "@".join(part for part in (name, "-".join(p for p in (task, encoder) if p)) if part)
    die_with_parent()
    single_thread()
    started = time.monotonic()
    log = Log()
    with exclusive(paths.LOCKS / f"{full}.lock", on_wait=f"{full}: waiting for another run of this stage"):
        yield log
    print(f"{full}: {', '.join([*log.words, f'{time.monotonic() - started:.1f} s'])}", file=sys.stderr, flush=True)
