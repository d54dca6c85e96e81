"""Which process made this, and does it still live? For runs that a killed process left behind on a server."""

import os
import platform
from pathlib import Path

from heartml.files import alive


def me() -> str:
    """`host/number/start` of this process; numbers are used again, so its start belongs to its name."""
    return f"{platform.node()}/{os.getpid()}/{_start(os.getpid())}"


def dead(process: str) -> bool:
    """Whether the process of that name ran on this machine and has ended. Of other machines nothing is known: no."""
    host, _, rest = process.partition("/")
    pid, _, start = rest.partition("/")
    if host != platform.node() or not pid.isdigit():
        return False
    return not alive(int(pid)) or _start(int(pid)) != start


def _start(pid: int) -> str:
    """Boot of the machine and start of a process in clock ticks since then (Linux's /proc)."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()[:8]}-{ticks}"
    except (OSError, IndexError):
        return ""
