"""Runs flows in the process of a command: on the configured Prefect server or, for a retraining, on a private one.

`heartml retrain` asks DVC first. Where nothing is stale and no server is configured, Prefect is not even imported.
Otherwise the flow runs on the configured server, or on a private one that lives as long as the command.
"""

import contextlib
import functools
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
    from prefect import Flow
    from prefect.client.schemas.objects import State

    from heartml.data.ingest import IngestOutcome
    from heartml.inference.batch import ScoringSummary
    from heartml.inference.monitoring import DriftReport

UNFINISHED = paths.STATE / "flow.unfinished"   # exists while a flow runs on a private server


class FlowFailed(HeartMLError):  # noqa: N818 - reads as what happened
    """A flow run ended as Failed; the message is the one of its state."""


def ingest(
    dataset: str, folder: Path | None, into: Path | None, mirror: str | None, *, keep_tasks: bool, replace: bool
) -> "IngestOutcome":
    """Run the flow `ingest` on the configured server.

    Raises:
        ServerError: the server does not answer.
        FlowFailed: nothing was ingested.
    """
    private_server.check()
    from flows.ingest import ingest as flow

    return cast("IngestOutcome", _on_server(flow, dataset, folder, into, mirror, keep_tasks, replace))


def score(source: Path, to: Path, model: str | None, task: str | None) -> "ScoringSummary":
    """Run the flow `score` on the configured server; see `heartml.inference.batch.run` for the arguments.

    Raises:
        ServerError: the server does not answer.
        FlowFailed: no table was written.
    """
    private_server.check()
    from flows.score import score as flow

    return cast("ScoringSummary", _on_server(flow, source, to, model, task))


def monitor(source: Path, model: str | None, task: str | None, html: Path | None) -> "DriftReport":
    """Run the flow `monitor` on the configured server; see `heartml.inference.monitoring.run` for the arguments.

    Raises:
        ServerError: the server does not answer.
        FlowFailed: nothing was compared.
    """
    private_server.check()
    from flows.monitor import monitor as flow

    return cast("DriftReport", _on_server(flow, source, model, task, html))


def probe(tasks: list[str], encoders: list[str], poolings: list[str], *, leave_out_heard: bool) -> dict[str, Any]:
    """Run the flow `probe` on the configured server; see `heartml.evaluation.probe.plan` for the arguments.

    Raises:
        ServerError: the server does not answer.
        FlowFailed: nothing could be probed.
    """
    private_server.check()
    from flows.probe import probe as flow

    return cast("dict[str, Any]", _on_server(flow, tasks, encoders, poolings, leave_out_heard))


def _on_server(flow: "Flow[..., Any]", *arguments: object) -> Any:
    """Run a flow and return its result; an exception that ended the run (a fault of ours) is raised again."""
    state, found = _run(flow, *arguments)
    if isinstance(found, BaseException):
        raise found
    if not state.is_completed():
        raise FlowFailed(str(state.message))
    return found


def _run(flow: "Flow[..., Any]", *arguments: object, **keywords: object) -> "tuple[State[Any], Any]":
    """Run a flow in this process; returns its last state and what it returned or raised.

    The value does not depend on the server. When the server's reply to the last state is lost, Prefect sends that state
    once more, is told that the run has ended already, and takes the server's copy of the state, which has no data.
    """
    from prefect.client.schemas.objects import State
    from prefect.exceptions import MissingResult

    from flows.support import stale_runs

    returned: list[Any] = []

    @functools.wraps(flow.fn)
    def body(*args: object, **kwargs: object) -> Any:
        returned.append(flow.fn(*args, **kwargs))
        return returned[-1]

    recorded: Any = flow.with_options()      # a copy
    recorded.fn = body
    with stale_runs.tagged():
        state = recorded(*arguments, return_state=True, **keywords)
    try:
        return state, state.result(raise_on_failure=False)
    except MissingResult:
        own = returned[-1] if returned else None
        return state, own.result(raise_on_failure=False) if isinstance(own, State) else own


def retrain(*, wait: bool, force: bool) -> list[ReleaseOutcome]:
    """Run every stale stage, then publish; returns one outcome for each task.

    Raises:
        Busy: another retraining runs in this folder, and `wait` is false.
        ServerError: the configured server does not answer.
        ParamsError, TaskError: see `flows.support.check_parameters`.
        FlowFailed: nothing could be retrained.
    """
    if private_server.configured():
        private_server.check()
        return _flow(wait=wait, force=force)
    with graph.hold_pipeline(wait=wait):
        params = check_parameters.read()
        publish.close_stale_runs()
        if not force and not UNFINISHED.exists() and not graph.plan().due:
            outcomes = [_publish(name, params) for name in params.tasks]
            murmur_pages.write(outcomes)
            return outcomes
    check_parameters.check_families(params)
    private_server.start()
    from flows import retrain as _  # noqa: F401 - Prefect sets its logging up on import and would drop our handler

    with _unfinished(), console.verbose():
        return _flow(wait=wait, force=force)


def _publish(name: str, params: config.Params) -> ReleaseOutcome:
    try:
        return publish.publish(name, params, {})
    except HeartMLError as error:
        return publish.failure(name, str(error))


@contextlib.contextmanager
def _unfinished() -> Iterator[None]:
    """Keep a file until the flow has ended. After a kill it is still there, and the next command closes the run."""
    with replacing(UNFINISHED) as temporary:
        temporary.touch()
    yield
    UNFINISHED.unlink(missing_ok=True)


def _flow(*, wait: bool, force: bool) -> list[ReleaseOutcome]:
    import httpx

    from flows.retrain import retrain as flow

    try:
        state, outcomes = _run(flow, wait=wait, force=force)
    except httpx.HTTPError as error:
        words = machine_errors.explain_unwritable(paths.STATE) or (
            f"the Prefect server went away ({error}). Nothing that is done is lost: run it again.")
        raise FlowFailed(words) from None
    if isinstance(outcomes, list):
        return outcomes
    raise FlowFailed(_explain(outcomes) or str(state.message))


def _explain(error: Any) -> str | None:
    """One line where the machine is the cause; behind a library's strange error may be a full disk."""
    if isinstance(error, HeartMLError) or not isinstance(error, BaseException):
        return None
    return machine_errors.explain(error) or machine_errors.explain_unwritable(paths.STATE)
