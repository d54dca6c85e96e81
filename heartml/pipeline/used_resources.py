"""What a block's processes take: CPU and memory of every process below this one, looked at twice a second.

The kernel sums up only processes that were waited for, and a pool's workers belong to a server of their own. So the
processes are looked at while they live. What a process does after the last look at it is missed.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

PERIOD_S = 0.5
_MEMORY_EVERY = 4       # looks; the kernel needs milliseconds to count the pages of a large process


@dataclass
class Used:
    """What was seen so far.

    Attributes:
        cpu_s: seconds of CPU, user and system, of each process by its number and start.
        memory_mb: most memory of all processes together, in MB (10^6 bytes); shared pages count once.
    """

    cpu_s: dict[tuple[int, float], float] = field(default_factory=dict)
    memory_mb: float = 0.0

    def to_json(self) -> dict[str, float]:
        """`cpu_s` in all, and `memory_mb`."""
        return {"cpu_s": round(sum(self.cpu_s.values()), 2), "memory_mb": round(self.memory_mb, 1)}


@contextlib.contextmanager
def watched() -> Iterator[Used]:
    """Look at the processes below this one while the block runs; this one is left out."""
    used, over = Used(), threading.Event()
    thread = threading.Thread(target=_watch, args=(used, over), daemon=True)
    thread.start()
    try:
        yield used
    finally:
        over.set()
        thread.join()


def _watch(used: Used, over: threading.Event) -> None:
    own, looks = psutil.Process(), 0
    while not over.wait(PERIOD_S):
        memory = 0.0
        for process in own.children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):      # it has just ended
                times = process.cpu_times()
                used.cpu_s[process.pid, process.create_time()] = times.user + times.system
                memory += process.memory_full_info().pss if looks % _MEMORY_EVERY == 0 else 0
        used.memory_mb = max(used.memory_mb, memory / 1e6)
        looks += 1
