"""Frames of sound files under one encoder, for anybody's own use: files in, one NPZ out.

The NPZ has an array float32 `[frames, dim]` under each file's stem (under its path where two stems are the same), and
`frame_rate_hz`. With a kind and a file of weights the waveform is only resampled, as the publisher's own code takes it.
With an encoder of params.yaml it is prepared as in the pipeline.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.audio import preprocessing, sound_files
from heartml.core.config import Params
from heartml.core.system import parallel
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing
from heartml.core.system.progress import track
from heartml.inference import inputs
from heartml.models import encoders
from heartml.models.encoders import Encoder, EncoderSpec, weight_files
from heartml.models.frame_cache import device

RATE = "frame_rate_hz"
_NO_TIME = (1980, 1, 1, 0, 0, 0)      # the same frames give the same bytes


class EmbeddingError(HeartMLError):
    """There is no encoder as it is asked for, or not one file could be encoded."""


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        frames: name in the NPZ -> number of frames.
        faults: file -> why it has no frames.
        dim, frame_rate_hz, bands: of the frames; `bands` is `None` where the encoder is not pre-trained.
        sha256: of the weights, where there are any.
    """

    frames: Mapping[str, int]
    faults: Mapping[str, str]
    dim: int
    frame_rate_hz: float
    bands: int | None
    sha256: str | None


def find(encoder: str, weights: Path | None, layers: Sequence[str], params: Params,
         more: Mapping[str, Any] | None = None) -> EncoderSpec:
    """The encoder that is asked for.

    Args:
        encoder: a name of params.yaml, or a kind together with `weights`.
        weights: a publisher's file, or a folder of kind `transformers`.
        layers: `last` or numbers; empty: what params.yaml says, or the last.
        more: other keys of the encoder's section.

    Raises:
        EmbeddingError: it needs `weights`.
        EncoderError, ParamsError, WeightsError: see `encoders.spec`.
    """
    chosen = {"layers": [int(layer) if layer.isdecimal() else layer for layer in layers]} if layers else {}
    own = {**(more or {}), **chosen}
    if weights is not None:
        section = {"weights": str(weights), "sha256": weight_files.hash_of(weights), **own}
        return encoders.spec_of_weights(encoder, section, params)
    if encoder in encoders.PRETRAINED and encoder not in params.encoder_parameters:
        raise EmbeddingError(f"{encoder} is a kind of pre-trained encoder: name its file with --weights")
    section = {**params.encoder_parameters.get(encoder, {}), **own}
    return encoders.spec(encoder, params.model_copy(update={
        "encoder_parameters": {**params.encoder_parameters, encoder: section}} if section else {}))


def run(named: Sequence[Path], spec: EncoderSpec, to: Path, *, prepared: bool) -> Embedded:
    """Encode the files, folders and tables `named`, and write `to`. A file that cannot be read is left out, with why.

    Args:
        prepared: whether waveforms are prepared as in the pipeline, or only resampled.

    Raises:
        InputsError: there are no files.
        EmbeddingError: not one of them could be read; nothing is written.
    """
    parallel.single_thread()
    encoder, where = encoders.load(spec), device()
    encoder.to(where)
    paths = list(dict.fromkeys(item.path for item in inputs.gather(named)))
    faults: dict[str, str] = {}
    frames: dict[str, int] = {}
    with replacing(to) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, path in track(zip(_names(paths), paths, strict=True), "embed", len(paths)):
            try:
                samples = sound_files.read(path)
            except sound_files.AudioError as error:
                faults[str(path)] = error.detail
                continue
            waveform = _waveform(samples, spec, prepared=prepared)
            array = _frames(encoder, waveform, where)
            _write(archive, name, array)
            frames[name] = len(array)
        if not frames:
            first, why = next(iter(faults.items()))
            raise EmbeddingError(f"{first}: {why}" + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""))
        _write(archive, RATE, np.float64(encoder.frame_rate_hz))
    own = spec.pretrained
    bands = encoders.describe(spec, encoder).get("bands")
    return Embedded(frames, faults, encoder.dim, encoder.frame_rate_hz, bands, own.sha256 if own else None)


def _waveform(samples: sound_files.Samples, spec: EncoderSpec, *, prepared: bool) -> NDArray[np.float32]:
    if prepared:
        return encoders.prepared(spec, samples.floats, samples.sample_rate_hz)
    return preprocessing.resample(samples.floats, samples.sample_rate_hz, spec.audio)


def _frames(encoder: Encoder, waveform: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        frames: NDArray[np.float32] = encoder.encode(torch.from_numpy(waveform)[None].to(where))[0].cpu().numpy()
    return frames


def _names(paths: Sequence[Path]) -> Iterator[str]:
    """The stem of each file, or its path without suffix where the stem is not the only one."""
    stems = [path.stem for path in paths]
    for path, stem in zip(paths, stems, strict=True):
        yield stem if stems.count(stem) == 1 and stem != RATE else path.with_suffix("").as_posix().lstrip("/")


def _write(archive: zipfile.ZipFile, name: str, array: Any) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _NO_TIME), "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
