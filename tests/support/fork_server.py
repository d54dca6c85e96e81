"""Starts commands in forks of one process that has the costly libraries imported: most of a short command is imports.

The suite has one such server for all its workers; it imports when it is first asked. It imports third-party libraries
only, so that a command runs the code of the project in whose folder it is started. Prefect is not among them: it reads
its settings when it is imported. A test about the start of a process, about signals or about what is imported starts a
process of its own (`Workspace.start`).
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_VARIABLE = "FORK_SERVER"      # the address of its socket, for the workers of the suite
_MAIN = Path(__file__).with_name("fork_server_main.py")


class ForkServer:
    """The server, from now until `end`; this process and its children know it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fork-")
        os.environ[_VARIABLE] = f"{self._folder.name}/socket"
        self._process = subprocess.Popen([sys.executable, _MAIN, os.environ[_VARIABLE]], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, cwd=self._folder.name, env=_environment())
        assert self._process.stdout
        assert self._process.stdout.readline() == b"listening\n", "the fork server did not start"

    def end(self) -> None:
        """End it."""
        del os.environ[_VARIABLE]
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


def _environment() -> dict[str, str]:
    """That of `heartml`, which sets these before it imports anything."""
    from heartml.core.command import NO_TELEMETRY

    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "HEARTML_", "DVC_"))}
    return {**kept, **NO_TELEMETRY, **threads}


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
            asked.connect(os.environ[_VARIABLE])
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
