"""The fault bench: what may go wrong around a run is planted for real; the next run finishes with the same bytes.

| fault | in | tested in |
| --- | --- | --- |
| `kill -9` at a random moment | score, monitor, audit | here; score also in test_batch.py, between any two steps |
| | ingest | here; test_ingest_faults.py, test_download.py (a download) |
| | retrain, its stages, its registering | test_survival.py; between any two steps: test_publish_gate.py,
test_champions.py |
| | `dvc repro`, search, features | test_survival.py, test_search.py, test_frame_cache.py |
| | flows on a Prefect server: no run is left RUNNING | here; test_survival.py |
| Ctrl-C | ingest, score, monitor, audit | here; retrain: test_survival.py |
| a disk that is full, at a random moment | ingest, score, monitor, audit, retrain | here |
| a folder that cannot be written | ingest, score, monitor, audit, retrain | here |
| a database that goes away in mid-run | MLflow on PostgreSQL | test_fault_bench_databases.py;
a private Prefect server: test_survival.py |
| a database that another process keeps locked | MLflow on SQLite | test_fault_bench_databases.py |
| a server that is not there | Prefect, MLflow, PostgreSQL | test_retrain.py, test_scale.py |
| a transfer that breaks off | DVC's remote | test_fault_bench_dvc.py; a publisher's server: test_download.py |
| a clock that jumps by hours and days | retrain | here |
| two `dvc repro` at once | | test_fault_bench_dvc.py; beside a retraining: test_pipeline.py; two retrainings:
test_retrain.py |
| a damaged object in DVC's cache | restored stages, restored data | test_fault_bench_dvc.py;
audio: test_frame_cache.py, test_validation.py |
| a lock of a dead process, `dvc.lock` cut short | | test_pipeline.py |

HEARTML_FAULT_ROUNDS=20 tries every random moment twenty times, and all commands and steps; the suite's single round
leaves out those that share their way with another one. A failed test names its seed, HEARTML_FAULT_SEED tries it again.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import fault_injection, local_services, publisher_files, small_project, toy_pipelines
from support.fault_injection import THOROUGH, Disk, ForkedCommand
from support.small_project import TASK
from support.workspaces import Workspace

from heartml.core.system import hashing

DISK_MIB = 400
NAMES = ("ingest", "monitor", "audit", *["score"] * THOROUGH)      # a monitor scores
FLOWS = ("score", "monitor", "audit")
pytestmark = pytest.mark.timeout(1800)      # on a machine that does ten other things


# Every command, every fault of its machine, at a random moment


@pytest.fixture(scope="module")
def ready(retrained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The retrained project with twelve recordings to score, and a publisher's folder beside it; do not write here."""
    import dvc.repo  # noqa: F401 - what the commands import is here already when they are forked
    import mlflow  # noqa: F401

    import heartml.audit
    import heartml.inference.batch  # noqa: F401

    project = retrained.copy(tmp_path_factory.mktemp("ready") / "project")
    (project / "incoming").mkdir()
    for sound in sorted((project / "data/audio").rglob("*.flac"))[:12]:
        shutil.copy(sound, project / "incoming")
    publisher_files.pascal(project / "publisher")
    return project


ARGUMENTS = {
    "ingest": ("ingest", "pascal", "publisher", "--json"),
    "score": ("score", "incoming", "--to", "scores.parquet", "--json"),
    "monitor": ("monitor", "incoming", "--html", "monitor.html", "--json"),
    "audit": ("audit", TASK, "--json"),
}


def came_to(name: str, project: Workspace, said: str) -> object:
    """What a command leaves, to be compared with an undisturbed one's."""
    if name == "ingest":
        return {p.relative_to(project.root).as_posix(): hashing.sha256_file(p)
                for p in [project / "data.dvc", *(project / "data").rglob("*")] if p.is_file()}
    if name == "score":
        return hashing.sha256_file(project / "scores.parquet")
    if name == "monitor":
        told = {what: value for what, value in json.loads(said).items() if what != "scored"}   # some were before
        return told, hashing.sha256_file(project / "monitor.html")
    return [(link["title"], link["state"]) for link in json.loads(said)["links"]]


