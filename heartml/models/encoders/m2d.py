"""M2D, a vision transformer on patches of a log-mel spectrogram: `[batch, time] -> [batch, frames, bands x channels]`.

Niizumi et al., Masked Modeling Duo, 2023 (arXiv 2210.14648); on heart sounds arXiv 2404.17107. Every checkpoint in the
publisher's format can be read: plain, or with the prefix `backbone.` or `module.ar.runtime.backbone.`, at 16 kHz and at
32 kHz, with or without a fine-tuned head, which is left out. The name of its folder says the shape:
`m2d_vit_base-80x608p16x16p16k-...` is an input of 80 mel bands by 608 frames, patches of 16 by 16, and 16 kHz.
Those at 4 kHz are our own (`heartml pretrain --method masked`): the bands lie where hearts are heard, and
`vit_w128h4` is a width of 128 with 4 heads of attention.

A longer recording is padded to whole patches and encoded in chunks of the input's length. A shorter last one has the
first columns of the table of positions. Bands of patches are stacked, so frequency is kept. Layer `last` is the output
of the final norm, `0`, `1`, ... are the outputs of the blocks. Layer `input` is the spectrogram, scaled.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from heartml.core.config import AudioParams, Count
from heartml.models.encoders.mel import mel
from heartml.models.encoders.pretrained import PretrainedEncoder, at_least, build, pinned
from heartml.models.encoders.pretrained_params import Layer, PretrainedParams

_SHAPE = re.compile(r"-(\d+)x(\d+)p(\d+)x(\d+)(?:p(\d+)k)?")
_HEADS = re.compile(r"vit_(?:(tiny|small|base|large|huge)|w\d+h(\d+))")
_HEADS_OF = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}
_PREFIXES = ("module.ar.runtime.backbone.", "backbone.")
_FRONT_ENDS = {                  # rate -> samples in a transform and in a window, lowest and highest frequency
    4000: (400, 200, (25.0, 800.0)),         # hearts; 50 ms as of `logspec`, padded, so that no band is empty
    16000: (400, 400, (50.0, 8000.0)),
    32000: (800, 800, (50.0, 16000.0)),
}
_HEAD_WIDTH = 64                 # of attention in vision transformers; narrower networks have three heads
_LEAST_HEADS = 3
_USUAL_KHZ = 16                  # of names that do not say it
NORM_STATS = "norm_stats"        # float [2]: mean and deviation of the logarithms that the network was trained on
_USUAL_STATS = (-7.1, 4.2)       # of checkpoints that do not say their own
FRAMES_A_SECOND = 100            # of the spectrogram
_AT_ONCE = 32                    # chunks


class M2dParams(PretrainedParams):
    """The section of an encoder of kind `m2d`.

    Attributes:
        input_size: mel bands and frames of the input; `patch_size` likewise. `None`: as the folder's name says.
        sample_rate_hz: 4000, 16000 or 32000; `None`: as the folder's name says.
        heads: of attention; `None`: as the folder's name says (`vit_base`), or else as usual for the width.
    """

    KIND: ClassVar[str] = "m2d"
    LICENCE: ClassVar[str] = "NTT: evaluation only"
    CITATION: ClassVar[str] = "Niizumi et al., Masked Modeling Duo, 2023, arXiv 2210.14648"
    LIBRARIES: ClassVar[tuple[str, ...]] = ("timm",)
    TUNABLE: ClassVar[bool] = True

    input_size: tuple[Count, Count] | None = None
    patch_size: tuple[Count, Count] | None = None
    sample_rate_hz: Count | None = None
    heads: Count | None = None

    def rate_hz(self) -> int:
        """The rate that the folder's name or the section says."""
        assert self.sample_rate_hz is not None
        return self.sample_rate_hz

    def shape(self) -> dict[str, Any]:
        """Input, patch, sample rate and heads."""
        return self.model_dump(mode="json", include={"input_size", "patch_size", "sample_rate_hz", "heads"})

    def resolved(self, stated: Mapping[str, Any]) -> Self:
        """See `PretrainedParams.resolved`; the shape is that of the section, or else of the folder's name."""
        named = shape_of(self.weights) or {}
        found = super().resolved({**stated, "shape": {**named, **stated.get("shape", {})}})
        lacking = [key for key in ("input_size", "patch_size", "sample_rate_hz") if getattr(found, key) is None]
        if lacking:
            raise ValueError(f"{', '.join(lacking)}: write it here, the folder's name does not say it, as "
                             "m2d_vit_base-80x608p16x16p16k does")
        if found.sample_rate_hz not in _FRONT_ENDS:
            raise ValueError(f"sample_rate_hz: {found.sample_rate_hz} is none of {', '.join(map(str, _FRONT_ENDS))}")
        return found


