"""One rule for all flows: a user's mistake ends a run Failed with one line, a fault of ours keeps its traceback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import workspaces

pytestmark = pytest.mark.timeout(900)
ENDS = """
import contextlib, io, json, logging, sys
from pathlib import Path
from flows.support import private_server
private_server.start()
from flows.audit import audit
from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from flows.score import score
from flows.support import stale_runs
from heartml.cli import cli
from heartml.core.command import run

FLOWS = {flow.name: flow for flow in (retrain, ingest, score, monitor, audit)}
records = []
handler = logging.Handler()
handler.emit = records.append
for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(name).addHandler(handler)
    logging.getLogger(name).setLevel(logging.INFO)


def of_flow(name, arguments):
    records.clear()
    state = FLOWS[name](**arguments, return_state=True)
    own = [record.getMessage() for record in records if record.name == "prefect.flow_runs"]
    return {"state": state.name, "message": state.message,
            "tracebacks": [str(record.exc_info[1]) for record in records if record.exc_info],
            "lines": [line for line in own if state.message in line]}


def of_command(arguments):
    sys.argv = ["heartml", *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        code = run(cli)
    return {"code": code, "stderr": stderr.getvalue()}


good, found = Path("params.yaml").read_text(), {}
cases, well = map(json.loads, sys.argv[1:])
for key, (name, arguments, broken) in cases.items():
    Path("params.yaml").write_text(good + "nonsense: 1\\n" if broken else good)
    found[key] = of_command(arguments) if name == "command" else of_flow(name, arguments)
Path("params.yaml").write_text(good)
stale_runs.close_killed = lambda *_: 1 / 0      # every flow calls it: a fault of ours
for name, arguments in well.items():
    found[f"fault in {name}"] = of_flow(name, arguments)
Path("found.json").write_text(json.dumps(found))
"""
WELL: dict[str, dict[str, Any]] = {
    "retrain": {}, "ingest": {"dataset": "simulated", "folder": "incoming"},
    "score": {"source": "incoming", "to": "scores.parquet"}, "monitor": {"source": "incoming"},
    "audit": {"model": "simulated-murmur"},
}
MISTAKES: dict[str, tuple[str, dict[str, Any], bool, str]] = {
    "retrain, params.yaml is broken": ("retrain", {}, True, "nonsense"),
    "ingest, params.yaml is broken": ("ingest", WELL["ingest"], True, "nonsense"),
    "ingest, no such folder": ("ingest", {"dataset": "simulated", "folder": "nowhere"}, False, "nowhere"),
    "score, params.yaml is broken": ("score", WELL["score"], True, "nonsense"),
    "score, no such folder": ("score", {**WELL["score"], "source": "nowhere"}, False, "nowhere"),
    "score, no such model": ("score", {**WELL["score"], "model": "no-such/3"}, False, "no-such/3: not in the registry"),
    "monitor, params.yaml is broken": ("monitor", WELL["monitor"], True, "nonsense"),
    "monitor, no such folder": ("monitor", {"source": "nowhere"}, False, "nowhere"),
    "monitor, no such model": ("monitor", {**WELL["monitor"], "model": "no-such/3"}, False,
                               "no-such/3: not in the registry"),
    "audit, no such model": ("audit", {"model": "no-such/3"}, False, "no-such"),
}
COMMANDS = {
    "heartml retrain": (["retrain"], True), "heartml ingest": (["ingest", "simulated", "nowhere"], False),
    "heartml score": (["score", "incoming", "--to", "scores.parquet", "--model", "no-such/3"], False),
    "heartml monitor": (["monitor", "incoming", "--model", "no-such/3"], False),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, empty_history: Path) -> dict[str, dict[str, Any]]:
    """How each case ends, on a private Prefect server that is started once."""
    project = workspaces.make(tmp_path_factory.mktemp("user-errors") / "project")
    (project / ".heartml/prefect").mkdir(parents=True)
    shutil.copy(empty_store, project / ".heartml/mlflow.db")
    shutil.copy(empty_history, project / ".heartml/prefect")
    (project / "incoming").mkdir()
    (project / "incoming/1_AV.wav").write_bytes(b"no sound")
    cases = {key: case[:3] for key, case in MISTAKES.items()}
    cases |= {key: ("command", arguments, broken) for key, (arguments, broken) in COMMANDS.items()}
    done = subprocess.run([sys.executable, "-c", ENDS, json.dumps(cases), json.dumps(WELL)], cwd=project.root,
                          env=project.environment, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads((project / "found.json").read_text())
    return found


@pytest.mark.parametrize("case", MISTAKES)
def test_a_users_mistake_ends_the_run_failed_with_one_line(ends: dict[str, dict[str, Any]], case: str) -> None:
    found, words = ends[case], MISTAKES[case][3]
    assert found["state"] == "Failed"
    assert words in found["message"]
    assert "encountered an exception" not in found["message"]
    assert "\n" not in found["message"]
    assert len(found["lines"]) == 1
    assert not found["tracebacks"]


@pytest.mark.parametrize("flow", WELL)
def test_a_fault_of_ours_keeps_its_traceback(ends: dict[str, dict[str, Any]], flow: str) -> None:
    found = ends[f"fault in {flow}"]
    assert found["state"] == "Failed"
    assert "division by zero" in found["message"]
    assert found["tracebacks"] == ["division by zero"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_says_the_same_line_and_exits_with_1(ends: dict[str, dict[str, Any]], command: str) -> None:
    found = ends[command]
    assert found["code"] == 1
    lines = [line for line in found["stderr"].splitlines() if line.startswith("heartml: ")]
    assert len(lines) == 1, found["stderr"]
    assert "Traceback" not in found["stderr"]
