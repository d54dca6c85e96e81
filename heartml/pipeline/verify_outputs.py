"""Are the bytes that DVC put back those that were asked for?

DVC believes its cache: an object that a failing disk has changed comes back without a word, and is called fresh ever
after. Here the bytes themselves are hashed, and damaged objects are put aside, so that the next try makes or fetches
them anew.
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

ASIDE = paths.STATE / "damaged"     # what was found in DVC's cache under a hash that is not its own


def is_whole(out: "Output") -> bool:
    """Whether a file or folder on this disk has the hash by which DVC knows it; every byte is read."""
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB

    if not out.exists or not out.hash_info:
        return False
    nobody = HashFileDB(out.fs, out.cache.path)     # without the memory of hashes that DVC's own has
    found = build(nobody, out.fs_path, out.fs, out.hash_name, dry_run=True, ignore=out.dvcignore)[2]
    return bool(found.hash_info == out.hash_info)


def put_aside(outs: "Iterable[Output]") -> list[str]:
    """Take the damaged objects behind these outputs out of DVC's cache; returns their hashes.

    Their copies here get a new time: DVC looks at bytes again only where the time of a file has changed.
    """
    damaged = []
    for out in outs:
        here = Path(out.fs_path)
        for file in (here, *here.rglob("*")) if here.exists() else ():
            os.utime(file)
        for md5 in dict.fromkeys(_objects(out)):
            place = Path(out.cache.oid_to_path(md5))
            if place.is_file() and _md5(place) != md5.removesuffix(".dir"):
                ASIDE.mkdir(parents=True, exist_ok=True)
                place.replace(ASIDE / md5)
                damaged.append(md5)
    return damaged


def differing(out: "Output") -> list[str]:
    """Files of an output that are missing or not what its listing in DVC's cache says, or are there without it.

    Empty where there is no such listing.
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
    """Hashes of everything that is stored of an output; what a damaged listing names as far as it can be read."""
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
