"""Monitoring as a flow: new recordings are scored and compared with the recordings that the model was trained on.

A drift is reported to Prefect as the event `heartml.drift` of the resource `heartml.model.<task>`. A trigger in
prefect.yaml then starts a retraining. The flow ends as Completed either way: a drift is a result, not a failure.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event

from flows.events import DRIFT, MODEL
from flows.score import score_block
from flows.support import one_line_errors, stale_runs
from flows.support.run_names import run_name
from heartml.core import config, paths
from heartml.inference import batch, monitoring
from heartml.inference.batch import ScoredBlock, ScoringPlan
from heartml.inference.monitoring import DriftReport, MonitoredData, page, show


@task(cache_policy=NO_CACHE, persist_result=False)
def write_report(wrapped: Any, html: Path) -> None:
    """Write the page, and keep verdict and measures as artifacts of the run."""
    params = config.load().monitor
    page.write(wrapped.data, params, html)
    report: DriftReport = wrapped.data.report
    create_markdown_artifact(f"**{show.headline(report)}.** {show.counted(report)} {show.rule(params)} Page: `{html}`",
                             key="monitor-verdict", description=f"{report.model}")
    rows = [{"measure": f.measure.title, "verdict": show.STATES.get(f.state, "no drift"), "effect": show.effect(f),
             "p": show.p_value(f)} for f in report.findings]
    create_table_artifact(rows, key="monitor-measures", description=f"{report.model}: new recordings and reference")


class _Wrapped:
    """Hides tables in a plain object. Prefect would look for futures in every item of a data class."""

    def __init__(self, data: MonitoredData) -> None:
        self.data = data


@flow(name="monitor", flow_run_name=run_name("monitor", "source"), persist_result=False)
def monitor(
    source: Path, model: str | None = None, task: str | None = None, html: Path | None = None
) -> DriftReport | State[Any]:
    """Compare the new recordings of a folder, or of a CSV with columns path, patient_id, location.

    Args:
        model: `circor-murmur`, `circor-murmur/3`, `circor-murmur@challenger`, or a folder; the champion otherwise.
        task: the task whose champion is used, where params.yaml names several tasks.
        html: the page; `reports/<task>-monitor.html` otherwise.
    """
    stale_runs.tag_this_run()
    stale_runs.close_killed("monitor")
    return one_line_errors.as_failed(_monitor, source, model, task, html)


def _monitor(source: Path, model: str | None, task: str | None, html: Path | None) -> DriftReport:
    data = monitoring.compare_recordings(batch.plan(source, model, task), _score)
    report = data.report
    write_report(_Wrapped(data), html or paths.REPORTS / f"{report.task}-monitor.html")
    get_run_logger().info("%s: %s", report.model, show.headline(report))
    if report.drifted:
        emit_drift(report)
    return report


def _score(plan: ScoringPlan) -> Iterator[ScoredBlock]:
    return (score_block(plan, number) for number in range(len(plan.blocks)))


def emit_drift(report: DriftReport) -> None:
    """Emit the event `heartml.drift`.

    The resource is the model, its label `heartml.reason` names what drifted, the payload is `DriftReport.as_json()`.
    """
    labels = {"prefect.resource.id": f"{MODEL}{report.task}", "prefect.resource.name": report.task,
              "heartml.version": str(report.version), "heartml.reason": show.names(report)}
    emit_event(DRIFT, labels, payload=report.as_json())
