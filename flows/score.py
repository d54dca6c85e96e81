"""Scoring as a flow: a folder or a table of recordings in, a Parquet table of probabilities out.

Each block of recordings is a task. A block is tried again when its disk or its cache file fails. A flow that is run
again goes on where the last one ended (heartml/inference/batch.py).
"""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.support import one_line_errors, stale_runs
from flows.support.run_names import run_name
from heartml.inference import batch
from heartml.inference.batch import ScoredBlock, ScoringPlan, ScoringSummary
from heartml.inference.prediction_cache import PredictionCacheError


def _can_help(_: Any, __: Any, state: Any) -> bool:
    """Another try helps where the disk was full or busy. An error of the model would only come again."""
    return isinstance(state.result(raise_on_failure=False), PredictionCacheError | OSError)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="block {number}", retries=2,
      retry_delay_seconds=[5, 60], retry_condition_fn=_can_help)
def score_block(plan: ScoringPlan, number: int) -> ScoredBlock:
    """Score the units of one block that are not in the prediction cache yet."""
    return batch.score_block(plan, number)


@flow(name="score", flow_run_name=run_name("score", "source"), persist_result=False)
def score(source: Path, to: Path, model: str | None = None, task: str | None = None) -> ScoringSummary | State[Any]:
    """Score the recordings of a folder, or of a CSV with columns path, patient_id, location.

    Args:
        to: the Parquet table to write. An existing one is replaced when the new one is complete.
        model: `circor-murmur`, `circor-murmur/3`, `circor-murmur@challenger`, or a folder; the champion otherwise.
        task: the task whose champion is used, where params.yaml names several tasks.
    """
    stale_runs.tag_this_run()
    stale_runs.close_killed("score")
    return one_line_errors.as_failed(_score, source, to, model, task)


def _score(source: Path, to: Path, model: str | None, task: str | None) -> ScoringSummary:
    plan = batch.plan(source, model, task)
    with batch.locked(plan):
        blocks = (score_block(plan, number) for number in range(len(plan.blocks)))
        summary = batch.write(plan, to, blocks, source)
    create_table_artifact([{"what": what, "number": number} for what, number in summary.counts.items()],
                          key="score-result", description=f"{source} scored by {plan.located.description}")
    return summary
