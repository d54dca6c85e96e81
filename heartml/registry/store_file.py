"""The file of an SQLite store, looked at before MLflow opens it: MLflow tries for minutes, and creates what is missing.

In: a path. Out: nothing, or why the file cannot be a store.
"""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

_WAIT_S = 5
_OF_MLFLOW = frozenset({"alembic_version", "experiments"})     # the first exists from the beginning of a migration on


class NoStoreFile(Exception):  # noqa: N818 - names what is the case
    """The file is no store of MLflow; the message says why."""


class MissingStoreFile(NoStoreFile):
    """There is no such file, and none is to be created."""


def check(file: Path, *, create: bool) -> None:
    """Check that a store is in the file, or that a new one can be created there.

    Args:
        create: whether a missing file is created, empty, with its folders.

    Raises:
        MissingStoreFile: it is missing and is not to be created.
        NoStoreFile: it cannot be opened or created, or is something else.
    """
    try:
        if not file.exists():
            if not create:
                raise MissingStoreFile("there is no such file")
            file.parent.mkdir(parents=True, exist_ok=True)
        tables = _tables(file, create=create)
    except (OSError, ValueError) as error:
        raise NoStoreFile(getattr(error, "strerror", None) or str(error)) from None
    if tables and _OF_MLFLOW.isdisjoint(tables):
        raise NoStoreFile(f"it is a database of something else, with the table {min(tables)}")


def _tables(file: Path, *, create: bool) -> set[str]:
    """Names of the tables; empty for a new file, and where another process has locked the database."""
    address = f"file:{quote(str(file.absolute()))}?mode={'rwc' if create else 'rw'}"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=_WAIT_S)) as database:
            return {str(name) for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return set()
        raise NoStoreFile(str(error)) from None
    except sqlite3.DatabaseError as error:
        raise NoStoreFile(str(error)) from None
