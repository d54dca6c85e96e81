"""A split that somebody published, as a CSV of patient_id,part. With it, scores can be compared with theirs."""

from pathlib import Path

import pandas as pd

from heartml.core import paths
from heartml.core.stage import StageError
from heartml.core.system import cells, tables
from heartml.core.system.untrusted import DocumentError

PARTS = ("train", "validation", "test")


def read_published(path: Path) -> "pd.Series[str]":
    """Read a published split of this project: patient id -> part.

    Args:
        path: a CSV with the columns patient_id and part, in `paths.SPLITS`. DVC sees only changes in that folder.

    Raises:
        StageError: the file is in another folder, cannot be read, lacks a column, names a patient twice, or has a part
            other than `PARTS`.
    """
    if not path.resolve().is_relative_to(paths.SPLITS.resolve()):
        raise StageError(f"{path} (`split.published` in params.yaml): put it into {paths.SPLITS}/, which DVC watches")
    return read_parts(path)


def read_parts(path: Path) -> "pd.Series[str]":
    """Read a published split from any folder: patient id -> part.

    Args:
        path: a CSV with the columns patient_id and part.

    Raises:
        StageError: the file cannot be read, lacks a column, names a patient twice, or has a part other than `PARTS`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "split.csv")
    ...     _ = path.write_text("patient_id,part\\n9979,train\\n9983,test\\n")
    ...     read_parts(path).to_dict()
    {'9979': 'train', '9983': 'test'}
    """
    try:
        names, found = tables.read(path, ("patient_id", "part"))
        tables.refuse_missing(names, ("patient_id", "part"))
        rows = list(found)
    except DocumentError as error:
        raise StageError(f"{path}: {error}") from None
    for row in rows:
        if row["part"] not in PARTS or cells.is_missing(row["patient_id"]):
            raise StageError(f"{path} line {row.line}: patient {row['patient_id']}, part {row['part']}: "
                             f"expected {', '.join(PARTS)}")
    table = pd.DataFrame([(row["patient_id"], row["part"]) for row in rows], columns=["patient_id", "part"])
    table = table.astype("string")
    twice = table.loc[table["patient_id"].duplicated(), "patient_id"]
    if len(twice):
        raise StageError(f"{path}: patient {twice.iloc[0]} has two lines: keep one line for each patient.")
    return table.set_index("patient_id")["part"]
