"""`heartml retrain`: ask DVC first; where nothing is stale and no server is configured, Prefect is not even imported.

Otherwise the flow runs, on the configured server or on a private one that lives as long as the command.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.support import check_parameters, console, private_server
from heartml.core import config, paths
from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing
from heartml.pipeline import graph
from heartml.release import murmur_pages, publish
from heartml.release.publish import ReleaseOutcome

if TYPE_CHECKING:
    from heartml.data.ingest import IngestOutcome as Ingested

UNFINISHED = paths.STATE / "flow.unfinished"   # is there while a flow runs on a private server


class RetrainFailed(HeartMLError):  # noqa: N818 - reads as what happened
    """The flow did not come to an end; the message is the flow's own."""


class IngestFailed(HeartMLError):  # noqa: N818 - reads as what happened
    """The flow made no version of the data; the message is the flow's own."""


def ingest(
    dataset: str, folder: Path | None, into: Path | None, mirror: str | None, *, keep_tasks: bool, replace: bool
) -> "Ingested":
    """Run the flow `ingest` on the configured server.

    Raises:
        ServerError: it does not answer.
        IngestFailed: nothing was ingested.
    """
    private_server.check()
    from flows.ingest import ingest as flow
    from flows.support import stale_runs

    with stale_runs.signed():
        state = flow(dataset, folder, into, mirror, keep_tasks, replace, return_state=True)
    if not state.is_completed():
        raise IngestFailed(str(state.message))
    return cast("Ingested", state.result())


def retrain(*, wait: bool, force: bool) -> list[ReleaseOutcome]:
    """Bring everything up to date; one outcome a task.

    Raises:
        Busy: another retraining is at work, and `wait` is false.
        ServerError: the configured server does not answer.
        ParamsError, TaskError: see `flows.support.check_parameters`.
        RetrainFailed: nothing could be retrained.
    """
    if private_server.configured():
        private_server.check()
        return _flow(wait=wait, force=force)
    with graph.alone(wait=wait):
        params = check_parameters.read()
        publish.sweep()
        if not force and not UNFINISHED.exists() and not graph.plan().due:
            outcomes = [_publish(name, params) for name in params.tasks]
            murmur_pages.write(outcomes)
            return outcomes
    check_parameters.check_families(params)
    private_server.start()
    from flows import retrain as _  # noqa: F401 - sets Prefect's logging up, which would silence a voice raised before

    with _unfinished(), console.verbose():
        return _flow(wait=wait, force=force)


def _publish(name: str, params: config.Params) -> ReleaseOutcome:
    try:
        return publish.publish(name, params, {})
    except HeartMLError as error:
        return publish.failure(name, str(error))


@contextlib.contextmanager
def _unfinished() -> Iterator[None]:
    """Leave a mark until the flow has ended: after a kill the next command starts Prefect to close the run."""
    with replacing(UNFINISHED) as temporary:
        temporary.touch()
    yield
    UNFINISHED.unlink(missing_ok=True)


def _flow(*, wait: bool, force: bool) -> list[ReleaseOutcome]:
    import httpx

    from flows import retrain as module
    from flows.support import stale_runs

    try:
        with stale_runs.signed():
            state = module.retrain(wait=wait, force=force, return_state=True)
    except httpx.HTTPError as error:
        words = machine_errors.of_folder(paths.STATE) or (
            f"the Prefect server went away ({error}). Nothing that is done is lost: run it again.")
        raise RetrainFailed(words) from None
    outcomes = state.result(raise_on_failure=False)
    if isinstance(outcomes, list):
        return outcomes
    raise RetrainFailed(_of_machine(outcomes) or str(state.message))


def _of_machine(error: Any) -> str | None:
    """What the machine did, where that is behind it; a library may only say what a full disk has left behind."""
    if isinstance(error, HeartMLError) or not isinstance(error, BaseException):
        return None
    return machine_errors.in_words(error) or machine_errors.of_folder(paths.STATE)
