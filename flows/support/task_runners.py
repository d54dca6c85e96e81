"""Where the stages of a flow run: on threads of the flow's process, or on a Dask cluster.

`HEARTML_DASK=tcp://HOST:8786` names a running scheduler; `local:2` starts two workers on this machine. Every worker
needs this folder (a shared file system) and this environment. A stage is a process of its own there too. A stage whose
work can be divided is precomputed in parts, one for each worker (heartml/pipeline/parts.py).

With `HEARTML_SHARED` as well, workers have folders of their own and share only an object store. Then stages run here,
and workers do many small parts of those that can be divided (heartml/pipeline/shared_parts.py).
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from flows.support import console
from flows.support.handed_out import HandedOut, do_handed_out
from heartml.core.system.errors import HeartMLError
from heartml.core.system.locks import Busy, exclusive
from heartml.pipeline import graph, object_store, parts, shared_parts
from heartml.pipeline.graph import Stage
from heartml.pipeline.object_store import ObjectStore

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner

VARIABLE = "HEARTML_DASK"
_CONNECT_S = "30s"
_LOOK_S = 1.0


class RunnerError(HeartMLError):
    """The Dask cluster cannot be used; the message says what to do."""


class Runner:
    """Starts stages on the flow's own threads, or on a cluster that is connected to when the first stage starts."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._runner: TaskRunner[Any] | None = None
        self._workers = 1

    def submit(
        self, run: Task[..., Any], stage: Stage, *, wait_for: Sequence[PrefectFuture[Any]], **parameters: Any
    ) -> PrefectFuture[Any]:
        """Start the task `run` for a stage, after the parts of its work that workers can precompute.

        Raises:
            RunnerError: `HEARTML_DASK` names no cluster that answers, or prefect-dask is not installed.
        """
        runner = self._started()
        store = object_store.configured()
        if store and self._on_cluster:
            handed = self._hand_out(store, stage, force=parameters.get("force", False)) if stage.parts else None
            here: PrefectFuture[Any] = _own_runner().submit(
                run, {"address": stage.address, "handed": handed, **parameters}, wait_for=wait_for)
            return here
        precomputed = [
            runner.submit(do_part, {"address": stage.address, "words": f"{number}/{self._workers}",
                                    "force": parameters.get("force", False)}, wait_for=wait_for)
            for number in range(1, self._workers + 1) if stage.parts and self._workers > 1
        ]
        started: PrefectFuture[Any] = runner.submit(
            run, {"address": stage.address, **parameters}, wait_for=[*wait_for, *precomputed])
        return started

    @property
    def _on_cluster(self) -> bool:
        return bool(os.environ.get(VARIABLE))

    def _hand_out(self, address: str, stage: Stage, *, force: bool) -> HandedOut:
        """Put the parts of a stage into the object store, and a task for each on the cluster."""
        store, commit = ObjectStore.open(address), shared_parts.commit()
        jobs = shared_parts.publish(store, stage.address, self._workers, force=force)
        futures = [self._started().submit(do_handed_out, {"address": stage.address, "number": number, "store": address,
                                                          "job": job.name, "commit": commit})
                   for number, job in enumerate(jobs, 1)]
        return HandedOut(store, jobs, futures)

    def _started(self) -> TaskRunner[Any]:
        if self._runner is None:
            address = os.environ.get(VARIABLE)
            if address:
                runner = self._stack.enter_context(_dask(address))
                self._workers = _workers(runner, address)
                self._runner = runner
            else:
                self._runner = _own_runner()
        return self._runner


def _own_runner() -> TaskRunner[Any]:
    """The flow's own threads."""
    context = FlowRunContext.get()
    assert context
    return context.task_runner


@contextlib.contextmanager
def stage_runner() -> Iterator[Runner]:
    """The runner for the stages of a flow; a cluster that it started ends with the block."""
    with contextlib.ExitStack() as stack:
        yield Runner(stack)


def _dask(address: str) -> "DaskTaskRunner":
    try:
        import dask
        from prefect_dask.task_runners import DaskTaskRunner
    except ModuleNotFoundError:
        raise RunnerError(f"{VARIABLE}={address}: install heartml[scale], which brings prefect-dask") from None

    dask.config.set({"distributed.comm.timeouts.connect": _CONNECT_S})
    kind, _, count = address.partition(":")
    if kind != "local":
        return DaskTaskRunner(address=address)
    if not count.isdigit() or not int(count):
        raise RunnerError(f"{VARIABLE}={address}: expected tcp://HOST:PORT, or local:2 for two workers on this machine")
    return DaskTaskRunner(cluster_kwargs={"n_workers": int(count), "threads_per_worker": 1, "dashboard_address": None})


def _workers(runner: "DaskTaskRunner", address: str) -> int:
    """Connect to the cluster and count its workers."""
    try:
        return len(runner.client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, ValueError) as error:
        raise RunnerError(f"{VARIABLE}={address}: no Dask scheduler answers ({error}). Start one with "
                          f"`dask scheduler`, or unset {VARIABLE}") from None


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{address} part {words}")
def do_part(address: str, words: str, force: bool) -> bool:
    """Precompute part `words` (`K/N`) of a stage's work. If it fails, the stage does that part itself.

    Returns:
        Whether the part was done.
    """
    log = get_run_logger()
    with ending_with_flow():
        done = parts.run(address, words, force=force, log_line=lambda line: log.info(line, extra=console.VERBOSE))
    if not done:
        log.warning("%s: part %s is left to the stage itself", address, words)
    return done


@contextlib.contextmanager
def ending_with_flow() -> Iterator[None]:
    """On a Dask worker: kill the processes that the block has started as soon as the flow has ended.

    A cluster outlives a killed flow and cannot stop a task that runs. The worker sees the end of the flow by the lock
    on this folder, which the kernel frees. Elsewhere this does nothing.
    """
    if not _on_a_worker():
        yield
        return
    ended = threading.Event()
    threading.Thread(target=_watch, args=(ended,), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _on_a_worker() -> bool:
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _watch(ended: threading.Event) -> None:
    import psutil

    while not ended.wait(_LOOK_S):
        if not _flow_runs():
            for child in psutil.Process().children():
                child.kill()


def _flow_runs() -> bool:
    """Whether some process holds the lock on this folder."""
    try:
        with exclusive(graph.LOCK, wait_s=0):
            return False
    except Busy:
        return True
