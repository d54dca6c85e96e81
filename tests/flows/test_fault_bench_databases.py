"""The fault bench, databases: one that goes away in mid-run, one that another process keeps locked."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import fault_injection, local_services, small_project
from support.fault_injection import THOROUGH
from support.small_project import TASK
from support.workspaces import Workspace

from heartml.core import config, paths
from heartml.core.system import machine_errors
from heartml.registry import tracking
from heartml.registry import versions as registry
from heartml.release import publish

pytestmark = pytest.mark.timeout(1800)      # on a machine that does ten other things
STEPS = ("create_model_version", *["log_batch", "create_run", "set_model_version_tag"] * THOROUGH)


# Databases


@pytest.fixture
def unregistered(mine: Workspace, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The retrained project as working folder, its registry empty."""
    small_project.empty_registry(mine, empty_store)
    monkeypatch.chdir(mine.root)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return mine


def states() -> tuple[list[tuple[str, str | None, tuple[str, ...]]], set[str]]:
    """(version, verdict, aliases) of the registry, and the states of all runs."""
    client = tracking.connect()
    experiments = [e.experiment_id for e in client.search_experiments()]
    return ([(v.number, v.verdict, v.aliases) for v in registry.list_versions(client, TASK)],
            {run.info.status for run in client.search_runs(experiments)})


@pytest.mark.parametrize("step", STEPS)
def test_a_database_that_goes_away_while_it_registers_is_gone_on_with_when_it_is_back(
    unregistered: Workspace, database: tuple[local_services.Database, fault_injection.CuttableConnection],
                                                                                      monkeypatch: pytest.MonkeyPatch,
    step: str
) -> None:
    server, connection = database
    address = server.url(f"lost_{step}").replace(str(server.port), str(connection.port))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client = type(tracking.connect())
    with monkeypatch.context() as patch:
        patch.setattr(client, step, cutting(connection, getattr(client, step)))
        with pytest.raises(Exception) as lost:
            publish.publish(TASK, config.load(), {})
    assert machine_errors.is_lost_connection(lost.value), "the flow tries again"
    assert "a connection was lost" in str(machine_errors.explain(lost.value))
    connection.open = True
    assert publish.publish(TASK, config.load(), {}).state in ("promoted", publish.NOTHING_NEW)
    versions, runs = states()
    assert versions == [("1", "promoted", ("champion",))]
    assert runs <= {"FINISHED", "FAILED"}


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[local_services.Database, fault_injection.CuttableConnection]]:
    """PostgreSQL, and a connection to it that can be cut."""
    with local_services.postgresql() as server, fault_injection.cuttable_connection(server.port) as connection:
        yield server, connection


def cutting(connection: fault_injection.CuttableConnection, act: Callable[..., object]) -> Callable[..., object]:
    """`act`, which loses the database as it begins."""
    def wrapped(*arguments: object, **named: object) -> object:
        connection.cut()
        return act(*arguments, **named)

    return wrapped


def test_a_database_that_another_process_keeps_locked_is_waited_for(unregistered: Workspace) -> None:
    with sqlite3.connect(paths.STATE / "mlflow.db", isolation_level=None, check_same_thread=False) as other:
        other.execute("BEGIN IMMEDIATE")
        freed = threading.Timer(4, other.rollback)
        freed.start()
        assert publish.publish(TASK, config.load(), {}).state == "promoted"
        freed.join()
    assert states() == ([("1", "promoted", ("champion",))], {"FINISHED"})
