"""`kill -9` at any point: nothing is lost, the next run finishes with the same bytes, and nothing runs on for ever."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import fault_injection
from support import small_project as small
from support.small_project import STAGES, TASK
from support.workspaces import Workspace

GONE_S = 5.0        # how long a killed flow's processes may take to follow it
LONG = (f"features@{TASK}-logspec", f"search@{TASK}")
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


def at_work(process: "subprocess.Popen[str]") -> Iterator[tuple[str, psutil.Process]]:
    """Stages under `process`, as they appear; ends with it."""
    while process.poll() is None:
        try:
            children = family(process)
        except psutil.NoSuchProcess:
            return
        yield from ((stage, child) for child in children if (stage := stage_of(child)))
        time.sleep(0.1)


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


def test_every_stage_killed_once_is_tried_again_and_the_bytes_are_the_same(
    small_project: Workspace, retrained: Workspace, tmp_path: Path
) -> None:
    project = small_project.copy(tmp_path / "project")
    shutil.copytree(retrained / ".heartml/prefect", project / ".heartml/prefect")
    flow = project.start("retrain")
    seen: dict[str, float] = {}
    killed: set[str] = set()
    for stage, process in at_work(flow):
        since = seen.setdefault(stage, time.monotonic())
        if stage not in killed and time.monotonic() - since > 0.5 + 0.3 * len(killed):   # early in one, late in another
            killed.add(stage)
            process.kill()
    said = flow.communicate()[0]
    assert flow.returncode == 0, said
    assert len(killed) >= len(STAGES) - 2, f"only {killed} lasted long enough"
    assert small.canonical_lock(project) == small.canonical_lock(retrained)
    assert small.output_checksums(project) == small.output_checksums(retrained)
    assert small.registered_versions(project) == [(1, "promoted", "champion")]


@pytest.mark.parametrize("stage", LONG)
def test_a_flow_killed_in_a_stage_takes_all_with_it_and_the_next_one_finishes(
    mine: Workspace, retrained: Workspace, stage: str
) -> None:
    small.forget_stage(mine, stage)
    flow = mine.start("retrain")
    next(process for name, process in at_work(flow) if name == stage)
    time.sleep(2)
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
    mine: Workspace, retrained: Workspace
) -> None:
    stage = f"search@{TASK}"
    small.forget_stage(mine, stage)
    repro = [sys.executable, "-m", "dvc", "repro", "-q"]
    params = (mine / "params.yaml").read_text()
    (mine / "params.yaml").write_text(params.replace("workers: 1\n", "workers: 2\n"))
    for shell in ("/bin/bash", "/bin/sh"):   # the second does not exec its command
        first = subprocess.Popen(repro, cwd=mine.root, env={**mine.environment, "SHELL": shell}, text=True)
        next(process for name, process in at_work(first) if name == stage and len(process.children(recursive=True)) > 2)
        kill_with_all(first)     # with two workers, and what started them
    (mine / "params.yaml").write_text(params)
    subprocess.run(repro, cwd=mine.root, env=mine.environment, check=True)
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.output_checksums(mine) == small.output_checksums(retrained)


def test_ctrl_c_ends_the_stages_and_says_so_in_the_exit_status(mine: Workspace, retrained: Workspace) -> None:
    small.forget_stage(mine, f"search@{TASK}")
    flow = mine.start("retrain")
    next(process for name, process in at_work(flow) if name == f"search@{TASK}")
    left = [p for p in family(flow) if stage_of(p)]
    os.kill(flow.pid, signal.SIGINT)
    said = flow.communicate(timeout=300)[0]
    assert flow.returncode == 130
    assert "Traceback" not in said
    assert not living(left)
    assert small.flow_states(mine)[-1] in ("CRASHED", "CANCELLED")
    mine.run("retrain")
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)


def test_a_private_server_that_dies_is_started_again(mine: Workspace, retrained: Workspace) -> None:
    small.forget_stage(mine, f"search@{TASK}")
    flow = mine.start("retrain")
    next(process for name, process in at_work(flow) if name == f"search@{TASK}")
    [server] = [process for process in family(flow) if process.cmdline()[1:3] == ["-m", "flows.support.private_server"]]
    server.kill()
    said = flow.communicate(timeout=900)[0]
    assert flow.returncode == 0, said
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.flow_states(mine) == ["COMPLETED", "COMPLETED"]


def test_two_forced_reproductions_give_the_same_bytes(mine: Workspace, retrained: Workspace) -> None:
    again = [sys.executable, "-m", "dvc", "repro", "-q", "--force"]
    subprocess.run(again, cwd=mine.root, env=mine.environment, check=True)
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.output_checksums(mine) == small.output_checksums(retrained)
