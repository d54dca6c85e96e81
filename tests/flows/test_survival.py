"""`kill -9` at any point: nothing is lost, the next run finishes with the same bytes, and nothing runs on for ever.

No test here waits for a time. A stage that is to be killed waits for it (support/held_stages.py).
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support import fault_injection
from support import small_project as small
from support.held_stages import MOMENTS, Holds
from support.small_project import STAGES, TASK
from support.workspaces import Workspace

GONE_S = 60.0       # a killed flow's processes follow it at once; this is only the end of the wait for them
SEARCH = f"search@{TASK}"
REPORT = f"report@{TASK}"
pytestmark = pytest.mark.timeout(1800)   # on a machine that does ten other things


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def stage_of(process: psutil.Process) -> str | None:
    """The stage that a process is, if it is one: DVC names it in the environment."""
    try:
        words = process.cmdline()
        return process.environ().get("DVC_STAGE") if words[1:3] == ["-m", "heartml"] else None
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return None


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def kill_with_all(process: "subprocess.Popen[str]") -> None:
    """Kill one process alone, and see its whole family follow."""
    left = family(process)
    assert left
    process.kill()
    process.wait()
    deadline = time.monotonic() + GONE_S
    while living(left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living(left), [p.cmdline() for p in living(left)]


def start_and_hold(
    project: Workspace, tmp_path: Path, stage: str, moment: str
) -> "tuple[subprocess.Popen[str], Holds]":
    """Start `heartml retrain`, and wait until `stage` waits at `moment`."""
    holds = Holds(tmp_path / "holds", project.root)
    holds.set(stage, moment)
    flow = project.start("retrain", **holds.environment)
    holds.wait(flow, stage)
    return flow, holds


@pytest.mark.thorough("tests/pipeline/test_pipeline.py kills small stages")
def test_every_stage_killed_once_is_tried_again_and_the_bytes_are_the_same(
    mine: Workspace, retrained: Workspace, tmp_path: Path
) -> None:
    holds = Holds(tmp_path / "holds", mine.root)
    for number, stage in enumerate(STAGES):
        small.forget_stage(mine, stage)
        holds.set(stage, MOMENTS[number % 2])
    flow = mine.start("retrain", **holds.environment)
    killed = []
    while flow.poll() is None:
        for stage in holds.waiting():
            holds.kill(stage)
            killed.append(stage)
        time.sleep(0.05)
    said = flow.communicate()[0]
    assert flow.returncode == 0, said
    assert sorted(killed) == sorted(STAGES), "each waits until it is killed, and is not held a second time"
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.output_checksums(mine) == small.output_checksums(retrained)
    assert small.registered_versions(mine) == [(1, "promoted", "champion")]


@pytest.mark.parametrize(("stage", "moment"), [
    (SEARCH, "late"), pytest.param(STAGES[2], "early", marks=pytest.mark.thorough("the search is killed"))])
def test_a_flow_killed_in_a_stage_takes_all_with_it_and_the_next_one_finishes(
    mine: Workspace, retrained: Workspace, tmp_path: Path, stage: str, moment: str
) -> None:
    small.forget_stage(mine, stage)
    flow, _ = start_and_hold(mine, tmp_path, stage, moment)
    kill_with_all(flow)
    assert "RUNNING" in small.flow_states(mine)
    mine.run("retrain", "--no-wait")   # no lock is left
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.output_checksums(mine) == small.output_checksums(retrained)
    assert small.registered_versions(mine) == [(1, "promoted", "champion")]
    assert small.flow_states(mine) == ["COMPLETED", "CRASHED", "COMPLETED"]
    assert "RUNNING" not in small.flow_states(mine, "task")


def run_exists(project: Workspace) -> bool:
    return bool(small.run_states(project))


def version_exists(project: Workspace) -> bool:
    return bool(small.registered_versions(project))


def is_judged(project: Workspace) -> bool:
    return any(verdict for _, verdict, _ in small.registered_versions(project))


def is_champion(project: Workspace) -> bool:
    return any(alias == "champion" for _, _, alias in small.registered_versions(project))


IN_PROCESS = pytest.mark.thorough("tests/release/test_publish_gate.py dies at every write")


@IN_PROCESS
@pytest.mark.parametrize("moment", [run_exists, version_exists, is_judged, is_champion])
def test_a_run_killed_while_it_registers_is_finished_by_the_next(
    mine: Workspace, empty_store: Path, moment: Callable[[Workspace], bool]
) -> None:
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - forked commands find their imports made
    import scipy.signal  # noqa: F401

    import heartml.release.publish
    import heartml.reporting.task_report  # noqa: F401

    small.empty_registry(mine, empty_store)
    killed = fault_injection.fork_command(mine, "retrain")
    while killed.running and not moment(mine):
        time.sleep(0.01)
    killed.send_signal(0, signal.SIGKILL)
    killed.wait()
    again = fault_injection.fork_command(mine, "retrain")
    said = again.wait()
    assert again.status == 0, said
    assert small.registered_versions(mine) == [(1, "promoted", "champion")], said
    assert "RUNNING" not in small.run_states(mine)
    assert (mine / f"reports/{TASK}.html").exists()


def test_a_killed_dvc_repro_takes_its_stage_with_it_and_the_next_one_finishes(
    mine: Workspace, retrained: Workspace, tmp_path: Path
) -> None:
    small.forget_stage(mine, SEARCH)
    repro = [sys.executable, "-m", "dvc", "repro", "-q"]
    params = (mine / "params.yaml").read_text()
    (mine / "params.yaml").write_text(params.replace("workers: 1\n", "workers: 2\n"))
    holds = Holds(tmp_path / "holds", mine.root)
    for shell in ("/bin/bash", "/bin/sh"):   # the second does not exec its command
        holds.set(SEARCH, "worker")
        first = subprocess.Popen(repro, cwd=mine.root, text=True,
                                 env={**mine.environment, **holds.environment, "SHELL": shell})
        server = holds.wait(first, SEARCH).parent()
        while not server or len(server.children()) < 2:      # the other worker may start later
            time.sleep(0.05)
        kill_with_all(first)     # with two workers, and what started them
        holds.release(SEARCH)
    (mine / "params.yaml").write_text(params)
    subprocess.run(repro, cwd=mine.root, env=mine.environment, check=True)
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.output_checksums(mine) == small.output_checksums(retrained)


def test_ctrl_c_ends_the_stages_and_says_so_in_the_exit_status(mine: Workspace, tmp_path: Path) -> None:
    small.forget_stage(mine, SEARCH)
    flow, _ = start_and_hold(mine, tmp_path, SEARCH, "late")
    left = [p for p in family(flow) if stage_of(p)]
    os.kill(flow.pid, signal.SIGINT)
    said = flow.communicate()[0]
    assert flow.returncode == 130
    assert "Traceback" not in said
    assert not living(left)
    assert small.flow_states(mine)[-1] in ("CRASHED", "CANCELLED")


@pytest.mark.thorough("half a minute; a server that is away is in test_retrain.py")
def test_a_private_server_that_dies_is_started_again(mine: Workspace, retrained: Workspace, tmp_path: Path) -> None:
    small.forget_stage(mine, REPORT)
    flow, holds = start_and_hold(mine, tmp_path, REPORT, "late")
    [server] = [process for process in family(flow) if process.cmdline()[1:3] == ["-m", "flows.support.private_server"]]
    server.kill()
    holds.release(REPORT)
    said = flow.communicate()[0]
    assert flow.returncode == 0, said
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.flow_states(mine) == ["COMPLETED", "COMPLETED"]


@pytest.mark.thorough("tests/audit reproduces every stage")
def test_two_forced_reproductions_give_the_same_bytes(mine: Workspace, retrained: Workspace) -> None:
    again = [sys.executable, "-m", "dvc", "repro", "-q", "--force"]
    subprocess.run(again, cwd=mine.root, env=mine.environment, check=True)
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.output_checksums(mine) == small.output_checksums(retrained)
