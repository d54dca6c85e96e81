"""The table of folds: which part each recording is in, and the laws of this table.

`schema.FOLDS`: one row for each recording with a label for the task; parts "0" ... "k-1" (folds) and "test" (held out).
The laws are checked when the table is made, and again wherever a score is computed from it.

The table of a task within another one (`Task.within`) has further rows, without a label: the context, which is what the
other task's folds hold besides. A network that learns the other task's labels may hear the context. It is never scored,
and its people are no cases of this task, so `load` and `read` leave it out. Only what encodes, trains, or tells what a
model has heard asks for it, with `read_heard`.
"""

from pathlib import Path

import pandas as pd

from heartml.core import schema
from heartml.core.system.errors import HeartMLError

TEST = schema.TEST


class FoldsError(HeartMLError):
    """The folds break a law, so a score from them could not be trusted. The message names the row."""


def load(path: Path) -> pd.DataFrame:
    """Read a table of folds and check its laws.

    Raises:
        FoldsError: see `check_folds`.
        SchemaError: the file is not a table of folds.
    """
    folds = read_heard(path)
    check_folds(folds)
    return labelled(folds)


def read(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The rows with a label of a stored table, without a check of its laws; `columns` as in `schema.FOLDS`."""
    table = labelled(read_heard(path))
    return table if columns is None else table[columns]


def read_heard(path: Path) -> pd.DataFrame:
    """All rows of a stored table, the context too: what a model may have heard. See the top of this module.

    Raises:
        SchemaError: the file is not a table of folds.
    """
    return schema.conform(pd.read_parquet(path), schema.FOLDS, path.name)


def labelled(folds: pd.DataFrame) -> pd.DataFrame:
    """The rows of cases, without the context.

    >>> labelled(pd.DataFrame({"unit_id": ["a", "b"], "label": ["Low", None]}))["unit_id"].tolist()
    ['a']
    """
    return folds[folds["label"].notna()].reset_index(drop=True)


def fold_names(folds: pd.DataFrame) -> list[str]:
    """The folds in order, without the held-out part."""
    return sorted(set(folds["part"]) - {TEST}, key=int)


def check_folds(folds: pd.DataFrame, owners: pd.DataFrame | None = None) -> None:
    """Check that no group, unit or owner is in two parts, and that the parts are complete.

    Args:
        folds: schema.FOLDS, with its context or without.
        owners: recording_id and further columns, for instance patient_id, whose values must not be in two parts either.

    Raises:
        FoldsError: a recording is there twice, a unit has two labels or two groups, a part is missing or empty, a
            group, a unit or an owner is in two parts, or context is held out. The message names the first one.
    """
    _check_parts(labelled(folds))
    context = folds[folds["label"].isna()]
    if (context["part"] == TEST).any():
        row = context[context["part"] == TEST].iloc[0]
        raise FoldsError(f"recording {row['recording_id'][:12]} has no label and is held out: only context of a fold "
                         "may be heard. Run `heartml split` again.")
    if folds["recording_id"].duplicated().any():
        twice = folds.loc[folds["recording_id"].duplicated(), "recording_id"].iloc[0]
        raise FoldsError(f"recording {twice[:12]} is in the folds twice. Run `heartml split` again.")
    for column in ("label", "group_id"):
        _check_one_value(folds, "unit_id", column)
    for column in ("group_id", "unit_id"):
        _check_one_value(folds, column, "part")
    if owners is not None:
        joined = folds[["recording_id", "part"]].merge(owners, on="recording_id", how="left", validate="1:1")
        for column in owners.columns.drop("recording_id"):
            _check_one_value(joined, column, "part")


def count_crossing(folds: pd.DataFrame, column: str) -> tuple[int, int]:
    """Number of values of `column`, and how many of them are in several parts.

    >>> table = pd.DataFrame({"session_id": ["a", "a", "b", None], "part": ["0", "1", "1", "2"]})
    >>> count_crossing(table, "session_id")      # of a and b, a is in two parts
    (2, 1)
    """
    parts = folds.dropna(subset=[column]).groupby(column)["part"].nunique()
    return len(parts), int((parts > 1).sum())


def shared_with_training(folds: pd.DataFrame, column: str) -> "pd.Series[bool]":
    """For each row, whether the model that predicts it was trained on rows with the same value of `column`; [rows].

    The held-out part is predicted by a model that was trained on all folds, a fold by models that were trained on the
    other folds. Null where the row has no value.

    >>> table = pd.DataFrame({"session_id": ["a", "a", "b", None], "part": ["0", "1", "1", "2"]})
    >>> shared_with_training(table, "session_id").tolist()
    [True, True, False, <NA>]
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
    """Check that each value of `key` has one value of `column`; rows without `key` are skipped."""
    values = table.dropna(subset=[key]).groupby(key)[column].unique()
    torn = values[values.map(len) > 1]
    if len(torn):
        found = " and ".join(sorted(map(str, torn.iloc[0]))[:2])
        more = f", and {len(torn) - 1} more like it" if len(torn) > 1 else ""
        raise FoldsError(f"{key} {torn.index[0]} has {column} {found}{more}. Run `heartml validate` and `split`.")
