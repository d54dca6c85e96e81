"""What `make serve` starts, for real: a schedule, a worker, both APIs, triggers, cancelling, notifications, the end."""

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from support import small_project
from support.small_project import TASK
from support.workspaces import ROOT, Workspace

from flows import deploy

pytestmark = pytest.mark.timeout(1800)   # on a machine that does ten other things
PATIENCE_S = 240.0
_QUICK = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
          "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2"}   # a person has more patience


@dataclass
class Served:
    """A project that is served: its addresses, and what was told to the webhook."""

    project: Workspace
    process: "subprocess.Popen[str]"
    prefect: str
    mlflow: str
    heard: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, path: str, body: object = None, *, api: str = "") -> Any:
        """Ask Prefect's API, or another one; a server whose SQLite is busy says 503, and is asked again."""
        data = None if body is None else json.dumps(body).encode()
        address = (api or f"{self.prefect}/api") + path
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise AssertionError(error.read()) from None
                time.sleep(0.5)
        raise AssertionError(f"{path}: 503, twenty times")

    def deployment(self, entrypoint: str) -> dict[str, Any]:
        found = {one["entrypoint"]: one for one in self.ask("/deployments/filter", {})}
        return found[entrypoint]

    def runs(self, entrypoint: str) -> list[dict[str, Any]]:
        """Flow runs of a deployment, in the order in which they were to start."""
        wanted = {"deployments": {"id": {"any_": [self.deployment(entrypoint)["id"]]}}}
        return sorted(self.ask("/flow_runs/filter", wanted), key=lambda run: run["expected_start_time"])

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/flow_runs/{run_id}")
        return found

    def states(self, run_id: str) -> list[str]:
        """Names of the states that a flow run went through."""
        return [s["name"] for s in sorted(self.ask(f"/flow_run_states/?flow_run_id={run_id}"),
                                          key=lambda state: state["timestamp"])]

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted((self.project / ".heartml/logs").glob("serve-*.log")))


def until(condition: Callable[[], Any], served: Served) -> Any:
    """Wait for something to become true, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, served.log()[-5000:]
        assert served.process.poll() is None, served.log()[-5000:]
        time.sleep(0.3)
    return found


def ended(served: Served, run_id: str) -> dict[str, Any]:
    def final() -> dict[str, Any] | None:
        run = served.run(run_id)
        return run if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

    found: dict[str, Any] = until(final, served)
    return found


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Somebody who wants to be told: an address, and what was posted there."""
    heard: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
        server.shutdown()


