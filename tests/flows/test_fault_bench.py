"""The fault bench: what may go wrong around a run is planted for real; the next run finishes with the same bytes.

| fault | in | tested in |
| --- | --- | --- |
| `kill -9` at a random moment | score, monitor, audit | here; score also in test_batch.py, between any two steps |
| | ingest | here; test_ingest.py, test_download.py (a download) |
| | retrain, its stages, its registering | test_survival.py; between any two steps: test_publish.py, test_champions.py |
| | `dvc repro`, search, features | test_survival.py, test_search.py, test_frame_cache.py |
| | flows on a Prefect server: no run is left RUNNING | here; test_survival.py |
| Ctrl-C | ingest, score, monitor, audit | here; retrain: test_survival.py |
| a disk that is full, at a random moment | ingest, score, monitor, audit, retrain | here |
| a folder that cannot be written | ingest, score, monitor, audit, retrain | here |
| a database that goes away in mid-run | MLflow on PostgreSQL | here; a private Prefect server: test_survival.py |
| a database that another process keeps locked | MLflow on SQLite | here |
| a server that is not there | Prefect, MLflow, PostgreSQL | test_retrain.py, test_scale.py |
| a transfer that breaks off | DVC's remote | here; a publisher's server: test_download.py |
| a clock that jumps by hours and days | retrain | here |
| two `dvc repro` at once | | here; beside a retraining: test_pipeline.py; two retrainings: test_retrain.py |
| a damaged object in DVC's cache | restored stages, restored data | here; audio: test_frame_cache.py,
test_validation.py |
| a lock of a dead process, `dvc.lock` cut short | | test_pipeline.py |

HEARTML_FAULT_ROUNDS=20 tries every random moment twenty times, and all commands and steps; the suite's single round
leaves out those that share their way with another one. A failed test names its seed, HEARTML_FAULT_SEED tries it again.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from support import fault_injection, local_services, publisher_files, small_project, toy_pipelines
from support.fault_injection import Command, Disk
from support.small_project import TASK
from support.workspaces import Workspace

from heartml.core import config, paths
from heartml.core.system import hashing, machine_errors
from heartml.data import ingest
from heartml.data.ingest import version
from heartml.pipeline import graph, run_stage, verify_outputs
from heartml.pipeline.stage_process import StageResult
from heartml.registry import tracking
from heartml.registry import versions as registry
from heartml.release import publish

DISK_MIB = 400
THOROUGH = fault_injection.ROUNDS > 1
NAMES = ("ingest", "monitor", "audit", *["score"] * THOROUGH)      # a monitor scores
FLOWS = ("score", *["monitor", "audit"] * THOROUGH)
STEPS = ("log_batch", "create_model_version", *["create_run", "set_model_version_tag"] * THOROUGH)
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
            command = fault_injection.fork(project, *ARGUMENTS[name])
            said = command.end()
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
        command = fault_injection.fork(project, *ARGUMENTS[name])
        hit = command.hit(moments.uniform(0, seconds), number)
        said = command.end()
        assert command.status in ({0, 130, -signal.SIGKILL} if hit else {0}), said
        assert "Traceback" not in said
        fault_injection.assert_nobody_left(project)
    finish(name, project, expected)
    assert "RUNNING" not in small_project.run_states(project)
    assert not list(project.root.glob("**/.*.tmp"))


def finish(name: str, project: Workspace, expected: object) -> None:
    """The next run comes to what an undisturbed one comes to."""
    again = fault_injection.fork(project, *ARGUMENTS[name])
    said = again.end()
    assert again.status == 0, said
    assert came_to(name, project, said) == expected


@pytest.mark.parametrize("seed", fault_injection.seeds())
@pytest.mark.parametrize("name", NAMES)
def test_on_a_disk_that_is_read_only_or_full_it_says_so_and_later_finishes(
    ready: Workspace, undisturbed: Callable[[str], tuple[object, float]], tmp_path: Path, name: str, seed: int
) -> None:
    expected, seconds = undisturbed(name)
    with fault_injection.disk(tmp_path / "disk", DISK_MIB) as disk:
        project = disk.hold(ready)
        disk.turn("ro")
        refused = fault_injection.fork(project, *ARGUMENTS[name], TMPDIR=str(tmp_path))
        assert_one_line(refused, "read-only", "cannot be opened")
        disk.turn("rw")
        starved = fault_injection.fork(project, *ARGUMENTS[name])
        fill_until_it_ends(disk, starved, random.Random(f"{seed} {name}").uniform(0, seconds))
        if starved.status:
            assert_one_line(starved, "no space left", "(full, or broken)")
        disk.empty()
        fault_injection.assert_nobody_left(project)
        finish(name, project, expected)


def fill_until_it_ends(disk: Disk, command: Command, after_s: float) -> None:
    """From then on what the command gives back is taken again, too."""
    command.hit(after_s, 0)
    while command.running:
        disk.fill()
        time.sleep(0.05)


def assert_one_line(command: Command, *words: str) -> None:
    """A fault of the machine is told in one line and by status 1, and is nobody's traceback."""
    said = command.end()
    told = [line for line in said.splitlines() if line.startswith("heartml: ")]
    assert command.status == 1, said
    assert "Traceback" not in said, said
    assert len(told) == 1, said
    assert any(word in told[0] for word in words), said


