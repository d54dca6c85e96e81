"""Units -> folds and a held-out part: drawn, or as somebody published it."""

import pandas as pd

from heartml.core import schema
from heartml.core.config import SplitParams
from heartml.core.folds import TEST
from heartml.core.stage import StageError
from heartml.data.splitting import group_split


def assign_folds(
    units: pd.DataFrame, params: SplitParams, seed: int, published: "pd.Series[str] | None" = None
) -> pd.DataFrame:
    """schema.FOLDS for the units of `label_units`; `published`: patient id -> train, validation or test.

    Raises:
        StageError: too few groups, or a patient that the published split does not know.
    """
    held_out = _draw_test(units, params, seed) if published is None else _published_test(units, published)
    return place(units, held_out, params, seed)


def place(units: pd.DataFrame, held_out: pd.DataFrame, params: SplitParams, seed: int) -> pd.DataFrame:
    """schema.FOLDS: the rows `held_out` as the test part, all of other groups in folds that are drawn.

    Raises:
        StageError: too few groups.
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
    """The held-out units: drawn before the folds, so that new data moves as few as possible in or out."""
    shares = {TEST: params.test_share, "rest": 1 - params.test_share}
    drawn = group_split.draw(group_split.group_table(units), shares, seed, held_out=TEST)
    return units[units["group_id"].map(drawn) == TEST]


def _published_test(units: pd.DataFrame, published: "pd.Series[str]") -> pd.DataFrame:
    """The held-out units of a published split; ids there may lack the data set's name."""
    own_id = units["patient_id"].str.partition("-")[2]
    part = units["patient_id"].map(published).fillna(own_id.map(published))
    if part.isna().any():
        lost = sorted(units.loc[part.isna(), "patient_id"].fillna("(no patient id)").unique())
        raise StageError(f"{len(lost)} patients are not in the published split: {', '.join(lost[:5])}. "
                         "Add them to the file (part `train`), or set `split.published` to null.")
    return units[part == TEST]
