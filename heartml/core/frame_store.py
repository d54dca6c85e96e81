"""The frames of many recordings in one array on disk, found by recording.

`frames.npy` float16 [all frames, dim], `index.parquet` (recording_id, first, frames), `encoder.json` (what made them).
The same frames give the same bytes, in whatever order they were computed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, replacing, write_json, write_parquet
from heartml.core.system.lazy import LazySequence

FRAMES = "frames.npy"
INDEX = "index.parquet"


class FramesError(HeartMLError):
    """A recording has no frames here."""


@dataclass(frozen=True)
class Frames:
    """Read access: `frames[recording_id]` -> float32 [frames, dim]."""

    folder: Path
    array: npt.NDArray[np.float16]
    spans: Mapping[str, tuple[int, int]]
    encoder: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Frames":
        """Map the folder's array into memory; the frames of a recording are read at their access."""
        index = pd.read_parquet(folder / INDEX)
        rows = zip(index["recording_id"], index["first"], index["frames"], strict=True)
        spans = {str(recording_id): (int(first), int(count)) for recording_id, first, count in rows}
        array = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False)
        return cls(folder, array, spans, read_json(folder / "encoder.json"))

    @property
    def dim(self) -> int:
        """Number of values in a frame."""
        return int(self.array.shape[1])

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return float(self.encoder["frame_rate_hz"])

    @property
    def recording_ids(self) -> tuple[str, ...]:
        """Every recording that has frames here, sorted."""
        return tuple(self.spans)

    def of(self, recording_ids: Sequence[str]) -> LazySequence[npt.NDArray[np.float32]]:
        """Frames of these recordings in their order, each float32 [frames, dim] and read from disk at its access."""
        return LazySequence(lambda row: self[recording_ids[row]], len(recording_ids))

    def __getitem__(self, recording_id: str) -> npt.NDArray[np.float32]:
        if recording_id not in self.spans:
            raise FramesError(f"recording {recording_id[:12]} has no frames in {self.folder}: run `dvc repro` again")
        first, count = self.spans[recording_id]
        return self.array[first : first + count].astype(np.float32)


def write(
    folder: Path, frames: Mapping[str, npt.NDArray[np.float16]], frame_rate_hz: float, encoder: Mapping[str, Any],
    link: Callable[[Path], bool] = lambda _: False,
) -> None:
    """Write the frames of all recordings into `folder`, with one recording in memory at a time.

    Args:
        frames: recording_id -> float16 [frames, dim], all of one dim.
        encoder: the encoder's specification for `encoder.json`; `frame_rate_hz` and `dim` are added.
        link: makes a path a link to a file of just these frames, where there is one; whether it did.
    """
    recording_ids = sorted(frames)
    shapes = [frames[i].shape for i in recording_ids]
    counts = np.array([shape[0] for shape in shapes], dtype=np.int64)
    dim = shapes[0][1]
    folder.mkdir(parents=True, exist_ok=True)
    if not link(folder / FRAMES):
        _pack(folder / FRAMES, (frames[i] for i in recording_ids), (int(counts.sum()), dim))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    index = pd.DataFrame({"recording_id": recording_ids, "first": first, "frames": counts})
    write_parquet(folder / INDEX, index.astype({"recording_id": "string"}))
    write_json(folder / "encoder.json", {**encoder, "frame_rate_hz": frame_rate_hz, "dim": dim})


def _pack(file: Path, pieces: Iterable[npt.NDArray[np.float16]], shape: tuple[int, int]) -> None:
    """Write pieces `[frames, dim]` as one float16 array of `shape`.

    Not through mapped memory: there a full disk kills the process.
    """
    head = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    with replacing(file) as temporary, temporary.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, head)
        for piece in pieces:
            out.write(np.ascontiguousarray(piece, np.float16).reshape(-1, shape[1]).tobytes())
