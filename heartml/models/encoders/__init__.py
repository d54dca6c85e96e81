"""Encoders: waveform in, frames out, `[batch, time] -> [batch, frames, dim]` at a stated rate. One file a member.

To add one: write `NAME.py` in this folder (the Protocol `EncoderModule` says what it must hold) and add its name to
`ENCODERS`. Its parameters are a class in that file; users write them in `params.yaml` under `encoder_parameters.NAME`.

An `EncoderSpec` holds everything that decides an encoder's output. It is saved in `encoder.json` and in a fitted model.
`load(spec(name, params))` makes the encoder from `params.yaml`, `load(EncoderSpec.from_json(...))` from a saved spec.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from heartml.audio import preprocessing, sound_files
from heartml.core import config
from heartml.core.config import AudioParams, Params, Section
from heartml.core.system import family
from heartml.core.system.errors import HeartMLError

if TYPE_CHECKING:
    import torch


class EncoderError(HeartMLError):
    """There is no such encoder; the message lists those that exist."""


class Encoder(Protocol):
    """Maps prepared waveforms to frames."""

    name: str
    sample_rate_hz: int
    frame_rate_hz: float
    dim: int

    def encode(self, batch: "torch.Tensor", lengths: "torch.Tensor | None" = None) -> "torch.Tensor":
        """float32 `[batch, time]` -> float32 `[batch, frames, dim]`.

        Args:
            lengths: int64 `[batch]`, the true number of samples of zero-padded rows. The first `frames_in(length)`
                frames of a row are what the row alone would give. The frames after them mean nothing.
        """
        ...

    def frames_in(self, samples: int) -> int:
        """Number of frames of a waveform of `samples` samples; at least one."""
        ...

    def to(self, device: str) -> "Encoder":
        """The same encoder on another device, `cpu` or `cuda`."""
        ...


class EncoderModule(Protocol):
    """What the module of an encoder holds."""

    @property
    def PARAMS(self) -> type[Section]: ...  # noqa: N802 - its section of `encoder_parameters`
    @property
    def NEEDS(self) -> tuple[str, ...]: ...  # noqa: N802 - other encoders whose sections it reads too

    def make(self, audio: AudioParams, sections: Mapping[str, Any]) -> Encoder:
        """Make the encoder for waveforms at `audio.sample_rate_hz`.

        Args:
            sections: name of the encoder, and of each that it needs -> its checked section.

        Raises:
            ValueError: the parameters do not fit the sample rate; the message names the key.
        """
        ...


ENCODERS: dict[str, Callable[[], EncoderModule]] = family.members(__name__, [
    "logspec",
    "random_conv",
    "amplitude",
])


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's name and everything its frames depend on: the audio parameters and its sections of `params.yaml`."""

    name: str
    audio: AudioParams
    sections: Mapping[str, Section]

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        sections = {key: section.model_dump(mode="json") for key, section in self.sections.items()}
        return {"name": self.name, "audio": self.audio.model_dump(mode="json"), "sections": sections}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EncoderSpec":
        """The spec that `to_json` gave; other keys are ignored."""
        sections = {key: member(key).PARAMS.model_validate(own) for key, own in values["sections"].items()}
        return cls(values["name"], AudioParams.model_validate(values["audio"]), sections)


def member(name: str) -> EncoderModule:
    """The module of encoder `name`.

    Raises:
        EncoderError: no encoder has that name.
    """
    if name not in ENCODERS:
        raise EncoderError(f"no encoder {name!r}: `encoders` in params.yaml knows {', '.join(ENCODERS)}")
    return ENCODERS[name]()


def spec(name: str, params: Params) -> EncoderSpec:
    """The spec of encoder `name`, from `params.yaml`.

    Raises:
        EncoderError: no encoder has that name, or `params.yaml` has no section for it.
        ParamsError: the section has a key that is unknown, missing, out of range, or does not fit the sample rate.
    """
    sections = {key: _section(key, params) for key in (*member(name).NEEDS, name)}
    found = EncoderSpec(name, params.audio, sections)
    try:
        load(found)
    except ValueError as error:
        raise config.ParamsError(f"params.yaml: encoder_parameters.{error}") from None
    return found


def _section(name: str, params: Params) -> Section:
    if name not in params.encoder_parameters:
        raise EncoderError(f"params.yaml: encoder {name} needs a section `encoder_parameters.{name}`")
    return config.validate_section(member(name).PARAMS, params.encoder_parameters[name], f"encoder_parameters.{name}")


def load(spec: EncoderSpec) -> Encoder:
    """Make the encoder of a spec.

    Raises:
        ValueError: its parameters do not fit the sample rate.
    """
    return member(spec.name).make(spec.audio, spec.sections)


def fingerprint(spec: EncoderSpec) -> str:
    """16 hex digits over everything that frames depend on: parameters, code of audio and encoders, libraries."""
    libraries = [metadata.version(name) for name in ("torch", "torchaudio", "numpy", "scipy")]
    digest = hashlib.sha256(repr((sorted_items(spec.to_json()), libraries)).encode())
    own = Path(__file__).parent
    sources = [own / f"{key}.py" for key in spec.sections]     # its own module, and those of the encoders it needs
    for source in [Path(sound_files.__file__), Path(preprocessing.__file__), Path(__file__), *sources]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def sorted_items(value: Any) -> Any:
    """Nested dictionaries as sorted pairs, so that the order of their keys does not matter."""
    return [(k, sorted_items(v)) for k, v in sorted(value.items())] if isinstance(value, dict) else value


def frames_of(
    encoder: Encoder, spec: EncoderSpec, waveform: npt.NDArray[np.float32], sample_rate_hz: int
) -> npt.NDArray[np.float16]:
    """Frames of one recording: raw waveform [time] -> float16 [frames, dim]. Training and prediction both use this."""
    import torch

    prepared = preprocessing.prepare(waveform, sample_rate_hz, spec.audio)
    with torch.inference_mode():
        frames = encoder.encode(torch.from_numpy(prepared)[None])[0]
    return frames.numpy().astype(np.float16)
