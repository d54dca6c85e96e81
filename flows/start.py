"""`heartml retrain`: ask DVC first; where nothing is stale and no server is configured, Prefect is not even imported.

Otherwise the flow runs, on the configured server or on a private one that lives as long as the command.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows import server, voice
from heartml import pipeline, publish
from heartml.core import config, paths, trouble
from heartml.core.errors import HeartMLError
from heartml.core.files import replacing
from heartml.pipeline import parameters
from heartml.publish import Outcome, description

if TYPE_CHECKING:
    from heartml.ingest import Outcome as Ingested

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
    server.check()
    from flows import sweep
    from flows.ingest import ingest as flow

    with sweep.signed():
        state = flow(dataset, folder, into, mirror, keep_tasks, replace, return_state=True)
    if not state.is_completed():
        raise IngestFailed(str(state.message))
    return cast("Ingested", state.result())


def retrain(*, wait: bool, force: bool) -> list[Outcome]:
    """Bring everything up to date; one outcome a task.

    Raises:
        Busy: another retraining is at work, and `wait` is false.
        ServerError: the configured server does not answer.
        ParamsError, TaskError: see `heartml.pipeline.parameters.read`.
        RetrainFailed: nothing could be retrained.
    """
    if server.configured():
        server.check()
        return _flow(wait=wait, force=force)
    with pipeline.alone(wait=wait):
        params = parameters.read()
        publish.sweep()
        if not force and not UNFINISHED.exists() and not pipeline.plan().due:
            outcomes = [_publish(name, params) for name in params.tasks]
            description.write(outcomes)
            return outcomes
    server.start()
    from flows import retrain as _  # noqa: F401 - sets Prefect's logging up, which would silence a voice raised before

    with _unfinished(), voice.aloud():
        return _flow(wait=wait, force=force)


def _publish(name: str, params: config.Params) -> Outcome:
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


def _flow(*, wait: bool, force: bool) -> list[Outcome]:
    import httpx

    from flows import retrain as module
    from flows import sweep

    try:
        with sweep.signed():
            state = module.retrain(wait=wait, force=force, return_state=True)
    except httpx.HTTPError as error:
        words = trouble.of_folder(paths.STATE) or (
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
    return trouble.in_words(error) or trouble.of_folder(paths.STATE)
