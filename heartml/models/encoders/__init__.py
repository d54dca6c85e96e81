"""Encoders: waveform in, frames out, `[batch, time] -> [batch, frames, dim]` at a stated rate. One file a member.

To add one: write `KIND.py` in this folder (the Protocol `EncoderModule` says what it must hold) and add its name to
`ENCODERS`. Its parameters are a class in that file. `encoders` in `params.yaml` names the encoders in use: a kind, with
its parameters in `encoder_parameters.KIND`, or a name of the user's, with the parameters and `kind` in
`encoder_parameters.NAME`. So two checkpoints of one kind stand side by side.

An `EncoderSpec` holds everything that decides an encoder's output. It is saved in `encoder.json` and in a fitted model.
`load(spec(name, params))` makes the encoder from `params.yaml`, `load(EncoderSpec.from_json(...))` from a saved spec.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from heartml.audio import preprocessing, sound_files
from heartml.core import config
from heartml.core.config import AudioParams, Params, Section
from heartml.core.system import family
from heartml.core.system.errors import HeartMLError
from heartml.models.encoders.pretrained_params import PretrainedParams
from heartml.models.encoders.weight_files import WeightsError

if TYPE_CHECKING:
    import torch

    from heartml.models.encoders.pretrained import PretrainedEncoder

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class EncoderError(HeartMLError):
    """There is no such encoder; the message lists those that exist."""


class Encoder(Protocol):
    """Maps prepared waveforms to frames.

    Attributes:
        name: of its kind.
    """

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
    "efficientat",
    "m2d",
    "byol_a",
    "transformers",
    "onnx",
    "heart",
])
PRETRAINED = tuple(kind for kind in ENCODERS if kind not in ("logspec", "random_conv", "amplitude"))


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's name and everything its frames depend on: the audio parameters and its sections of `params.yaml`.

    Attributes:
        sections: kind -> section: its own, and those of the kinds that it needs.
        own_kind: its kind, where that is not its name.
    """

    name: str
    audio: AudioParams
    sections: Mapping[str, Section]
    own_kind: str | None = None

    @property
    def kind(self) -> str:
        """The member of `ENCODERS` that makes it."""
        return self.own_kind or self.name

    @property
    def pretrained(self) -> PretrainedParams | None:
        """Its section, if it has pre-trained weights."""
        own = self.sections[self.kind]
        return own if isinstance(own, PretrainedParams) else None

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        sections = {key: section.model_dump(mode="json") for key, section in self.sections.items()}
        found = {"name": self.name, "audio": self.audio.model_dump(mode="json"), "sections": sections}
        return {**found, "kind": self.own_kind} if self.own_kind else found

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EncoderSpec":
        """The spec that `to_json` gave; other keys are ignored."""
        sections = {key: member(key).PARAMS.model_validate(own) for key, own in values["sections"].items()}
        return cls(values["name"], AudioParams.model_validate(values["audio"]), sections, values.get("kind"))

    def identity(self) -> dict[str, Any]:
        """What the frames depend on, as plain JSON values."""
        if self.pretrained is None:
            return self.to_json()
        return {"kind": self.kind, "audio": self.audio.model_dump(mode="json"), **self.pretrained.identity()}


def member(name: str) -> EncoderModule:
    """The module of encoder `name`.

    Raises:
        EncoderError: no encoder has that name.
    """
    if name not in ENCODERS:
        raise EncoderError(f"no encoder {name!r}: `encoders` in params.yaml knows {', '.join(ENCODERS)}")
    return ENCODERS[name]()


def kind_of(name: str, params: Params) -> str:
    """The kind of the encoder `name`: what `params.yaml` says, or the name itself.

    Raises:
        EncoderError: no encoder has that name.
        ParamsError: a kind's name is given to another kind, or the name cannot be that of a folder.
    """
    kind = str(params.encoder_parameters.get(name, {}).get("kind", name))
    if name in ENCODERS and kind != name:
        raise config.ParamsError(f"params.yaml: encoder_parameters.{name}.kind: {name} is a kind itself; take another "
                                 f"name for an encoder of kind {kind}")
    if not _NAME.fullmatch(name):
        raise config.ParamsError(f"params.yaml: encoder_parameters: {name!r} is no name: a letter, then letters, "
                                 "digits and _")
    if name not in ENCODERS and kind == name:
        raise EncoderError(f"no encoder {name!r}: `encoders` in params.yaml knows {', '.join(ENCODERS)}, and names "
                           "with a `kind` in `encoder_parameters`")
    member(kind)
    return kind


def spec(name: str, params: Params) -> EncoderSpec:
    """The spec of encoder `name`, from `params.yaml`. Pre-trained weights must be there, and be the named ones.

    Raises:
        EncoderError: no encoder has that name, or `params.yaml` has no section for it.
        ParamsError: the section has a key that is unknown, missing, out of range, or does not fit the sample rate.
        WeightsError: the weights are missing, are others, or are those of another network.
    """
    kind = kind_of(name, params)
    sections = {**{key: section(key, params) for key in member(kind).NEEDS}, kind: section(name, params)}
    found = EncoderSpec(name, params.audio, sections, kind if kind != name else None)
    try:
        return _usable(found)
    except ValueError as error:
        place = f"{name}: " if found.pretrained else ""
        raise config.ParamsError(f"params.yaml: encoder_parameters.{place}{error}") from None
    except WeightsError as error:
        raise WeightsError(f"params.yaml: encoder_parameters.{name}: {error}") from None


