"""`ingest` as a flow: for a schedule, or for a platform that wants to see it. The work is `heartml.ingest`."""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from heartml import ingest as stage
from heartml.datasets import load
from heartml.ingest.download import fetch


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[10, 60, 300])
def download(dataset: str, into: Path | None, mirror: str | None) -> Path:
    """Fetch a data set; a server may be away for a while, and what has arrived is kept."""
    return fetch(load(dataset), into, mirror)


@task(cache_policy=NO_CACHE)
def admit(dataset: str, folder: Path, keep_tasks: bool, replace: bool) -> stage.Outcome:
    """Make a folder the next version of the data; the same folder fails again in the same way, so no retry."""
    return stage.run(dataset, folder, keep_tasks=keep_tasks, replace=replace)


@flow(name="ingest")
def ingest(
    dataset: str,
    folder: Path | None = None,
    into: Path | None = None,
    mirror: str | None = None,
    keep_tasks: bool = False,
    replace: bool = False,
) -> stage.Outcome:
    """Ingest `folder`, or without one what the publisher offers for download."""
    outcome = admit(dataset, folder or download(dataset, into, mirror), keep_tasks, replace)
    rows = [{"what": name, "number": number} for name, number in outcome.counts()]
    create_table_artifact(rows, key=f"ingest-{dataset}", description=f"Data set {dataset} after this ingest")
    return outcome
