"""The same flow on shared services: PostgreSQL, S3, a Dask cluster. What it makes is what it makes without them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support import local_services, small_project
from support.fault_injection import THOROUGH
from support.local_services import BUCKET, Database
from support.small_project import TASK
from support.workspaces import ROOT, Workspace

from heartml.core.system.parallel import Part
from heartml.registry import mlflow_store, tracking

pytestmark = pytest.mark.timeout(1800)
FEATURES = [f"features@{TASK}-logspec"]      # of one encoder: the other takes the same way
DIVIDED = [*FEATURES, f"search@{TASK}"]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A PostgreSQL of this module's own."""
    with local_services.postgresql() as running:
        yield running


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A local S3, as the environment that names it."""
    with local_services.s3() as named:
        yield named


@pytest.fixture(scope="module")
def everywhere(database: Database, s3: dict[str, str]) -> dict[str, str]:
    """The environment that names every shared service."""
    return {
        **s3,
        "MLFLOW_TRACKING_URI": database.url("mlflow"),
        "HEARTML_ARTIFACTS": f"s3://{BUCKET}/mlflow",
        "HEARTML_OPTUNA_STORAGE": database.url("optuna"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url("prefect", "asyncpg"),
        "HEARTML_DASK": "local:2",
    }


@pytest.fixture(scope="module")
def shared(
    retrained: Workspace, everywhere: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """The small project, features and search made again with every service shared. Do not write here."""
    if not THOROUGH:
        pytest.skip("left out: a retraining on two workers takes minutes; make test-thorough")
    project = retrained.copy(tmp_path_factory.mktemp("shared") / "project")
    for address in DIVIDED:
        small_project.forget_stage(project, address)
    for folder in (".heartml/cache/features", ".heartml/prefect", "reports"):
        shutil.rmtree(project / folder)
    done = project.run("retrain", **everywhere)
    (project / ".heartml/said").write_text(done.stdout + done.stderr)
    return project


def test_the_lock_and_every_output_are_those_of_one_machine_alone(shared: Workspace, retrained: Workspace) -> None:
    assert small_project.canonical_lock(shared) == small_project.canonical_lock(retrained)
    assert small_project.output_checksums(shared) == small_project.output_checksums(retrained)


def test_parts_of_features_and_search_were_done_on_both_workers(shared: Workspace) -> None:
    for address in DIVIDED:
        said = [(shared / f".heartml/logs/{address}.{part}-2.log").read_text() for part in (1, 2)]
        amounts = [int(words.rpartition("/2: ")[2].split()[0]) for words in said]      # after lines of progress
        assert min(amounts) > 0
        assert abs(amounts[0] - amounts[1]) <= 1
    for address in FEATURES:
        assert " 0 of them new" in (shared / f".heartml/logs/{address}.log").read_text(), "the stage found all done"


def test_trials_are_in_the_shared_storage(shared: Workspace, database: Database) -> None:
    assert database.rows("optuna", "select state, count(*) from trials group by state") == [["COMPLETE", "3"]]


def test_prefect_kept_its_history_in_the_database(shared: Workspace, database: Database) -> None:
    runs = "select flow.name, state_type from flow_run join flow on flow.id = flow_id"
    assert database.rows("prefect", runs) == [["retrain", "COMPLETED"]]
    tasks = dict(database.rows("prefect", "select name, state_type from task_run"))
    assert {*DIVIDED, *(f"{address} part {part}/2" for address in DIVIDED for part in (1, 2))} <= set(tasks)
    assert set(tasks.values()) == {"COMPLETED"}
    assert not (shared / ".heartml/prefect/prefect.db").exists()


def test_the_model_is_registered_in_the_database_and_lies_on_s3(
    shared: Workspace, database: Database, s3: dict[str, str]
) -> None:
    versions = f"select version, current_stage from model_versions where name = '{TASK}'"
    assert database.rows("mlflow", versions) == [["1", "None"]]
    assert database.rows("mlflow", "select distinct status from runs") == [["FINISHED"]]
    stored = local_services.list_objects(s3["AWS_ENDPOINT_URL"], "mlflow/")
    for name in ("/MLmodel", "/lineage.json", "/gate.json", "/report.html", "/folds.parquet"):
        assert any(key.endswith(name) for key in stored), name
    assert not (shared / "mlruns").exists()


@pytest.mark.thorough("tests/inference/test_serving.py reads a champion in a process that knows nothing")
def test_a_folder_that_never_saw_the_training_predicts_through_an_mlflow_server(
    shared: Workspace, database: Database, s3: dict[str, str], tmp_path: Path
) -> None:
    recording = next((shared / "data/audio").rglob("*.flac"))
    elsewhere = Workspace(tmp_path)
    for name in ("heartml", "flows", "params.yaml", ".dvc/config", "dvc.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(shared / name)
    if (shared / ".heartml/keys").exists():
        shutil.copytree(shared / ".heartml/keys", tmp_path / ".heartml/keys")
    with _mlflow_server(database, s3, tmp_path) as address:
        named = {**s3, "MLFLOW_TRACKING_URI": address}
        done = elsewhere.run("predict", recording, "--model", f"{TASK}/1", "--json", **named)
        assert _said_through(address, tmp_path) == ["1", "kept"]
    with_files = json.loads(shared.run("predict", recording, "--model", f"artifacts/{TASK}/model", "--json").stdout)
    found = json.loads(done.stdout)
    assert (found["model"]["name"], found["model"]["version"]) == (TASK, "1")
    for said in (found, with_files):      # what a recording was used for, and its label, are known where the data are
        del said["answers"][0]["known_label"]
        for heard in said["answers"][0]["recordings"]:
            del heard["used_for"], heard["source_file"]
    assert found["answers"] == with_files["answers"]
    assert any(key.endswith("note.txt") for key in local_services.list_objects(s3["AWS_ENDPOINT_URL"], "served/"))


def _said_through(address: str, into: Path) -> list[str]:
    """Versions of the model, and what a run's file says that the server put where it was told to."""
    code = ("from pathlib import Path; from heartml.registry import tracking, versions as registry\n"
            "client = tracking.connect()\n"
            f"print(*(version.number for version in registry.list_versions(client, {TASK!r})))\n"
            "with tracking.run(client, 'through the server', 'run') as run_id:\n"
            "    tracking.log_files(client, run_id, {'note.txt': 'kept'})\n"
            "print(tracking.fetch(client, run_id, 'note.txt', Path('.')).read_text())")
    done = subprocess.run([sys.executable, "-c", code], cwd=into, capture_output=True, text=True, check=False,
                          env={**Workspace(into).environment, "MLFLOW_TRACKING_URI": address})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _mlflow_server(database: Database, s3: dict[str, str], folder: Path) -> AbstractContextManager[str]:
    command = ["-m", "mlflow", "server", "--backend-store-uri", database.url("mlflow"), "--artifacts-destination",
               f"s3://{BUCKET}/served", "--workers", "1"]
    return local_services.run_server(command, "/health", {**Workspace(ROOT).environment, **s3}, folder)


