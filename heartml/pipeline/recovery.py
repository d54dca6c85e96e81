"""Repair of what a killed run leaves in DVC's files, so that the next run can start.

The caller holds the pipeline's lock. The pipeline's own locks need no repair: the kernel frees them.
"""

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heartml.core import paths
from heartml.core.system.files import replacing
from heartml.core.system.processes import alive
from heartml.pipeline import git


class _IncompleteCopy(Exception):  # noqa: N818 - not an error: the former copy stays
    """The copy of `dvc.lock` is not whole."""


DVC_LOCK = Path("dvc.lock")
_SAVED = paths.STATE / "dvc.lock.kept"
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


def clean_cache() -> None:
    """Remove files that a killed DVC began to write into its cache. Only a holder of DVC's lock writes there."""
    begun = [*_OBJECTS.glob(".*.tmp"), *_OBJECTS.glob("*/*.tmp")]
    if not begun:
        return
    from dvc.lock import LockError, make_lock

    with contextlib.suppress(LockError), make_lock(str(_LOCK), tmp_dir=str(_LOCK.parent)):
        for orphan in begun:
            orphan.unlink(missing_ok=True)


def save_lock_file() -> None:
    """Save a copy of `dvc.lock` if it is whole.

    DVC writes the file in place: it may be killed while writing, or write while it is copied here.
    """
    if not DVC_LOCK.exists():
        return
    with contextlib.suppress(_IncompleteCopy), replacing(_SAVED) as temporary:
        shutil.copyfile(DVC_LOCK, temporary)
        if not _readable(temporary):
            raise _IncompleteCopy


def sort_lock_file(addresses: Sequence[str]) -> None:
    """Put the stages of `dvc.lock` in the graph's order. DVC writes parallel stages in the order in which they ended.

    DVC reads any order. With this one the same run gives the same bytes, and git shows only real changes.

    Args:
        addresses: the stages in the graph's order.
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
    """The DVC commands that hold files of this folder now, as `process 123 (dvc repro)`."""
    return [f"process {holder['pid']} ({holder['cmd'].rsplit('/', 1)[-1]})" for holder in _holders(_read_rwlock())]


def _writer(orphan: Path) -> int:
    """The process id in a temporary file's name, `.<name>.<pid>.tmp`; for other names an id that no process has."""
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
        committed = git.run("cat-file", "blob", f"HEAD:./{DVC_LOCK}")
        temporary.write_bytes(committed.stdout if committed.returncode == 0 else b"schema: '2.0'\n")
        if _readable(_SAVED):
            shutil.copyfile(_SAVED, temporary)


def _read_rwlock() -> dict[str, Any]:
    try:
        content = json.loads(_RWLOCK.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _holders(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries of running processes. A process that started after the file was written has a used id by chance."""
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
    """Remove DVC's file of locks if no process holds any.

    Otherwise a process id that is used again, or a file cut short by a kill, would block DVC forever.
    """
    from dvc.lock import make_lock

    if not _RWLOCK.exists() or _RWLOCK.read_text(encoding="utf-8") == "{}":
        return
    with make_lock(str(_RWLOCK.with_name("rwlock.lock")), tmp_dir=str(_RWLOCK.parent), wait=True):   # as DVC does
        if not _holders(_read_rwlock()):
            _RWLOCK.unlink(missing_ok=True)