@pytest.fixture(scope="module")
def undisturbed(ready: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[object, float]]:
    """What each command comes to with nothing in its way, and how long it takes."""
    known: dict[str, tuple[object, float]] = {}

    def of(name: str) -> tuple[object, float]:
        if name not in known:
            project = ready.copy(tmp_path_factory.mktemp("undisturbed") / "project")
            started = time.monotonic()
            command = fault_injection.fork_command(project, *ARGUMENTS[name])
            said = command.wait()
            assert command.status == 0, said
            known[name] = came_to(name, project, said), time.monotonic() - started
        return known[name]

    return of


@pytest.mark.parametrize("seed", fault_injection.seeds())
@pytest.mark.parametrize("name", NAMES)
def test_interrupted_and_killed_at_any_moment_the_next_run_finishes(
    ready: Workspace, undisturbed: Callable[[str], tuple[object, float]], tmp_path: Path, name: str, seed: int
) -> None:
    expected, seconds = undisturbed(name)
    project, moments = ready.copy(tmp_path / "project"), random.Random(f"{seed} {name}")
    for number in (signal.SIGINT, signal.SIGKILL):
        command = fault_injection.fork_command(project, *ARGUMENTS[name])
        hit = command.send_signal(moments.uniform(0, seconds), number)
        said = command.wait()
        assert command.status in ({0, 130, -signal.SIGKILL} if hit else {0}), said
        assert "Traceback" not in said
        fault_injection.assert_no_process_left(project)
    finish(name, project, expected)
    assert "RUNNING" not in small_project.run_states(project)
    assert not list(project.root.glob("**/.*.tmp"))


def finish(name: str, project: Workspace, expected: object) -> None:
    """The next run comes to what an undisturbed one comes to."""
    again = fault_injection.fork_command(project, *ARGUMENTS[name])
    said = again.wait()
    assert again.status == 0, said
    assert came_to(name, project, said) == expected


@pytest.mark.parametrize("seed", fault_injection.seeds())
@pytest.mark.parametrize("name", NAMES)
def test_on_a_disk_that_is_read_only_or_full_it_says_so_and_later_finishes(
    ready: Workspace, undisturbed: Callable[[str], tuple[object, float]], tmp_path: Path, name: str, seed: int
) -> None:
    expected, seconds = undisturbed(name)
    with fault_injection.mounted_disk(tmp_path / "disk", DISK_MIB) as disk:
        project = disk.hold(ready)
        disk.turn("ro")
        refused = fault_injection.fork_command(project, *ARGUMENTS[name], TMPDIR=str(tmp_path))
        assert_one_line(refused, "read-only", "cannot be opened")
        disk.turn("rw")
        starved = fault_injection.fork_command(project, *ARGUMENTS[name])
        fill_until_it_ends(disk, starved, random.Random(f"{seed} {name}").uniform(0, seconds))
        if starved.status:
            assert_one_line(starved, "no space left", "(full, or broken)")
        disk.empty()
        fault_injection.assert_no_process_left(project)
        finish(name, project, expected)


def fill_until_it_ends(disk: Disk, command: ForkedCommand, after_s: float) -> None:
    """From then on what the command gives back is taken again, too."""
    command.send_signal(after_s, 0)
    while command.running:
        disk.fill()
        time.sleep(0.05)


def assert_one_line(command: ForkedCommand, *words: str) -> None:
    """A fault of the machine is told in one line and by status 1, and is nobody's traceback."""
    said = command.wait()
    told = [line for line in said.splitlines() if line.startswith("heartml: ")]
    assert command.status == 1, said
    assert "Traceback" not in said, said
    assert len(told) == 1, said
    assert any(word in told[0] for word in words), said