def test_data_go_to_an_s3_remote_and_come_back(retrained: Workspace, s3: dict[str, str], tmp_path: Path) -> None:
    mine = retrained.copy(tmp_path / "project")

    def dvc(*arguments: str) -> None:
        done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=mine.root, check=False, text=True,
                              env={**mine.environment, **s3}, capture_output=True)
        assert done.returncode == 0, done.stderr

    with (mine / ".dvc/config").open("a") as config:
        config.write(f"""['remote "shared"']
    url = s3://{BUCKET}/dvc
    endpointurl = {s3["AWS_ENDPOINT_URL"]}
""")
    dvc("push", "-q", "-r", "shared", "data.dvc")
    before = {p.relative_to(mine.root): p.read_bytes() for p in (mine / "data").rglob("*") if p.is_file()}
    shutil.rmtree(mine / "data")
    shutil.rmtree(mine / ".dvc/cache")
    dvc("pull", "-q", "-r", "shared", "data.dvc")
    assert {p.relative_to(mine.root): p.read_bytes() for p in (mine / "data").rglob("*") if p.is_file()} == before


def test_processes_that_start_at_once_make_one_sound_database(database: Database, tmp_path: Path) -> None:
    code = "from heartml.registry import tracking; print(len(tracking.connect().search_experiments()))"
    env = {**Workspace(ROOT).environment, "MLFLOW_TRACKING_URI": database.url("fresh")}
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in started]
    assert [out.strip() for out, _ in said] == ["1", "1"], said


