"""Retraining as a Prefect flow: DVC's stale stages as tasks, siblings side by side; then registry, gate and report.

When, with which retries and who is told: that is here. What depends on what is DVC's (heartml/pipeline/graph), what is
registered and promoted is heartml/release's. `heartml retrain` starts it; so does a Prefect worker (prefect.yaml).
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Completed, Failed

from flows import events
from flows.support import check_parameters, console, retry_policy, stale_runs, task_runners
from heartml.core import config, paths
from heartml.core.system.errors import HeartMLError
from heartml.pipeline import graph, recovery, run_stage
from heartml.pipeline.graph import Plan, Stage
from heartml.pipeline.run_stage import Done, StageFailed, StageKilled, StageTimedOut
from heartml.pipeline.stage_process import StageResult
from heartml.release import murmur_pages, publish
from heartml.release import outcome as results
from heartml.release.publish import ReleaseOutcome

_ENDS: dict[type[StageFailed], str] = {StageKilled: retry_policy.KILLED, StageTimedOut: "TimedOut"}


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{address}", retry_condition_fn=retry_policy.can_help)
def stage(address: str, force: bool, timeout_s: float) -> Done | State[Any]:
    """Run one stage of DVC's graph."""
    log = get_run_logger()

    def say(line: str) -> None:
        log.info(line, extra=console.AUDIBLE)

    with console.running(address), task_runners.with_timeout():
        log.info("%s: started", address, extra=console.BEGUN)
        try:
            done = run_stage.run(address, force=force, say=say, timeout_s=timeout_s)
            recovery.keep()
        except StageFailed as error:
            return Failed(message=str(error), name=_ENDS.get(type(error), "Failed"))
        except OSError as error:
            return Failed(message=f"{address}: {retry_policy.in_words(error) or error}")
    if done.how is not StageResult.RAN:
        say(f"{address}: {done.how.name.lower()}")
    return done


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="publish {name}",
      retry_condition_fn=retry_policy.can_help)
def publish_task(name: str, seconds: dict[str, float]) -> ReleaseOutcome | State[Any]:
    """Register, judge, settle and report one task's model; a retry finishes what a lost connection left undone."""
    try:
        with console.running(f"publish {name}"):
            return publish.publish(name, config.load(), seconds)
    except Exception as error:
        words = retry_policy.in_words(error)
        if words is None:
            raise
        return Failed(message=words, name=retry_policy.name_of(error))


@task(cache_policy=NO_CACHE, persist_result=False)
def open_store() -> None:
    """A fresh MLflow store takes seconds to make: do it while the first stages run."""
    publish.sweep()


@flow(name="retrain", persist_result=False)
def retrain(wait: bool = True, force: bool = False, because: str = "") -> State[Any]:
    """Bring every stage up to date, then register, judge and promote or refuse.

    Args:
        wait: take a turn behind another retraining in the same folder; otherwise fail at once.
        force: run every stage again, fresh or not.
        because: what asked for it, for the log; a drift that the monitor found, for example.
    """
    log = get_run_logger()
    stale_runs.sign()
    if because:
        log.info("asked for by: %s", because)
    try:
        with graph.alone(wait=wait, say=lambda line: log.info(line, extra=console.AUDIBLE)):
            outcomes = _retrain(force)
    except HeartMLError as error:
        return Failed(message=str(error))
    for outcome in outcomes:
        events.settled(outcome)
    failed = [outcome for outcome in outcomes if outcome.state == publish.FAILED]
    if failed:
        return Failed(message="; ".join(f"{o.task}: {o.reason}" for o in failed), data=outcomes)
    words = "; ".join(f"{o.task}: {o.state}, version {o.version}" for o in outcomes)
    return Completed(message=words, data=outcomes)


