"""Which recordings an encoder may hear: all, except the groups that a task is scored on. Pure.

`leave_out: scored` leaves out every group with a label for a task of `params.yaml`, because the folds are scored out of
fold. `leave_out: held_out` leaves out the held-out part of each task only: such an encoder may be used for other tasks,
and is refused for these (`heartml.models.heard`).
"""

from collections.abc import Mapping

import pandas as pd

from heartml.core.folds import TEST
from heartml.core.stage import StageError


def allowed(recordings: pd.DataFrame, groups: pd.DataFrame, folds: Mapping[str, pd.DataFrame], leave_out: str
            ) -> pd.DataFrame:
    """The recordings that may be heard, with `group_id` after near-duplicates were joined, sorted by recording.

    Args:
        recordings: schema.RECORDINGS with labels.
        groups: recording_id, group_id, after groups with near-duplicates have been joined.
        folds: task -> schema.FOLDS.
        leave_out: `scored` or `held_out`.

    >>> recordings = pd.DataFrame({"recording_id": ["a", "b", "c"], "group_id": ["x", "y", "z"]})
    >>> folds = {"clinic-murmur": pd.DataFrame({"group_id": ["x", "y"], "part": ["0", "test"]})}
    >>> [list(allowed(recordings, recordings, folds, way)["recording_id"]) for way in ("scored", "held_out")]
    [['c'], ['a', 'c']]
    """
    joined = recordings.drop(columns="group_id").merge(groups[["recording_id", "group_id"]], on="recording_id")
    scored: set[str] = set()
    for table in folds.values():
        scored |= set(table["group_id"] if leave_out == "scored" else table.loc[table["part"] == TEST, "group_id"])
    return joined[~joined["group_id"].isin(scored)].sort_values("recording_id", ignore_index=True)


def need_something(allowed_recordings: pd.DataFrame, simulated_share: float) -> None:
    """Check that there is something to learn from.

    Raises:
        StageError: there is not.
    """
    if not len(allowed_recordings) and simulated_share < 1:
        raise StageError("pretrain: no recording may be heard: every group belongs to a task of params.yaml. Ingest "
                         "another collection, take a task out of `tasks`, or set `pretrain.simulated_share` to 1.0")
