"""Starts commands in forks of one process that has the costly libraries imported: most of a short command is imports.

Each worker of the suite has one such server. It imports third-party libraries only, so that a command runs the code of
the project in whose folder it is started. Prefect is not among them: it reads its settings when it is imported. A test
about the start of a process, about signals or about what is imported starts a process of its own (`Workspace.start`).
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = Path(__file__).with_name("fork_server_main.py")
_START_S = 300.0     # on a machine that does ten other things
_starting = threading.Lock()
_running: "list[_Server]" = []


class _Server:
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="fork-")
        self.address = f"{self.folder.name}/socket"
        self.process = subprocess.Popen([sys.executable, _SERVER, self.address], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, cwd=self.folder.name, env=_environment())
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n", "the fork server did not start"

    def end(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


def _environment() -> dict[str, str]:
    """That of `heartml`, which sets these before it imports anything."""
    from heartml.core.command import NO_TELEMETRY

    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "HEARTML_", "DVC_"))}
    return {**kept, **NO_TELEMETRY, **threads}


def _server() -> _Server:
    with _starting:
        if not _running:
            _running.append(_Server())
            atexit.register(_running[0].end)
    return _running[0]


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """`python -m heartml ARGUMENTS` in `folder` with exactly this environment; what it printed is captured.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    with tempfile.TemporaryDirectory(prefix="printed-") as printed:
        outs = [Path(printed, name) for name in ("stdout", "stderr")]
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(_server().address)
            asked.sendall(json.dumps({"arguments": list(arguments), "folder": str(folder), "printed": printed,
                                      "environment": dict(environment)}).encode() + b"\n")
            replies = asked.makefile("r")
            pid = int(replies.readline())
            asked.settimeout(timeout_s)
            try:
                status = int(replies.readline())
            except TimeoutError:
                os.kill(pid, 9)
                raise subprocess.TimeoutExpired(arguments, timeout_s, *(out.read_text() for out in outs)) from None
        stdout, stderr = (out.read_text(encoding="utf-8", errors="replace") for out in outs)
    return subprocess.CompletedProcess([sys.executable, "-m", "heartml", *arguments], status, stdout, stderr)
