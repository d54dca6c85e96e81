"""Fixtures for every test: real recordings in their publishers' layouts, projects in folders of their own.

The real recordings are looked for in `../shared/datasets` beside the repository, or in HEARTML_REAL_DATA. Where they
are missing, the tests that need them are left out, and say so.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fork_server, made_once, workspaces
from support import small_project as small
from support.fault_injection import THOROUGH
from support.workspaces import REAL_DATA, ROOT, Workspace

from heartml.core.system.processes import collect_garbage_less_often

# Modules that start a server, kill a process or take more than a few seconds are `slow`: `make test-fast` leaves them
# out. They come first, in this order, so that none is left over at the end. The first makes `retrained`, for which the
# next ones need not wait.
SLOW = ("survival", "ingest_faults", "protocols", "structure", "leave_out", "fault_bench", "scale", "object_store",
        "retrain",
        "any_folder", "run_local", "audit", "deployments", "fault_bench_databases", "publish_gate", "publish",
        "ingest_command", "ingest_real", "ingest_versions", "ingest_quarantine", "ingest", "fault_bench_dvc",
        "model_card", "comparison", "published_model", "run_children", "pipeline", "murmur_pages", "search", "fuzz",
        "serving", "monitoring", "batch", "chain", "validation", "champions", "retirement", "assessment",
        "available_tasks", "versions", "withdrawal", "robustness", "ensemble", "generic", "declared_tasks",
        "own_data", "task_report",
        "report_tables", "report_browser", "evaluation_inputs", "download", "frame_cache", "trace", "user_errors",
        "services", "stage_helpers", "parallel", "mlflow_store", "files", "ways_out")
_ORDER = {f"test_{name}": number for number, name in enumerate(SLOW)}
# Random moments are drawn once, before the workers start, so that all of them collect the same tests.
os.environ.setdefault("HEARTML_FAULT_SEED", str(random.SystemRandom().randrange(1, 10**6)))


def pytest_configure(config: pytest.Config) -> None:
    """One fork server for the whole suite, started by the process that starts the workers."""
    collect_garbage_less_often()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.add_cleanup(fork_server.ForkServer().end)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests are left out, their modules are not even imported: that takes as long as many tests."""
    return True if config.option.markexpr == "not slow" and collection_path.stem in _ORDER else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow modules first; with `--dist loadscope` a module stays on one worker, and its fixtures are made once."""
    items.sort(key=lambda item: _ORDER.get(item.path.stem, len(_ORDER)))
    for item in items:
        if item.path.stem in _ORDER or item.get_closest_marker("real"):
            item.add_marker("slow")
        thorough = item.get_closest_marker("thorough")
        if thorough and not THOROUGH:
            item.add_marker(pytest.mark.skip(f"left out: {thorough.args[0]}; make test-thorough"))


@pytest.fixture(autouse=True, scope="module")
def no_store_is_left_in_the_repository() -> Iterator[None]:
    """No test makes a store beside the code: it would be committed with the next `git add`."""
    stores = [ROOT / name for name in ("mlflow.db", "mlruns", "sources")]
    before = [path.exists() for path in stores]
    yield
    assert [path.exists() for path in stores] == before, "a test of this module, or one that ran beside it, made one"


def _restored(factory: pytest.TempPathFactory, name: str) -> Path:
    """The data set `name` as its publisher distributes it, every checksum held."""
    restore = REAL_DATA / "restore.py"
    if not restore.is_file() or not (REAL_DATA / name).is_dir():
        pytest.skip(f"left out: the real recordings are not here (no {REAL_DATA}/{name}; HEARTML_REAL_DATA names them)")

    def make(into: Path) -> None:
        done = subprocess.run([sys.executable, restore, name, into], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return made_once.folder(factory, name, make)


@pytest.fixture(scope="session")
def real_pascal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 832 PASCAL recordings. Do not write here."""
    return _restored(tmp_path_factory, "pascal")


@pytest.fixture(scope="session")
def real_circor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 1,393 recordings of CirCor's development part. Do not write here."""
    return _restored(tmp_path_factory, "circor-dev")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A project of this test's own, without data."""
    return workspaces.make(tmp_path / "project")


def _ingested(factory: pytest.TempPathFactory, dataset: str, folder: Path) -> Workspace:
    def make(into: Path) -> None:
        project = workspaces.make(into)
        project.run("ingest", dataset, folder)
        project.commit(f"ingest {dataset}")

    return Workspace(made_once.folder(factory, f"ingested-{dataset}", make))


@pytest.fixture(scope="session")
def ingested_pascal(tmp_path_factory: pytest.TempPathFactory, real_pascal: Path) -> Workspace:
    """A project with PASCAL ingested. Do not write here: `ingested_pascal.copy(tmp_path / "mine")`."""
    return _ingested(tmp_path_factory, "pascal", real_pascal)


@pytest.fixture(scope="session")
def ingested_circor(tmp_path_factory: pytest.TempPathFactory, real_circor: Path) -> Workspace:
    """A project with CirCor's development part ingested. Do not write here, `copy` it."""
    return _ingested(tmp_path_factory, "circor", real_circor)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow store, mlflow.db: making one takes seven seconds, a copy of it none."""

    def make(root: Path) -> None:
        root.mkdir()
        (root / "params.yaml").touch()           # a new store begins in a project only
        code = "from heartml.registry import tracking; tracking.connect()"
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr

    return made_once.folder(tmp_path_factory, "store", make) / ".heartml" / "mlflow.db"


@pytest.fixture(scope="session")
def empty_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new Prefect history, prefect.db: making one takes five seconds, a copy of it none."""

    def make(home: Path) -> None:
        home.mkdir()
        code = ("import asyncio; from prefect.server.database import provide_database_interface as database;"
                "asyncio.run(database().create_db())")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                              env={**os.environ, "PREFECT_HOME": str(home)})
        assert done.returncode == 0, done.stderr

    return made_once.folder(tmp_path_factory, "history", make) / "prefect.db"


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two small fitted models: one about patients, one about recordings."""
    from support import tiny_models

    root = tmp_path_factory.mktemp("models")
    return {name: tiny_models.fit(root / name, name) for name in ("simulated-murmur", "pascal-sounds")}


@pytest.fixture(scope="session")
def small_project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Workspace:
    """A small project with data, where no stage has run yet. Do not write here, `copy` it."""
    return Workspace(made_once.folder(tmp_path_factory, "small", lambda root: small.make(root, empty_store)))


@pytest.fixture(scope="session")
def retrained(tmp_path_factory: pytest.TempPathFactory, small_project: Workspace) -> Workspace:
    """The small project after one undisturbed `heartml retrain`; what it printed: `.heartml/said`. `copy` it."""

    def make(root: Path) -> None:
        project = small_project.copy(root)
        done = project.run("retrain")
        (project / ".heartml/said").write_text(done.stdout)

    return Workspace(made_once.folder(tmp_path_factory, "retrained", make))