PARAMS = M2dParams
NEEDS: tuple[str, ...] = ()


def shape_of(path: str) -> dict[str, Any] | None:
    """Input, patch and sample rate that a path of the publisher's names; `None` where it names none.

    >>> shape_of("m2d_vit_base-80x608p16x16p32k-221006/checkpoint-300.pth")
    {'input_size': (80, 608), 'patch_size': (16, 16), 'sample_rate_hz': 32000, 'heads': 12}
    """
    found, size = _SHAPE.findall(path), _HEADS.findall(path)
    if not found:
        return None
    mels, frames, high, wide, khz = (int(number or _USUAL_KHZ) for number in found[-1])
    shape: dict[str, Any] = {"input_size": (mels, frames), "patch_size": (high, wide), "sample_rate_hz": khz * 1000}
    return {**shape, "heads": _HEADS_OF[size[-1][0]] if size[-1][0] else int(size[-1][1])} if size else shape


def name_of(shape: Mapping[str, Any], width: int) -> str:
    """The name of a folder from which `shape_of` reads the shape.

    >>> name_of({"input_size": (48, 608), "patch_size": (16, 8), "sample_rate_hz": 4000, "heads": 4}, 128)
    'm2d_vit_w128h4-48x608p16x8p4k'
    """
    sizes = "p".join(f"{high}x{wide}" for high, wide in (shape["input_size"], shape["patch_size"]))
    return f"m2d_vit_w{width}h{shape['heads']}-{sizes}p{shape['sample_rate_hz'] // 1000}k"


class LogMel:
    """Logarithms of mel energies, before they are scaled: `[batch, time] -> [batch, mels, 1 + time // hop]`.

    The hop is a hundredth of a second at every rate.
    """

    def __init__(self, sample_rate_hz: int, mels: int) -> None:
        size, width, band_hz = _FRONT_ENDS[sample_rate_hz]
        self.mel = mel(sample_rate_hz, size, sample_rate_hz // FRAMES_A_SECOND, mels, band_hz, slaney=True, width=width)

    def __call__(self, batch: Tensor) -> Tensor:
        return (self.mel.power(at_least(batch, self.mel.least_samples)) + torch.finfo(torch.float32).eps).log()

    def describe(self) -> dict[str, Any]:
        """The front end in the publisher's words, for tools that do not know this rate."""
        rate = self.mel.hop * FRAMES_A_SECOND
        low, high = _FRONT_ENDS[rate][2]
        return {"sample_rate": rate, "n_fft": self.mel.size, "window_size": len(self.mel.window),
                "hop_size": self.mel.hop, "n_mels": len(self.mel.bank), "f_min": low, "f_max": high}


class Transformer(nn.Module):
    """Patches, positions, blocks and the final norm.

    Args:
        patch: height and width of a patch.
        positions: patches of the whole input.
        ratio: hidden values of a block's perceptron for each channel.

    Raises:
        ValueError: the width cannot be divided among the heads.
    """

    def __init__(self, width: int, depth: int, heads: int, patch: tuple[int, int], positions: int, ratio: float
                 ) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        if width % heads:
            raise ValueError(f"heads: {width} channels cannot be divided among {heads}; state it")
        self.heads = heads
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + positions, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, patch, patch)})
        norm: Any = functools.partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(Block(width, heads, ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.norm = norm(width)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], heads: int | None) -> Self:
        """The network of a checkpoint's tensors, with these as weights.

        Raises:
            KeyError, ValueError, RuntimeError: they are those of another network, or of another shape.
        """
        width = tensors["cls_token"].shape[-1]
        depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
        if heads is None or width % heads:
            heads = max(_LEAST_HEADS, width // _HEAD_WIDTH)
        high, wide = tensors["patch_embed.proj.weight"].shape[-2:]
        made = cls(width, depth, heads, (high, wide), tensors["pos_embed"].shape[1] - 1,
                   tensors["blocks.0.mlp.fc1.weight"].shape[0] / width)
        made.load_state_dict(dict(tensors))
        return made

    def tokens(self, image: Tensor, columns: int) -> Tensor:
        """Patches with their positions: `[batch, 1, mels, frames] -> [batch, bands x frames, width]`.

        Args:
            columns: of the table of positions, which is that of the whole input.
        """
        maps = self.patch_embed["proj"](image)
        bands, frames = maps.shape[2:]
        table = self.pos_embed[:, 1:].reshape(1, bands, columns, -1)[:, :, :frames]
        return cast(Tensor, maps.flatten(2).transpose(1, 2) + table.flatten(1, 2))

    def encode(self, tokens: Tensor) -> list[Tensor]:
        """Outputs of the blocks, then of the norm: `[batch, n, width]` each, without the token of the class."""
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1), tokens], dim=1)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x[:, 1:])
        return [*found, self.norm(x)[:, 1:]]

    def forward(self, image: Tensor, columns: int) -> list[Tensor]:
        """`encode` of the `tokens` of an image."""
        return self.encode(self.tokens(image, columns))


