"""Pooled vectors of cases under an encoder: one small file for each case, so that a run that was stopped goes on."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from heartml.audio import sound_files
from heartml.core import paths
from heartml.core.system import code_hash, files, hashing, parallel
from heartml.core.system.progress import track
from heartml.evaluation.probe.vectors import grid_of
from heartml.evaluation.protocols.opera.cases import Case
from heartml.evaluation.protocols.opera.linear import Floats
from heartml.models import encoders, frame_cache, pooling
from heartml.models.encoders import EncoderSpec

FOLDER = paths.STATE / "protocol" / "opera"


def pooled(spec: EncoderSpec, cases: Sequence[Case], poolings: Sequence[str], title: str) -> dict[str, Floats]:
    """Name of a pooling -> `[cases, features]`; what an earlier run has pooled is read."""
    store = FOLDER / hashing.sha256(files.canonical_json(
        [encoders.fingerprint(spec), list(poolings), code_hash.fingerprint("models/pooling.py")]).encode())[:16]
    of_file: dict[Path, list[Case]] = {}
    for case in cases:
        if not _file(store, case).exists():
            of_file.setdefault(case.path, []).append(case)
    work = functools.partial(_pool, frame_cache.spec_to_text(spec), store, tuple(poolings))
    count = parallel.available_workers(0) if len(of_file) > frame_cache.MOST_WITHOUT_WORKERS else 1
    with parallel.pool(count) as pool:
        for _ in track(pool.map(work, list(of_file.values())), title, len(of_file)):
            pass
    rows = [_read(_file(store, case)) for case in cases]
    return {name: np.stack([row[name] for row in rows]) for name in poolings}


def _file(store: Path, case: Case) -> Path:
    return store / case.name[:2] / f"{case.name}.safetensors"


def _read(file: Path) -> dict[str, Floats]:
    from safetensors.numpy import load_file

    return dict(load_file(file))


def _pool(text: str, store: Path, poolings: Sequence[str], cases: Sequence[Case]) -> None:
    """Encode the cases of one file and store their vectors."""
    from safetensors.numpy import save

    spec, encoder = frame_cache.encoder_from_text(text)
    samples = sound_files.read(cases[0].path)
    grid = grid_of(spec, encoder)
    for case in cases:
        first, last = case.span_s or (0.0, samples.seconds)
        edges = [round(edge * samples.sample_rate_hz) for edge in (first, last)]
        sound = np.ascontiguousarray(samples.floats[edges[0]:edges[1]])
        frames = encoders.frames_of(encoder, spec, sound, samples.sample_rate_hz).astype(np.float32)
        found = {name: pooling.pool(name, [frames], encoder.frame_rate_hz, grid)[0] for name in poolings}
        with files.replacing(_file(store, case)) as temporary:
            temporary.write_bytes(save({name: np.ascontiguousarray(vector) for name, vector in found.items()}))
