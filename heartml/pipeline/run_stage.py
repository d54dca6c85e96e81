"""Running one stage: a process of its own that DVC finds fresh or not, with its output, its time, and its end."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.pipeline.stage_process import StageResult

LOGS = paths.STATE / "logs"
_POLL_S = 0.5
_LAG_S = 1.0      # a stop may reach the stage before it reaches us
_running: set[subprocess.Popen[str]] = set()
_stopping = threading.Event()


class StageFailed(HeartMLError):  # noqa: N818 - reads as what happened
    """A stage said no; the message is the stage's own error line."""


class StageKilled(StageFailed):
    """A stage's process died of a signal; another try can help."""


class StageTimedOut(StageFailed):
    """A stage took longer than it may; its process was killed. Another try would take as long."""


@dataclass(frozen=True)
class Done:
    """What became of one stage."""

    address: str
    how: StageResult
    seconds: float


def run(address: str, *, force: bool = False, say: Callable[[str], None],
        timeout_s: float = float("inf")) -> Done:
    """Run one stage in a process of its own, unless DVC finds it fresh; `say` gets its output line by line.

    Its whole output is kept under `.heartml/logs`. Waits while another DVC command works on the same files.

    Raises:
        StageFailed: with the stage's own error line.
        StageKilled: the stage died of a signal.
        StageTimedOut: it took longer than `timeout_s` seconds and was killed.
    """
    started, told = time.monotonic(), False
    while True:
        left_s = started + timeout_s - time.monotonic()
        if left_s <= 0:
            raise _timed_out(address, timeout_s)
        if _stopping.is_set():   # a cancelled flow's retry
            raise StageFailed(f"{address}: stopped")
        how, last, in_time = _reproduce(address, left_s, force=force, say=say)
        if not in_time:
            raise _timed_out(address, timeout_s)
        if _stopping.wait(_LAG_S if how is StageResult.KILLED else 0):
            raise StageFailed(f"{address}: stopped")
        if how is not StageResult.BUSY:
            break
        if not told:
            say(f"{address}: waiting for another DVC command: {last}")
            told = True
        time.sleep(_POLL_S)
    where = f"Its whole output: {log_file(address)}"
    if how is StageResult.KILLED:
        raise StageKilled(f"{address}: its process was killed by a signal (out of memory?). {where}")
    if how is StageResult.FAILED:
        raise StageFailed(f"{address}: {last}. {where}")
    return Done(address, how, time.monotonic() - started)


def _timed_out(address: str, timeout_s: float) -> StageTimedOut:
    return StageTimedOut(f"{address}: not done after {timeout_s:.0f} s (flow.stage_timeout_s in params.yaml), so its "
                         f"process was killed. What other stages made is kept. Its whole output: {log_file(address)}")


def log_file(address: str) -> Path:
    """Where the whole output of a stage is kept."""
    return LOGS / f"{address.replace('/', '_')}.log"


def _reproduce(
    address: str, timeout_s: float, *, force: bool, say: Callable[[str], None]
) -> tuple[StageResult, str, bool]:
    """How it went, the line that says why it failed, and whether it ended within its time."""
    LOGS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "heartml.pipeline", address, str(os.getpid())] + ["--force"] * force
    error: list[str] = []
    last = "no output"
    over = threading.Event()
    with (started(command) as process, _killed_after(timeout_s, process, over),
          log_file(address).open("w", encoding="utf-8") as log):
        assert process.stdout
        for raw in process.stdout:
            line = raw.rstrip()
            print(line, file=log, flush=True)
            if not line:
                continue
            last = line
            if error or line.startswith("heartml: "):   # the last thing that a stage says, in one line or more
                error.append(line.removeprefix("heartml: "))
            else:
                say(line)
    code = process.returncode
    how = StageResult.KILLED if code < 0 else StageResult(code) if code in set(StageResult) else StageResult.FAILED
    return how, ("\n".join(error) or last).rstrip(". "), not over.is_set()


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process of a stage, its output a pipe of lines; `stopping_on_error` ends it."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, encoding="utf-8", errors="replace") as process:
        _running.add(process)
        if _stopping.is_set():     # since the others were killed
            process.kill()
        try:
            yield process
        finally:
            _running.discard(process)


@contextlib.contextmanager
def _killed_after(timeout_s: float, process: subprocess.Popen[str], over: threading.Event) -> Iterator[None]:
    """Kill the process, and with it the stage, when its time is over; `over` says so."""
    def end() -> None:
        over.set()
        process.kill()

    clock = threading.Timer(min(timeout_s, threading.TIMEOUT_MAX), end)
    clock.daemon = True
    clock.start()
    try:
        yield
    finally:
        clock.cancel()


@contextlib.contextmanager
def stopping_on_error() -> Iterator[None]:
    """Where the block is left by an error or Ctrl-C, end the stages that this process started.

    What they wrote so far is thrown away by the next run.
    """
    _stopping.clear()
    try:
        yield
    except BaseException:
        _stopping.set()
        for process in list(_running):
            process.kill()
        raise
