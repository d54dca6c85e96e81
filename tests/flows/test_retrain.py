"""`heartml retrain`: stale stages as Prefect tasks, one registered version a content, little beside the stages."""

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import small_project as small
from support.small_project import STAGES, TASK
from support.workspaces import Workspace

from flows.support import console
from flows.support.private_server import ServerError, check, configured

pytestmark = pytest.mark.timeout(1800)   # on a machine that does ten other things


def test_a_fresh_project_ends_with_a_promoted_model_and_a_table(retrained: Workspace) -> None:
    said = (retrained / ".heartml/said").read_text()
    metrics = json.loads((retrained / f"artifacts/{TASK}/evaluation/metrics.json").read_text())
    uar = metrics["held_out"]["uar"]
    assert f"{uar['value']:.3f} [{uar['low']:.3f}, {uar['high']:.3f}]" in said
    best = metrics["best_floor"]["held_out"]
    assert f" {metrics['floors'][best]['uar']['value']:.3f} " in said
    assert f"best baseline of the first metric: {metrics['floor_titles'][best].lower()}" in " ".join(said.split())
    assert f"{TASK}: promoted, version 1" in said
    assert f"report: reports/{TASK}.html" in said
    assert (retrained / f"reports/{TASK}.html").exists()
    assert small.registered_versions(retrained) == [(1, "promoted", "champion")]


def test_the_stages_ran_as_prefect_tasks_and_dvc_finds_them_fresh(retrained: Workspace) -> None:
    assert small.flow_states(retrained) == ["COMPLETED"]
    database = retrained / ".heartml/prefect/prefect.db"
    tasks = dict(small.query_database(database, "select name, state_type from task_run"))
    assert {*STAGES, f"publish {TASK}"} <= set(tasks)
    assert set(tasks.values()) == {"COMPLETED"}
    artifacts = small.query_database(retrained / ".heartml/prefect/prefect.db", "select type, data from artifact")
    assert [float(data) for kind, data in artifacts if kind == "progress"] == [100]
    assert {"markdown", "table"} <= {kind for kind, _ in artifacts}
    done = subprocess.run([sys.executable, "-m", "dvc", "status"], cwd=retrained.root, env=retrained.environment,
                          capture_output=True, text=True, check=True)
    assert "up to date" in done.stdout


def test_a_retraining_with_nothing_new_registers_nothing_and_starts_no_prefect(mine: Workspace) -> None:
    code = ("import sys; from flows.support import run_local; "
            "[outcome] = run_local.retrain(wait=True, force=False); "
            "print(outcome.state, outcome.version, [m for m in ('prefect', 'torch') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=mine.root, env=mine.environment, capture_output=True,
                          text=True, check=False)
    assert done.stdout.strip() == "nothing new 1 []", done.stderr
    assert "nothing new, version 1" in mine.run("retrain").stdout      # how fast: benchmarks/repro_noop.py
    assert small.registered_versions(mine) == [(1, "promoted", "champion")]
    assert small.flow_states(mine) == ["COMPLETED"], "no second flow was started"


def test_where_every_stage_is_fresh_an_empty_registry_is_filled(mine: Workspace, empty_store: Path) -> None:
    small.empty_registry(mine, empty_store)
    found = json.loads(mine.run("retrain", "--json").stdout)
    assert [(one["state"], one["version"]) for one in found] == [("promoted", "1")]
    assert small.flow_states(mine) == ["COMPLETED"], "no second flow was started"


def test_a_stage_that_fails_says_its_own_line(mine: Workspace) -> None:
    numbers = yaml.safe_load((mine / "params.yaml").read_text())
    numbers["split"]["published"] = "nowhere.csv"
    (mine / "params.yaml").write_text(yaml.safe_dump(numbers, sort_keys=False))
    done = mine.run("retrain", check=False)
    assert done.returncode == 1
    assert f"{TASK}: failed" in done.stdout
    assert f"split@{TASK}: " in done.stdout
    assert "nowhere.csv" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert small.flow_states(mine) == ["COMPLETED", "FAILED"]
    tries = dict(small.query_database(mine / ".heartml/prefect/prefect.db",
                            "select name, run_count from task_run where state_type = 'FAILED'"))
    assert tries == {f"split@{TASK}": 1}, "its own error would only come again"
    assert small.registered_versions(mine) == [(1, "promoted", "champion")]


