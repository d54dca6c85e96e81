"""Runs a command that must not outlive its owner: `python -m flows.support.supervisor GRACE_S COMMAND...`.

A server starts processes of its own, and a worker starts its flow runs in new sessions: they outlive a killed parent.
The supervisor is a process between the owner and the command. Its standard input is a pipe from the owner, which the
kernel closes when the owner ends, however it ends. Then everything below gets SIGTERM, and after GRACE_S seconds
SIGKILL.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.2
_OVER_S = 5.0    # wait after SIGKILL


def start(command: Sequence[str], *, log: str, grace_s: float, **environment: str) -> "subprocess.Popen[bytes]":
    """Start `python COMMAND...` under a supervisor whose owner is this process.

    Args:
        log: path of the file to which the output is appended.
        grace_s: seconds between SIGTERM and SIGKILL.
        environment: variables that are set in addition to this process's own.
    """
    supervised = [sys.executable, "-m", "flows.support.supervisor", str(grace_s), sys.executable, *command]
    with open(log, "ab") as output:  # noqa: PTH123 - the caller has a name, not a Path
        return subprocess.Popen(supervised, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                                env={**os.environ, **environment}, start_new_session=True)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a supervisor that `start` returned, and wait until it and everything below it has ended."""
    if process.stdin:
        process.stdin.close()
    process.wait()


def main(grace_s: float, command: Sequence[str]) -> int:
    """Run the command as a child; returns its exit status, or 0 when the owner has ended or closed the pipe."""
    _adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        while True:
            ended = _reap()
            if child.pid in ended:
                return ended[child.pid]
            if select.select([sys.stdin], [], [], _LOOK_S)[0]:   # the pipe was closed; nobody writes to it
                return 0
    finally:
        _end_all(grace_s)


def _reap() -> dict[int, int]:
    """Exit statuses of the children that have ended, adopted ones too.

    A worker that cancels a flow waits until its process group is empty; ended processes count until they are reaped.
    """
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def _adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_all(grace_s: float) -> None:
    import psutil

    terminated: set[int] = set()
    started = time.monotonic()
    while time.monotonic() - started < grace_s + _OVER_S:
        _reap()
        left = [p for p in psutil.Process().children(recursive=True) if _lives(p)]
        if not left:
            return
        late = time.monotonic() - started >= grace_s
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                if late:
                    process.kill()
                elif process.pid not in terminated:
                    terminated.add(process.pid)
                    process.terminate()
        time.sleep(_LOOK_S / 4)


def _lives(process: "psutil.Process") -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
