"""Closes flow runs that a killed process left open.

The state of a killed run is still Running. So each flow run carries a tag with the name of its process, and the next
run sets those to Crashed whose process has ended. This works for runs of the same machine.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.context import FlowRunContext
from prefect.states import Crashed

from flows.support import one_line_errors
from heartml.core.system import processes

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

_PREFIX = "process:"
_GONE = "its process was killed"
_OPEN: dict[str, Any] = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}


@contextlib.contextmanager
def tagged() -> Iterator[None]:
    """Flow runs that the block starts carry the tag of this process from their first moment."""
    with tags(f"{_PREFIX}{processes.own_name()}"):
        yield


def tag_this_run() -> None:
    """Add the tag of this process to the flow run that it executes; runs of a worker are made by another process."""
    one_line_errors.without_traceback()
    context = FlowRunContext.get()
    if context and context.flow_run:
        with get_client(sync_client=True) as client:
            known = {*context.flow_run.tags, f"{_PREFIX}{processes.own_name()}"}
            client.update_flow_run(context.flow_run.id, tags=sorted(known))


def close_killed(flow_name: str = "retrain") -> list[str]:
    """Set flow runs whose process has ended, and their task runs, to Crashed; returns the names of the flow runs.

    Task runs are closed first. On a full disk a flow run may have stored its end when its tasks could not.
    """
    flow = FlowFilter.model_validate({"name": {"any_": [flow_name]}})
    with get_client(sync_client=True) as client:
        _close_tasks(client, flow)
        runs = client.read_flow_runs(flow_filter=flow, flow_run_filter=FlowRunFilter.model_validate(_OPEN))
        dead = [run for run in runs if _dead(run)]
        for run in dead:
            client.set_flow_run_state(run.id, Crashed(message=_GONE), force=True)
    return [str(run.name) for run in dead]


def _dead(run: "FlowRun") -> bool:
    return any(processes.has_ended(tag.removeprefix(_PREFIX)) for tag in run.tags if tag.startswith(_PREFIX))


def _close_tasks(client: "SyncPrefectClient", flow: FlowFilter) -> None:
    left = client.read_task_runs(flow_filter=flow, task_run_filter=TaskRunFilter.model_validate(_OPEN))
    owners = sorted({str(task.flow_run_id) for task in left if task.flow_run_id})
    if not owners:
        return
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": owners}}))
    dead = {run.id for run in runs if _dead(run)}
    for task in left:
        if task.flow_run_id in dead:
            client.set_task_run_state(task.id, Crashed(message=_GONE), force=True)
