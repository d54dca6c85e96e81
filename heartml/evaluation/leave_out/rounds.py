"""Who is left out when, and how the others stand in folds meanwhile. Pure.

In: a task's units (schema.FOLDS with `dataset` and `source`). Out: one `Round` a data set or source, whose units are
the held-out part; no group of theirs is in a fold, whatever collection its other units are from.
"""

from dataclasses import dataclass

import pandas as pd

from heartml.core import schema
from heartml.core.config import SplitParams
from heartml.data.splitting.assign import place

NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Round:
    """One value left out.

    Attributes:
        folds: schema.FOLDS; the part `test` is what is left out.
        trained_on: units and groups that are learnt from.
        unheard: classes of the left-out units that nothing else carries.
    """

    value: str
    folds: pd.DataFrame
    trained_on: dict[str, int]
    unheard: tuple[str, ...]


def plan(units: pd.DataFrame, by: str, params: SplitParams, seed: int) -> list[Round]:
    """A round for each value of `by`, in the order of their names; a unit is where its first recording is.

    Args:
        units: schema.FOLDS with the columns `by` and `source`.

    Raises:
        StageError: the units of the others do not fill the folds.
    """
    told = units.assign(value=units[by].fillna(NOT_GIVEN)).sort_values(["unit_id", "recording_id"], ignore_index=True)
    told["home"] = told.groupby("unit_id")["value"].transform("first")
    values = sorted(told["home"].unique())
    return [Round(values[0], told.head(0), {}, ())] if len(values) < 2 else [
        _round(value, told, params, seed) for value in values
    ]


def _round(value: str, told: pd.DataFrame, params: SplitParams, seed: int) -> Round:
    held_out = told[told["home"] == value]
    touched = set(told.loc[told["value"] == value, "group_id"])
    others = told[~told["group_id"].isin(touched)]
    placed = place(pd.concat([held_out, others]).sort_index(), held_out, params, seed)
    unheard = tuple(sorted(set(held_out["label"]) - set(others["label"])))
    return Round(value, schema.conform(placed, schema.FOLDS, "folds"),
                 {"units": others["unit_id"].nunique(), "groups": others["group_id"].nunique()}, unheard)
