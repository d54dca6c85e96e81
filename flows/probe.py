"""A probe of encoders as a flow: each encoder on each task is a Prefect task, and its result is stored.

A flow that is run again goes on where the last one ended (`heartml/evaluation/probe`).
"""

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.support import one_line_errors, stale_runs
from flows.support.run_names import run_name
from heartml.core import config
from heartml.evaluation import probe as probing


class _Wrapped:
    """Hides tables in a plain object. Prefect would look for futures in every item of a data class."""

    def __init__(self, plan: probing.Plan) -> None:
        self.plan = plan


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name} on {task_name}", retries=1,
      retry_delay_seconds=5)
def probe_encoder(wrapped: "_Wrapped", task_name: str, name: str) -> probing.ProbedEncoder:
    """Probe one encoder on one task, unless its result is stored."""
    return probing.probe_encoder(wrapped.plan, task_name, name)


@flow(name="probe", flow_run_name=run_name("probe", "tasks"), persist_result=False)
def probe(tasks: list[str], encoders: list[str], poolings: list[str] | None = None, leave_out_heard: bool = False
          ) -> dict[str, Any] | State[Any]:
    """Compare encoders by a linear probe on tasks whose folds are drawn.

    Args:
        tasks: full names, as in params.yaml.
        encoders: names of params.yaml.
        poolings: for every encoder; otherwise those of `search.poolings`.
        leave_out_heard: leave out the groups that an encoder was trained on.
    """
    stale_runs.tag_this_run()
    stale_runs.close_killed("probe")
    return one_line_errors.as_failed(_probe, tasks, encoders, poolings or [], leave_out_heard)


def _probe(tasks: list[str], encoders: list[str], poolings: list[str], leave_out_heard: bool) -> dict[str, Any]:
    plan = probing.plan(tasks, encoders, config.load(), poolings=poolings, leave_out_heard=leave_out_heard)
    found = probing.run(plan, [probe_encoder(_Wrapped(plan), *job) for job in plan.jobs])
    create_table_artifact([{"encoder": row["encoder"], "mean rank": row["mean_rank"], **row["ranks"]}
                           for row in found["ranks"]], key="probe-ranks", description="Encoders, best first")
    return found
