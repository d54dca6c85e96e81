"""Folds and held-out part: the table that says where each recording stands, and the laws it keeps.

`schema.FOLDS`: one row a recording with a label for the task, parts "0" ... "k-1" (folds) and "test" (held out).
The laws are checked where the table is made and again wherever a score is taken from it.
"""

from pathlib import Path

import pandas as pd

from heartml.core import schema
from heartml.core.system.errors import HeartMLError

TEST = schema.TEST


class FoldsError(HeartMLError):
    """The folds break a law; a score taken from them would not be believable. The message names the row."""


def load(path: Path) -> pd.DataFrame:
    """Read a table of folds and check its laws.

    Raises:
        FoldsError: see `check_folds`.
        SchemaError: it is no table of folds.
    """
    folds = schema.conform(pd.read_parquet(path), schema.FOLDS, path.name)
    check_folds(folds)
    return folds


def fold_names(folds: pd.DataFrame) -> list[str]:
    """The folds in order, without the held-out part."""
    return sorted(set(folds["part"]) - {TEST}, key=int)


def check_folds(folds: pd.DataFrame, owners: pd.DataFrame | None = None) -> None:
    """Check that nothing which belongs together is torn apart.

    Args:
        folds: schema.FOLDS.
        owners: recording_id and further columns (patient_id, groups over near-duplicates) that must not cross either.

    Raises:
        FoldsError: a recording stands there twice, a unit has two labels or two groups, a part is missing or empty,
            or a group, a unit or an owner is in two parts. The message names the first one.
    """
    _check_parts(folds)
    if folds["recording_id"].duplicated().any():
        twice = folds.loc[folds["recording_id"].duplicated(), "recording_id"].iloc[0]
        raise FoldsError(f"recording {twice[:12]} stands in the folds twice. Run `heartml split` again.")
    for column in ("label", "group_id"):
        _check_one_value(folds, "unit_id", column)
    for column in ("group_id", "unit_id"):
        _check_one_value(folds, column, "part")
    if owners is not None:
        joined = folds[["recording_id", "part"]].merge(owners, on="recording_id", how="left", validate="1:1")
        for column in owners.columns.drop("recording_id"):
            _check_one_value(joined, column, "part")


def crossing(folds: pd.DataFrame, column: str) -> tuple[int, int]:
    """How many values of `column` there are, and how many of them stand in several parts."""
    parts = folds.dropna(subset=[column]).groupby(column)["part"].nunique()
    return len(parts), int((parts > 1).sum())


def trained_beside(folds: pd.DataFrame, column: str) -> "pd.Series[bool]":
    """Whether what learns for a row's part hears the same value of `column`; null where the row has none.

    The held-out part is judged by what learnt from all folds, a fold by what learnt from the other folds.
    """
    parts = {value: set(of) for value, of in folds.dropna(subset=[column]).groupby(column)["part"]}
    beside = [pd.NA if pd.isna(value) else bool(parts[value] - {part, TEST})
              for value, part in zip(folds[column], folds["part"], strict=True)]
    return pd.Series(beside, index=folds.index, dtype="boolean")


def _check_parts(folds: pd.DataFrame) -> None:
    parts = set(folds["part"])
    expected = {TEST, *(str(k) for k in range(max(2, len(parts) - 1)))}
    if parts != expected:
        raise FoldsError(f"parts {', '.join(sorted(parts)) or 'none'}: expected {', '.join(sorted(expected))}")


def _check_one_value(table: pd.DataFrame, key: str, column: str) -> None:
    """Each value of `key` (null stands for nobody) has one value of `column`."""
    values = table.dropna(subset=[key]).groupby(key)[column].unique()
    torn = values[values.map(len) > 1]
    if len(torn):
        found = " and ".join(sorted(map(str, torn.iloc[0]))[:2])
        more = f", and {len(torn) - 1} more like it" if len(torn) > 1 else ""
        raise FoldsError(f"{key} {torn.index[0]} has {column} {found}{more}. Run `heartml validate` and `split`.")
