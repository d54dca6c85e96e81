"""A split that somebody published, as a CSV of patient_id,part: for scores that can be compared with theirs."""

from pathlib import Path

import pandas as pd

from heartml.core import paths
from heartml.core.stage import StageError

PARTS = ("train", "validation", "test")


def read_published(path: Path) -> "pd.Series[str]":
    """Patient id -> part, from a CSV with the columns patient_id and part.

    Raises:
        StageError: the file lies outside `paths.SPLITS` (DVC would not see it change), cannot be read, lacks a column,
            names a patient twice or a part that there is not.
    """
    if not path.resolve().is_relative_to(paths.SPLITS.resolve()):
        raise StageError(f"{path} (`split.published` in params.yaml): put it into {paths.SPLITS}/, which DVC watches")
    return read_parts(path)


def read_parts(path: Path) -> "pd.Series[str]":
    """Patient id -> part, from a CSV with the columns patient_id and part, wherever it lies.

    Raises:
        StageError: as `read_published`, but for the place.
    """
    try:
        table = pd.read_csv(path, dtype="string", usecols=["patient_id", "part"])
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: {error}") from None
    for row, (patient, part) in enumerate(zip(table["patient_id"], table["part"], strict=True), start=2):
        if part not in PARTS or pd.isna(patient):
            raise StageError(f"{path} line {row}: patient {patient}, part {part}: expected {', '.join(PARTS)}")
    twice = table.loc[table["patient_id"].duplicated(), "patient_id"]
    if len(twice):
        raise StageError(f"{path}: patient {twice.iloc[0]} stands there twice: keep one line for each patient.")
    return table.set_index("patient_id")["part"]
