"""Work on all cores with results in the order asked, so that the number of workers never shows in a result.

Small tensors are slower on two threads than on one: every worker computes on one thread, and dies with its parent.
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

from heartml.core.system.processes import die_with_parent

T = TypeVar("T")
R = TypeVar("R")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of a stage's work, counted from 1; written `2/3`."""

    number: int
    count: int

    @classmethod
    def parse(cls, words: str) -> "Part":
        """`2/3`.

        Raises:
            ValueError: that is no part.
        """
        number, _, count = words.partition("/")
        part = cls(int(number), int(count))
        if not 1 <= part.number <= part.count:
            raise ValueError(f"{words}: parts are counted from 1")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th item: dear ones that stand together are shared out."""
        return items[self.number - 1 :: self.count]


def available_workers(wanted: int) -> int:
    """`wanted` worker processes, or one for each core that this process may use where `wanted` is 0."""
    return wanted or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else wanted or os.cpu_count() or 1


def single_thread() -> None:
    """Let this process compute on one thread, torch and BLAS alike; two threads also round differently."""
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"
    if "torch" in sys.modules:     # it has read the variables already
        sys.modules["torch"].set_num_threads(1)


def _start_worker() -> None:
    """One thread (torch and BLAS read the variables when they are first imported), and no life after the main process.

    A forkserver's worker is the forkserver's child, and keeps it alive: only the pipe to the main process tells.
    """
    die_with_parent()
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
        """Results of `function` in the order of `items`, each as soon as it and those before it are there."""
        return self._executor.map(function, items) if self._executor else map(function, items)


@contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """A pool of `workers` processes (see `available_workers`); pending work is cancelled on an error."""
    single_thread()
    if workers == 1:
        yield Pool(None)
        return
    executor = ProcessPoolExecutor(workers, mp_context=get_context("forkserver"), initializer=_start_worker)
    try:
        yield Pool(executor)
    finally:
        executor.shutdown(cancel_futures=True)