# Retraining, with everything that it starts


@pytest.fixture
def mine(retrained: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the retrained project."""
    return retrained.copy(tmp_path / "project")


@pytest.mark.parametrize("seed", fault_injection.seeds())
def test_a_disk_that_is_read_only_or_fills_up_while_retraining_costs_nothing_that_was_done(
    retrained: Workspace, tmp_path: Path, seed: int
) -> None:
    with fault_injection.disk(tmp_path / "disk", DISK_MIB) as disk:
        project = disk.hold(retrained)
        small_project.forget(project, f"report@{TASK}")
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
        fault_injection.assert_nobody_left(project)
        disk.empty()
        project.run("retrain", "--no-wait")
        after = disk.take(project, tmp_path / "after")
    assert small_project.lock(after) == small_project.lock(retrained)
    assert small_project.outputs(after) == small_project.outputs(retrained)
    assert not {"RUNNING", "PENDING"} & {*small_project.flow_states(after), *small_project.flow_states(after, "task")}
    assert "RUNNING" not in small_project.run_states(after)


def test_a_clock_that_jumps_by_hours_and_days_changes_nothing(
    mine: Workspace, retrained: Workspace, empty_store: Path, tmp_path: Path
) -> None:
    small_project.forget(mine, f"report@{TASK}")
    small_project.unregister(mine, empty_store)
    mine.run("retrain", **fault_injection.jumping(tmp_path))
    assert small_project.lock(mine) == small_project.lock(retrained)
    assert small_project.outputs(mine) == small_project.outputs(retrained)
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

    with stale_runs.signed():
        audit(TASK)


@pytest.mark.parametrize("seed", fault_injection.seeds())
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_killed_on_a_server_is_closed_by_the_next_run(
    ready: Workspace, prefect_server: dict[str, str], tmp_path: Path, name: str, seed: int
) -> None:
    def states() -> list[str]:
        query = f"""select r.state_type from flow_run r join flow f on f.id = r.flow_id
                    where f.name = '{name}' order by r.created"""
        return [state for (state,) in small_project.rows(Path(prefect_server["PREFECT_HOME"]) / "prefect.db", query)]

    project, before = ready.copy(tmp_path / "project"), len(states())
    def start() -> Command:
        act = audit_flow if name == "audit" else None      # the command needs no server
        return fault_injection.fork(project, *ARGUMENTS[name], act=act, **prefect_server)

    command = start()
    while "RUNNING" not in states() and command.running:
        time.sleep(0.01)
    killed = command.hit(random.Random(f"{seed} {name}").uniform(0, 0.5), signal.SIGKILL)
    fault_injection.assert_nobody_left(project)
    again = start()
    said = again.end()
    assert again.status == 0, said
    assert states()[before:] == ["CRASHED" if killed else "COMPLETED", "COMPLETED"]
    tasks = small_project.rows(Path(prefect_server["PREFECT_HOME"]) / "prefect.db",
                               "select distinct state_type from task_run")
    assert ("RUNNING",) not in tasks


# DVC: two at once, a damaged cache, a transfer that breaks off


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The toy project as working folder."""
    project = toy_pipelines.make(tmp_path / "toy")
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("PYTHONPATH", str(toy_pipelines.ROOT))
    return project


def test_of_two_dvc_repro_at_once_one_does_the_work_and_the_lock_is_whole(toy: Workspace) -> None:
    toy_pipelines.set_numbers(toy.root, seconds={"one": 1, "two": 1})
    repro = [sys.executable, "-m", "dvc", "repro"]
    both = [subprocess.Popen(repro, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    for process, words in zip(both, said, strict=True):
        assert process.returncode == 0 or "lock" in words or "is busy" in words, words
    assert 0 in [process.returncode for process in both], said
    subprocess.run(repro, check=True, capture_output=True)
    assert set(yaml.safe_load(Path("dvc.lock").read_text())["stages"]) == set(toy_pipelines.GRAPH)
    assert sorted(toy_pipelines.ran(toy.root)) == sorted(toy_pipelines.GRAPH), "each stage ran once"
    assert Path("four.txt").read_text() == "one0\ntwo0\none0\nthree0\nfour0\n"
    assert not graph.plan().due


def damage(place: Path) -> None:
    """Turn one bit, as a failing disk does: size, time and permissions stay."""
    before = place.stat()
    place.chmod(0o644)
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    place.chmod(before.st_mode)


def objects(like: str = "") -> list[Path]:
    """What DVC's cache holds, by hash."""
    return [p for p in Path(".dvc/cache/files/md5").rglob("*") if p.is_file() and like in p.parent.name + p.name]


def test_a_damaged_object_of_dvcs_cache_is_never_handed_on(toy: Workspace) -> None:
    for stage in graph.plan().due:
        run_stage.run(stage.address, say=lambda _: None)
    toy_pipelines.ran(toy.root)
    whole, md5 = Path("two.txt").read_text(), yaml.safe_load(Path("dvc.lock").read_text())["stages"]["two"]["outs"]
    [place] = objects(md5[0]["md5"])
    damage(place)
    Path("two.txt").unlink()
    heard: list[str] = []
    assert run_stage.run("two", say=heard.append).how is StageResult.RAN
    assert toy_pipelines.ran(toy.root) == ["two"]
    assert Path("two.txt").read_text() == place.read_text() == whole
    assert "damaged, so it is made again" in " ".join(heard)
    assert [left.name for left in verify_outputs.ASIDE.iterdir()] == [md5[0]["md5"]]
    Path("two.txt").unlink()
    assert run_stage.run("two", say=heard.append).how is StageResult.RESTORED


@pytest.fixture
def clone(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project as a clone has it: the version of its data is in the remote alone."""
    monkeypatch.chdir(workspace.root)
    ingest.run("pascal", publisher_files.pascal(tmp_path / "publisher"))
    subprocess.run(["dvc", "push", "-q", "data.dvc"], check=True, env=workspace.environment)
    shutil.rmtree("data")
    return workspace


def tables() -> dict[str, str]:
    """The files of the data version by hash."""
    return {str(p): hashing.sha256_file(p) for p in sorted(paths.DATA.rglob("*")) if p.is_file()}


def test_damaged_data_are_fetched_again_or_refused_and_never_trained_on(clone: Workspace, tmp_path: Path) -> None:
    subprocess.run(["dvc", "checkout", "-q", "data.dvc"], check=True, env=clone.environment)
    whole = tables()
    assert not ingest.run("pascal", tmp_path / "publisher").changed
    for place in objects():
        damage(place)
    shutil.rmtree("data")
    assert not ingest.run("pascal", tmp_path / "publisher").changed
    assert tables() == whole, "the remote had it"

    [labels] = objects(files_md5(paths.RECORDINGS))
    damage(labels)
    shutil.rmtree("data")
    subprocess.run(["dvc", "checkout", "-q", "data.dvc"], check=True, env=clone.environment)
    assert tables() != whole, "DVC itself says nothing"
    with pytest.raises(graph.PipelineError, match=r"data: not the bytes that data\.dvc names.*dvc pull --force"):
        graph.plan()
    subprocess.run(["dvc", "pull", "-q", "--force", "data.dvc"], check=True, env=clone.environment)
    assert tables() == whole
    assert graph.plan().due

    sound = next(paths.DATA.rglob("*.flac"))
    sound.unlink()
    with pytest.raises(graph.PipelineError, match=f"data: 1 file is missing or changed: {sound}. `dvc checkout"):
        graph.plan()


def files_md5(place: Path) -> str:
    """The name of a file in DVC's cache."""
    return hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def far(clone: Workspace) -> Iterator[fault_injection.Wire]:
    """The clone's remote behind HTTP and a wire that can be cut."""
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(clone / "bundled"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with fault_injection.wire(server.server_port) as wire:
            address = f"http://127.0.0.1:{wire.port}"
            subprocess.run(["dvc", "remote", "add", "-q", "-f", "bundled", address], check=True, env=clone.environment)
            yield wire
        server.shutdown()


def test_a_remote_that_drops_half_of_every_transfer_leaves_no_half_version(
    clone: Workspace, far: fault_injection.Wire, tmp_path: Path
) -> None:
    shutil.rmtree(".dvc/cache")
    far.after = 3000
    broken = clone.run("ingest", "pascal", tmp_path / "publisher", check=False)
    assert far.cuts
    assert broken.returncode == 1, broken.stdout
    assert "Traceback" not in broken.stderr
    assert len([line for line in broken.stderr.splitlines() if line.startswith("heartml: ")]) == 1, broken.stderr
    assert all(hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest() in place.parent.name + place.name
               for place in objects()), "what came is whole, or not there"
    far.after = None
    assert "Nothing has changed" in clone.run("ingest", "pascal", tmp_path / "publisher").stdout
    assert ingest.version.read().recordings["recording_id"].is_unique
    assert not version.RESTORING.exists()


# Databases


@pytest.fixture
def unregistered(mine: Workspace, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The retrained project as working folder, its registry empty."""
    small_project.unregister(mine, empty_store)
    monkeypatch.chdir(mine.root)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return mine


def states() -> tuple[list[tuple[str, str | None, tuple[str, ...]]], set[str]]:
    """(version, verdict, aliases) of the registry, and the states of all runs."""
    client = tracking.connect()
    experiments = [e.experiment_id for e in client.search_experiments()]
    return ([(v.number, v.verdict, v.aliases) for v in registry.versions(client, TASK)],
            {run.info.status for run in client.search_runs(experiments)})


@pytest.mark.parametrize("step", STEPS)
def test_a_database_that_goes_away_while_it_registers_is_gone_on_with_when_it_is_back(
    unregistered: Workspace, database: tuple[local_services.Database, fault_injection.Wire],
                                                                                      monkeypatch: pytest.MonkeyPatch,
    step: str
) -> None:
    server, wire = database
    address = server.url(f"lost_{step}").replace(str(server.port), str(wire.port))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client = type(tracking.connect())
    with monkeypatch.context() as patch:
        patch.setattr(client, step, cutting(wire, getattr(client, step)))
        with pytest.raises(Exception) as lost:
            publish.publish(TASK, config.load(), {})
    assert machine_errors.lost_connection(lost.value), "the flow tries again"
    assert "a connection was lost" in str(machine_errors.in_words(lost.value))
    wire.open = True
    assert publish.publish(TASK, config.load(), {}).state in ("promoted", publish.KNOWN)
    versions, runs = states()
    assert versions == [("1", "promoted", ("champion",))]
    assert runs <= {"FINISHED", "FAILED"}


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[local_services.Database, fault_injection.Wire]]:
    """PostgreSQL, and a wire to it."""
    with local_services.postgresql() as server, fault_injection.wire(server.port) as wire:
        yield server, wire


def cutting(wire: fault_injection.Wire, act: Callable[..., object]) -> Callable[..., object]:
    """`act`, which loses the database as it begins."""
    def wrapped(*arguments: object, **named: object) -> object:
        wire.cut()
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
