"""Encoders: waveform in, frames out, `[batch, time] -> [batch, frames, dim]` at a stated rate. One file a member.

A `Spec` holds everything that decides an encoder's output, goes into `encoder.json` and into a fitted model, and comes
back: `load(spec(name, params))`, and `load(Spec.from_json(...))` where a model is used far from `params.yaml`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from heartml.audio import preprocessing, sound_files
from heartml.core.config import AmplitudeParams, AudioParams, LogspecParams, Params, RandomConvParams, Section
from heartml.core.system.errors import HeartMLError

if TYPE_CHECKING:
    import torch


class EncoderError(HeartMLError):
    """No such encoder; the message lists those there are."""


class Encoder(Protocol):
    """Maps prepared waveforms to frames."""

    name: str
    sample_rate_hz: int
    frame_rate_hz: float
    dim: int

    def encode(self, batch: "torch.Tensor", lengths: "torch.Tensor | None" = None) -> "torch.Tensor":
        """float32 [batch, time] -> float32 [batch, frames, dim].

        `lengths` int64 [batch] are the true samples of zero-padded rows: their first `frames_in(length)` frames are
        what the row alone would give, the others mean nothing.
        """
        ...

    def frames_in(self, samples: int) -> int:
        """Frames of a waveform of `samples` samples; at least one."""
        ...

    def to(self, device: str) -> "Encoder":
        """The same encoder on another device."""
        ...


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's name and the parameters it depends on: those of the audio and its own sections of `params.yaml`."""

    name: str
    audio: AudioParams
    sections: Mapping[str, Section]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        sections = {key: section.model_dump(mode="json") for key, section in self.sections.items()}
        return {"name": self.name, "audio": self.audio.model_dump(mode="json"), "sections": sections}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EncoderSpec":
        """The spec behind `to_json`; keys that are not the spec's own are ignored."""
        kinds = {key: cast("type[Section]", Params.model_fields[key].annotation) for key in values["sections"]}
        sections = {key: kind.model_validate(values["sections"][key]) for key, kind in kinds.items()}
        return cls(values["name"], AudioParams.model_validate(values["audio"]), sections)


def _logspec(spec: EncoderSpec) -> Encoder:
    from heartml.models.encoders import logspec

    return logspec.Logspec(spec.audio, cast(LogspecParams, spec.sections["logspec"]))


def _random_conv(spec: EncoderSpec) -> Encoder:
    from heartml.models.encoders import random_conv

    own = cast(RandomConvParams, spec.sections["random_conv"])
    return random_conv.RandomConv(spec.audio, cast(LogspecParams, spec.sections["logspec"]), own)


def _amplitude(spec: EncoderSpec) -> Encoder:
    from heartml.models.encoders import amplitude

    return amplitude.Amplitude(spec.audio, cast(AmplitudeParams, spec.sections["amplitude"]))


@dataclass(frozen=True)
class Member:
    """How an encoder is made, and from which sections of `params.yaml`."""

    load: Callable[[EncoderSpec], Encoder]
    sections: tuple[str, ...]


ENCODERS: dict[str, Member] = {
    "logspec": Member(_logspec, ("logspec",)),
    "random_conv": Member(_random_conv, ("logspec", "random_conv")),
    "amplitude": Member(_amplitude, ("amplitude",)),
}


def spec(name: str, params: Params) -> EncoderSpec:
    """Everything that decides the output of encoder `name`.

    Raises:
        EncoderError: no encoder has that name.
    """
    if name not in ENCODERS:
        raise EncoderError(f"no encoder {name!r}: `encoders` in params.yaml knows {', '.join(ENCODERS)}")
    return EncoderSpec(name, params.audio, {key: getattr(params, key) for key in ENCODERS[name].sections})


def load(spec: EncoderSpec) -> Encoder:
    """The encoder behind a spec."""
    return ENCODERS[spec.name].load(spec)


def fingerprint(spec: EncoderSpec) -> str:
    """16 hex digits that change whenever the frames may: parameters, the code of audio and encoders, the libraries."""
    libraries = [metadata.version(name) for name in ("torch", "torchaudio", "numpy", "scipy")]
    digest = hashlib.sha256(repr((sorted_items(spec.to_json()), libraries)).encode())
    own = Path(__file__).parent
    sources = [own / f"{key}.py" for key in ENCODERS[spec.name].sections]
    for source in [Path(sound_files.__file__), Path(preprocessing.__file__), Path(__file__), *sources]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def sorted_items(value: Any) -> Any:
    """Nested dictionaries as sorted pairs, so that their order does not show."""
    return [(k, sorted_items(v)) for k, v in sorted(value.items())] if isinstance(value, dict) else value


def frames_of(
    encoder: Encoder, spec: EncoderSpec, waveform: npt.NDArray[np.float32], sample_rate_hz: int
) -> npt.NDArray[np.float16]:
    """One recording, from raw waveform [time] to float16 [frames, dim]: the same in training and in use."""
    import torch

    prepared = preprocessing.prepare(waveform, sample_rate_hz, spec.audio)
    with torch.inference_mode():
        frames = encoder.encode(torch.from_numpy(prepared)[None])[0]
    return frames.numpy().astype(np.float16)
