"""Packs of the frame cache: frames of many recordings, float16 `[all frames, dim]`, in the file that a stage wrote.

A pack is a folder `packs/<hash of the recording ids>` of a store with two files. `frames.npy` is a hard link to the
file of that name in `artifacts/`, so it takes no room of its own. `spans.parquet` (recording_id, first, frames, sha256)
says where each recording lies, and what its frames are. DVC removes the outputs of a stage before it runs again; the
pack is then what the frames are read from, so that one new recording costs the work of one.

A pack that is damaged, or not there any more, costs the work of its recordings and nothing else.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from heartml.core import frame_store
from heartml.core.frame_store import FRAMES
from heartml.core.system import files, hashing, locks

FOLDER = "packs"
_SPANS = "spans.parquet"

FloatFrames = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Pack:
    """An opened pack: `array` `[all frames, dim]`; recording_id -> its first row and number of rows, and SHA-256."""

    folder: Path
    array: FloatFrames
    spans: Mapping[str, tuple[int, int, str]]

    def frames(self, recording_id: str) -> FloatFrames:
        """Frames of one recording `[frames, dim]`, read from disk at their access."""
        first, count, _ = self.spans[recording_id]
        return self.array[first : first + count]

    def is_intact(self, recording_id: str) -> bool:
        """Whether the frames of this recording are those that were packed."""
        return _digest(self.frames(recording_id)) == self.spans[recording_id][2]


def find(store: Path, recording_id: str) -> Pack | None:
    """A pack of this store that has the recording."""
    return next((pack for pack in _opened_now(store) if recording_id in pack.spans), None)


def whole(store: Path, recording_ids: Sequence[str]) -> Path | None:
    """The file of frames of a pack of just these recordings."""
    name = _name(recording_ids)
    return next((pack.folder / FRAMES for pack in _opened_now(store) if pack.folder.name == name), None)


def keep(store: Path, packed: Path) -> bool:
    """Link the frames that were packed into the folder `packed`, so that they are found when it is gone.

    Earlier packs go where they have nothing of their own, or where nothing else shares their file any more.

    Returns:
        Whether they are kept; a hard link is impossible where the cache is on another disk.
    """
    index = pd.read_parquet(packed / frame_store.INDEX)
    folder = store / FOLDER / _name(list(index["recording_id"]))
    with locks.exclusive(store / ".packs.lock"):
        if not _is_kept(folder, packed / FRAMES):
            array = np.load(packed / FRAMES, mmap_mode="r", allow_pickle=False)
            rows = zip(index["first"], index["frames"], strict=True)
            digests = [_digest(array[first : first + count]) for first, count in rows]
            try:
                with files.replacing_folder(folder) as building:
                    os.link(packed / FRAMES, building / FRAMES)
                    files.write_parquet(building / _SPANS, index.assign(sha256=digests))
            except OSError:
                return False
        _remove_others(folder, frozenset(index["recording_id"]))
    return True


def _is_kept(folder: Path, file: Path) -> bool:
    return (folder / _SPANS).exists() and (folder / FRAMES).exists() and (folder / FRAMES).samefile(file)


def _remove_others(newest: Path, its: frozenset[str]) -> None:
    opened = {pack.folder: pack for pack in _opened_now(newest.parent.parent)}
    for folder in newest.parent.glob("[!.]*"):
        pack = opened.get(folder)
        if folder != newest and (pack is None or _is_alone(folder) or its.issuperset(pack.spans)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alone(folder: Path) -> bool:
    """Whether neither `artifacts/` nor DVC has the frames any more, so that they take room here."""
    return (folder / FRAMES).stat().st_nlink == 1


def _name(recording_ids: Sequence[str]) -> str:
    return hashing.sha256("\n".join(sorted(recording_ids)).encode())[:16]


def _digest(frames: FloatFrames) -> str:
    return hashing.sha256(np.ascontiguousarray(frames).tobytes())


def look_again() -> None:
    """List the packs anew at the next access. The clock of a file system is too coarse to show every change."""
    _opened.cache_clear()


def _opened_now(store: Path) -> tuple[Pack, ...]:
    """The packs of a store as they are now. They are listed again when one has come or gone."""
    try:
        changed_ns = (store / FOLDER).stat().st_mtime_ns
    except FileNotFoundError:
        return ()
    return _opened(store / FOLDER, changed_ns)


@functools.lru_cache(maxsize=8)
def _opened(folder: Path, changed_ns: int) -> tuple[Pack, ...]:
    return tuple(_readable(sorted(folder.glob("[!.]*"))))


def _readable(folders: Sequence[Path]) -> Iterator[Pack]:
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, KeyError):      # it is gone, or not what was written
            table = pd.read_parquet(folder / _SPANS)
            array = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False)
            rows = zip(table["first"], table["frames"], table["sha256"], strict=True)
            yield Pack(folder, array, dict(zip(table["recording_id"], rows, strict=True)))
