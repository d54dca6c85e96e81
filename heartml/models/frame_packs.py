"""Packs of the frame cache: frames of many recordings, float16 `[all frames, dim]`, in the file that a stage wrote.

A pack is a folder `packs/<hash of the output's path>` of a store with two files. `frames.npy` is a hard link to the
file of that name in the output, so it takes no room of its own. `spans.parquet` (recording_id, first, frames, sha256)
says where each recording lies, and what its frames are. DVC removes the outputs of a stage before it runs again; the
pack is then what the frames are read from, so that one new recording costs the work of one.

An output has one pack. A pack that is damaged, or not there any more, costs the work of its recordings and no more.
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
    """An opened pack. It can be read as long as it is open, also when another has taken its place.

    Attributes:
        inode: of the file of frames.
        array: `[all frames, dim]`.
        spans: recording_id -> first row, number of rows, SHA-256.
    """

    folder: Path
    inode: int
    array: FloatFrames
    spans: Mapping[str, tuple[int, int, str]]

    def frames(self, recording_id: str) -> FloatFrames:
        """Frames of one recording `[frames, dim]`, read from disk at their access."""
        first, count, _ = self.spans[recording_id]
        return self.array[first : first + count]

    def is_intact(self, recording_id: str) -> bool:
        """Whether the frames of this recording are those that were packed."""
        return _digest(self.frames(recording_id)) == self.spans[recording_id][2]

    def link(self, file: Path) -> bool:
        """Make `file` a link to the frames; whether that was possible."""
        with contextlib.suppress(OSError):
            os.link(self.folder / FRAMES, file)
            if file.stat().st_ino == self.inode:
                return True
            file.unlink()      # another pack has taken its place
        return False


def keep(store: Path, packed: Path) -> bool:
    """Link the frames that were packed into the folder `packed`, so that they are found when it is gone.

    They take the place of what was packed there before. Packs of other outputs go where they have nothing of their own.

    Returns:
        Whether they are kept; a hard link is impossible where the cache is on another disk.
    """
    index = pd.read_parquet(packed / frame_store.INDEX)
    folder = store / FOLDER / hashing.sha256(bytes(packed.absolute()))[:16]
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
        look_again()
        _remove_others(folder, frozenset(index["recording_id"]))
    return True


def _is_kept(folder: Path, file: Path) -> bool:
    return (folder / _SPANS).exists() and (folder / FRAMES).exists() and (folder / FRAMES).samefile(file)


def _remove_others(newest: Path, its: frozenset[str]) -> None:
    spans = {pack.folder: pack.spans for pack in opened(newest.parent.parent)}
    for folder in newest.parent.glob("[!.]*"):
        if folder != newest and (folder not in spans or its.issuperset(spans[folder])):
            shutil.rmtree(folder, ignore_errors=True)


def _digest(frames: FloatFrames) -> str:
    return hashing.sha256(np.ascontiguousarray(frames).tobytes())


def look_again() -> None:
    """List the packs anew at the next access. The clock of a file system is too coarse to show every change."""
    _opened.cache_clear()


def opened(store: Path) -> tuple[Pack, ...]:
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
            inode = (folder / FRAMES).stat().st_ino
            table = pd.read_parquet(folder / _SPANS)
            array = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False)
            rows = zip(table["first"], table["frames"], table["sha256"], strict=True)
            yield Pack(folder, inode, array, dict(zip(table["recording_id"], rows, strict=True)))
