"""Names of processes, whether they still run, and how a process ends together with the one that started it."""

import contextlib
import gc
import os
import platform
import signal
import threading
import time
from pathlib import Path

_SHELLS = ("sh", "dash", "bash", "zsh", "fish", "ksh")
_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_COLLECT_AFTER = 10_000    # new objects; Python's own number is 700


def own_name() -> str:
    """This process as `host/pid/start`. Process ids are used again, so the start is part of the name."""
    return f"{platform.node()}/{os.getpid()}/{_start(os.getpid())}"


def user_name() -> str:
    """Name of the user whose process this is; `an unknown user` where the system has no name."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "an unknown user"


def has_ended(process: str) -> bool:
    """Whether the process of that name (see `own_name`) ran on this machine and has ended; false for other machines."""
    host, _, rest = process.partition("/")
    pid, _, start = rest.partition("/")
    if host != platform.node() or not pid.isdigit():
        return False
    return not _lives(int(pid), start)


def die_with_dvc() -> None:
    """End this process when the DVC process that started it has ended, so that no orphan writes into a later run.

    The kernel does that for a direct parent. A shell that does not exec its command (dash) is between the two and
    outlives DVC. Then a thread watches DVC. `HEARTML_PARENT` is the process id of DVC, where
    `heartml.pipeline.stage_process` runs DVC.
    """
    die_with_parent()
    known = os.environ.get("HEARTML_PARENT")
    dvc = int(known) if known else _behind_shells(os.getppid())
    if not alive(dvc):
        os._exit(1)
    if dvc != os.getppid():
        threading.Thread(target=_follow, args=(dvc, _start(dvc)), daemon=True).start()


def _follow(pid: int, start: str) -> None:
    while _lives(pid, start):
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _lives(pid: int, start: str) -> bool:
    """Whether process `pid` is still the one that started at `start`, and no zombie."""
    return alive(pid) and _start(pid) == start and (not start or _stat(pid)[0] != "Z")


def _behind_shells(pid: int) -> int:
    """The first ancestor, from `pid` on, that is no shell."""
    while Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text().strip() in _SHELLS:
        pid = int(_stat(pid)[1])
    return pid


def _start(pid: int) -> str:
    """Boot id of the machine and start of a process in clock ticks since boot (Linux's /proc); else empty."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()[:8]}-{_stat(pid)[19]}"
    except (OSError, IndexError):
        return ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux), so that no orphan writes later.

    Args:
        parent: process id of the parent, if known. If that process has already ended, this one ends at once.
    """
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if parent is not None and os.getppid() != parent and not alive(parent):
        os._exit(1)


def alive(pid: int) -> bool:
    """Whether a process with this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def collect_garbage_less_often() -> None:
    """Let Python look for unreachable circles of objects more rarely, in a process that imports large libraries.

    While libraries are imported, millions of objects are made that all stay. With Python's own limits the search for
    circles among them takes a tenth of an import. Much rarer costs more than it saves: the system has to find more
    memory.
    """
    gc.set_threshold(_COLLECT_AFTER)
