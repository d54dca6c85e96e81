"""Retraining as a Prefect flow: DVC's stale stages as tasks, then registry, gate and report.

Stages that do not depend on each other run side by side. This module decides when a stage starts and how often it is
retried. The order of the stages comes from DVC (heartml/pipeline/graph.py). Registering and promoting is the work of
heartml/release. `heartml retrain` starts this flow; so does a Prefect worker (prefect.yaml).
"""

import logging
import time
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
from flows.support import check_parameters, console, one_line_errors, retry_policy, stale_runs, task_runners
from flows.support.handed_out import HandedOut
from flows.support.run_names import run_name
from heartml.core import config, paths
from heartml.core.system import progress
from heartml.core.system.errors import HeartMLError
from heartml.pipeline import graph, recovery, run_stage
from heartml.pipeline.graph import Plan, Stage
from heartml.pipeline.run_stage import FinishedStage, StageFailed, StageKilled, StageTimedOut
from heartml.pipeline.stage_process import StageResult
from heartml.release import murmur_pages, publish
from heartml.release import outcome as results
from heartml.release.publish import ReleaseOutcome

_ENDS: dict[type[StageFailed], str] = {StageKilled: retry_policy.KILLED, StageTimedOut: "TimedOut"}


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{address}", retry_condition_fn=retry_policy.can_help)
def stage(address: str, force: bool, timeout_s: float, handed: HandedOut | None = None) -> FinishedStage | State[Any]:
    """Run one stage of DVC's graph; before it comes what workers did of it, where parts were `handed` out."""
    log = get_run_logger()

    def say(line: str) -> None:
        log.info(line, extra=console.VERBOSE)

    def say_how_far(words: str) -> None:
        console.report(address, words)
        if time.monotonic() - said[-1] >= progress.EVERY_S:
            log.info("%s: %s", address, words)      # for Prefect's page
            said.append(time.monotonic())

    said = [time.monotonic()]
    with console.running(address), task_runners.ending_with_flow():
        log.info("%s: started", address, extra=console.STARTED)
        try:
            if handed is not None:
                handed.collect(address, say)
            done = run_stage.run(address, force=force, log_line=say, timeout_s=timeout_s, on_progress=say_how_far)
            recovery.save_lock_file()
        except StageFailed as error:
            return Failed(message=str(error), name=_ENDS.get(type(error), "Failed"))
        except OSError as error:
            return Failed(message=f"{address}: {retry_policy.explain(error) or error}")
    if done.result is not StageResult.RAN:
        say(f"{address}: {done.result.name.lower()}")
    return done


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="publish {name}",
      retry_condition_fn=retry_policy.can_help)
def publish_task(
    name: str, used: dict[str, dict[str, float]], started_ms: int | None
) -> ReleaseOutcome | State[Any]:
    """Register one task's model, ask the gate, promote or refuse it, and write its report.

    A retry finishes what a lost connection left undone.

    Args:
        used: by the stages that ran for it, see `publish.publish`.
        started_ms: when the first of them began, in milliseconds since 1970; `None` where none ran.
    """
    try:
        with console.running(f"publish {name}"):
            return publish.publish(name, config.load(), used, started_ms)
    except Exception as error:
        words = retry_policy.explain(error)
        if words is None:
            raise
        return Failed(message=words, name=retry_policy.state_name(error))


@task(cache_policy=NO_CACHE, persist_result=False)
def open_store() -> None:
    """Create the MLflow store, which takes seconds when it is new, while the first stages run."""
    publish.close_stale_runs()


def _tasks() -> str:
    """The tasks that are retrained; empty where params.yaml cannot be read, which the run itself will say."""
    try:
        return ", ".join(config.load().tasks)
    except HeartMLError:
        return ""


@flow(name="retrain", flow_run_name=run_name("retrain", words=_tasks), persist_result=False)
def retrain(wait: bool = True, force: bool = False, because: str = "") -> State[Any]:
    """Bring every stage up to date, register the model, and promote it if the gate agrees.

    Args:
        wait: wait for another retraining in the same folder to end; otherwise fail at once.
        force: run every stage again, stale or not.
        because: why it was started, for the log; for example a drift that the monitor found.
    """
    log = get_run_logger()
    stale_runs.tag_this_run()
    if because:
        log.info("started because of: %s", because)
    return one_line_errors.as_failed(_retrain, wait=wait, force=force)


def _retrain(*, wait: bool, force: bool) -> State[Any]:
    log = get_run_logger()
    with graph.hold_pipeline(wait=wait, log_line=lambda line: log.info(line, extra=console.VERBOSE)):
        outcomes = _run_and_publish(force)
    for outcome in outcomes:
        events.emit_promotion(outcome)
    failed = [outcome for outcome in outcomes if outcome.state == publish.FAILED]
    if failed:
        return Failed(message="; ".join(f"{o.task}: {o.reason}" for o in failed), data=outcomes)
    words = "; ".join(f"{o.task}: {o.state}, version {o.version}" for o in outcomes)
    return Completed(message=words, data=outcomes)


