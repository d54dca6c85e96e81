"""Scoring as a flow: a folder or a table of recordings in, a Parquet table of probabilities out.

A block is a task: one whose process dies is tried again, and a flow that is run again goes on where the last one was.
"""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import sweep
from heartml.predict import batch
from heartml.predict.batch import Batch


@task(cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=[5, 60])
def score_block(work: Batch, number: int) -> bool:
    """Score one block, unless that is done."""
    return batch.score(work.blocks[number], work.located)


@flow(name="score", persist_result=False)
def score(source: Path, to: Path, model: str | None = None, task: str | None = None) -> dict[str, int]:
    """Score the recordings of a folder, or of a CSV with columns path, patient_id, location.

    Args:
        to: the Parquet table to write; one that is there is replaced when the new one is whole.
        model: `circor-murmur`, `circor-murmur/3`, `circor-murmur@challenger`, or a folder; the champion otherwise.
        task: which champion, where params.yaml names several tasks.
    """
    sweep.sign()
    sweep.close_killed("score")
    work = batch.plan(source, model, task)
    with batch.alone(work):
        for number in range(len(work.blocks)):
            score_block(work, number)
        found = batch.finish(work, to)
    faults = int(found["fault"].count())
    counts = {"units": len(found) - faults, "recordings that cannot be scored": faults}
    create_table_artifact([{"what": what, "number": number} for what, number in counts.items()], key="score-result",
                          description=f"{source} scored by {work.located.words}")
    return counts
