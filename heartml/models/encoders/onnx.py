"""Any ONNX file from samples or log-mel bands to an embedding: `[batch, time] -> [batch, frames, bands x channels]`.

The file takes windows of one length, `[1, samples]`, or log-mel bands `[1, mels, frames]` (an axis of channels is added
where it has one, `[1, 1, mels, frames]`). The last window is padded with zeros, and those of its frames are kept that
the sound reaches. What it gives may be one vector `[1, d]`, frames `[1, frames, d]`, or maps `[1, d, bands, frames]`,
whose bands are stacked. It runs on the CPU. The file is all that is read: data beside it, which no hash would pin, are
refused. A registered model never holds it, because it is neither text nor safetensors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from heartml.core.config import AudioParams, Count, Positive, Section
from heartml.models.encoders import weight_files
from heartml.models.encoders.mel import mel
from heartml.models.encoders.pretrained import PretrainedEncoder, at_least, library, pinned, stacked
from heartml.models.encoders.pretrained_params import Layer, PretrainedParams
from heartml.models.encoders.weight_files import WeightsError


class MelParams(Section):
    """The log-mel bands that a file takes: `(log(energy + floor) - mean) / deviation`."""

    bands: Count
    size: Annotated[int, Field(ge=2)]
    hop: Count
    low_hz: Annotated[float, Field(ge=0)]
    high_hz: Positive
    slaney: bool = False
    floor: Positive = 1e-6
    mean: float = 0.0
    deviation: Positive = 1.0


class OnnxParams(PretrainedParams):
    """The section of an encoder of kind `onnx`.

    Attributes:
        sample_rate_hz: that the file was made for; `None`: what was said when it was added.
        window_s: seconds in a window; `None`: likewise.
        log_mel: the bands that it takes; `None`: samples.
        output: name of the output; `None`: the first.
    """

    KIND: ClassVar[str] = "onnx"
    LIBRARIES: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    sample_rate_hz: Count | None = None
    window_s: Positive | None = None
    log_mel: MelParams | None = None
    output: str | None = None

    def rate_hz(self) -> int:
        """As the section says."""
        assert self.sample_rate_hz is not None
        return self.sample_rate_hz

    def shape(self) -> dict[str, Any]:
        """What the file takes and gives."""
        return self.model_dump(mode="json", include={"sample_rate_hz", "window_s", "log_mel", "output"})

    def resolved(self, stated: Mapping[str, Any]) -> Self:
        """See `PretrainedParams.resolved`; a model never holds the file."""
        found = super().resolved(stated)
        lacking = [key for key in ("sample_rate_hz", "window_s") if getattr(found, key) is None]
        if lacking:
            raise ValueError(f"{', '.join(lacking)}: an ONNX file does not say it, write it here")
        return found.model_copy(update={"hold": False})


PARAMS = OnnxParams
NEEDS: tuple[str, ...] = ()


class Onnx(PretrainedEncoder):
    """The encoder, see the module; the only layer is `last`.

    Raises:
        WeightsError: the file is no ONNX file, or does not take or give such arrays.
    """

    name = "onnx"

    def __init__(self, file: Path, params: OnnxParams) -> None:
        self.file, self.params = file, params
        if params.layers != ("last",):
            raise WeightsError(f"{file}: layers: there is `last` alone")
        self.session = _session(file)
        assert params.window_s is not None
        self.sample_rate_hz = params.rate_hz()
        self.samples = round(params.window_s * self.sample_rate_hz)
        own = params.log_mel
        self.mel = own and mel(self.sample_rate_hz, own.size, own.hop, own.bands, (own.low_hz, own.high_hz), own.slaney)
        if self.samples < max(1, self.mel.least_samples if self.mel else 1):
            raise WeightsError(f"{file}: window_s: {params.window_s:g} s are too few samples")
        self.taken = self.session.get_inputs()[0]
        outputs = [one.name for one in self.session.get_outputs()]
        if params.output not in (None, *outputs):
            raise WeightsError(f"{file}: output: {params.output!r} is none of {', '.join(outputs)}")
        self.output = params.output or outputs[0]
        maps = self._maps(torch.zeros(self.samples))
        self.frames, self.bands = maps.shape[3], maps.shape[2]
        self.frame_rate_hz = self.frames / params.window_s
        self.dim = maps.shape[1] * self.bands

    @classmethod
    def from_pretrained(cls, path: Path, sha256: str | None = None, layers: Sequence[Layer] = ("last",),
                        **section: Any) -> "Onnx":
        """The encoder of an ONNX file.

        Args:
            section: the other keys of `OnnxParams`, at least `sample_rate_hz` and `window_s`.

        Raises:
            WeightsError: the file is missing, has another hash, or cannot be used.
        """
        return cls(path, pinned(OnnxParams, path, sha256, layers, **section))

    def to(self, device: str) -> "Onnx":
        """The same encoder: it runs on the CPU, whatever the device."""
        return self

    def frames_in(self, samples: int) -> int:
        """The frames of whole windows, and of the last one those that the sound reaches; at least one."""
        whole, rest = divmod(max(samples, 1), self.samples)
        return whole * self.frames + -(-rest * self.frames // self.samples)

    def forward(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, frames, bands x channels]`."""
        rows = at_least(batch, 1).cpu()
        return torch.stack([torch.cat([self._window(part) for part in row.split(self.samples)])
                            for row in rows]).to(batch.device)

    def _window(self, wave: Tensor) -> Tensor:
        return stacked(self._maps(at_least(wave[None], self.samples)[0]))[0, : self.frames_in(len(wave))]

    def _maps(self, wave: Tensor) -> Tensor:
        """One window `[samples] -> [1, channels, bands, frames]`."""
        taken = wave[None]
        if self.mel and self.params.log_mel:
            own = self.params.log_mel
            taken = ((self.mel.power(taken) + own.floor).log() - own.mean) / own.deviation
        extra = len(self.taken.shape) - taken.ndim
        try:
            found = self.session.run([self.output], {self.taken.name: taken.numpy()[(slice(None), *[None] * extra)]})[0]
        except Exception as error:  # noqa: BLE001 - the runtime's errors are of its own, and differ by version
            raise WeightsError(f"{self.file}: does not take {list(taken.shape)}, window_s or log_mel does not fit it: "
                               f"{' '.join(str(error).split())[:200]}") from None
        return _as_maps(torch.from_numpy(np.asarray(found, np.float32)), self.file)


def _as_maps(found: Tensor, file: Path) -> Tensor:
    """`[1, d]`, `[1, frames, d]` or `[1, d, bands, frames]` as `[1, d, bands, frames]`."""
    if found.ndim == 2:
        return found[:, :, None, None]
    if found.ndim == 3:
        return found.transpose(1, 2)[:, :, None]
    if found.ndim == 4:
        return found
    raise WeightsError(f"{file}: gives an array of {found.ndim} axes, {list(found.shape)}; 2 to 4 can be used")


def _session(file: Path) -> Any:
    """The file in onnxruntime, on one thread. It is loaded from its bytes, so that nothing beside it is read."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the runtime's errors are of its own, and differ by version
        raise WeightsError(f"{file}: no ONNX file that is complete in itself: {' '.join(str(error).split())[:200]}"
                           ) from None


def make(audio: AudioParams, sections: Mapping[str, Any]) -> Onnx:
    """The encoder, see `EncoderModule.make`."""
    params: OnnxParams = sections["onnx"]
    return Onnx(weight_files.place_of(params.path, params.sha256), params)
