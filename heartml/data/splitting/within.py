"""The split of a task within another one (`Task.within`): the other task's draw, restricted to this one's cases.

In: the units of both tasks, of `units.label_units`. Out: schema.FOLDS of this task, with the rest of the other task's
folds as context (rows without a label, see `heartml.core.folds`).

The draw is computed anew from the same tables, parameters and seed as in the other task's own split. So neither split
waits for the other, and both give the same parts.
"""

import pandas as pd

from heartml.core import schema
from heartml.core.config import SplitParams
from heartml.core.folds import TEST
from heartml.core.stage import StageError
from heartml.data.splitting.assign import assign_folds


def covers(parents: pd.DataFrame, units: pd.DataFrame) -> bool:
    """Whether every recording of a task's units is one of the other task's too, under the same unit and group.

    Args:
        parents, units: of `units.label_units`, of the other task and of this one.
    """
    keys = ["recording_id", "unit_id", "group_id"]
    return len(units.merge(parents, on=keys)) == len(units)


def assign_within(
    units: pd.DataFrame, parents: pd.DataFrame, params: SplitParams, seed: int,
    published: "pd.Series[str] | None" = None,
) -> pd.DataFrame:
    """Give each unit the part that it has in the other task's draw.

    Args:
        units: of this task; `parents` covers them.
        parents: of the other task.
        params, seed, published: those of the other task's split, see `assign_folds`.

    Returns:
        schema.FOLDS: this task's units in the order of `units`, then the context in the order of `parents`.

    Raises:
        StageError: see `assign_folds`, or a part has no unit of this task.

    >>> names = list("abcdefgh")
    >>> parents = pd.DataFrame({"recording_id": names, "unit_id": names, "group_id": names, "label": ["x", "y"] * 4,
    ...                         "patient_id": names, "source": "clinic"})
    >>> params = SplitParams(folds=3, test_share=0.25, published=None, tasks={})
    >>> published = pd.Series(["test"] * 2 + ["train"] * 6, names)
    >>> units = parents.assign(label="Low").iloc[[0, 2, 3, 4, 5, 6]]
    >>> found = assign_within(units, parents, params, 1, published)
    >>> found.loc[found["label"].isna(), "recording_id"].tolist()     # b is held out there, so nothing hears it
    ['h']
    """
    drawn = assign_folds(parents, params, seed, published).set_index("recording_id")["part"]
    own = units[units["recording_id"].isin(drawn.index)]
    folds = own.assign(part=own["recording_id"].map(drawn))
    others = parents[parents["recording_id"].isin(drawn.index) & ~parents["recording_id"].isin(own["recording_id"])]
    context = others.assign(part=others["recording_id"].map(drawn), label=None)
    _check_filled(folds, params)
    whole = pd.concat([folds, context[context["part"] != TEST]])
    return whole[list(schema.FOLDS)].astype("string").reset_index(drop=True)


def _check_filled(folds: pd.DataFrame, params: SplitParams) -> None:
    empty = [part for part in (*map(str, range(params.folds)), TEST) if part not in set(folds["part"])]
    if empty:
        count = folds["group_id"].nunique()
        name = "the held-out part" if empty[0] == TEST else f"fold {empty[0]}"
        raise StageError(f"{count} groups leave {name} empty in the draw of the task that they are part of: ingest "
                         "more recordings, lower `split.folds` of that task in params.yaml, or take this one out of "
                         "`tasks`")