def _retrain(force: bool) -> list[ReleaseOutcome]:
    params, log = check_parameters.read(), get_run_logger()
    for name in stale_runs.close_killed():
        log.warning("flow run %s was left behind by a killed process: closed", name)
    store = open_store.submit()
    plan = graph.plan(force=force)
    if plan.due:
        check_parameters.check_families(params)
    log.info("%d of %d stages to bring up to date", len(plan.due), len(plan.stages))
    for entry in plan.due:
        log.info("%s: %s", entry.address, entry.changed or "after a stage that runs")
    with run_stage.stopping_on_error(), task_runners.chosen() as on:
        seconds, failed = _run_due(plan, params.flow, on, force=force)
    recovery.order([entry.address for entry in plan.stages])
    store.wait()
    behind = {name: plan.behind(paths.ARTIFACTS / name) for name in params.tasks}
    outcomes = []
    for name, stages in behind.items():
        reason = next((failed[address] for address in sorted(stages) if address in failed), "")
        outcomes.append(publish.failure(name, reason) if reason else _publish(name, params.flow, seconds, stages))
    outcomes += [publish.failure(address, reason) for address, reason in failed.items()
                 if not any(address in stages for stages in behind.values())]
    for outcome in outcomes:
        level = logging.ERROR if outcome.state == publish.FAILED else logging.INFO
        log.log(level, "%s: %s, version %s: %s", outcome.task, outcome.state, outcome.version, outcome.reason)
    murmur_pages.write(outcomes)
    create_table_artifact(_stages(plan, seconds, failed), key="retrain-stages", description="Stages that were due")
    create_markdown_artifact(results.markdown(outcomes), key="retrain-result", description="Outcome of the retraining")
    create_table_artifact(results.table(outcomes), key="retrain-metrics", description="Metrics, floors, champion")
    return outcomes


def _stages(plan: Plan, seconds: Mapping[str, float], failed: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"stage": entry.address, "why": entry.changed or "after a stage that runs",
             "seconds": f"{seconds[entry.address]:.1f}" if entry.address in seconds else "",
             "error": failed.get(entry.address, "")} for entry in plan.due]


def _publish(name: str, params: config.FlowParams, seconds: Mapping[str, float],
             behind: frozenset[str]) -> ReleaseOutcome:
    run = publish_task.with_options(
        retries=len(params.network_retry_delays_s), retry_delay_seconds=list(params.network_retry_delays_s))
    state = run(name, {a: s for a, s in seconds.items() if a in behind}, return_state=True)
    outcome = state.result(raise_on_failure=False)
    return outcome if isinstance(outcome, ReleaseOutcome) else publish.failure(name, str(state.message))


def _run_due(
    plan: Plan, params: config.FlowParams, on: task_runners.Runner, *, force: bool
) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of the stages that ended well, and why the others did not."""
    progress = create_progress_artifact(0.0 if plan.due else 100.0, description="Stages up to date")
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    for address, state in _in_turn(plan, params, on, failed, force=force):
        if state.is_completed():
            done: Done = state.result()
            seconds[address] = done.seconds
        else:
            failed[address] = str(state.message)
        update_progress_artifact(progress, 100 * (len(seconds) + len(failed)) / len(plan.due))   # type: ignore[arg-type]
    return seconds, failed


def _in_turn(
    plan: Plan, params: config.FlowParams, on: task_runners.Runner, failed: dict[str, str], *, force: bool
) -> Iterator[tuple[str, State[Any]]]:
    """Start each due stage when all that it needs is done; yield how each ended. A failure skips what comes after."""
    run = stage.with_options(
        retries=len(params.stage_retry_delays_s), retry_delay_seconds=list(params.stage_retry_delays_s))
    waiting = {entry.address: entry for entry in plan.due}
    at_work: dict[PrefectFuture[Any], str] = {}
    futures: dict[str, PrefectFuture[Any]] = {}
    while waiting or at_work:
        _skip(waiting, failed)
        ready = [e for e in waiting.values() if not any(n in waiting or n in at_work.values() for n in e.needs)]
        for entry in ready[: params.stages_at_once - len(at_work)]:
            before = [futures[need] for need in entry.needs if need in futures]
            futures[entry.address] = on.submit(
                run, entry, force=force and entry.runs, timeout_s=params.stage_timeout_s, wait_for=before)
            at_work[futures[entry.address]] = waiting.pop(entry.address).address
        if at_work:
            ended = next(as_completed(list(at_work)))
            ended.wait()   # or its state would be read from the server, which learns of it later
            yield at_work.pop(ended), ended.state


def _skip(waiting: dict[str, Stage], failed: dict[str, str]) -> None:
    """Take out the stages behind a failed one, and say why."""
    for entry in list(waiting.values()):
        culprit = next((need for need in entry.needs if need in failed), None)
        if culprit:
            failed[entry.address] = failed[culprit]
            del waiting[entry.address]