@pytest.fixture(scope="module")
def served(
    retrained: Workspace, empty_store: Path, receiver: tuple[str, list[dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """A project whose report is to be made again and whose registry is empty, served with a webhook."""
    project = retrained.copy(tmp_path_factory.mktemp("served") / "project")
    shutil.copyfile(ROOT / "prefect.yaml", project / "prefect.yaml")
    small_project.empty_registry(project, empty_store)
    small_project.forget_stage(project, f"report@{TASK}")
    prefect, mlflow = free_ports(2)
    command = [sys.executable, "-m", "flows.serve", "--prefect-port", prefect, "--mlflow-port", mlflow,
               "--webhook", receiver[0]]
    process = subprocess.Popen([*map(str, command)], cwd=project.root, env={**project.environment, **_QUICK}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    found = Served(project, process, f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}", receiver[1])
    assert process.stdout
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if line.startswith("Ctrl-C"):
                break
        assert process.poll() is None, "".join(said)
        yield found
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_every_deployment_of_prefect_yaml_is_there(served: Served) -> None:
    found = {d["entrypoint"]: d for d in served.ask("/deployments/filter", {})}
    wanted = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert len({one["name"] for one in wanted}) == len(wanted)
    assert {one["name"] for one in found.values()} == {one["name"] for one in wanted}
    assert {d.partition(":")[2] for d in found} == {"retrain", "ingest", "score", "monitor", "audit"}
    for one in wanted:
        there = found[one["entrypoint"]]
        assert there["enforce_parameter_schema"]
        assert set(one["parameters"]) <= set(there["parameter_openapi_schema"]["properties"])
        assert (there["concurrency_limit"] or there["global_concurrency_limit"]["limit"]) == 1
        assert there["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        crons = [(s["schedule"]["cron"], s["active"]) for s in there["schedules"]]
        assert crons == [(s["cron"], s.get("active", True)) for s in one.get("schedules", [])]


def test_a_deployment_under_a_former_name_goes_and_another_project_s_stays(served: Served) -> None:
    for entrypoint, tags in (("flows/retrain.py:retrain", ["heartml"]), ("flows/audit.py:audit", [])):
        flow_id = served.deployment(entrypoint)["flow_id"]
        served.ask("/deployments/", {"name": "weekly", "flow_id": flow_id, "tags": tags})
    with SyncPrefectClient(f"{served.prefect}/api") as client:
        deploy._remove_former(client)
        deploy._remove_former(client)
        left = [one for one in served.ask("/deployments/filter", {}) if one["name"] == "weekly"]
        client.delete_deployment(left[0]["id"])
    assert [one["flow_id"] for one in left] == [flow_id], "without our tag it is somebody else's"
    assert served.deployment("flows/retrain.py:retrain")["name"] == "retrain-weekly"


def test_a_schedule_retrains_through_the_worker_and_a_second_one_takes_its_turn(served: Served) -> None:
    deployment = served.deployment("flows/retrain.py:retrain")
    soon = datetime.now(UTC) + timedelta(seconds=6)
    twice = f"DTSTART:{soon:%Y%m%dT%H%M%S}\nRRULE:FREQ=SECONDLY;INTERVAL=1;COUNT=2"
    schedule = {"schedule": {"rrule": twice, "timezone": "UTC"}, "active": True}
    served.ask(f"/deployments/{deployment['id']}/schedules", [schedule])

    def both() -> list[dict[str, Any]]:
        soonest = (soon + timedelta(minutes=1)).isoformat()
        runs = [run for run in served.runs(deployment["entrypoint"]) if run["expected_start_time"] < soonest]
        return runs if len(runs) == 2 else []

    first, second = sorted((ended(served, run["id"]) for run in until(both, served)), key=lambda r: r["start_time"])
    assert [first["state_name"], second["state_name"]] == ["Completed", "Completed"]
    assert {first["created_by"]["type"], second["created_by"]["type"]} == {"SCHEDULE"}
    assert "AwaitingConcurrencySlot" in served.states(second["id"])
    assert second["start_time"] >= first["end_time"]
    assert re.fullmatch(rf"retrain {TASK}, 20\d\d-\d\d-\d\d \d\d:\d\d", first["name"])
    assert first["state"]["message"] == f"{TASK}: promoted, version 1"
    assert second["state"]["message"] == f"{TASK}: nothing new, version 1"
    tasks = served.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [first["id"]]}}})
    assert {task["name"]: task["state_name"] for task in tasks}[f"report@{TASK}"] == "Completed"
    artifacts = served.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [first["id"]]}}})
    by_key = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert f"{TASK}: promoted, version 1" in by_key["retrain-result"]
    assert [row["stage"] for row in json.loads(by_key["retrain-stages"])] == [f"report@{TASK}"]


def test_mlflow_serves_the_version_that_the_worker_registered(served: Served) -> None:
    found = served.ask(f"/registered-models/alias?name={TASK}&alias=champion", api=f"{served.mlflow}/api/2.0/mlflow")
    assert found["model_version"]["version"] == "1"
    assert {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}["heartml.verdict"] == "promoted"
    with urllib.request.urlopen(served.mlflow, timeout=60) as page:
        assert b"<title>MLflow</title>" in page.read()
    with urllib.request.urlopen(served.prefect, timeout=60) as page:
        assert b"<title>Prefect Server</title>" in page.read()


def test_a_promotion_is_told(served: Served) -> None:
    told = until(lambda: [one for one in served.heard if one["event"] == "heartml.promoted"], served)
    assert [(one["model"], one["version"]) for one in told] == [(TASK, "1")]
    assert told[0]["text"].startswith(f"HeartML promoted {TASK} version 1: first model of this task")


