"""The MLflow tracking store: where it is, whether it answers, and a lock for everybody who uses it.

    `MLFLOW_TRACKING_URI`                   who shares the lock
    not set, or `sqlite:///FILE`            the processes of this machine: a lock file beside the store
    `postgresql+psycopg://USER@HOST/NAME`   all machines: an advisory lock, which ends with its database connection
    `https://HOST` (an MLflow server)       the processes of this folder: an MLflow server offers no locks
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
_HEALTHY = b"OK"                    # reply of an MLflow server's health check


class StoreError(HeartMLError):
    """The tracking store cannot be reached. The message says what to do."""


def tracking_uri() -> str:
    """Address of the tracking store in use."""
    return os.environ.get(VARIABLE) or f"sqlite:///{FILE.resolve()}"


def in_words() -> str:
    """`MLFLOW_TRACKING_URI=...` for messages, without the password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    with contextlib.suppress(ArgumentError):
        return f"{VARIABLE}={make_url(tracking_uri()).render_as_string(hide_password=True)}"
    return f"{VARIABLE}={tracking_uri()}"


def is_server() -> bool:
    """Whether the store is reached through an MLflow server."""
    return tracking_uri().startswith(("http://", "https://"))


def is_postgresql() -> bool:
    """Whether this process writes into a PostgreSQL database directly."""
    return tracking_uri().partition(":")[0].partition("+")[0] == "postgresql"


def sqlite_file() -> Path | None:
    """The file of an SQLite store, whether it exists or not; `None` if the store is a service."""
    parts = urlsplit(tracking_uri())
    return Path(unquote(parts.path[1:])) if parts.scheme == "sqlite" and parts.path != "/:memory:" else None


def check() -> None:
    """Check within seconds that the address is valid and that the service answers. MLflow itself tries for minutes.

    Raises:
        StoreError: the address is none of those at the head of this module, or nothing answers.
    """
    kind, is_address, _ = tracking_uri().partition("://")
    if not is_address or kind.partition("+")[0] not in _KINDS:
        meant = f": did you mean http://{tracking_uri()}?" if re.match(r"[\w.-]+:\d+(/|$)", tracking_uri()) else ""
        raise StoreError(f"{in_words()}: no address of a tracking store{meant or '.'} Write http(s)://HOST:PORT of an "
                         "MLflow server, postgresql+psycopg://USER@HOST/NAME or sqlite:///FILE, or unset "
                         f"{VARIABLE} to keep runs in .heartml")
    if is_postgresql():
        with _connected():
            pass
    if is_server():
        try:
            health.check(tracking_uri(), _HEALTHY)
        except health.ServerNotFound as error:
            raise StoreError(f"{in_words()}: no MLflow server answers ({error}). Start it, or unset {VARIABLE} to keep "
                             "runs in .heartml") from None


@contextlib.contextmanager
def store_lock(purpose: str, *, on_wait: str = "") -> Iterator[None]:
    """Hold the lock of this name for the length of the block; who shares it is at the head of this module.

    Args:
        purpose: name of the lock.
        on_wait: text that is printed if another process has the lock.

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
    """The lock file that the processes of one machine share."""
    file = sqlite_file()
    return file.with_name(f".{file.name}.{purpose}.lock") if file else paths.LOCKS / f"mlflow.{purpose}.lock"


def _lock(connection: "Connection", purpose: str, on_wait: str) -> None:
    """Take PostgreSQL's advisory lock; it lasts as long as the connection."""
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
        engine = create_engine(tracking_uri(), poolclass=NullPool, isolation_level="AUTOCOMMIT",
                               connect_args={"connect_timeout": health.TIMEOUT_S})
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
        with contextlib.suppress(DBAPIError):   # a lost connection has released its locks already
            connection.close()
