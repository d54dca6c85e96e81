"""Where the tracking store is, whether it answers, and a lock that all who use it meet at.

    `MLFLOW_TRACKING_URI`                   the lock holds among
    not set, or `sqlite:///FILE`            the processes of this machine: a lock file beside the store
    `postgresql+psycopg://USER@HOST/NAME`   all machines: an advisory lock, which the database frees with its connection
    `https://HOST` (an MLflow server)       the processes of this folder: a server of MLflow lends no locks
"""

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from heartml.core import paths
from heartml.core.system import health
from heartml.core.system.errors import HeartMLError
from heartml.core.system.locks import exclusive

if TYPE_CHECKING:
    from sqlalchemy import Connection

VARIABLE = "MLFLOW_TRACKING_URI"
FILE = paths.STATE / "mlflow.db"
_KINDS = frozenset({"sqlite", "postgresql", "http", "https"})
_WELL = b"OK"                       # what an MLflow server says of its health


class StoreError(HeartMLError):
    """The store cannot be reached; the message says what to do."""


def address() -> str:
    """The tracking store in use."""
    return os.environ.get(VARIABLE) or f"sqlite:///{FILE.resolve()}"


def in_words() -> str:
    """`MLFLOW_TRACKING_URI=...`, for messages: without a password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    with contextlib.suppress(ArgumentError):
        return f"{VARIABLE}={make_url(address()).render_as_string(hide_password=True)}"
    return f"{VARIABLE}={address()}"


def is_server() -> bool:
    """Whether an MLflow server answers for the store."""
    return address().startswith(("http://", "https://"))


def is_postgresql() -> bool:
    """Whether this process writes into a PostgreSQL database itself."""
    return address().partition(":")[0].partition("+")[0] == "postgresql"


def sqlite_file() -> Path | None:
    """The file of a store on this disk, there or not; `None` where the store is a service."""
    parts = urlsplit(address())
    return Path(unquote(parts.path[1:])) if parts.scheme == "sqlite" and parts.path != "/:memory:" else None


def check() -> None:
    """Find out in seconds whether the store is one, and whether a service is there; MLflow itself tries for minutes.

    Raises:
        StoreError: the address is none of those at the head of this module, or nothing answers.
    """
    kind, is_address, _ = address().partition("://")
    if not is_address or kind.partition("+")[0] not in _KINDS:
        meant = f": did you mean http://{address()}?" if re.match(r"[\w.-]+:\d+(/|$)", address()) else ""
        raise StoreError(f"{in_words()}: no address of a tracking store{meant or '.'} Write http(s)://HOST:PORT of an "
                         "MLflow server, postgresql+psycopg://USER@HOST/NAME or sqlite:///FILE, or unset "
                         f"{VARIABLE} to keep runs in .heartml")
    if is_postgresql():
        with _connected():
            pass
    if is_server():
        try:
            health.ask(address(), _WELL)
        except health.NotThere as error:
            raise StoreError(f"{in_words()}: no MLflow server answers ({error}). Start it, or unset {VARIABLE} to keep "
                             "runs in .heartml") from None


@contextlib.contextmanager
def alone(purpose: str, *, on_wait: str = "") -> Iterator[None]:
    """One at a time among those that use the same store, see the head of this module; says `on_wait` if it waits.

    Raises:
        StoreError: the database cannot be reached.
    """
    if not is_postgresql():
        with exclusive(lock_file(purpose), on_wait=on_wait):
            yield
        return
    with _connected() as connection:
        _lock(connection, purpose, on_wait)
        yield


def lock_file(purpose: str) -> Path:
    """Where the processes of one machine meet."""
    file = sqlite_file()
    return file.with_name(f".{file.name}.{purpose}.lock") if file else paths.LOCKS / f"mlflow.{purpose}.lock"


def _lock(connection: "Connection", purpose: str, on_wait: str) -> None:
    """Taken for the life of the connection."""
    from sqlalchemy import text

    number = int.from_bytes(hashlib.sha256(f"heartml {purpose}".encode()).digest()[:8], "big", signed=True)
    if not connection.execute(text("SELECT pg_try_advisory_lock(:n)"), {"n": number}).scalar():
        if on_wait:
            print(on_wait, file=sys.stderr, flush=True)
        connection.execute(text("SELECT pg_advisory_lock(:n)"), {"n": number})


@contextlib.contextmanager
def _connected() -> Iterator["Connection"]:
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

    try:
        engine = create_engine(address(), poolclass=NullPool, isolation_level="AUTOCOMMIT",
                               connect_args={"connect_timeout": health.ANSWER_S})
        connection = engine.connect()
    except (DBAPIError, ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        why = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        way_out = ("install heartml[scale], which brings the driver of postgresql+psycopg://"
                   if isinstance(error, ModuleNotFoundError | NoSuchModuleError) else
                   f"start it, or unset {VARIABLE} to keep runs in .heartml")
        raise StoreError(f"{in_words()}: the database does not answer ({why}): {way_out}") from None
    try:
        yield connection
    finally:
        with contextlib.suppress(DBAPIError):   # a lost connection has freed its locks already
            connection.close()