@pytest.mark.thorough("a minute; the short commands meet the same disks")
@pytest.mark.parametrize("seed", fault_injection.seeds())
def test_a_disk_that_is_read_only_or_fills_up_while_retraining_costs_nothing_that_was_done(
    retrained: Workspace, tmp_path: Path, seed: int
) -> None:
    with fault_injection.mounted_disk(tmp_path / "disk", DISK_MIB) as disk:
        project = disk.hold(retrained)
        small_project.forget_stage(project, f"report@{TASK}")
        disk.turn("ro")
        refused = project.start("retrain")
        said = refused.communicate()[0]
        assert (refused.returncode, said.count("\n")) == (1, 1) and "read-only" in said, said
        disk.turn("rw")
        flow = project.start("retrain")
        time.sleep(random.Random(seed).uniform(0, 12))
        while flow.poll() is None:
            disk.fill()
            time.sleep(0.2)
        said = flow.communicate()[0]
        assert "Traceback" not in said, said
        assert flow.returncode == 0 or "no space left" in said or "(full, or broken)" in said, said
        fault_injection.assert_no_process_left(project)
        disk.empty()
        project.run("retrain", "--no-wait")
        after = disk.take(project, tmp_path / "after")
    assert small_project.canonical_lock(after) == small_project.canonical_lock(retrained)
    assert small_project.output_checksums(after) == small_project.output_checksums(retrained)
    assert not {"RUNNING", "PENDING"} & {*small_project.flow_states(after), *small_project.flow_states(after, "task")}
    assert "RUNNING" not in small_project.run_states(after)


@pytest.mark.thorough("half a minute")
def test_a_clock_that_jumps_by_hours_and_days_changes_nothing(
    mine: Workspace, retrained: Workspace, empty_store: Path, tmp_path: Path
) -> None:
    small_project.forget_stage(mine, f"report@{TASK}")
    small_project.empty_registry(mine, empty_store)
    mine.run_process("retrain", **fault_injection.jumping_clock(tmp_path))
    assert small_project.canonical_lock(mine) == small_project.canonical_lock(retrained)
    assert small_project.output_checksums(mine) == small_project.output_checksums(retrained)
    assert small_project.flow_states(mine) == ["COMPLETED", "COMPLETED"]
    assert small_project.run_states(mine) == {"FINISHED"}


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def prefect_server(empty_history: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server, as the environment names it; its history is in PREFECT_HOME."""
    home, port = tmp_path_factory.mktemp("prefect"), local_services.free_port()
    shutil.copy(empty_history, home)
    named = {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    command = [sys.executable, "-m", "flows.support.private_server", str(port), str(os.getpid())]
    with subprocess.Popen(command, cwd=toy_pipelines.ROOT,
                          env={**os.environ, **named, "PREFECT_SERVER_ANALYTICS_ENABLED": "0"},
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        while not _answers(f"{named['PREFECT_API_URL']}/health"):
            assert server.poll() is None
            time.sleep(0.1)
        yield named
        server.kill()


def audit_flow() -> None:
    """What the deployment `audit` runs."""
    from flows.audit import audit
    from flows.support import stale_runs

    with stale_runs.tagged():
        audit(TASK)


@pytest.mark.thorough("a minute; test_survival.py kills a flow on a server of its own")
@pytest.mark.parametrize("seed", fault_injection.seeds())
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_killed_on_a_server_is_closed_by_the_next_run(
    ready: Workspace, prefect_server: dict[str, str], tmp_path: Path, name: str, seed: int
) -> None:
    def states() -> list[str]:
        query = f"""select r.state_type from flow_run r join flow f on f.id = r.flow_id
                    where f.name = '{name}' order by r.created"""
        database = Path(prefect_server["PREFECT_HOME"]) / "prefect.db"
        return [state for (state,) in small_project.query_database(database, query)]

    project, before = ready.copy(tmp_path / "project"), len(states())
    def start() -> ForkedCommand:
        act = audit_flow if name == "audit" else None      # the command needs no server
        return fault_injection.fork_command(project, *ARGUMENTS[name], act=act, **prefect_server)

    command = start()
    while "RUNNING" not in states() and command.running:
        time.sleep(0.01)
    killed = command.send_signal(random.Random(f"{seed} {name}").uniform(0, 0.5), signal.SIGKILL)
    fault_injection.assert_no_process_left(project)
    again = start()
    said = again.wait()
    assert again.status == 0, said
    assert states()[before:] == ["CRASHED" if killed else "COMPLETED", "COMPLETED"]
    tasks = small_project.query_database(Path(prefect_server["PREFECT_HOME"]) / "prefect.db",
                               "select distinct state_type from task_run")
    assert ("RUNNING",) not in tasks
