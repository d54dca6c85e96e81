"""One stage in a process of its own: `python -m heartml.pipeline ADDRESS PARENT [--force]`, see `__main__`.

A process for each stage keeps DVC's locks truthful when stages run side by side, gives each its own output,
and dies with the flow (PARENT is the flow's process). What happened is the exit status, see `How`.
"""

import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from heartml.core.system import machine_errors
from heartml.core.system.processes import die_with_parent
from heartml.pipeline import dvc_log_errors, verify_outputs

if TYPE_CHECKING:
    from dvc.repo import Repo

_BY_SIGNAL = re.compile(r"exited with (-\d+|137|143)$")   # 128 + SIGKILL or SIGTERM, where a shell stands between


class StageResult(IntEnum):
    """Exit statuses of this process."""

    RAN = 0
    FAILED = 1
    RESTORED = 3     # an earlier run with the same inputs is in DVC's cache
    UNCHANGED = 4
    BUSY = 75        # another DVC command works on the same files
    KILLED = 76      # the stage's process died of a signal: out of memory, or somebody's kill


class _Watch(logging.Handler):
    """Learns from DVC's messages what it did; passes warnings on."""

    def __init__(self) -> None:
        super().__init__()
        self.how = StageResult.UNCHANGED

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Running stage") or message.startswith("Verifying data sources"):
            self.how = StageResult.RAN
        elif "is cached - skipping run" in message:
            self.how = StageResult.RESTORED
        elif record.levelno >= logging.WARNING:
            print(message, file=sys.stderr, flush=True)


def environment() -> None:
    """For a stage: its `python` is this one; the shell execs a simple command (dash and fish do not)."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.environ["SHELL"] = shutil.which("bash") or "/bin/sh"
    os.environ["HEARTML_PARENT"] = str(os.getpid())


def reproduce(address: str, *, force: bool) -> StageResult:
    """Let DVC reproduce one stage, without what it needs; its output goes to this process's own."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError

    watch = _Watch()
    logger = logging.getLogger("dvc")
    logger.handlers = [watch]   # in the place of DVC's own, which print
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with dvc_log_errors.raised():
            repo = Repo(_wait_for_lock=True)
            repo.reproduce([address], single_item=True, force=force)
            if watch.how is StageResult.RESTORED:
                _make_whole(repo, address)
    except DvcException as error:
        cause = error.__cause__ or error
        if isinstance(cause, LockError):
            print(cause, file=sys.stderr)
            return StageResult.BUSY
        if isinstance(cause, StageCmdFailedError):
            return StageResult.KILLED if _BY_SIGNAL.search(str(cause)) else StageResult.FAILED
        print(f"heartml: {machine_errors.in_words(error) or cause}", file=sys.stderr)
        return StageResult.FAILED
    except Exception as error:
        words = error if isinstance(error, dvc_log_errors.NotCopied) else machine_errors.in_words(error)
        if words is None:
            raise
        print(f"heartml: {words}", file=sys.stderr)
        return StageResult.FAILED
    return watch.how


def _make_whole(repo: "Repo", address: str) -> None:
    """Run a stage after all, where what DVC restored of an earlier run is not what that run had made."""
    outs = [out for stage in repo.stage.collect(address) for out in stage.outs]
    if all(map(verify_outputs.is_whole, outs)):
        return
    damaged = ", ".join(verify_outputs.put_aside(outs)) or "nothing"
    print(f"{address}: what DVC's cache kept of an earlier run is damaged, so it is made again (put aside in "
          f"{verify_outputs.ASIDE}: {damaged})", file=sys.stderr, flush=True)
    repo.reproduce([address], single_item=True, force=True)


def main(arguments: Sequence[str]) -> int:
    """Entry point; the arguments are ADDRESS, PARENT and perhaps --force."""
    address, parent, *options = arguments
    die_with_parent(int(parent))
    environment()
    return reproduce(address, force="--force" in options)
