"""`ingest` as a flow: for a schedule, or for a platform that shows its runs. The work is `heartml.data.ingest`."""

from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.support import one_line_errors, retry_policy, stale_runs
from flows.support.run_names import run_name
from heartml.core import config
from heartml.core.system.errors import HeartMLError
from heartml.data import ingest as stage
from heartml.data.datasets import load
from heartml.data.ingest.download import fetch


@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=retry_policy.can_help)
def download(dataset: str, into: Path | None, mirror: str | None) -> Path | State[Any]:
    """Download a data set. Files that have arrived are kept; a retry fetches the others."""
    try:
        return fetch(load(dataset), into, mirror)
    except HeartMLError as error:
        return Failed(message=str(error), name=retry_policy.state_name(error))


@task(cache_policy=NO_CACHE, persist_result=False)
def admit(dataset: str, folder: Path, keep_tasks: bool, replace: bool) -> stage.IngestOutcome | State[Any]:
    """Make a folder the next version of the data. No retry: the same folder would fail in the same way."""
    return one_line_errors.as_failed(stage.run, dataset, folder, keep_tasks=keep_tasks, replace=replace)


@flow(name="ingest", flow_run_name=run_name("ingest", "dataset"), persist_result=False)
def ingest(
    dataset: str,
    folder: Path | None = None,
    into: Path | None = None,
    mirror: str | None = None,
    keep_tasks: bool = False,
    replace: bool = False,
) -> State[Any]:
    """Ingest `folder`; without one, download the publisher's files first."""
    stale_runs.tag_this_run()
    for name in stale_runs.close_killed("ingest"):
        get_run_logger().warning("flow run %s was left behind by a killed process: closed", name)
    return one_line_errors.as_failed(_ingest, dataset, folder, into, mirror, keep_tasks=keep_tasks, replace=replace)


def _ingest(
    dataset: str, folder: Path | None, into: Path | None, mirror: str | None, *, keep_tasks: bool, replace: bool
) -> State[Any]:
    params = config.load().flow
    if folder is None:
        delays = list(params.network_retry_delays_s)
        fetched = download.with_options(retries=len(delays), retry_delay_seconds=delays)(
            dataset, into, mirror, return_state=True)
        if not fetched.is_completed():
            return Failed(message=fetched.message)
        folder = cast(Path, fetched.result())
    limited = admit.with_options(timeout_seconds=params.ingest_timeout_s)
    return _final_state(dataset, limited(dataset, folder, keep_tasks, replace, return_state=True))


def _final_state(dataset: str, state: State[Any]) -> State[Any]:
    """The state that the run ends in; also makes its table artifact."""
    if not state.is_completed():
        return Failed(message=state.message)
    outcome: stage.IngestOutcome = state.result()
    rows = [{"what": name, "number": number} for name, number in outcome.counts()]
    description = f"Data set {dataset} after this ingest. {outcome.persons}".strip()
    create_table_artifact(rows, key=f"ingest-{dataset}", description=description)
    words = f"{dataset}: {outcome.recordings} recordings, {outcome.new} new"
    return Completed(message=words if outcome.changed else f"{words}; nothing has changed", data=outcome)
