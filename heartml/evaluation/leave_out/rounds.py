"""The rounds of a leave-out evaluation: which units are left out in each, and the folds of the others. Pure.

In: a task's units (schema.FOLDS with `dataset` and `source`). Out: one `Round` for each data set or source. Its units
are the held-out part. Their groups are in no fold, not even with units from another collection.
"""

from dataclasses import dataclass

import pandas as pd

from heartml.core import schema
from heartml.core.config import SplitParams
from heartml.data.splitting.assign import draw_folds

NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Round:
    """One data set or source left out.

    Attributes:
        value: its name.
        folds: schema.FOLDS; the part `test` is what is left out.
        trained_on: number of units and groups in the folds.
        unseen_classes: classes of the left-out units that no other unit has, so that no model can learn them.
    """

    value: str
    folds: pd.DataFrame
    trained_on: dict[str, int]
    unseen_classes: tuple[str, ...]


def plan(units: pd.DataFrame, by: str, params: SplitParams, seed: int) -> list[Round]:
    """One round for each value of `by`, in the order of the values; a unit has the value of its first recording.

    Args:
        units: schema.FOLDS with the columns `by` and `source`.
        by: `dataset` or `source`.

    Returns:
        The rounds; a single one without folds where there is only one value.

    Raises:
        StageError: the units of the others do not fill the folds.
    """
    named = units.assign(value=units[by].fillna(NOT_GIVEN))
    assigned = named.sort_values(["unit_id", "recording_id"], ignore_index=True)
    assigned["home"] = assigned.groupby("unit_id")["value"].transform("first")
    values = sorted(assigned["home"].unique())
    return [Round(values[0], assigned.head(0), {}, ())] if len(values) < 2 else [
        _round(value, assigned, params, seed) for value in values
    ]


def _round(value: str, assigned: pd.DataFrame, params: SplitParams, seed: int) -> Round:
    held_out = assigned[assigned["home"] == value]
    touched = set(assigned.loc[assigned["value"] == value, "group_id"])
    others = assigned[~assigned["group_id"].isin(touched)]
    placed = draw_folds(pd.concat([held_out, others]).sort_index(), held_out, params, seed)
    unseen_classes = tuple(sorted(set(held_out["label"]) - set(others["label"])))
    return Round(value, schema.conform(placed, schema.FOLDS, "folds"),
                 {"units": others["unit_id"].nunique(), "groups": others["group_id"].nunique()}, unseen_classes)
