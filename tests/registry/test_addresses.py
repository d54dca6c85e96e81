"""A path is not a URL: a folder of any name has one registry, and nothing is written beside it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

from flows.support import private_server
from heartml.core import paths
from heartml.registry import addresses, mlflow_store, tracking

NAMES = ("plain", "with a space", "run #2", "is it?", "50%25 x", 'a "quote"', "it's", "c\u0153ur", "a+b&c=d;e:f")


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of that name as the working folder, without services in the environment."""
    for name in (mlflow_store.VARIABLE, "PREFECT_HOME", *private_server._DATABASE):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / request.param
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_a_database_is_made_where_its_path_says_and_nowhere_else(folder: Path) -> None:
    address = addresses.of_sqlite(folder / "a.db")
    engine = sqlalchemy.create_engine(address)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (x INTEGER)"))
    engine.dispose()
    assert addresses.sqlite_path(address) == folder / "a.db"
    assert [path.relative_to(folder.parent).as_posix() for path in folder.parent.rglob("*")] == [
        folder.name, f"{folder.name}/a.db"]


def test_mlflow_reads_the_address_of_a_folder_as_that_folder(folder: Path) -> None:
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import append_to_uri_path

    place = append_to_uri_path(addresses.of_folder(folder), "run", "artifacts")
    assert local_file_uri_to_path(place) == str(folder / "run/artifacts")


def test_the_history_of_prefect_is_in_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "")      # to be put back after the test
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.setenv(private_server._DATABASE[0], "")
    monkeypatch.delenv(private_server._DATABASE[0])
    private_server.keep_history_here()
    pasted = f"sqlite+aiosqlite:///{os.environ['PREFECT_HOME']}/prefect.db"      # by Prefect, where it is told nothing
    address = os.environ.get(private_server._DATABASE[0]) or pasted
    assert addresses.sqlite_path(address) == folder / private_server.HOME / "prefect.db"
    assert sqlalchemy.make_url(address).get_dialect().driver == "aiosqlite"


@pytest.mark.parametrize(("before", "after"), [("one", "run #2"), ("run #2", "is it?"), ("50%25 x", "plain")])
def test_a_project_that_was_moved_finds_its_files(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = sqlite3.connect(":memory:")
    for table, column in tracking._PLACES:
        database.execute(f"CREATE TABLE {table} ({column} TEXT)")
        old = addresses.of_folder(tmp_path / before / tracking.STORED_FILES)
        database.execute(f"INSERT INTO {table} VALUES (?)", (old + ("" if table == "experiments" else "/run/file"),))
    (tmp_path / after).mkdir()
    monkeypatch.chdir(tmp_path / after)
    with closing(database):
        tracking._update_moved_paths(database)
        found = {table: database.execute(f"SELECT {column} FROM {table}").fetchall() for table, column in
                 tracking._PLACES}
    new = addresses.of_folder(tmp_path / after / paths.STATE / "mlartifacts")
    assert found == {table: [(new + ("" if table == "experiments" else "/run/file"),)] for table, _ in tracking._PLACES}


def test_the_address_of_an_ordinary_folder_is_the_one_it_always_had(tmp_path: Path) -> None:
    assert addresses.of_sqlite(tmp_path / "mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert addresses.of_folder(tmp_path) == str(tmp_path)
