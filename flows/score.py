"""Scoring as a flow: a folder or a table of recordings in, a Parquet table of probabilities out.

A block is a task: one whose disk or database fails is tried again, and a flow that is run again goes on where the last
one was (heartml/inference/batch.py).
"""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.support import stale_runs
from heartml.inference import batch
from heartml.inference.batch import Block, Summary, Work
from heartml.inference.prediction_cache import PredictionCacheError


def _can_help(_: Any, __: Any, state: Any) -> bool:
    """Another try helps where the disk was full or busy; a model's own error would only come again."""
    return isinstance(state.result(raise_on_failure=False), PredictionCacheError | OSError)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="block {number}", retries=2,
      retry_delay_seconds=[5, 60], retry_condition_fn=_can_help)
def score_block(work: Work, number: int) -> Block:
    """Score one block, as far as that is not done."""
    return batch.score(work, number)


@flow(name="score", persist_result=False)
def score(source: Path, to: Path, model: str | None = None, task: str | None = None) -> Summary:
    """Score the recordings of a folder, or of a CSV with columns path, patient_id, location.

    Args:
        to: the Parquet table to write; one that is there is replaced when the new one is whole.
        model: `circor-murmur`, `circor-murmur/3`, `circor-murmur@challenger`, or a folder; the champion otherwise.
        task: which champion, where params.yaml names several tasks.
    """
    stale_runs.sign()
    stale_runs.close_killed("score")
    work = batch.plan(source, model, task)
    with batch.alone(work):
        summary = write(work, to, source)
    create_table_artifact([{"what": what, "number": number} for what, number in summary.counts.items()],
                          key="score-result", description=f"{source} scored by {work.located.words}")
    return summary


def write(work: Work, to: Path, source: Path) -> Summary:
    """Each block a task; the table when all are done. The caller holds `batch.alone`."""
    return batch.write(work, to, (score_block(work, number) for number in range(len(work.blocks))), source)
