"""Which process made this, and does it still live? And a stage's life, tied to that of the DVC that started it."""

import contextlib
import os
import platform
import signal
import threading
import time
from pathlib import Path

_SHELLS = ("sh", "dash", "bash", "zsh", "fish", "ksh")
_LOOK_S = 0.5


def me() -> str:
    """`host/number/start` of this process; numbers are used again, so its start belongs to its name."""
    return f"{platform.node()}/{os.getpid()}/{_start(os.getpid())}"


def dead(process: str) -> bool:
    """Whether the process of that name ran on this machine and has ended. Of other machines nothing is known: no."""
    host, _, rest = process.partition("/")
    pid, _, start = rest.partition("/")
    if host != platform.node() or not pid.isdigit():
        return False
    return not _lives(int(pid), start)


def die_with_dvc() -> None:
    """End this process when the DVC process that started it has ended, so that no orphan writes into a later run.

    The kernel does that for a direct parent. A shell that does not exec its command (dash) stands between the two and
    outlives DVC: then a thread looks after DVC. `HEARTML_PARENT` is DVC's number, where
    heartml/pipeline/stage_process.py is DVC.
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
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _lives(pid: int, start: str) -> bool:
    """Whether process `pid` is still the one of that start, and no zombie."""
    return alive(pid) and _start(pid) == start and (not start or _stat(pid)[0] != "Z")


def _behind_shells(pid: int) -> int:
    """The first ancestor, from `pid` on, that is no shell."""
    while Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text().strip() in _SHELLS:
        pid = int(_stat(pid)[1])
    return pid


def _start(pid: int) -> str:
    """Boot of the machine and start of a process in clock ticks since then (Linux's /proc)."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()[:8]}-{_stat(pid)[19]}"
    except (OSError, IndexError):
        return ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()

_PR_SET_PDEATHSIG = 1

_SIGKILL = 9


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux), so that no orphan writes later.

    `parent`, where it is known, closes the gap: if that process is gone already, this one ends here.
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
