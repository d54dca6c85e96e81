"""Flow runs that a killed process left RUNNING: each run carries the name of its process, the next one closes the dead.

A running flow cannot be told from a killed one by its state alone; by its process it can, on the same machine.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.context import FlowRunContext
from prefect.states import Crashed

from flows import answers
from heartml.core import process

if TYPE_CHECKING:
    from uuid import UUID

_PREFIX = "process:"
_GONE = "its process was killed"
_OPEN: dict[str, Any] = {"state": {"type": {"any_": ["RUNNING", "CANCELLING"]}}}


@contextlib.contextmanager
def signed() -> Iterator[None]:
    """Flow runs that the block starts carry this process's name from their first moment: no gap for a kill."""
    with tags(f"{_PREFIX}{process.me()}"):
        yield


def sign() -> None:
    """Write this process's name on the flow run that it executes: a worker's runs are made elsewhere."""
    answers.without_traceback()
    context = FlowRunContext.get()
    if context and context.flow_run:
        with get_client(sync_client=True) as client:
            known = {*context.flow_run.tags, f"{_PREFIX}{process.me()}"}
            client.update_flow_run(context.flow_run.id, tags=sorted(known))


def close_killed(flow_name: str = "retrain") -> list[str]:
    """Set the runs of dead processes, and their task runs, to Crashed; returns the flow runs' names."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter.model_validate({"name": {"any_": [flow_name]}}),
                                     flow_run_filter=FlowRunFilter.model_validate(_OPEN))
        dead = [run for run in runs if any(map(_dead, run.tags))]
        for run in dead:
            _close_tasks(client, run.id)
            client.set_flow_run_state(run.id, Crashed(message=_GONE), force=True)
    return [str(run.name) for run in dead]


def _dead(tag: str) -> bool:
    return tag.startswith(_PREFIX) and process.dead(tag.removeprefix(_PREFIX))


def _close_tasks(client: Any, flow_run_id: "UUID") -> None:
    left = client.read_task_runs(flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [flow_run_id]}}),
                                 task_run_filter=TaskRunFilter.model_validate(_OPEN))
    for run in left:
        client.set_task_run_state(run.id, Crashed(message=_GONE), force=True)

