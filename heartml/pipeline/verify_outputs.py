"""Check that outputs which DVC restored have the right bytes.

DVC trusts its cache: it restores an object that a failing disk has changed without an error, and then calls it fresh.
Here the bytes are hashed. Damaged objects are moved out of the cache, so that the next try makes or fetches them anew.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core import paths

if TYPE_CHECKING:
    from dvc.output import Output

DAMAGED = paths.STATE / "damaged"     # objects of DVC's cache that do not have the hash they are named by


def is_intact(out: "Output") -> bool:
    """Whether an output on this disk has the hash that DVC recorded for it. Every byte is read."""
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB

    if not out.exists or not out.hash_info:
        return False
    uncached = HashFileDB(out.fs, out.cache.path)     # DVC's own database remembers hashes and would not read again
    found = build(uncached, out.fs_path, out.fs, out.hash_name, dry_run=True, ignore=out.dvcignore)[2]
    return bool(found.hash_info == out.hash_info)


def move_damaged(outs: "Iterable[Output]") -> list[str]:
    """Move the damaged objects of these outputs out of DVC's cache, and return their hashes.

    The files in the folder get a new modification time, because DVC hashes a file again only if its time has changed.
    """
    damaged = []
    for out in outs:
        here = Path(out.fs_path)
        for file in (here, *here.rglob("*")) if here.exists() else ():
            os.utime(file)
        for md5 in dict.fromkeys(_objects(out)):
            place = Path(out.cache.oid_to_path(md5))
            if place.is_file() and _md5(place) != md5.removesuffix(".dir"):
                DAMAGED.mkdir(parents=True, exist_ok=True)
                place.replace(DAMAGED / md5)
                damaged.append(md5)
    return damaged


def changed_files(out: "Output") -> list[str]:
    """Files of an output folder that are missing, changed or added, compared with its listing in DVC's cache.

    Empty if there is no such listing.
    """
    folder = Path(out.fs_path)
    try:
        entries = json.loads(Path(out.cache.oid_to_path(str(out.hash_info.value))).read_bytes())
        listed = {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    here = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return sorted(name for name in listed.keys() | here.keys()
                  if name not in here or name not in listed or _md5(here[name]) != listed[name])


def _objects(out: "Output") -> list[str]:
    """Hashes of all objects of an output. Of a damaged listing, as much as can be read."""
    whole = str(out.hash_info.value)
    listing = Path(out.cache.oid_to_path(whole))
    try:
        entries: Sequence[Any] = json.loads(listing.read_bytes()) if whole.endswith(".dir") else ()
        return [whole, *(str(entry["md5"]) for entry in entries)]
    except (OSError, ValueError, KeyError, TypeError):
        return [whole]


def _md5(place: Path) -> str:
    with place.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
