"""The frame cache: recording ids in, frames float16 `[frames, dim]` on disk out.

A file is addressed by the encoder's fingerprint, the device and the recording's id, which is a hash of its samples.
When a stage has packed the frames of many recordings, its file takes the place of their own files
(`heartml.models.frame_packs`).
"""

import contextlib
import functools
import itertools
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from heartml.audio import sound_files
from heartml.core import frame_store, paths
from heartml.core.frame_store import Frames, FramesError
from heartml.core.system import parallel
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import write_array
from heartml.core.system.lazy import LazySequence
from heartml.core.system.progress import track
from heartml.models import encoders, frame_packs
from heartml.models.encoders import Encoder, EncoderSpec

GPU_BATCH = 32
GPU_BUCKET_S = 5.0              # rows of one batch differ by less than this in length
MOST_WITHOUT_WORKERS = 400      # so many recordings are encoded before worker processes would have started
SAMPLED = 8                     # recordings by which the space for all of them is estimated
TOLD_BYTES = 500_000_000        # from here on the space is told
_LOOKS = 3

FloatFrames = npt.NDArray[np.float16]


class NoSpace(HeartMLError):  # noqa: N818 - reads as what is the case
    """The disk has too little space for the frames; the message says how much they need."""


def device() -> str:
    """Where encoders run: `cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Store:
    """Frames of one encoder and device on disk: `<xx>/<recording_id>.npy`, float16 `[frames, dim]`, or in a pack."""

    folder: Path

    @classmethod
    def of(cls, spec: EncoderSpec, device: str) -> "Store":
        """The store for what `spec` computes on `device`."""
        return cls(paths.cache() / "features" / f"{encoders.fingerprint(spec)}-{device}")

    def path(self, recording_id: str) -> Path:
        """Where the frames of one recording lie that are not packed."""
        return self.folder / recording_id[:2] / f"{recording_id}.npy"

    def __contains__(self, recording_id: str) -> bool:
        return self.path(recording_id).exists() or any(recording_id in p.spans for p in frame_packs.opened(self.folder))

    def missing(self, recording_ids: Sequence[str]) -> list[str]:
        """See `View.missing`."""
        return self.view(recording_ids).missing()

    def put(self, recording_id: str, array: FloatFrames) -> None:
        """Write the frames of one recording; the file is complete or not there at all."""
        write_array(self.path(recording_id), array)

    def view(self, recording_ids: Iterable[str]) -> "View":
        """recording_id -> frames, read from disk on access."""
        return View(self, recording_ids)

    def keep(self, folder: Path, recording_ids: Iterable[str]) -> None:
        """Let what `View.pack` wrote, in its final `folder`, take the place of the recordings' own files."""
        if frame_packs.keep(self.folder, folder):
            for recording_id in recording_ids:
                self.path(recording_id).unlink(missing_ok=True)


class View(Mapping[str, FloatFrames]):
    """Frames of some recordings. What was packed when it was made stays readable, whatever other processes pack."""

    def __init__(self, store: Store, recording_ids: Iterable[str]) -> None:
        self._store, self._recording_ids = store, tuple(recording_ids)
        self._packs = frame_packs.opened(store.folder)
        self._damaged: frozenset[str] = frozenset()

    def __getitem__(self, recording_id: str) -> FloatFrames:
        own, packs = self._store.path(recording_id), () if recording_id in self._damaged else self._packs
        for _ in range(_LOOKS):      # another process may pack the recording now, and remove its own file
            with contextlib.suppress(FileNotFoundError):
                array: FloatFrames = np.load(own, mmap_mode="r", allow_pickle=False)
                return array
            for pack in packs:
                if recording_id in pack.spans:
                    return pack.frames(recording_id)
            frame_packs.look_again()
            packs = frame_packs.opened(self._store.folder)
        raise FramesError(f"recording {recording_id[:12]} has no frames in {self._store.folder}: run the stage again")

    def __iter__(self) -> Iterator[str]:
        return iter(self._recording_ids)

    def __len__(self) -> int:
        return len(self._recording_ids)

    def missing(self) -> list[str]:
        """Those without frames, or whose packed frames are damaged. What is packed is read and compared."""
        found = [i for i in track(self, "frames that are there", len(self)) if not self._is_whole(i)]
        self._damaged = frozenset(found)
        return found

    def _is_whole(self, recording_id: str) -> bool:
        if self._store.path(recording_id).exists():
            return True
        pack = next((pack for pack in self._packs if recording_id in pack.spans), None)
        return pack is not None and pack.is_intact(recording_id)

    def pack(self, folder: Path, frame_rate_hz: float, encoder: Mapping[str, Any]) -> None:
        """Write all frames into `folder`, see `frame_store.write`. None may be `missing` any more."""
        wanted = set(self)
        same = next((pack for pack in self._packs if pack.spans.keys() == wanted), None)
        usable = same is not None and not self._damaged and not any(self._store.path(i).exists() for i in self)
        link = same.link if same is not None and usable else _link_nothing
        frame_store.write(folder, self, frame_rate_hz, encoder, link)


def _link_nothing(file: Path) -> bool:
    return False


