"""Parts of a stage that workers do who share only an object store: handed out here, and collected before the stage."""

from collections.abc import Callable, Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from flows.support import console
from heartml.core.system.errors import HeartMLError
from heartml.pipeline import remote_part, run_stage, shared_parts
from heartml.pipeline.object_store import ObjectStore
from heartml.pipeline.run_stage import StageFailed
from heartml.pipeline.shared_parts import Job

DONE, FAILED, REFUSED = "done", "failed", "refused"
Outcome = tuple[str, str]      # one of these, and why


class HandedOut:
    """The parts of one stage, and what became of them. Prefect looks into no class of this kind for futures."""

    def __init__(self, store: ObjectStore, jobs: Sequence[Job], futures: Sequence[PrefectFuture[Outcome]]) -> None:
        self._store, self._jobs, self._futures = store, jobs, futures

    def collect(self, address: str, say: Callable[[str], None]) -> None:
        """Wait for all parts, and put their results where the stage looks first. It does what is missing itself.

        Raises:
            StageFailed: a worker has other code, the store does not answer, or the flow has been stopped.
        """
        outcomes = [_outcome(future) for future in self._futures]
        if run_stage.is_stopping():
            raise StageFailed(f"{address}: stopped")
        refused = [words for kind, words in outcomes if kind == REFUSED]
        if refused:
            raise StageFailed(f"{address}: {refused[0]}")
        for number, (kind, words) in enumerate(outcomes, 1):
            if kind == FAILED:
                say(f"{address}: part {number} of {len(outcomes)} is left to the stage itself: {words}")
        try:
            without = shared_parts.collect(self._store, self._jobs)
        except HeartMLError as error:
            raise StageFailed(f"{address}: {error}") from None
        say(f"{address}: {len(self._jobs) - len(without)} of {len(self._jobs)} parts were done by workers")


def _outcome(future: PrefectFuture[Outcome]) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - whatever became of the worker, the stage can do its part
        return FAILED, " ".join(str(error).split()) or type(error).__name__


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{address} part {number}")
def do_handed_out(address: str, number: int, store: str, job: str, commit: str) -> Outcome:
    """Do one part, on a worker in a folder of its own.

    Args:
        store: address of the object store.
        job: its name there.
        commit: of the retraining's code.
    """
    log = get_run_logger()
    try:
        remote_part.do(store, job, commit, lambda line: log.info(line, extra=console.VERBOSE))
    except remote_part.OtherCode as error:
        return REFUSED, str(error)
    except HeartMLError as error:
        return FAILED, str(error)
    return DONE, ""
