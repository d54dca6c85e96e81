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

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.locks import exclusive
from heartml.registry import addresses, store_file

if TYPE_CHECKING:
    from sqlalchemy import Connection

VARIABLE, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
FILE = paths.STATE / "mlflow.db"
_WHAT = {VARIABLE: "a tracking store", REGISTRY: "a registry"}
_WITHOUT = {VARIABLE: f"unset {VARIABLE} to keep runs in .heartml",
            REGISTRY: f"unset {REGISTRY} to keep versions in the tracking store"}
_KINDS = frozenset({"sqlite", "postgresql", "http", "https"})
_HEALTHY = b"OK"                    # reply of an MLflow server's health check


class StoreError(HeartMLError):
    """The tracking store cannot be reached. The message says what to do."""


def tracking_uri() -> str:
    """Address of the tracking store in use."""
    return os.environ.get(VARIABLE) or addresses.of_sqlite(FILE)


def in_words(variable: str = VARIABLE) -> str:
    """`MLFLOW_TRACKING_URI=...` for messages, without the password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    with contextlib.suppress(ArgumentError, ValueError):
        return f"{variable}={make_url(_address(variable)).render_as_string(hide_password=True)}"
    return f"{variable}={_address(variable)}"


def _address(variable: str) -> str:
    return tracking_uri() if variable == VARIABLE else os.environ.get(variable, "")


def is_server() -> bool:
    """Whether the store is reached through an MLflow server."""
    return _is_server(tracking_uri())


def _is_server(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def is_postgresql() -> bool:
    """Whether this process writes into a PostgreSQL database directly."""
    return _is_postgresql(tracking_uri())


def _is_postgresql(address: str) -> bool:
    return address.partition(":")[0].partition("+")[0] == "postgresql"


def sqlite_file() -> Path | None:
    """The file of an SQLite store, whether it exists or not; `None` if the store is a service."""
    return addresses.sqlite_path(tracking_uri())


def registry_file() -> Path | None:
    """The file of an SQLite registry, which is the tracking store unless `MLFLOW_REGISTRY_URI` names another one."""
    return addresses.sqlite_path(os.environ.get(REGISTRY) or tracking_uri())


def check(*, create: bool = True) -> None:
    """Check within seconds that the addresses are valid and that the services answer. MLflow itself tries for minutes.

    That is the tracking store, and the registry where `MLFLOW_REGISTRY_URI` names another one.

    Args:
        create: whether a file that an address names may be missing, because a new store is to be there. The project's
            own file may always be missing.

    Raises:
        StoreError: an address is none of those at the head of this module, or nothing answers; or no address is given,
            and this folder is no project, so that a new store here would be an empty one beside the real one.
    """
    if not (os.environ.get(VARIABLE) or FILE.exists() or paths.PARAMS.exists()):
        raise StoreError(f"{paths.PARAMS}: not found, so this folder has no registry. Run heartml in the root of the "
                         f"repository, or name a store with {VARIABLE}")
    for variable, what in _WHAT.items():
        if variable == VARIABLE or (os.environ.get(REGISTRY) and os.environ[REGISTRY] != tracking_uri()):
            _check(variable, what, create=create or not os.environ.get(variable))


def check_named_files() -> None:
    """Check that the SQLite files that the two variables name are there.

    Raises:
        StoreError: one is missing or is no store.
    """
    for variable in _WHAT:
        if os.environ.get(variable):
            _check_file(variable, create=False)


def _check_file(variable: str, *, create: bool) -> None:
    file = addresses.sqlite_path(_address(variable))
    if file is None:
        return
    try:
        store_file.check(file, create=create)
    except store_file.NoStoreFile as error:
        new = isinstance(error, store_file.MissingStoreFile)
        raise StoreError(f"{in_words(variable)}: no store in {file} ({error}). Correct the path, or "
                         f"{_WITHOUT[variable]}{'; `heartml retrain` begins a new one there' if new else ''}") from None


def _check(variable: str, what: str, *, create: bool) -> None:
    address, without = _address(variable), _WITHOUT[variable]
    kind, is_address, _ = address.partition("://")
    if not is_address or kind.partition("+")[0] not in _KINDS:
        meant = f": did you mean http://{address}?" if re.match(r"[\w.-]+:\d+(/|$)", address) else ""
        raise StoreError(f"{in_words(variable)}: no address of {what}{meant or '.'} Write http(s)://HOST:PORT of an "
                         f"MLflow server, postgresql+psycopg://USER@HOST/NAME or sqlite:///FILE, or {without}")
    _check_file(variable, create=create)
    if _is_postgresql(address):
        with _connected(variable):
            pass
    if _is_server(address):
        from heartml.core.system import health  # its HTTP client takes longer to import than most commands need

        try:
            health.check(address, _HEALTHY)
        except health.ServerNotFound as error:
            raise StoreError(f"{in_words(variable)}: no MLflow server answers ({error}). Start it, or {without}"
                             ) from None


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
def _connected(variable: str = VARIABLE) -> Iterator["Connection"]:
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

    from heartml.core.system import health

    try:
        engine = create_engine(_address(variable), poolclass=NullPool, isolation_level="AUTOCOMMIT",
                               connect_args={"connect_timeout": health.TIMEOUT_S})
        connection = engine.connect()
    except (DBAPIError, ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        why = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        way_out = ("install heartml[scale], which brings the driver of postgresql+psycopg://"
                   if isinstance(error, ModuleNotFoundError | NoSuchModuleError) else
                   f"start it, or {_WITHOUT[variable]}")
        raise StoreError(f"{in_words(variable)}: the database does not answer ({why}): {way_out}") from None
    try:
        yield connection
    finally:
        with contextlib.suppress(DBAPIError):   # a lost connection has released its locks already
            connection.close()