def test_a_mistake_fails_without_a_retry_or_a_traceback_and_is_told(served: Served) -> None:
    deployment = served.deployment("flows/ingest.py:ingest")
    parameters = {"dataset": "pascal", "folder": "/nowhere"}
    run_id = served.ask(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]
    run = ended(served, run_id)
    assert run["state_name"] == "Failed"
    assert run["state"]["message"].startswith("/nowhere: no such folder")
    tasks = {"flow_runs": {"id": {"any_": [run_id]}}}
    [task] = until(lambda: served.ask("/task_runs/filter", tasks), served)     # written from events, a little later
    assert task["run_count"] == 1
    logs = served.ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}})
    assert not any("Traceback" in line["message"] for line in logs)
    [told] = until(lambda: [one for one in served.heard if one.get("flow_run") == run["name"]], served)
    assert (told["flow"], told["state"]) == ("ingest", "Failed")
    assert "/nowhere: no such folder" in told["text"]
    assert told["page"] == f"{served.prefect}/runs/flow-run/{run_id}"


def stages_of(served: Served) -> list[psutil.Process]:
    """The stages' processes below this project's server."""
    found = []
    for process in psutil.Process(served.process.pid).children(recursive=True):
        try:
            if process.cmdline()[1:3] == ["-m", "heartml"] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.thorough("the schedule starts a run through the same worker")
def test_a_drift_retrains_and_a_cancelled_run_leaves_no_process(served: Served) -> None:
    small_project.forget_stage(served.project, f"search@{TASK}")
    resource = {"prefect.resource.id": f"heartml.model.{TASK}", "heartml.reason": "quieter than before"}
    event = {"event": "heartml.drift", "occurred": datetime.now(UTC).isoformat(), "resource": resource,
             "id": "6a1a2e7e-0a7b-4a0c-9f39-2f1d7c1f0d11", "payload": {}}
    served.ask("/events", [event])

    def asked_for() -> list[dict[str, Any]]:
        return [run for run in served.runs("flows/retrain.py:retrain")
                if run["parameters"].get("because") == "drift, quieter than before"]

    [run] = until(asked_for, served)
    stages = until(lambda: stages_of(served), served)
    served.ask(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING", "message": "by a person"}})
    since = time.monotonic()
    assert ended(served, run["id"])["state_name"] == "Cancelled"
    assert time.monotonic() - since < 25, "the worker had to wait for a kill"
    assert not stages_of(served)
    assert not any(stage.is_running() for stage in stages)
    tasks = served.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    again = [(task["name"], task["state_name"], task["run_count"]) for task in tasks if task["run_count"] > 1]
    assert not again, "a cancelled stage is not tried again"


def test_ctrl_c_ends_everything(served: Served) -> None:
    family = psutil.Process(served.process.pid).children(recursive=True)
    assert len(family) >= 6
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(timeout=PATIENCE_S) == 0
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not small_project.run_states(served.project) & {"RUNNING"}


def test_a_taken_port_is_named_with_the_way_out(retrained: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([sys.executable, "-m", "flows.serve", "--prefect-port", str(port)], cwd=retrained.root,
                              env=retrained.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"heartml: port {port} cannot be had (Address already in use)")
    assert "--prefect-port NUMBER" in done.stderr


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_what_is_supervised_dies_with_its_owner_also_from_a_session_of_its_own(how: str) -> None:
    tree = ("import subprocess; subprocess.run(['sh', '-c', 'setsid sleep 600 & exit 0']); "   # an orphan
            "subprocess.run(['sleep', '600'])")
    owner = ("import time; from flows.support import supervisor; "
             f"supervisor.start(['-c', {tree!r}], log={os.devnull!r}, grace_s=1.0); print('started', flush=True); "
             "time.sleep(600)")
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        process.stdout.readline()
        deadline = time.monotonic() + 30
        while len(family := psutil.Process(process.pid).children(recursive=True)) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    deadline = time.monotonic() + 15
    while left := [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
