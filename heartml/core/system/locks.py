"""One process at a time: a lock file that the kernel frees when its holder dies."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from heartml.core.system.errors import HeartMLError


class Busy(HeartMLError):  # noqa: N818 - reads as a state, and is caught as one
    """Another process holds the lock, and the time to wait for it is over."""


@contextlib.contextmanager
def exclusive(lock: Path, *, wait_s: float = float("inf"), on_wait: str = "") -> Iterator[None]:
    """Hold the lock file `lock` during the block. The kernel frees it when the process dies, so no lock is ever stale.

    Args:
        wait_s: how many seconds to wait for another holder.
        on_wait: printed once on stderr, with the holder, if there is a wait.

    Raises:
        Busy: the lock is still held by another process after `wait_s`; the message names the holder.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with lock.open("a+", encoding="utf-8") as file:
        printed = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = lock.read_text(encoding="utf-8").strip() or "another process"
                if time.monotonic() >= deadline:
                    raise Busy(f"{lock.name} is held by {holder}") from None
                if on_wait and not printed:
                    print(f"{on_wait} ({holder})", file=sys.stderr, flush=True)
                    printed = True
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield
