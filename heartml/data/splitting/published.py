"""A split that somebody published, as a CSV of a key and its part. With it, scores can be compared with theirs.

The key is a patient (`patient_id`), a recording (`recording`, the name of its file) or a part of a data set (`source`).
A list of recordings and parts without names of columns, as ICBHI 2017 publishes it, is read too.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from heartml.core import paths
from heartml.core.stage import StageError
from heartml.core.system import cells, tables
from heartml.core.system.tables import Row
from heartml.core.system.untrusted import DocumentError

PARTS = ("train", "validation", "test")
UNUSED = "unused"         # in no part: neither held out nor in a fold
KEYS = ("patient_id", "recording", "source")


def read_published(path: Path) -> "pd.Series[str]":
    """Read a published split of this project, see `read_parts`.

    Args:
        path: a CSV in `paths.SPLITS`. DVC sees only changes in that folder.

    Raises:
        StageError: the file is in another folder, or see `read_parts`.
    """
    if not path.resolve().is_relative_to(paths.SPLITS.resolve()):
        raise StageError(f"{path} (`split.published` in params.yaml): put it into {paths.SPLITS}/, which DVC watches")
    return read_parts(path)


def read_parts(path: Path) -> "pd.Series[str]":
    """Read a published split from any folder: key -> part; the name of the index says which of `KEYS` it is.

    Args:
        path: a CSV with a column of `KEYS` and the column part, or a list of recordings and parts without a header.

    Raises:
        StageError: the file cannot be read, lacks a column, names a key twice, or has a part other than `PARTS` and
            `UNUSED`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "split.csv")
    ...     _ = path.write_text("patient_id,part\\n9979,train\\n9983,test\\n")
    ...     read_parts(path).to_dict()
    {'9979': 'train', '9983': 'test'}
    """
    try:
        key, rows = _rows(path)
    except DocumentError as error:
        raise StageError(f"{path}: {error}") from None
    what = key.removesuffix("_id")
    for row in rows:
        if row["part"] not in (*PARTS, UNUSED) or cells.is_missing(row[key]):
            raise StageError(f"{path} line {row.line}: {what} {row[key]}, part {row['part']}: "
                             f"expected {', '.join(PARTS)} or {UNUSED}")
    table = pd.DataFrame([(row[key], row["part"]) for row in rows], columns=[key, "part"]).astype("string")
    if key == "recording":
        table[key] = table[key].str.removesuffix(".wav")
    twice = table.loc[table[key].duplicated(), key]
    if len(twice):
        raise StageError(f"{path}: {what} {twice.iloc[0]} has two lines: keep one line for each {what}.")
    return table.set_index(key)["part"]


def _rows(path: Path) -> tuple[str, Sequence[Row]]:
    """The key of the table, and its rows.

    Raises:
        DocumentError: it cannot be read, or lacks a column.
    """
    names, found = tables.read(path, (*KEYS, "part"))
    if len(names) == 2 and names[1] in PARTS:       # a first line that is a row already
        _, found = tables.read(path, names=("recording", "part"))
        return "recording", list(found)
    key = next((one for one in KEYS if one in names), KEYS[0])
    tables.refuse_missing(names, (key, "part"))
    return key, list(found)


def parts_of(units: pd.DataFrame, published: "pd.Series[str]") -> "pd.Series[str]":
    """The published part of each recording.

    Args:
        units: patient_id, source and source_file, one row a recording.
        published: of `read_parts`. Patient ids may stand there without the data set's name.

    Raises:
        StageError: it lacks some of them.
    """
    key = str(published.index.name or KEYS[0])
    if key == "recording":
        own = units["source_file"].map(lambda file: PurePosixPath(file).with_suffix("").name)
    else:
        own = units[key]
    part = own.map(published)
    if key == KEYS[0]:
        part = part.fillna(units[key].str.partition("-")[2].map(published))
    if part.isna().any():
        what = key.removesuffix("_id")
        missing = sorted(own[part.isna()].fillna(f"(no {what} id)").unique())
        raise StageError(f"{len(missing)} {what}s are not in the published split: {', '.join(missing[:5])}. "
                         "Add them to the file (part `train`), or set `split.published` to null.")
    return part
