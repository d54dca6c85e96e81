"""Pooled vectors of recordings under an encoder, and what they cost.

In: the spec of an encoder, recording ids. Out: name of a pooling -> `[r, f]`. Frames that the stage `features` or the
frame cache has are read; others are made, pooled and not kept. An encoder with several layers is pooled layer by layer
as well, with names such as `3/moments`.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heartml.audio import sound_files
from heartml.core import paths
from heartml.core.system import parallel
from heartml.core.system.progress import track
from heartml.models import encoders, frame_cache, pooling
from heartml.models.encoders import Encoder, EncoderSpec
from heartml.models.frame_cache import Store
from heartml.models.pooling import Grid

COSTED = 5                 # recordings whose encoding is timed
_BYTES = 2                 # of a value: frames are stored in half precision
_MEGABYTE = 1e6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """Of one hour of sound: seconds of one thread to encode it, and megabytes of its frames as they are stored."""

    seconds_an_hour: float
    megabytes_an_hour: float


def variants(spec: EncoderSpec) -> dict[str, EncoderSpec]:
    """The encoder under a prefix for names of poolings: itself, and each of its layers where it has several."""
    own = spec.pretrained
    if own is None or len(own.layers) < 2:
        return {"": spec}
    single = {f"{layer}/": replace(spec, sections={**spec.sections, spec.kind: own.model_copy(
        update={"layers": (layer,)})}) for layer in own.layers}
    return {"": spec, **single}


def pooled(spec: EncoderSpec, recording_ids: Sequence[str], poolings: Sequence[str]) -> dict[str, Floats]:
    """Pooled vectors of the recordings `[r]`: name of a pooling -> `[r, f]`.

    Raises:
        AudioError, OtherSamplesError: a recording cannot be read.
    """
    found: dict[str, Floats] = {}
    for prefix, one in variants(spec).items():
        store = Store.of(one, frame_cache.device())
        work = functools.partial(_pool_one, frame_cache.spec_to_text(one), store, tuple(poolings))
        count = parallel.available_workers(0) if len(recording_ids) > frame_cache.MOST_WITHOUT_WORKERS else 1
        with parallel.pool(count) as pool:
            rows = list(track(pool.map(work, recording_ids), f"probe: {prefix}{spec.name}", len(recording_ids)))
        found |= {f"{prefix}{name}": np.stack([row[number] for row in rows]) for number, name in enumerate(poolings)}
    return found


def _pool_one(text: str, store: Store, names: Sequence[str], recording_id: str) -> list[Floats]:
    spec, encoder = frame_cache.encoder_from_text(text)
    frames = _frames(spec, encoder, store, recording_id)
    grid = grid_of(spec, encoder)
    return [pooling.pool(name, [frames], encoder.frame_rate_hz, grid)[0] for name in names]


def grid_of(spec: EncoderSpec, encoder: Encoder) -> Grid:
    """The grid of an encoder's frames, see `Grid.of`."""
    return Grid.of({**encoders.describe(spec, encoder), "dim": encoder.dim})


def _frames(spec: EncoderSpec, encoder: Encoder, store: Store, recording_id: str) -> NDArray[np.float32]:
    if recording_id in store:
        return np.asarray(store.view([recording_id])[recording_id], np.float32)
    samples = sound_files.read_recording(paths.audio(recording_id), recording_id)
    return encoders.frames_of(encoder, spec, samples.floats, samples.sample_rate_hz).astype(np.float32)


def cost(spec: EncoderSpec, recording_ids: Sequence[str]) -> Cost:
    """What the encoder costs on this machine, on the first few recordings, from samples in memory to frames."""
    parallel.single_thread()
    encoder = encoders.load_once(spec)
    seconds, frames, spent = 0.0, 0, 0.0
    for recording_id in recording_ids[:COSTED]:
        samples = sound_files.read_recording(paths.audio(recording_id), recording_id)
        encoders.frames_of(encoder, spec, samples.floats, samples.sample_rate_hz)     # the first time makes filters
        started = time.process_time()
        frames += len(encoders.frames_of(encoder, spec, samples.floats, samples.sample_rate_hz))
        spent += time.process_time() - started
        seconds += len(samples.floats) / samples.sample_rate_hz
    hours = seconds / 3600
    return Cost(spent / hours, frames * encoder.dim * _BYTES / _MEGABYTE / hours)


def describe(found: Mapping[str, Floats]) -> dict[str, int]:
    """Name of a pooling -> number of features."""
    return {name: vectors.shape[1] for name, vectors in found.items()}