def _run_and_publish(force: bool) -> list[ReleaseOutcome]:
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
    with task_runners.stage_runner() as runner, run_stage.stopping_on_error():
        done, failed = _run_due(plan, params.flow, runner, force=force)
    recovery.sort_lock_file([entry.address for entry in plan.stages])
    store.wait()
    behind = {name: plan.upstream_of(paths.ARTIFACTS / name) for name in params.tasks}
    outcomes = []
    for name, stages in behind.items():
        reason = next((failed[address] for address in sorted(stages) if address in failed), "")
        outcomes.append(publish.failure(name, reason) if reason else _publish(name, params.flow, done, stages))
    outcomes += [publish.failure(address, reason) for address, reason in failed.items()
                 if not any(address in stages for stages in behind.values())]
    for outcome in outcomes:
        level = logging.ERROR if outcome.state == publish.FAILED else logging.INFO
        log.log(level, "%s: %s, version %s: %s", outcome.task, outcome.state, outcome.version, outcome.reason)
    murmur_pages.write(outcomes)
    create_table_artifact(_stages(plan, done, failed), key="retrain-stages", description="Stages that were due")
    create_markdown_artifact(results.markdown(outcomes), key="retrain-result", description="Outcome of the retraining")
    create_table_artifact(results.table(outcomes), key="retrain-metrics", description="Metrics, baselines, champion")
    return outcomes


def _stages(plan: Plan, done: Mapping[str, FinishedStage], failed: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"stage": entry.address, "why": entry.changed or "after a stage that runs",
             "seconds": f"{done[entry.address].seconds:.1f}" if entry.address in done else "",
             "error": failed.get(entry.address, "")} for entry in plan.due]


def _publish(name: str, params: config.FlowParams, done: Mapping[str, FinishedStage],
             behind: frozenset[str]) -> ReleaseOutcome:
    """Publish one task's model, with start, time and memory of the stages `behind` it."""
    run = publish_task.with_options(
        retries=len(params.network_retry_delays_s), retry_delay_seconds=list(params.network_retry_delays_s))
    own = [stage for address, stage in done.items() if address in behind]
    started_ms = int(1000 * min(stage.began_s for stage in own)) if own else None
    state = run(name, {stage.address: stage.used for stage in own}, started_ms, return_state=True)
    outcome = state.result(raise_on_failure=False)
    return outcome if isinstance(outcome, ReleaseOutcome) else publish.failure(name, str(state.message))


def _run_due(
    plan: Plan, params: config.FlowParams, runner: task_runners.Runner, *, force: bool
) -> tuple[dict[str, FinishedStage], dict[str, str]]:
    """Run the stages that are due.

    Returns:
        Stage -> when and how long it ran, of those that succeeded; stage -> error message, of the others.
    """
    progress = create_progress_artifact(0.0 if plan.due else 100.0, description="Stages up to date")
    finished: dict[str, FinishedStage] = {}
    failed: dict[str, str] = {}
    for address, state in _in_turn(plan, params, runner, failed, force=force):
        if state.is_completed():
            finished[address] = state.result()
        else:
            failed[address] = str(state.message)
        update_progress_artifact(progress, 100 * (len(finished) + len(failed)) / len(plan.due))   # type: ignore[arg-type]
    return finished, failed


def _in_turn(
    plan: Plan, params: config.FlowParams, runner: task_runners.Runner, failed: dict[str, str], *, force: bool
) -> Iterator[tuple[str, State[Any]]]:
    """Start each due stage when the stages before it have ended; yield the final state of each.

    A stage that fails takes all stages behind it out.
    """
    run = stage.with_options(
        retries=len(params.stage_retry_delays_s), retry_delay_seconds=list(params.stage_retry_delays_s))
    waiting = {entry.address: entry for entry in plan.due}
    running: dict[PrefectFuture[Any], str] = {}
    futures: dict[str, PrefectFuture[Any]] = {}
    while waiting or running:
        _skip(waiting, failed)
        ready = [e for e in waiting.values() if not any(n in waiting or n in running.values() for n in e.needs)]
        for entry in ready[: params.stages_at_once - len(running)]:
            before = [futures[need] for need in entry.needs if need in futures]
            futures[entry.address] = runner.submit(
                run, entry, force=force and entry.runs, timeout_s=params.stage_timeout_s, wait_for=before)
            running[futures[entry.address]] = waiting.pop(entry.address).address
        if running:
            ended = next(as_completed(list(running)))
            ended.wait()   # or its state would be read from the server, which learns of it later
            yield running.pop(ended), ended.state


def _skip(waiting: dict[str, Stage], failed: dict[str, str]) -> None:
    """Take the stages behind a failed one out of `waiting`, and note its error for them in `failed`."""
    for entry in list(waiting.values()):
        cause = next((need for need in entry.needs if need in failed), None)
        if cause:
            failed[entry.address] = failed[cause]
            del waiting[entry.address]
