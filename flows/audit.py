"""The audit as a flow: every link behind a registered version, as a table; the run fails where a link does not hold."""

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.support import stale_runs
from heartml import audit as auditor
from heartml.audit import show
from heartml.audit.links import HOLDS, Audit
from heartml.core.system.errors import HeartMLError


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="audit {model}")
def look(model: str, reproduce: bool) -> Audit | State[Any]:
    """Look at every link; no retry: what is broken stays so."""
    try:
        return auditor.run_all(model, reproduce=reproduce)[0]
    except HeartMLError as error:
        return Failed(message=str(error))


@flow(name="audit", persist_result=False)
def audit(model: str, reproduce: bool = False) -> dict[str, Any] | State[Any]:
    """Verify the chain behind a registered version.

    Args:
        model: `circor-murmur` (its champion), `circor-murmur@challenger` or `circor-murmur/3`.
        reproduce: also run every stage again in a fresh clone, and compare all outputs.
    """
    stale_runs.sign()
    stale_runs.close_killed("audit")
    state = look(model, reproduce, return_state=True)
    found = state.result(raise_on_failure=False)
    if not isinstance(found, Audit):
        return Failed(message=str(state.message))
    told = f"{found.version.name} version {found.version.number}: {found.verdict}"
    create_table_artifact(show.rows(found), key="audit-links", description=told)
    broken = [f"{link.title} is {link.state}: {link.found}" for link in found.links if link.state != HOLDS]
    return Failed(message=f"{told}. {'; '.join(broken)}", data=found.as_json()) if broken else found.as_json()
