"""Monitoring as a flow: new recordings are scored and compared with what the model learnt from.

A drift is told to Prefect as the event `heartml.drift` of the resource `heartml.model.<task>`, upon which an automation
retrains (prefect.yaml). The flow itself ends well either way: a drift is an answer, no failure.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from flows.events import DRIFT, MODEL
from flows.score import score_block
from flows.support import stale_runs
from heartml.core import config, paths
from heartml.inference import batch
from heartml.inference import monitoring as watching
from heartml.inference.batch import Block, Work
from heartml.inference.monitoring import DriftReport, MonitoredData, page, show


@task(cache_policy=NO_CACHE, persist_result=False)
def report(compared: Any, html: Path) -> None:
    """Write the page, and leave verdict and measures as artifacts."""
    params = config.load().monitor
    page.write(compared.compared, params, html)
    watch: DriftReport = compared.compared.watch
    create_markdown_artifact(f"**{show.headline(watch)}.** {show.counted(watch)} {show.rule(params)} Page: `{html}`",
                             key="monitor-verdict", description=f"{watch.model}")
    rows = [{"measure": f.measure.title, "verdict": show.STATES.get(f.state, "no drift"), "effect": show.effect(f),
             "p": show.p_value(f)} for f in watch.findings]
    create_table_artifact(rows, key="monitor-measures", description=f"{watch.model}: new recordings against reference")


class _Sealed:
    """Keeps Prefect from walking through the tables of what is handed to a task."""

    def __init__(self, compared: MonitoredData) -> None:
        self.compared = compared


@flow(name="monitor", persist_result=False)
def monitor(source: Path, model: str | None = None, task: str | None = None, html: Path | None = None) -> DriftReport:
    """Look at the new recordings of a folder, or of a CSV with columns path, patient_id, location.

    Args:
        model: `circor-murmur`, `circor-murmur/3`, `circor-murmur@challenger`, or a folder; the champion otherwise.
        task: which champion, where params.yaml names several tasks.
        html: the page; `reports/<task>-monitor.html` otherwise.
    """
    stale_runs.sign()
    stale_runs.close_killed("monitor")
    work = batch.plan(source, model, task)
    compared = watching.compare_recordings(work, _score)
    watch = compared.watch
    report(_Sealed(compared), html or paths.REPORTS / f"{watch.task}-monitor.html")
    get_run_logger().info("%s: %s", watch.model, show.headline(watch))
    if watch.drifted:
        tell(watch)
    return watch


def _score(work: Work) -> Iterator[Block]:
    return (score_block(work, number) for number in range(len(work.blocks)))


def tell(watch: DriftReport) -> None:
    """Emit `heartml.drift`: the resource is the model and says what drifted, the payload is `Watch.as_json()`."""
    labels = {"prefect.resource.id": f"{MODEL}{watch.task}", "prefect.resource.name": watch.task,
              "heartml.version": str(watch.version), "heartml.reason": show.names(watch)}
    emit_event(DRIFT, labels, payload=watch.as_json())
