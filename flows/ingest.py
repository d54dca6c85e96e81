"""`ingest` as a flow: for a schedule, or for a platform that wants to see it. The work is `heartml.data.ingest`."""

from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.support import retry_policy, stale_runs
from heartml.core import config
from heartml.core.system.errors import HeartMLError
from heartml.data import ingest as stage
from heartml.data.datasets import load
from heartml.data.ingest.download import fetch


@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=retry_policy.can_help)
def download(dataset: str, into: Path | None, mirror: str | None) -> Path | State[Any]:
    """Fetch a data set; a server may be away for a while, and what has arrived is kept."""
    try:
        return fetch(load(dataset), into, mirror)
    except HeartMLError as error:
        return Failed(message=str(error), name=retry_policy.name_of(error))


@task(cache_policy=NO_CACHE, persist_result=False)
def admit(dataset: str, folder: Path, keep_tasks: bool, replace: bool) -> stage.IngestOutcome | State[Any]:
    """Make a folder the next version of the data; the same folder fails again in the same way, so no retry."""
    try:
        return stage.run(dataset, folder, keep_tasks=keep_tasks, replace=replace)
    except HeartMLError as error:
        return Failed(message=str(error))


@flow(name="ingest", persist_result=False)
def ingest(
    dataset: str,
    folder: Path | None = None,
    into: Path | None = None,
    mirror: str | None = None,
    keep_tasks: bool = False,
    replace: bool = False,
) -> State[Any]:
    """Ingest `folder`, or without one what the publisher offers for download."""
    stale_runs.sign()
    for name in stale_runs.close_killed("ingest"):
        get_run_logger().warning("flow run %s was left behind by a killed process: closed", name)
    try:
        params = config.load().flow
    except HeartMLError as error:
        return Failed(message=str(error))
    if folder is None:
        delays = list(params.network_retry_delays_s)
        fetched = download.with_options(retries=len(delays), retry_delay_seconds=delays)(
            dataset, into, mirror, return_state=True)
        if not fetched.is_completed():
            return Failed(message=fetched.message)
        folder = cast(Path, fetched.result())
    limited = admit.with_options(timeout_seconds=params.ingest_timeout_s)
    return _told(dataset, limited(dataset, folder, keep_tasks, replace, return_state=True))


def _told(dataset: str, state: State[Any]) -> State[Any]:
    """What the run ends in, and its table."""
    if not state.is_completed():
        return Failed(message=state.message)
    outcome: stage.IngestOutcome = state.result()
    rows = [{"what": name, "number": number} for name, number in outcome.counts()]
    create_table_artifact(rows, key=f"ingest-{dataset}", description=f"Data set {dataset} after this ingest")
    words = f"{dataset}: {outcome.recordings} recordings, {outcome.new} new"
    return Completed(message=words if outcome.changed else f"{words}; nothing has changed", data=outcome)
