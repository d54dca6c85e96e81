"""Folds and a held-out part for the units of a task. The held-out part is drawn, or taken from a published split.

In: the units of `units.label_units`, one row a recording. Out: schema.FOLDS, one row a recording.
"""

import pandas as pd

from heartml.core import schema
from heartml.core.config import SplitParams
from heartml.core.folds import TEST
from heartml.core.stage import StageError
from heartml.data.splitting import group_split
from heartml.data.splitting.published import UNUSED, parts_of


def assign_folds(
    units: pd.DataFrame, params: SplitParams, seed: int, published: "pd.Series[str] | None" = None
) -> pd.DataFrame:
    """Give each unit a fold or the held-out part; a group is never in two parts.

    Args:
        units: of `label_units`.
        params: number of folds, share of the held-out part.
        seed: another seed gives another draw.
        published: of `published.read_parts`; None: the held-out part is drawn.

    Returns:
        schema.FOLDS. With `published` it lacks the units that are not held out but share a group with one that is.

    Raises:
        StageError: there are too few groups, or the published split lacks a patient.

    >>> names = list("abcdefgh")
    >>> units = pd.DataFrame({"recording_id": names, "unit_id": names, "group_id": names, "label": ["x", "y"] * 4,
    ...                       "patient_id": [f"set-{name}" for name in names], "source": "clinic"})
    >>> params = SplitParams(folds=3, test_share=0.25, published=None, tasks={})
    >>> folds = assign_folds(units, params, seed=1, published=pd.Series(["test"] * 2 + ["train"] * 6, names))
    >>> folds.loc[folds["part"] == "test", "unit_id"].tolist()
    ['a', 'b']
    >>> folds.groupby("part").size().to_dict()
    {'0': 2, '1': 2, '2': 2, 'test': 2}
    """
    if published is None:
        return draw_folds(units, _draw_test(units, params, seed), params, seed)
    part = parts_of(units, published)
    return draw_folds(units[part != UNUSED], units[part == TEST], params, seed)


def draw_folds(units: pd.DataFrame, held_out: pd.DataFrame, params: SplitParams, seed: int) -> pd.DataFrame:
    """Draw the folds of all units whose group is not held out.

    Args:
        units: of `label_units`.
        held_out: those of its rows that are the held-out part.
        params: number of folds.
        seed: another seed gives another draw.

    Returns:
        schema.FOLDS, in the order of `units`.

    Raises:
        StageError: there are too few groups to fill all parts.
    """
    folds = [str(k) for k in range(params.folds)]
    others = units[~units["group_id"].isin(held_out["group_id"])]
    drawn = group_split.draw(group_split.group_table(others), dict.fromkeys(folds, 1 / params.folds), seed)
    placed = pd.concat([held_out.assign(part=TEST), others.assign(part=others["group_id"].map(drawn))]).sort_index()
    empty = [name for name in (*folds, TEST) if name not in set(placed["part"])]
    if empty:
        count = units["group_id"].nunique()
        raise StageError(f"{count} groups do not fill {len(folds)} folds and a test part (nothing in {empty[0]}): "
                         f"ingest more recordings, or lower `split.folds` in params.yaml.")
    return placed[list(schema.FOLDS)].astype("string")


def _draw_test(units: pd.DataFrame, params: SplitParams, seed: int) -> pd.DataFrame:
    """The held-out units. They are drawn before the folds, so that new data move few units in or out."""
    shares = {TEST: params.test_share, "rest": 1 - params.test_share}
    drawn = group_split.draw(group_split.group_table(units), shares, seed, held_out=TEST)
    return units[units["group_id"].map(drawn) == TEST]
