"""What a killed run may leave behind in DVC's files, and how the next one gets over it.

The caller holds the pipeline's lock. The pipeline's own locks need no care: the kernel frees them.
"""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heartml.core import paths
from heartml.core.system.files import replacing
from heartml.core.system.processes import alive


class _Torn(Exception):  # noqa: N818 - nothing has gone wrong
    """What was copied is not whole: the former copy stays."""


DVC_LOCK = Path("dvc.lock")
_KEPT = paths.STATE / "dvc.lock.kept"
_RWLOCK = Path(".dvc/tmp/rwlock")
_LOCK = Path(".dvc/tmp/lock")
_OBJECTS = Path(".dvc/cache/files/md5")


def repair() -> None:
    """Make `dvc.lock` readable, forget DVC's locks of dead processes, remove half-written files."""
    _repair_lock_file()
    _repair_rwlock()
    for orphan in paths.ARTIFACTS.glob("**/.*.tmp") if paths.ARTIFACTS.exists() else ():
        if not alive(_writer(orphan)):
            shutil.rmtree(orphan) if orphan.is_dir() else orphan.unlink(missing_ok=True)


def sweep_cache() -> None:
    """Remove what a killed DVC had begun to write into its cache; nobody is at that who does not hold DVC's lock."""
    begun = [*_OBJECTS.glob(".*.tmp"), *_OBJECTS.glob("*/*.tmp")]
    if not begun:
        return
    from dvc.lock import LockError, make_lock

    with contextlib.suppress(LockError), make_lock(str(_LOCK), tmp_dir=str(_LOCK.parent)):
        for orphan in begun:
            orphan.unlink(missing_ok=True)


def keep() -> None:
    """Keep a copy of a `dvc.lock` that is whole: DVC writes it in place, and may be killed, or at it, while we copy."""
    if not DVC_LOCK.exists():
        return
    with contextlib.suppress(_Torn), replacing(_KEPT) as temporary:
        shutil.copyfile(DVC_LOCK, temporary)
        if not _readable(temporary):
            raise _Torn


def order(addresses: Sequence[str]) -> None:
    """Put the stages of `dvc.lock` in the graph's order: siblings stand in the order in which they ended.

    DVC reads any order; in this one the same run gives the same bytes, and git shows what really changed.
    """
    from dvc.utils.serialize import dump_yaml, load_yaml

    if not DVC_LOCK.exists():
        return
    content = load_yaml(DVC_LOCK)
    stages = content.get("stages", {})
    wanted = {a: stages[a] for a in sorted(stages, key=lambda a: addresses.index(a) if a in addresses else -1)}
    if list(wanted) != list(stages):
        with replacing(DVC_LOCK) as temporary:
            dump_yaml(temporary, {**content, "stages": wanted})


def dvc_at_work() -> list[str]:
    """The DVC commands that hold files of this workspace now, as `process 123 (dvc repro)`."""
    return [f"process {holder['pid']} ({holder['cmd'].rsplit('/', 1)[-1]})" for holder in _holders(_read_rwlock())]


def _writer(orphan: Path) -> int:
    """The process in a temporary's name, `.<name>.<pid>.tmp`; no name of ours counts as dead."""
    number = orphan.name.split(".")[-2]
    return int(number) if number.isdigit() else 2**31 - 1


def _readable(path: Path) -> bool:
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import load_yaml
    from voluptuous import Invalid

    try:
        content = load_yaml(path)
        COMPILED_LOCKFILE_SCHEMA(content)
    except (DvcException, Invalid, OSError):
        return False
    return bool(content)


def _repair_lock_file() -> None:
    if not DVC_LOCK.exists() or _readable(DVC_LOCK):
        return
    with replacing(DVC_LOCK) as temporary:
        committed = subprocess.run(["git", "show", f"HEAD:./{DVC_LOCK}"], capture_output=True, check=False)
        temporary.write_bytes(committed.stdout if committed.returncode == 0 else b"schema: '2.0'\n")
        if _readable(_KEPT):
            shutil.copyfile(_KEPT, temporary)


def _read_rwlock() -> dict[str, Any]:
    try:
        content = json.loads(_RWLOCK.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _holders(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries of living processes. A process that started after the file was written only has a dead one's number."""
    import psutil

    written = _RWLOCK.stat().st_mtime if content else 0.0
    entries = [e for held in content.get("read", {}).values() for e in held] + list(content.get("write", {}).values())
    living: dict[int, dict[str, Any]] = {}
    for entry in entries:
        try:
            holder = psutil.Process(entry["pid"])
            if holder.create_time() <= written and holder.status() != psutil.STATUS_ZOMBIE:
                living[entry["pid"]] = entry
        except psutil.NoSuchProcess:
            continue
    return list(living.values())


def _repair_rwlock() -> None:
    """Without this a recycled process number or a file cut short by a kill blocks DVC for good."""
    from dvc.lock import make_lock

    if not _RWLOCK.exists() or _RWLOCK.read_text(encoding="utf-8") == "{}":
        return
    with make_lock(str(_RWLOCK.with_name("rwlock.lock")), tmp_dir=str(_RWLOCK.parent), wait=True):   # as DVC does
        if not _holders(_read_rwlock()):
            _RWLOCK.unlink(missing_ok=True)