def test_a_lock_of_the_database_holds_one_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, database.url("locks"))
    inside: list[str] = []

    def enter(name: str) -> None:
        with mlflow_store.store_lock("registry"):
            inside.append(f"{name} in")
            time.sleep(0.2)
            inside.append(f"{name} out")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(enter, "abcd"))
    assert [words.split()[0] for words in inside[::2]] == [words.split()[0] for words in inside[1::2]]
    with mlflow_store.store_lock("registry"), mlflow_store.store_lock("another purpose"):
        locks = database.rows("locks", "select count(*) from pg_locks where locktype = 'advisory'")
        assert locks == [["2"]], "other machines meet there too"


def test_a_lock_of_the_database_is_free_when_its_holder_is_killed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, database.url("locks"))
    code = ("from heartml.registry import mlflow_store as store; import time\n"
            "with store.store_lock('registry'):\n    print('held', flush=True)\n    time.sleep(600)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with mlflow_store.store_lock("registry"):
        pass


def test_a_database_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = local_services.free_port()
    monkeypatch.setenv(mlflow_store.VARIABLE, f"postgresql+psycopg://heart:secret@127.0.0.1:{port}/mlflow")
    with pytest.raises(mlflow_store.StoreError, match="the database does not answer") as refusal:
        tracking.connect()
    assert f"127.0.0.1:{port}" in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_parts_of_a_work_are_the_whole_of_it_once(count: int) -> None:
    items = list(range(20))
    parts = [list(Part(number, count).of(items)) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == items


@pytest.mark.parametrize("words", ["0/2", "3/2", "2", "a/b", "-1/1"])
def test_what_is_no_part_is_wrong_usage(words: str) -> None:
    done = Workspace(ROOT).run("features", "--task", TASK, "--encoder", "logspec", "--part", words, check=False)
    assert done.returncode == 2
    assert "2/3" in done.stderr


def test_what_a_flow_started_on_a_worker_ends_with_the_flow(tmp_path: Path) -> None:
    code = """
import subprocess, sys, time
from unittest.mock import patch
from flows.support import task_runners as runners
from heartml.pipeline import graph as pipeline
from heartml.core.system.locks import exclusive
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
with patch.object(runners, "_on_a_worker", lambda: True), patch.object(runners, "_LOOK_S", 0.1):
    with exclusive(pipeline.LOCK), runners.ending_with_flow():
        child = subprocess.Popen(sleep)
        time.sleep(1)
        print("lives" if child.poll() is None else "was ended")
    with runners.ending_with_flow():
        print(child.wait(timeout=30))
"""
    done = _python(code, tmp_path)
    assert done.stdout.split() == ["lives", "-9"], done.stderr


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    code = """
import os
from contextlib import ExitStack
from unittest.mock import patch
from flows.support import task_runners as runners
for address in ("local:two", "local:0", "tcp://127.0.0.1:1"):
    with patch.dict(os.environ, {runners.VARIABLE: address}), patch.object(runners, "_CONNECT_S", "1s"):
        with ExitStack() as stack:
            try:
                runners.Runner(stack)._started()
            except runners.RunnerError as error:
                print(error)
"""
    said = _python(code, tmp_path).stdout.splitlines()
    assert [line.partition(": ")[0] for line in said] == [
        "HEARTML_DASK=local:two", "HEARTML_DASK=local:0", "HEARTML_DASK=tcp://127.0.0.1:1"]
    assert "expected tcp://HOST:PORT" in said[0]
    assert "no Dask scheduler answers" in said[2]


def _python(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
                          env={**Workspace(ROOT).environment, "PREFECT_HOME": str(folder)})
