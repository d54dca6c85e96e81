"""Addresses of files and folders, for libraries that take a URL where a path is meant.

A path is not a URL: in `run #2`, `is it?` and `50%25` a part of it would be cut off or mean another character. A path
without such a character is written as it is, so that what is stored about a folder keeps its form.
"""

from pathlib import Path
from urllib.parse import quote, unquote

_MEANING = frozenset("?#%")


def needs_escape(path: str) -> bool:
    """Whether a path has a character that means something in a URL.

    >>> needs_escape("/home/ada/heart sounds"), needs_escape("/home/ada/run #2")
    (False, True)
    """
    return not _MEANING.isdisjoint(path)


def of_sqlite(file: Path, driver: str = "pysqlite") -> str:
    """The address of an SQLite database for SQLAlchemy, from a path that is made absolute.

    Where the path needs it, this is SQLite's own form for addresses, which is the only one that SQLAlchemy takes whole.
    It names the driver, because of the other form MLflow would make folders.

    >>> of_sqlite(Path("/home/ada/mlflow.db"))
    'sqlite:////home/ada/mlflow.db'
    >>> of_sqlite(Path("/home/ada/is it?/mlflow.db"))
    'sqlite+pysqlite:///file:/home/ada/is%20it%3F/mlflow.db?uri=true'
    """
    path = str(file.resolve())
    if needs_escape(path):
        return f"sqlite+{driver}:///file:{quote(path)}?uri=true"
    return f"sqlite{'' if driver == 'pysqlite' else f'+{driver}'}:///{path}"


def sqlite_path(address: str) -> Path | None:
    """The file that SQLAlchemy opens at this address; `None` if it is no file of SQLite.

    >>> sqlite_path("sqlite:///50%25 x/mlflow.db"), sqlite_path("sqlite:///:memory:"), sqlite_path("https://host")
    (PosixPath('50%25 x/mlflow.db'), None, None)
    >>> sqlite_path(of_sqlite(Path("/home/ada/is it?/mlflow.db")))
    PosixPath('/home/ada/is it?/mlflow.db')
    """
    kind, _, rest = address.partition("://")
    name, _, options = rest.removeprefix("/").partition("?")
    if kind.partition("+")[0] != "sqlite" or not name or ":memory:" in name or "mode=memory" in options:
        return None
    if name.startswith("file:") and "uri=true" in options.lower().split("&"):
        return Path(unquote(name.removeprefix("file:").partition("#")[0]))
    return Path(name)


def of_folder(folder: Path) -> str:
    """The address of a folder of artifacts for MLflow, from a path that is made absolute.

    >>> of_folder(Path("/home/ada/mlartifacts")), of_folder(Path("/home/ada/50% of it/mlartifacts"))
    ('/home/ada/mlartifacts', 'file:///home/ada/50%25%20of%20it/mlartifacts')
    """
    path = folder.resolve()
    return path.as_uri() if needs_escape(str(path)) else str(path)
