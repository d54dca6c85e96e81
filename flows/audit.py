"""The audit as a flow: checks every link behind a registered version.

The links become a table artifact of the run. The run fails when a link does not hold.
"""

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.support import one_line_errors, stale_runs
from flows.support.run_names import run_name
from heartml import audit as auditor
from heartml.audit import show
from heartml.audit.links import HOLDS, Audit


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="audit {model}")
def check_links(model: str, reproduce: bool) -> Audit | State[Any]:
    """Check every link. No retry: a broken link stays broken."""
    return one_line_errors.as_failed(lambda: auditor.run_all(model, reproduce=reproduce)[0])


@flow(name="audit", flow_run_name=run_name("audit", "model"), persist_result=False)
def audit(model: str, reproduce: bool = False) -> dict[str, Any] | State[Any]:
    """Verify the chain behind a registered version.

    Args:
        model: `circor-murmur` (its champion), `circor-murmur@challenger` or `circor-murmur/3`.
        reproduce: also run every stage again in a fresh clone, and compare all outputs.
    """
    stale_runs.tag_this_run()
    stale_runs.close_killed("audit")
    return one_line_errors.as_failed(_audit, model, reproduce)


def _audit(model: str, reproduce: bool) -> dict[str, Any] | State[Any]:
    state = check_links(model, reproduce, return_state=True)
    found = state.result(raise_on_failure=False)
    if not isinstance(found, Audit):
        return Failed(message=str(state.message))
    verdict = f"{found.version.name} version {found.version.number}: {found.verdict}"
    create_table_artifact(show.rows(found), key="audit-links", description=verdict)
    broken = [f"{link.title} is {link.state}: {link.found}" for link in found.links if link.state != HOLDS]
    return Failed(message=f"{verdict}. {'; '.join(broken)}", data=found.as_json()) if broken else found.as_json()
