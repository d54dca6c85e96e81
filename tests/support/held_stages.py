"""Makes stages wait at a chosen moment of their work, so that a test can kill them there however fast the machine is.

`Holds(folder)` is put into the environment of a command. A stage (`python -m heartml STAGE` under DVC) for which a hold
is set reports its process id and waits. It goes on when the hold is released, and ends when it is killed. A hold stops
one process only: when the stage is tried again, it runs through.

Moments: `early`, when the stage opens params.yaml, and `late`, when it has written an output and is about to rename it
to its place under `artifacts/`. Every stage comes by both.
"""

import os
import time
from pathlib import Path
from subprocess import Popen

import psutil

_VARIABLE = "HELD_STAGES"
MOMENTS = ("early", "late")
# `sitecustomize` is imported when Python starts. It sees the audit events of the stage's own process.
_WATCH = f'''
import os, pathlib, sys, time

def watch():
    folder, stage, own = pathlib.Path(os.environ["{_VARIABLE}"]), os.environ.get("DVC_STAGE"), os.getpid()
    if not stage or sys.orig_argv[1:3] != ["-m", "heartml"]:
        return

    def moment(event, arguments):
        if event == "open" and str(arguments[0]) == "params.yaml":
            return "early"
        if event == "os.rename" and "artifacts" in pathlib.Path(os.fsdecode(arguments[1])).parts:
            return "late"

    def hook(event, arguments):
        if event not in ("open", "os.rename") or os.getpid() != own or not (now := moment(event, arguments)):
            return
        hold, held = folder / f"{{stage}}.{{now}}", folder / f"{{stage}}.held"
        if not hold.exists():
            return
        hold.unlink()
        part = folder / f"{{stage}}.{{own}}"
        part.write_text(str(own))
        part.rename(held)
        while held.exists():
            time.sleep(0.05)

    sys.addaudithook(hook)

watch()
'''


class Holds:
    """Holds that are set and not yet released; `environment` makes a command obey them."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        (folder / "site").mkdir(parents=True)
        (folder / "site" / "sitecustomize.py").write_text(_WATCH)
        self.environment = {_VARIABLE: str(folder), "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{root}"}

    def set(self, stage: str, moment: str = "late") -> None:
        """Let the next process of `stage` wait at `moment`."""
        (self.folder / f"{stage}.{moment}").touch()

    def wait(self, command: "Popen[str]", stage: str) -> psutil.Process:
        """Wait until the stage waits; its process."""
        while not (held := self._held(stage)):
            assert command.poll() is None, f"the command has ended without {stage}"
            time.sleep(0.05)
        return held

    def waiting(self) -> dict[str, psutil.Process]:
        """The stages that wait now."""
        stages = [file.name.removesuffix(".held") for file in self.folder.glob("*.held")]
        return {stage: process for stage in stages if (process := self._held(stage))}

    def release(self, stage: str) -> None:
        """Let a waiting stage go on."""
        (self.folder / f"{stage}.held").unlink()

    def _held(self, stage: str) -> psutil.Process | None:
        file = self.folder / f"{stage}.held"
        return psutil.Process(int(file.read_text())) if file.exists() else None