@pytest.mark.thorough("tests/pipeline/test_pipeline.py has it with small stages, test_deployments.py with a worker")
def test_of_two_at_once_one_waits_and_finds_nothing_left_to_do(mine: Workspace, retrained: Workspace) -> None:
    small.forget_stage(mine, f"report@{TASK}")
    first = mine.start("retrain")
    lock = mine / ".heartml/locks/pipeline.lock"
    while str(first.pid) not in lock.read_text():
        time.sleep(0.05)
    refused = mine.run("retrain", "--no-wait", check=False)
    second = mine.start("retrain")
    said = [process.communicate(timeout=900)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert refused.returncode == 1
    assert f"process {first.pid}" in refused.stderr
    assert "waiting for another retraining" in said[1]
    assert small.canonical_lock(mine) == small.canonical_lock(retrained)
    assert small.registered_versions(mine) == [(1, "promoted", "champion")]


@pytest.fixture(scope="module")
def server(empty_history: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server, and the environment that names it."""
    home = tmp_path_factory.mktemp("prefect")
    shutil.copy(empty_history, home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    named = {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
             "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port),
               "--no-ui"]
    with (home / "log").open("w") as log, subprocess.Popen(
        command, env={**os.environ, **named, "PREFECT_API_URL": ""}, stdout=log, stderr=log,
    ) as process:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, (home / "log").read_text()
            try:
                with urllib.request.urlopen(f"{named['PREFECT_API_URL']}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        yield named
        process.terminate()


def ask(server: dict[str, str], what: str, **filters: object) -> list[dict[str, Any]]:
    """Read from the server's API."""
    request = urllib.request.Request(f"{server['PREFECT_API_URL']}/{what}/filter", json.dumps(filters).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


def test_on_a_configured_server_the_flow_appears_with_tasks_and_result(mine: Workspace, server: dict[str, str]) -> None:
    small.forget_stage(mine, f"report@{TASK}")
    done = mine.run("retrain", **server)
    assert "nothing new, version 1" in done.stdout
    [run] = ask(server, "flow_runs", flows={"name": {"any_": ["retrain"]}})
    assert run["state_type"] == "COMPLETED"
    tasks = {task["name"]: task["state_type"] for task in ask(server, "task_runs")}
    assert tasks[f"report@{TASK}"] == "COMPLETED"
    assert tasks[f"publish {TASK}"] == "COMPLETED"
    assert not any(task.startswith(("search", "ensemble")) for task in tasks), "fresh stages are not started"
    assert run["state"]["message"] == f"{TASK}: nothing new, version 1"
    said = [line["message"] for line in ask(server, "logs", logs={"flow_run_id": {"any_": [run["id"]]}})]
    assert f"1 of {len(STAGES) + 1} stages to bring up to date" in said
    assert any(line.startswith(f"report@{TASK}: ") and "deleted" in line for line in said), "why it runs"
    assert any(line.startswith(f"{TASK}: nothing new, version 1: ") for line in said), "what came of it"
    markdown = [a for a in ask(server, "artifacts") if a["type"] == "markdown"]
    assert f"{TASK}: nothing new, version 1" in markdown[0]["data"]
    assert small.flow_states(mine) == ["COMPLETED"], "and not on the private one"


def test_registering_is_tried_again_where_the_tracking_server_is_away(
    mine: Workspace, server: dict[str, str]
) -> None:
    done = mine.run("retrain", check=False, **server, MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "MLFLOW_TRACKING_URI=http://127.0.0.1:1: no MLflow server answers" in done.stdout
    [task] = ask(server, "task_runs", task_runs={"name": {"any_": [f"publish {TASK}"]},
                                                 "state": {"type": {"any_": ["FAILED"]}}})
    assert (task["state_name"], task["run_count"]) == ("ServerAway", 2)


def test_an_ingest_on_a_configured_server_is_a_flow_that_says_what_came_of_it(
    mine: Workspace, small_project: Workspace, server: dict[str, str]
) -> None:
    done = mine.run("ingest", "simulated", small_project.root.parent / "sim", "--json", **server)
    found = json.loads(done.stdout)
    assert (found["new"], found["changed"]) == (0, False)
    [run] = ask(server, "flow_runs", flows={"name": {"any_": ["ingest"]}})
    assert run["state"]["message"] == f"simulated: {found['recordings']} recordings, 0 new; nothing has changed"


def test_models_lists_versions_with_the_gates_words(retrained: Workspace) -> None:
    [version] = json.loads(retrained.run("models", "--json").stdout)
    assert version["aliases"] == ["champion"]
    assert re.match(r"promoted: first model of this task; ", version["tags"]["heartml.reason"])


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
def test_a_server_that_is_not_there_is_named_at_once(mine: Workspace, name: str) -> None:
    done = mine.run("retrain", check=False, timeout_s=300, **{name: "http://127.0.0.1:1/api"})
    assert done.returncode == 1
    assert f"{name}=http://127.0.0.1:1/api" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("named", "words"), [
    ("localhost:4200", "Did you mean http://localhost:4200/api[?]"),
    ("localhost:4200/api", "Did you mean http://localhost:4200/api[?]"),
    ("http://127.0.0.1:{port}", r"\(HTTP Error 404: .*\)\. Did you mean http://127.0.0.1:[0-9]+/api[?]"),
    ("http://127.0.0.1:{port}/api", r"\(HTTP Error 404: .*\)\. Start it, or unset PREFECT_API_URL to work without"),
])
def test_what_is_no_prefect_server_is_not_taken_for_one(
    named: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", named.format(port=other.server_address[1]))
        with pytest.raises(ServerError, match=f"no Prefect server answers .*{words}"):
            check()
        other.shutdown()


def test_where_no_line_on_a_terminal_says_what_runs_a_started_stage_does() -> None:
    from io import StringIO

    from rich.console import Console

    for terminal, lines in ((False, ["search: started", "search: 16 trials"]), (True, ["search: 16 trials"])):
        heard = StringIO()
        log = logging.Logger("voice")
        log.addHandler(console._Handler(Console(file=heard, force_terminal=terminal)))
        log.info("search: started", extra=console.STARTED)
        log.info("search: 16 trials", extra=console.VERBOSE)
        log.info("for Prefect alone")
        assert heard.getvalue().splitlines() == lines


@pytest.mark.parametrize("active", ["", "PREFECT_PROFILE"])
def test_a_server_that_a_profile_names_is_asked_first_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: str
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    check()                                                  # nothing is named
    assert not configured()
    dead = "http://127.0.0.1:1/api"
    (tmp_path / "profiles.toml").write_text(
        f'active = "{"own" if active else "shared"}"\n[profiles.own]\n[profiles.shared]\nPREFECT_API_URL = "{dead}"\n')
    if active:
        check()
        monkeypatch.setenv(active, "shared")
    assert configured()
    with pytest.raises(ServerError, match=f"{dead}: no Prefect server answers .* profile"):
        check()
    monkeypatch.setenv("PREFECT_API_URL", f"{dead}/other")
    with pytest.raises(ServerError, match=f"{dead}/other: .* unset PREFECT_API_URL"):
        check()


def test_without_data_the_way_to_it_is_named(mine: Workspace) -> None:
    shutil.rmtree(mine / "data")
    done = mine.run("retrain", check=False)
    assert done.returncode == 1
    assert "`dvc pull data.dvc` fetches it" in done.stderr
