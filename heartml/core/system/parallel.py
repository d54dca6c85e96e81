"""Work on all cores. Results come in the order of the items, so they do not depend on the number of workers.

Every worker computes on one thread, because small tensors are slower on two. It ends when its parent ends.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import TypeVar

from heartml.core.system.processes import collect_garbage_less_often, die_with_parent

T = TypeVar("T")
R = TypeVar("R")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of a stage's work, counted from 1; written `2/3`.

    >>> part = Part.parse("2/3")
    >>> str(part), part.of("abcdefg")
    ('2/3', 'be')
    """

    number: int
    count: int

    @classmethod
    def parse(cls, words: str) -> "Part":
        """Read `2/3`.

        Raises:
            ValueError: the text is not a part.
        """
        number, _, count = words.partition("/")
        part = cls(int(number), int(count))
        if not 1 <= part.number <= part.count:
            raise ValueError(f"{words}: parts are counted from 1")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th item. Costly items that follow each other go to different parts."""
        return items[self.number - 1 :: self.count]


def available_workers(wanted: int) -> int:
    """Number of worker processes: `wanted`, or where that is 0 one for each core that this process may use."""
    return wanted or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else wanted or os.cpu_count() or 1


def single_thread() -> None:
    """Let torch and BLAS compute on one thread in this process. Two threads would also round differently."""
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"
    if "torch" in sys.modules:     # it has already read the variables
        sys.modules["torch"].set_num_threads(1)


def _start_worker() -> None:
    """Set one thread (torch and BLAS read the variables at their first import), and end with the main process.

    The parent of a worker is the forkserver, which lives as long as its workers. Only the pipe to the main process
    shows that the main process has ended.
    """
    die_with_parent()
    collect_garbage_less_often()
    single_thread()
    threading.Thread(target=_die_with_main_process, daemon=True).start()


def _die_with_main_process() -> None:
    main = parent_process()
    assert main
    main.join()
    os._exit(1)


class Pool:
    """Ordered map over worker processes; with one worker, in this process."""

    def __init__(self, executor: ProcessPoolExecutor | None) -> None:
        self._executor = executor

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results of `function` in the order of `items`, each as soon as it and all before it are done."""
        return self._executor.map(function, items) if self._executor else map(function, items)


@contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """A pool of `workers` processes (see `available_workers`). When the block ends, pending work is cancelled."""
    single_thread()
    if workers == 1:
        yield Pool(None)
        return
    executor = ProcessPoolExecutor(workers, mp_context=get_context("forkserver"), initializer=_start_worker)
    try:
        yield Pool(executor)
    finally:
        executor.shutdown(cancel_futures=True)
