"""Run one stage in a process of its own: its output is logged, its time is limited, a stop ends it."""

import contextlib
import json
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
from heartml.core.system.progress import MARK
from heartml.pipeline.stage_process import USED, StageResult

LOGS = paths.STATE / "logs"
_POLL_S = 0.5
_LAG_S = 1.0      # a stop may reach the stage before it reaches this process
_running: set[subprocess.Popen[str]] = set()
_stopping = threading.Event()


class StageFailed(HeartMLError):  # noqa: N818 - reads as what happened
    """A stage failed; the message is the stage's own error line."""


class StageKilled(StageFailed):
    """A stage's process died of a signal; another try can help."""


class StageTimedOut(StageFailed):
    """A stage took longer than its time limit and was killed. Another try would take as long."""


@dataclass(frozen=True)
class FinishedStage:
    """A stage that ended well: DVC's name of it, what happened, when it began (s since 1970), and how long it took.

    Attributes:
        cpu_s: seconds of CPU of all its processes; `None` where it did not run.
        memory_mb: most memory of its processes together, in MB; `None` where it did not run.
    """

    address: str
    result: StageResult
    began_s: float
    seconds: float
    cpu_s: float | None = None
    memory_mb: float | None = None

    @property
    def used(self) -> dict[str, float]:
        """Time and memory by the names of their metrics; those that are not known are left out."""
        found = {"seconds": self.seconds, "cpu_seconds": self.cpu_s, "peak_memory_mb": self.memory_mb}
        return {name: value for name, value in found.items() if value is not None}


def run(
    address: str, *, force: bool = False, log_line: Callable[[str], None], timeout_s: float = float("inf"),
    on_progress: Callable[[str], None] = lambda words: None,
) -> FinishedStage:
    """Run one stage in a process of its own, unless DVC finds it fresh.

    Waits while another DVC command works on the same files.

    Args:
        address: DVC's name of the stage.
        force: run it also if it is fresh.
        log_line: gets each line of output; the whole output is written to `.heartml/logs`.
        timeout_s: the stage is killed after so many seconds.
        on_progress: gets, every few seconds, how far the stage is, in words (`heartml.core.system.progress`).

    Raises:
        StageFailed: with the stage's own error line.
        StageKilled: the stage was killed by a signal.
        StageTimedOut: it took longer than `timeout_s` and was killed.
    """
    started, logged = time.monotonic(), False
    while True:
        left_s = started + timeout_s - time.monotonic()
        if left_s <= 0:
            raise _timed_out(address, timeout_s)
        if _stopping.is_set():   # a cancelled flow's retry
            raise StageFailed(f"{address}: stopped")
        used: dict[str, float] = {}
        result, last, in_time = _reproduce(address, left_s, force=force, log_line=log_line, on_progress=on_progress,
                                           used=used)
        if not in_time:
            raise _timed_out(address, timeout_s)
        if _stopping.wait(_LAG_S if result is StageResult.KILLED else 0):
            raise StageFailed(f"{address}: stopped")
        if result is not StageResult.BUSY:
            break
        if not logged:
            log_line(f"{address}: waiting for another DVC command: {last}")
            logged = True
        time.sleep(_POLL_S)
    where = f"Its whole output: {log_file(address)}"
    if result is StageResult.KILLED:
        raise StageKilled(f"{address}: its process was killed by a signal (out of memory?). {where}")
    if result is StageResult.FAILED:
        raise StageFailed(f"{address}: {last}. {where}")
    seconds = time.monotonic() - started
    return FinishedStage(address, result, time.time() - seconds, seconds, **used)


def _timed_out(address: str, timeout_s: float) -> StageTimedOut:
    return StageTimedOut(f"{address}: not done after {timeout_s:.0f} s (flow.stage_timeout_s in params.yaml), so its "
                         f"process was killed. What other stages made is kept. Its whole output: {log_file(address)}")


def log_file(address: str) -> Path:
    """The file with the whole output of a stage."""
    return LOGS / f"{address.replace('/', '_')}.log"


def _reproduce(
    address: str, timeout_s: float, *, force: bool, log_line: Callable[[str], None],
    on_progress: Callable[[str], None], used: dict[str, float],
) -> tuple[StageResult, str, bool]:
    """The result, the line that says why it failed, and whether it ended in time; `used` gets what it took."""
    LOGS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "heartml.pipeline", address, str(os.getpid())] + ["--force"] * force
    error: list[str] = []
    last = "no output"
    over = threading.Event()
    with (stage_subprocess(command) as process, _killed_after(timeout_s, process, over),
          log_file(address).open("w", encoding="utf-8") as log):
        assert process.stdout
        for raw in process.stdout:
            line = raw.rstrip()
            print(line, file=log, flush=True)
            if line.startswith(MARK):
                on_progress(line.removeprefix(MARK))
                continue
            if line.startswith(USED):
                used.update(json.loads(line.removeprefix(USED)))
                continue
            if not line:
                continue
            last = line
            if error or line.startswith("heartml: "):   # a stage ends with its error, in one line or more
                error.append(line.removeprefix("heartml: "))
            else:
                log_line(line)
    code = process.returncode
    result = StageResult.KILLED if code < 0 else StageResult(code) if code in set(StageResult) else StageResult.FAILED
    return result, ("\n".join(error) or last).rstrip(". "), not over.is_set()


@contextlib.contextmanager
def stage_subprocess(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process of a stage; its output is a pipe of lines. `stopping_on_error` ends it."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, encoding="utf-8", errors="replace") as process:
        _running.add(process)
        if _stopping.is_set():     # the others have just been killed
            process.kill()
        try:
            yield process
        finally:
            _running.discard(process)


@contextlib.contextmanager
def _killed_after(timeout_s: float, process: subprocess.Popen[str], over: threading.Event) -> Iterator[None]:
    """Kill the process, and with it the stage, after `timeout_s`, and set `over`."""
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


def is_stopping() -> bool:
    """Whether an error or Ctrl-C has ended the flow, so that nothing new should begin."""
    return _stopping.is_set()


@contextlib.contextmanager
def stopping_on_error() -> Iterator[None]:
    """If an error or Ctrl-C ends the block, end the stages that this process started.

    The next run removes what they wrote so far.
    """
    _stopping.clear()
    try:
        yield
    except BaseException:
        _stopping.set()
        for process in list(_running):
            process.kill()
        raise