def spec_of_weights(kind: str, values: Mapping[str, Any], params: Params) -> EncoderSpec:
    """The spec of a pre-trained encoder that `params.yaml` does not declare, under the name of its kind.

    Args:
        values: its section: at least `weights` and `sha256`.

    Raises:
        WeightsError: no such kind is pre-trained, or the weights or a value cannot be used.
    """
    if kind not in PRETRAINED:
        raise WeightsError(f"{kind!r} is no kind of pre-trained encoder: there are {', '.join(PRETRAINED)}")
    own = config.validate_section(member(kind).PARAMS, values, f"encoder of kind {kind}")
    try:
        return _usable(EncoderSpec(kind, params.audio, {kind: own}))
    except ValueError as error:
        raise WeightsError(f"{values['weights']}: {error}") from None


def _usable(found: EncoderSpec) -> EncoderSpec:
    """The spec with everything filled in, once the encoder could be made.

    Raises:
        ValueError, WeightsError: it could not.
    """
    if found.pretrained:
        own = found.pretrained.at_hand()
        audio = found.audio.model_copy(update={"sample_rate_hz": own.rate_hz()})
        found = replace(found, sections={**found.sections, found.kind: own}, audio=audio)
    load(found)
    return found


def section(name: str, params: Params) -> Section:
    """The checked section of encoder `name`; the file of weights that it may name is not looked at.

    Raises:
        EncoderError, ParamsError: see `spec`.
    """
    if name not in params.encoder_parameters:
        raise EncoderError(f"params.yaml: encoder {name} needs a section `encoder_parameters.{name}`")
    values = {key: value for key, value in params.encoder_parameters[name].items() if key != "kind"}
    return config.validate_section(member(kind_of(name, params)).PARAMS, values, f"encoder_parameters.{name}")


def load(spec: EncoderSpec) -> Encoder:
    """Make the encoder of a spec.

    Raises:
        ValueError: its parameters do not fit the sample rate.
        WeightsError: its weights are not here, or cannot be used.
    """
    return member(spec.kind).make(spec.audio, spec.sections)


def load_once(spec: EncoderSpec) -> Encoder:
    """The encoder of a spec; this process keeps the last few, because reading weights takes long."""
    return _load_once(json.dumps(spec.to_json(), sort_keys=True))


@lru_cache(maxsize=8)
def _load_once(text: str) -> Encoder:
    return load(EncoderSpec.from_json(json.loads(text)))


def describe(spec: EncoderSpec, encoder: Encoder) -> dict[str, Any]:
    """The spec as JSON, with the number of frequency bands in a frame where the encoder is pre-trained."""
    return {**spec.to_json(), **({"bands": cast("PretrainedEncoder", encoder).bands} if spec.pretrained else {})}


def fingerprint(spec: EncoderSpec) -> str:
    """16 hex digits over everything that frames depend on: parameters, code of audio and encoders, libraries."""
    versions = [_version(name) for name in ("torch", "torchaudio", "numpy", "scipy", *libraries(spec.kind))]
    digest = hashlib.sha256(repr((sorted_items(spec.identity()), versions)).encode())
    own = Path(__file__).parent
    names = [*spec.sections, *(("pretrained", "mel") if spec.pretrained else ())]
    sources = [own / f"{key}.py" for key in names]     # its own module, and those of what it needs
    sources += [own.parent / f"{key}.py" for key in (spec.pretrained.SHARED if spec.pretrained else ())]
    for source in [Path(sound_files.__file__), Path(preprocessing.__file__), Path(__file__), *sources]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def libraries(kind: str) -> tuple[str, ...]:
    """The libraries that a kind needs besides those of every encoder."""
    own = member(kind).PARAMS
    return own.LIBRARIES if issubclass(own, PretrainedParams) else ()


def _version(name: str) -> str | None:
    """`None` for an optional library that is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def sorted_items(value: Any) -> Any:
    """Nested dictionaries as sorted pairs, so that the order of their keys does not matter."""
    return [(k, sorted_items(v)) for k, v in sorted(value.items())] if isinstance(value, dict) else value


def prepared(spec: EncoderSpec, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> npt.NDArray[np.float32]:
    """What the encoder of `spec` takes: raw waveform [time] -> [time'] at its own rate and level."""
    ready = preprocessing.prepare(waveform, sample_rate_hz, spec.audio)
    return ready * np.float32(spec.pretrained.level) if spec.pretrained else ready


def frames_of(
    encoder: Encoder, spec: EncoderSpec, waveform: npt.NDArray[np.float32], sample_rate_hz: int
) -> npt.NDArray[np.float16]:
    """Frames of one recording: raw waveform [time] -> float16 [frames, dim]. Training and prediction both use this."""
    import torch

    with torch.inference_mode():
        frames = encoder.encode(torch.from_numpy(prepared(spec, waveform, sample_rate_hz))[None])[0]
    return frames.numpy().astype(np.float16)