def encode(recording_ids: Sequence[str], spec: EncoderSpec, store: Store, device: str) -> None:
    """Compute the frames of `recording_ids` and put them into `store`.

    After the first few the space that all will take is known, and told where it is much.

    Raises:
        AudioError, OtherSamplesError: a recording cannot be read, or its samples are not those of its id.
        NoSpace: the disk has too little space for the rest.
    """
    count = 1 if len(recording_ids) <= MOST_WITHOUT_WORKERS else parallel.available_workers(0)
    with parallel.pool(count) as pool:
        if device == "cpu":
            work: Iterable[object] = pool.map(functools.partial(_encode_one, spec_to_text(spec), store), recording_ids)
        else:
            waveforms = pool.map(functools.partial(_prepared, spec), recording_ids)
            work = _encode_in_batches(encoders.load(spec).to(device), waveforms, store, device)
        for number, _ in enumerate(track(work, spec.name, len(recording_ids)), 1):
            if number == SAMPLED:
                _tell_space(recording_ids, spec, store)


def _tell_space(recording_ids: Sequence[str], spec: EncoderSpec, store: Store) -> None:
    """Say how much space the frames of `recording_ids` will take, by those that are there.

    Raises:
        NoSpace: there is less than that.
    """
    own = (path for path in map(store.path, recording_ids) if path.exists())
    there = [path.stat().st_size for path in itertools.islice(own, SAMPLED)]
    left = (len(recording_ids) - len(there)) * sum(there) // len(there)
    free = shutil.disk_usage(store.folder).free
    words = (f"{spec.name}: frames of {len(recording_ids):,} recordings, about {left / 1e9:.2f} GB in {store.folder}, "
             f"and as much again while they are packed; {free / 1e9:.1f} GB are free")
    if left > free:
        raise NoSpace(f"{words}. Free some, or name another disk: HEARTML_CACHE_DIR")
    if left >= TOLD_BYTES:
        print(words, file=sys.stderr, flush=True)


def open_frames(task: str, spec: EncoderSpec, recording_ids: Sequence[str]) -> Sequence[npt.NDArray[np.float32]]:
    """Frames of recordings `[r]`, each `[frames, dim]`, read at their access.

    They are those of the stage `features` where it has made them for this spec. Else they are made now.

    Raises:
        AudioError, OtherSamplesError: see `encode`.
    """
    folder = paths.features(task, spec.name)
    if (folder / "encoder.json").exists():
        stored = Frames.open(folder)
        if spec.to_json().items() <= stored.encoder.items():
            return stored.of(recording_ids)
    store = Store.of(spec, device())
    encode(store.missing(recording_ids), spec, store, device())
    view = store.view(recording_ids)
    return LazySequence(lambda row: view[recording_ids[row]].astype(np.float32), len(recording_ids))


def spec_to_text(spec: EncoderSpec) -> str:
    """A spec as text, to be sent to a worker process."""
    return json.dumps(spec.to_json(), sort_keys=True)


@functools.lru_cache(maxsize=4)
def encoder_from_text(text: str) -> tuple[EncoderSpec, Encoder]:
    """The spec that `spec_to_text` wrote, and its encoder; a worker process makes it once."""
    spec = EncoderSpec.from_json(json.loads(text))
    return spec, encoders.load(spec)


def _encode_one(text: str, store: Store, recording_id: str) -> None:
    spec, encoder = encoder_from_text(text)
    samples = sound_files.read_recording(paths.audio(recording_id), recording_id)
    store.put(recording_id, encoders.frames_of(encoder, spec, samples.floats, samples.sample_rate_hz))


def _prepared(spec: EncoderSpec, recording_id: str) -> tuple[str, npt.NDArray[np.float32]]:
    samples = sound_files.read_recording(paths.audio(recording_id), recording_id)
    return recording_id, encoders.prepared(spec, samples.floats, samples.sample_rate_hz)


def _encode_in_batches(
    encoder: Encoder, waveforms: Iterable[tuple[str, npt.NDArray[np.float32]]], store: Store, device: str
) -> Iterator[str]:
    """Encode batches of GPU_BATCH recordings of similar length; yield each recording that is in the store."""
    waiting: dict[int, list[tuple[str, npt.NDArray[np.float32]]]] = {}
    step = round(GPU_BUCKET_S * encoder.sample_rate_hz)
    for item in waveforms:
        size = -(-len(item[1]) // step) * step
        rows = waiting.setdefault(size, [])
        rows.append(item)
        if len(rows) == GPU_BATCH:
            yield from _encode_batch(encoder, waiting.pop(size), size, store, device)
    for size, rows in waiting.items():
        yield from _encode_batch(encoder, rows, size, store, device)


def _encode_batch(
    encoder: Encoder, rows: Sequence[tuple[str, npt.NDArray[np.float32]]], size: int, store: Store, device: str
) -> Iterator[str]:
    """Encode one batch. It always has GPU_BATCH rows of `size` samples, so that its shape depends on no neighbours."""
    padded = np.zeros((GPU_BATCH, size), np.float32)
    lengths = np.zeros(GPU_BATCH, np.int64)
    for row, (_, waveform) in enumerate(rows):
        padded[row, : len(waveform)] = waveform
        lengths[row] = len(waveform)
    with torch.inference_mode():
        batch = encoder.encode(torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device)).cpu().numpy()
    for row, (recording_id, waveform) in enumerate(rows):
        store.put(recording_id, batch[row, : encoder.frames_in(len(waveform))].astype(np.float16))
        yield recording_id