class M2d(PretrainedEncoder):
    """The encoder, see the module.

    Args:
        tensors: of the publisher's checkpoint.
        params: resolved.

    Raises:
        KeyError, ValueError, RuntimeError: the tensors are those of another network or of another shape.
    """

    name = "m2d"

    def __init__(self, tensors: Mapping[str, Tensor], params: M2dParams) -> None:
        assert params.input_size is not None and params.patch_size is not None
        own = plain_names(tensors)
        (mels, self.chunk), (high, self.wide) = params.input_size, params.patch_size
        self.rows, self.columns = mels // high, self.chunk // self.wide
        _check_shape(own, params, self.rows * self.columns)
        stats = own[NORM_STATS].tolist() if NORM_STATS in own else _USUAL_STATS
        self.mean, self.deviation = float(stats[0]), float(stats[1])
        with torch.random.fork_rng(devices=[]):
            self.network = Transformer.of({name: tensor for name, tensor in own.items() if name != NORM_STATS},
                                          params.heads).eval()
        depth = len(self.network.blocks)
        self.layers = [layer if isinstance(layer, int) else depth for layer in params.layers]
        if max(self.layers) > depth:
            raise ValueError(f"layers: there are 0 to {depth - 1} and last")
        self.sample_rate_hz = params.rate_hz()
        self.log_mel = LogMel(self.sample_rate_hz, mels)
        self.mel = self.log_mel.mel
        self.takes_input = params.takes_input
        self.bands = mels if self.takes_input else self.rows
        self.frame_rate_hz = self.sample_rate_hz / self.mel.hop / (1 if self.takes_input else self.wide)
        self.dim = mels if self.takes_input else self.rows * len(self.layers) * own["cls_token"].shape[-1]

    @classmethod
    def from_pretrained(cls, path: Path, sha256: str | None = None, layers: Sequence[Layer] = ("last",)) -> "M2d":
        """The encoder of a publisher's checkpoint, in a folder whose name says the shape.

        Raises:
            WeightsError: the file is missing, has another hash, or is no checkpoint of this kind.
            ValueError: the folder's name does not say the shape.
        """
        section = pinned(M2dParams, path, sha256, layers).resolved({})
        return build(section, lambda tensors: cls(tensors, section))

    def to(self, device: str) -> "M2d":
        """The same encoder on another device."""
        self.network.to(device)
        self.mel.to(device)
        return self

    def frames_in(self, samples: int) -> int:
        """The patches that a spectrogram fills, chunk by chunk; at least one. Of layer `input`, its frames."""
        frames = 1 + max(samples, self.mel.least_samples) // self.mel.hop
        if self.takes_input:
            return frames
        whole, rest = self._chunks(frames)
        return whole * self.columns + rest // self.wide

    def _chunks(self, frames: int) -> tuple[int, int]:
        """How many chunks a spectrogram fills, and the frames of the last one where that is shorter.

        The spectrogram is padded to whole patches first. A chunk may have a few frames more than its patches have, as
        1001 frames in patches of 16; they are left out.
        """
        chunks, padded = -(-frames // self.chunk), -(-frames // self.wide) * self.wide
        whole = min(padded // self.chunk, chunks)
        return whole, padded - whole * self.chunk if whole < chunks else 0

    def forward(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, frames, bands x channels]`."""
        picture = self.spectrogram(batch)
        return picture.transpose(1, 2) if self.takes_input else self.of_picture(picture)

    def of_picture(self, picture: Tensor) -> Tensor:
        """A scaled spectrogram `[batch, mels, frames] -> [batch, patches in time, rows of patches x channels]`."""
        whole, rest = self._chunks(picture.shape[2])
        picture = functional.pad(picture, (0, max(0, whole * self.chunk + rest - picture.shape[2])))
        parts = []
        if whole:
            chunks = torch.stack(picture[:, :, : whole * self.chunk].chunk(whole, dim=2), dim=1).flatten(0, 1)
            parts.append(self._frames(chunks).reshape(len(picture), whole * self.columns, -1))
        if rest >= self.wide:
            parts.append(self._frames(picture[:, :, whole * self.chunk : whole * self.chunk + rest]))
        return torch.cat(parts, dim=1)

    def spectrogram(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, mels, frames]`: log mel energies, scaled as in training."""
        return (self.log_mel(batch) - self.mean) / self.deviation

    def _frames(self, image: Tensor) -> Tensor:
        """Chunks `[chunks, mels, frames] -> [chunks, patches in time, bands x channels]`."""
        found = [self.network(image[first : first + _AT_ONCE, None], self.columns)
                 for first in range(0, len(image), _AT_ONCE)]
        tokens = torch.cat([torch.cat([of[number] for number in self.layers], dim=2) for of in found])
        return tokens.reshape(len(tokens), self.rows, -1, tokens.shape[2]).transpose(1, 2).flatten(2)


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network alone, under timm's names; those of a fine-tuned head are left out."""
    prefix = next((prefix for prefix in _PREFIXES if f"{prefix}cls_token" in tensors), "")
    own = {name.removeprefix(prefix): tensor.float() for name, tensor in tensors.items() if name.startswith(prefix)}
    if NORM_STATS in tensors:
        own[NORM_STATS] = tensors[NORM_STATS]
    wanted = ("cls_token", "pos_embed", NORM_STATS, "patch_embed.proj.", "blocks.", "norm.")
    return {name: tensor for name, tensor in own.items() if name.startswith(wanted)}


def _check_shape(tensors: Mapping[str, Tensor], params: M2dParams, tokens: int) -> None:
    """Check that patch and table of positions are those of the stated shape.

    Raises:
        ValueError: they are not.
    """
    patch, positions = tuple(tensors["patch_embed.proj.weight"].shape[-2:]), tensors["pos_embed"].shape[1] - 1
    if patch != params.patch_size or positions != tokens:
        raise ValueError(f"patches of {patch[0]}x{patch[1]} and {positions} positions, but {params.input_size} in "
                         f"patches of {params.patch_size} is stated")


def make(audio: AudioParams, sections: Mapping[str, Any]) -> M2d:
    """The encoder, see `EncoderModule.make`."""
    params: M2dParams = sections["m2d"]
    return build(params, lambda tensors: M2d(tensors, params))
