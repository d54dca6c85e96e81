"""`heartml ingest` as a command and as a flow: what it prints, what it sets in params.yaml, what it refuses."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import publisher_files
from support.ingested_data import ADDED_FILE, data_checksums, write_pascal_with_one_more
from support.publisher_files import Child
from support.workspaces import Workspace

from heartml.core import config, paths
from heartml.data import ingest
from heartml.data.ingest import available_tasks

pytestmark = pytest.mark.timeout(600)


# The command


def test_the_command_says_what_it_did_and_makes_the_data_trainable(workspace: Workspace, tmp_path: Path) -> None:
    folder = write_pascal_with_one_more(tmp_path / "publisher").parents[1]
    (folder / ADDED_FILE).write_bytes(b"no sound")
    before = (workspace / "params.yaml").read_text()
    printed = workspace.run("ingest", "pascal", folder).stdout
    assert "recordings                    │     13" in printed
    assert "not_audio                   │      1" in printed
    assert "tasks is now [pascal-sounds]" in printed
    after = (workspace / "params.yaml").read_text()
    changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][1].startswith("tasks: [pascal-sounds] ")
    assert changed[0][0].split("#")[1] == changed[0][1].split("#")[1], "the comment stays"
    told = json.loads(workspace.run("ingest", "pascal", folder, "--json").stdout)
    assert told["recordings"] == 13
    assert told["quarantined"] == {"not_audio": 1}
    assert (told["changed"], told["new"], told["tasks"], told["tasks_changed"]) == (False, 0, ["pascal-sounds"], False)
    listed = json.loads(workspace.run("tasks", "--json").stdout)
    assert [task["name"] for task in listed] == ["pascal-sounds"]
    assert "pascal-sounds *" in workspace.run("tasks").stdout


def test_a_task_that_uses_the_data_set_already_stays(here: Workspace, tmp_path: Path) -> None:
    config.set_tasks(("circor-outcome", "pascal-sounds"))
    assert not ingest.run("circor", publisher_files.circor(tmp_path / "publisher")).tasks_changed
    assert config.load().tasks == ("circor-outcome", "pascal-sounds")


def test_keep_tasks_leaves_the_parameters_alone(here: Workspace, tmp_path: Path) -> None:
    before = paths.PARAMS.read_text()
    assert not ingest.run("pascal", publisher_files.pascal(tmp_path / "publisher"), keep_tasks=True).tasks_changed
    assert paths.PARAMS.read_text() == before


@pytest.mark.parametrize("written", ["tasks: [a-b]   # why", "tasks:\n- a-b   # why\n- c-d", "tasks: [\n  a-b,\n]"])
def test_tasks_are_set_in_whatever_way_they_are_written(here: Workspace, written: str) -> None:
    lines = paths.PARAMS.read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("tasks:"))
    lines[at] = written + "\n"
    paths.PARAMS.write_text("".join(lines))
    config.set_tasks(("pascal-sounds", "circor-murmur"))
    after = paths.PARAMS.read_text()
    assert config.load().tasks == ("pascal-sounds", "circor-murmur")
    assert after.endswith("".join(lines[at + 1 :]))
    assert after.startswith("".join(lines[:at]))


def test_nothing_that_passes_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher", [Child(24, recordings={"AV": 1})])
    (folder / "training_data" / "24_AV.wav").write_bytes(b"")
    done = workspace.run("ingest", "circor", folder, check=False)
    assert done.returncode == 1
    assert "no recording of circor passed the checks" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("pascal",), ("pascal", "folder", "--download")])
def test_the_command_wants_a_folder_or_a_download(workspace: Workspace, arguments: tuple[str, ...]) -> None:
    done = workspace.run("ingest", *arguments, check=False)
    assert done.returncode == 2
    assert "name either FOLDER or --download" in done.stderr


def test_tasks_count_units_and_groups(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    (murmur, outcome) = available_tasks.read()
    assert (murmur.name, murmur.unit, outcome.name) == ("circor-murmur", "patient", "circor-outcome")
    counts = {entry.name: (entry.units, entry.groups) for entry in murmur.classes}
    assert counts == {"Present": (1, 1), "Unknown": (1, 1), "Absent": (4, 3)}


def test_without_prefect_the_command_starts_no_server(workspace: Workspace, tmp_path: Path) -> None:
    code = ("import sys; from heartml.data import ingest; from pathlib import Path; "
            f"ingest.run('pascal', Path({str(publisher_files.pascal(tmp_path / 'p'))!r})); "
            "sys.exit(' '.join(m for m in ('prefect', 'torch', 'mlflow') if m in sys.modules) or 0)")
    done = subprocess.run([workspace.command()[0], "-c", code], cwd=workspace.root, env=workspace.environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The flow


@pytest.fixture
def prefect_api(workspace: Workspace, empty_history: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a Prefect server that dies with this test."""
    (tmp_path / "prefect").mkdir()
    shutil.copy(empty_history, tmp_path / "prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "flows.support.private_server", str(port), str(os.getpid())]
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_URL": address}
    with subprocess.Popen(command, cwd=workspace.root, env={**workspace.environment, **home},
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(0.2)
        yield address
        server.kill()


def asked(address: str, what: str) -> list[dict[str, object]]:
    request = urllib.request.Request(f"{address}/{what}/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.slow
def test_with_a_server_the_command_is_a_flow_that_shows_there_and_does_the_same(
    workspace: Workspace, prefect_api: str, tmp_path: Path
) -> None:
    folder, plain = publisher_files.pascal(tmp_path / "publisher"), workspace.copy(tmp_path / "plain")
    plain.run("ingest", "pascal", folder)
    workspace.run("ingest", "pascal", folder, PREFECT_API_URL=prefect_api, PREFECT_HOME=str(tmp_path / "prefect"))
    assert data_checksums(workspace.root) == data_checksums(plain.root)
    runs, artifacts = asked(prefect_api, "flow_runs"), asked(prefect_api, "artifacts")
    assert [(run["state_type"], run["parameters"]["dataset"]) for run in runs] == [("COMPLETED", "pascal")]
    assert [artifact["key"] for artifact in artifacts] == ["ingest-pascal"]
    assert {"what": "recordings", "number": 13} in json.loads(artifacts[0]["data"])
    failed = workspace.run("ingest", "pascal", tmp_path, check=False, PREFECT_API_URL=prefect_api,
                           PREFECT_HOME=str(tmp_path / "prefect"))
    assert failed.returncode == 1
    assert "Name the folder above" in failed.stderr.splitlines()[-1]
    assert {run["state_type"] for run in asked(prefect_api, "flow_runs")} == {"COMPLETED", "FAILED"}
    assert all(run["run_count"] == 1 for run in asked(prefect_api, "task_runs")), "nothing was retried"
