"""Makes stages wait at a chosen moment of their work, so that a test can kill them there however fast the machine is.

A command whose environment has `Holds.environment` obeys the holds that are set. A stage (`python -m heartml STAGE`
under DVC) that comes to the moment of its hold notes its process id in a file and waits. It goes on when it is
released. A hold stops one process only: when the stage is tried again, it runs through.

Moments: `early`, when the stage opens params.yaml; `late`, when it has written an output and is about to rename it to
its place under `artifacts/`; `worker`, when one of its worker processes is about to rename a file. Every stage comes by
the first two.
"""

import os
import signal
import time
from pathlib import Path
from subprocess import Popen

import psutil

_VARIABLE = "HELD_STAGES"
MOMENTS = ("early", "late")
# Python imports `sitecustomize` when it starts. The audit events of a process show what it is about to do.
_SITECUSTOMIZE = f'''
import os, pathlib, sys, time

def watch(folder, stage):
    main = os.getpid() if sys.orig_argv[1:3] == ["-m", "heartml"] else None

    def moment(event, arguments):
        if os.getpid() != main:
            return "worker" if event == "os.rename" else None
        if event == "open" and str(arguments[0]) == "params.yaml":
            return "early"
        if event == "os.rename" and "artifacts" in pathlib.Path(os.fsdecode(arguments[1])).parts:
            return "late"

    def hook(event, arguments):
        if event not in ("open", "os.rename") or not (now := moment(event, arguments)):
            return
        try:
            (folder / f"{{stage}}.{{now}}").unlink()
        except FileNotFoundError:
            return
        held, note = folder / f"{{stage}}.held", folder / f"{{stage}}.{{os.getpid()}}"
        note.write_text(str(os.getpid()))
        note.rename(held)
        while held.exists():
            time.sleep(0.05)

    sys.addaudithook(hook)

if "DVC_STAGE" in os.environ:
    watch(pathlib.Path(os.environ["{_VARIABLE}"]), os.environ["DVC_STAGE"])
'''


class Holds:
    """Holds in the empty or missing `folder`, for commands in the project `root`."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        (folder / "site").mkdir(parents=True)
        (folder / "site" / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.environment = {_VARIABLE: str(folder), "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{root}"}

    def set(self, stage: str, moment: str) -> None:
        """Let the next process of `stage` wait at `moment`."""
        (self._folder / f"{stage}.{moment}").touch()

    def waiting(self) -> list[str]:
        """The stages that wait now."""
        return sorted(file.name.removesuffix(".held") for file in self._folder.glob("*.held"))

    def wait(self, command: "Popen[str]", stage: str) -> psutil.Process:
        """Wait until `stage`, which `command` runs, waits; returns the process that waits."""
        while stage not in self.waiting():
            assert command.poll() is None, f"the command ended before {stage} came to its hold"
            time.sleep(0.05)
        return psutil.Process(self._pid(stage))

    def kill(self, stage: str) -> None:
        """Kill the process that waits with SIGKILL."""
        os.kill(self._pid(stage), signal.SIGKILL)
        self.release(stage)

    def release(self, stage: str) -> None:
        """Let the process that waits go on."""
        (self._folder / f"{stage}.held").unlink()

    def _pid(self, stage: str) -> int:
        return int((self._folder / f"{stage}.held").read_text())
