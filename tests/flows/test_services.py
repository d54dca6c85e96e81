"""Services of a platform: none outlives its owner, a busy port is named, and only promotions are told."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import psutil
import pytest
from click.testing import CliRunner
from prefect.events.actions import CallWebhook, SendNotification
from support import local_services as services
from support.workspaces import ROOT

from flows import deploy, events
from flows.support import local_services, supervisor
from flows.support.private_server import ServerError
from flows.support.run_names import run_name
from heartml.release.publish import ReleaseOutcome

STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); " \
    "time.sleep(3600)"
PARENT_OF_STUBBORN = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], " \
    "start_new_session=True); time.sleep(3600)"


def first_line(log: Path) -> str:
    deadline = time.monotonic() + 60
    while not (text := log.read_text() if log.exists() else "").endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return text.strip()


def test_everything_below_a_supervisor_ends_even_what_ignores_the_signal_in_a_session_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    process = supervisor.start(["-c", PARENT_OF_STUBBORN], log=str(tmp_path / "log"), grace_s=0.5)
    stubborn = int(first_line(tmp_path / "log"))
    assert psutil.pid_exists(stubborn)
    supervisor.end(process)
    assert process.returncode == 0
    assert not psutil.pid_exists(stubborn) or psutil.Process(stubborn).status() == psutil.STATUS_ZOMBIE


def test_a_supervisor_ends_when_its_owner_is_killed_and_with_the_status_of_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code = ("import sys, time; from flows.support import supervisor; "
            f"p = supervisor.start(['-c', {STUBBORN!r}], log=sys.argv[1], grace_s=0.2); print(p.pid, flush=True); "
            "time.sleep(3600)")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as owner:
        assert owner.stdout
        supervised = psutil.Process(int(owner.stdout.readline()))
        stubborn = psutil.Process(int(first_line(tmp_path / "log")))
        owner.kill()
    _, alive = psutil.wait_procs([supervised, stubborn], timeout=30)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    failed = supervisor.start(["-c", "raise SystemExit(7)"], log=str(tmp_path / "failed"), grace_s=0.2)
    assert failed.wait(timeout=60) == 7
    supervisor.end(failed)


def test_a_port_that_is_taken_is_refused_with_the_option_that_takes_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} .*--port-mlflow NUMBER"):
            local_services.check_port("--port-mlflow", port)
    local_services.check_port("--port-mlflow", services.free_port())


def test_a_service_that_ends_before_it_answers_is_named_with_its_log() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
        service = local_services.LocalService("mlflow", process, f"http://127.0.0.1:{services.free_port()}")
        with pytest.raises(ServerError, match=r"mlflow did not start; its output: .*serve-mlflow\.log"):
            local_services.wait_for(service)


@pytest.mark.parametrize(("named", "server"), [
    ("http://mlflow:5000", "http://mlflow:5000"), ("https://m/x", "https://m/x"), ("sqlite:///m.db", ""), ("", "")])
def test_a_tracking_server_is_one_that_speaks_http(named: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
    assert local_services.tracking_server() == server


@pytest.mark.parametrize("state", ["promoted", "refused", "unchanged"])
def test_a_promotion_is_told_with_version_and_reason_and_nothing_else_is(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(events, "emit_event", lambda name, resource: told.append((name, resource)))
    outcome = SimpleNamespace(state=state, task="circor-murmur", version="4", reason="promoted: it is better")
    assert {"state", "task", "version", "reason"} <= set(ReleaseOutcome.__dataclass_fields__)
    events.emit_promotion(outcome)
    assert told == [("heartml.promoted", {
        "prefect.resource.id": "heartml.model.circor-murmur", "prefect.resource.name": "circor-murmur",
        "heartml.version": "4", "heartml.reason": "it is better"})] * (state == "promoted")


def test_a_flow_run_says_what_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.runtime import flow_run

    given = {"source": "incoming", "tasks": ["a-murmur", "b-murmur"]}
    monkeypatch.setattr(flow_run, "parameters", given, raising=False)
    day = r", 20\d\d-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch("score incoming" + day, run_name("score", "source")())
    assert re.fullmatch("probe a-murmur, b-murmur" + day, run_name("probe", "tasks")())
    assert re.fullmatch("audit" + day, run_name("audit", "model")())
    assert re.fullmatch("retrain circor-murmur" + day, run_name("retrain", words=lambda: "circor-murmur")())
    assert len(run_name("score", words=lambda: "")()) < 30


def test_a_webhook_gets_json_and_any_other_block_the_text() -> None:
    block = UUID(int=7)
    hook = deploy._action("webhook", block, '{"a": 1}')
    assert isinstance(hook, CallWebhook) and (hook.block_document_id, hook.payload) == (block, '{"a": 1}')
    slack = deploy._action("slack-webhook", block, "words")
    assert isinstance(slack, SendNotification) and (slack.block_document_id, slack.body) == (block, "words")


def test_deploying_takes_one_receiver_and_needs_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    both = CliRunner().invoke(deploy.main, ["--webhook", "http://x", "--block", "webhook/x"])
    assert both.exit_code == 2 and "not both" in both.output
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(deploy.private_server, "configured", lambda: False)
    lonely = CliRunner().invoke(deploy.main, [])
    assert isinstance(lonely.exception, ServerError) and "PREFECT_API_URL" in str(lonely.exception)
