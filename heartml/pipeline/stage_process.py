"""One stage in a process of its own: `python -m heartml.pipeline ADDRESS PARENT [--force]`, see `__main__`.

With one process for each stage, DVC's locks are right when stages run at the same time, and each stage has its own
output. The process ends with the flow, whose process id is PARENT. The exit status says what happened, see
`StageResult`.
"""

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from heartml.core.system import machine_errors, progress
from heartml.core.system.processes import collect_garbage_less_often, die_with_parent
from heartml.pipeline import dvc_log_errors, used_resources, verify_outputs

if TYPE_CHECKING:
    from dvc.repo import Repo

USED = "used: "        # begins the last line of a stage that ran, which is for the flow
_PROGRESS_S = 2      # between two lines that say how far the stage is
_BY_SIGNAL = re.compile(r"exited with (-\d+|137|143)$")   # 128 + SIGKILL or SIGTERM, where a shell is in between


class StageResult(IntEnum):
    """Exit statuses of this process."""

    RAN = 0
    FAILED = 1
    RESTORED = 3     # an earlier run with the same inputs is in DVC's cache
    UNCHANGED = 4
    BUSY = 75        # another DVC command works on the same files
    KILLED = 76      # the stage's process was killed by a signal, for instance out of memory


class _ResultReader(logging.Handler):
    """Reads from DVC's messages what it did; prints its warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.result = StageResult.UNCHANGED

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Running stage") or message.startswith("Verifying data sources"):
            self.result = StageResult.RAN
        elif "is cached - skipping run" in message:
            self.result = StageResult.RESTORED
        elif record.levelno >= logging.WARNING:
            print(message, file=sys.stderr, flush=True)


def environment() -> None:
    """Set the environment of a stage: its `python` is this one, and its shell is bash.

    bash execs a simple command, so no shell stays between DVC and the stage; dash and fish do not exec.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.environ["SHELL"] = shutil.which("bash") or "/bin/sh"
    os.environ["HEARTML_PARENT"] = str(os.getpid())
    os.environ[progress.PERIOD] = str(_PROGRESS_S)


def reproduce(address: str, *, force: bool) -> StageResult:
    """Let DVC reproduce one stage, without the stages that it needs. Its output goes to that of this process."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError

    reader = _ResultReader()
    logger = logging.getLogger("dvc")
    logger.handlers = [reader]   # instead of DVC's own, which print
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with dvc_log_errors.raise_logged_errors():
            repo = Repo(_wait_for_lock=True)
            _link_outputs(repo, address)
            repo.reproduce([address], single_item=True, force=force)
            if reader.result is StageResult.RESTORED:
                _replace_damaged(repo, address)
    except DvcException as error:
        cause = error.__cause__ or error
        if isinstance(cause, LockError):
            print(cause, file=sys.stderr)
            return StageResult.BUSY
        if isinstance(cause, StageCmdFailedError):
            return StageResult.KILLED if _BY_SIGNAL.search(str(cause)) else StageResult.FAILED
        print(f"heartml: {machine_errors.explain(error) or cause}", file=sys.stderr)
        return StageResult.FAILED
    except Exception as error:
        words = error if isinstance(error, dvc_log_errors.NotCopied) else machine_errors.explain(error)
        if words is None:
            raise
        print(f"heartml: {words}", file=sys.stderr)
        return StageResult.FAILED
    return reader.result


def _link_outputs(repo: "Repo", address: str) -> None:
    """Where dvc.yaml has `meta: {link: true}`, DVC's cache and the output share one file, instead of having one each.

    A project whose own `cache.type` says how DVC links keeps that.
    """
    [stage] = repo.stage.collect(address)
    if (stage.meta or {}).get("link") and not repo.config["cache"].get("type"):
        repo.cache.local.cache_types = ["hardlink", "copy"]


def _replace_damaged(repo: "Repo", address: str) -> None:
    """Run a stage after all, if the outputs that DVC restored are not those that the earlier run made."""
    outs = [out for stage in repo.stage.collect(address) for out in stage.outs]
    if all(map(verify_outputs.is_intact, outs)):
        return
    damaged = ", ".join(verify_outputs.move_damaged(outs)) or "nothing"
    print(f"{address}: what DVC's cache kept of an earlier run is damaged, so it is made again (put aside in "
          f"{verify_outputs.DAMAGED}: {damaged})", file=sys.stderr, flush=True)
    repo.reproduce([address], single_item=True, force=True)


def main(arguments: Sequence[str]) -> int:
    """Entry point; the arguments are ADDRESS, PARENT and perhaps --force."""
    address, parent, *options = arguments
    die_with_parent(int(parent))
    collect_garbage_less_often()
    environment()
    with used_resources.watched() as used:      # by the stage; this process itself is DVC's
        result = reproduce(address, force="--force" in options)
    if result is StageResult.RAN:
        print(f"{USED}{json.dumps(used.to_json())}", flush=True)
    return result
