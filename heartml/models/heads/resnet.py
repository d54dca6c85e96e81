"""A residual network of timm on the spectrogram as an image: a list of `[frames, dim]` -> log-probabilities.

He et al., Deep residual learning for image recognition, 2016. The image has one channel, bands by time. The last
feature map is pooled by mean, maximum or attention. The backbone starts with random weights or with those of a local
file. Nothing is ever downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor, nn

from heartml.core.system.errors import HeartMLError
from heartml.core.system.hashing import sha256_file
from heartml.models.heads import (
    FittedHead,
    HeadPrediction,
    HeadState,
    Hyperparameters,
    HyperparameterValue,
    Inputs,
    Suggester,
    Targets,
)
from heartml.models.heads.augmentation import Crops
from heartml.models.heads.network_params import SteppedParams
from heartml.models.heads.network_training import Recipe, centred, predict_chunks, repeated, split_chunks, train

NAME = "resnet"
_WHERE = "search.network_parameters.resnet"
TAKES: Literal["vectors", "frames"] = "frames"


class ResnetParams(SteppedParams):
    """A network of timm that gives a feature map, its pooling, and the file of weights that it starts from."""

    backbone: str
    pooling: Literal["avg", "max", "attention"]
    weights: str | None
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None

    @model_validator(mode="after")
    def _weights_have_their_hash(self) -> Self:
        if (self.weights is None) != (self.weights_sha256 is None):
            raise ValueError("weights and weights_sha256 (of that file) belong together")
        return self

    def check(self) -> None:
        """See `NetworkParams.check`."""
        check(self)


PARAMS = ResnetParams


class ResnetError(HeartMLError):
    """`search.network_parameters.resnet` names a backbone or weights that cannot be used; the message says which."""


class ResnetNetwork(nn.Module):
    """`[batch, dim, frames] -> [batch, classes]`, logits; frames are not classified."""

    def __init__(self, shape: dict[str, HyperparameterValue]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(int(shape["dim"]))
        self.backbone = _backbone(str(shape["backbone"]))
        width = int(self.backbone.num_features)
        self.pooling = str(shape["pooling"])
        self.attention = nn.Conv2d(width, 1, 1) if self.pooling == "attention" else None
        self.dropout = nn.Dropout(float(shape["dropout"]))
        self.classify = nn.Linear(width, int(shape["classes"]))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        maps = self.backbone.forward_features(self.norm(x)[:, None])
        return self.classify(self.dropout(self._pooled(maps))), None

    def _pooled(self, maps: Tensor) -> Tensor:
        """`[batch, channels, rows, columns] -> [batch, channels]`."""
        if self.attention is not None:
            weights = torch.softmax(self.attention(maps).flatten(1), dim=1)
            return torch.einsum("bn,bcn->bc", weights, maps.flatten(2))
        return maps.amax((2, 3)) if self.pooling == "max" else maps.mean((2, 3))


@dataclass(frozen=True)
class FittedResnet:
    """A trained network and the values that are needed to build it again."""

    network: ResnetNetwork
    shape: dict[str, HyperparameterValue]

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """List of `[frames, dim]` -> log-probabilities `[cases, classes]`."""
        recordings = cast(Sequence[NDArray[np.float32]], inputs)
        return HeadPrediction(np.stack([self._predict_recording(one) for one in recordings]))

    def _predict_recording(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        chunks = split_chunks(centred(frames), cast(int | None, self.shape.get("inference_frames")))
        return predict_chunks(self.network, [repeated(chunk) for chunk in chunks])[0]

    def state(self) -> HeadState:
        """Weights and shape."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        return HeadState(arrays, dict(self.shape))


def space(trial: Suggester) -> Hyperparameters:
    """Regularisation and learning rate; the backbone is set in `params.yaml`."""
    return {
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "rate": trial.suggest_float("rate", 3e-4, 5e-3, log=True),
        "strength": trial.suggest_float("strength", 0.5, 2.0),
    }


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Hyperparameters: `backbone`, `pooling`, `dropout`, `strength`, perhaps `weights`, and those of a `Recipe`."""
    frames, recipe = cast(Sequence[NDArray[np.float32]], inputs), Recipe.of(hyperparameters)
    shape: dict[str, HyperparameterValue] = {
        "dim": frames[0].shape[1], "classes": targets.classes,
        **{key: hyperparameters[key] for key in ("backbone", "pooling", "dropout")}}
    if (size := recipe.inference_frames(targets.frame_rate_hz)) is not None:
        shape["inference_frames"] = size
    crops = Crops.of((centred(f) for f in frames), targets, float(hyperparameters["strength"]), recipe.chunk_s,
                     recipe.noise())
    network = train(lambda: _build(shape, hyperparameters), crops, targets, recipe, seed,
                    fitted=lambda network: FittedResnet(network, shape))
    return FittedResnet(network, shape)


def load(state: HeadState) -> FittedHead:
    """The network that `state` describes."""
    shape = cast(dict[str, HyperparameterValue], dict(state.scalars))
    network = ResnetNetwork(shape)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.arrays.items()})
    return FittedResnet(network.eval(), shape)


def check(params: ResnetParams) -> None:
    """Check that backbone and weights can be used.

    Raises:
        ResnetError: one of them cannot; the message names it.
    """
    import timm

    if not timm.is_model(params.backbone):
        near = get_close_matches(params.backbone, timm.list_models(), 4, 0.4) or ["resnet10t"]
        raise ResnetError(f"{_WHERE}.backbone: timm has no {params.backbone!r}; it has {', '.join(near)}")
    with torch.random.fork_rng(devices=[]):
        backbone = _backbone(params.backbone)
    if not _gives_maps(backbone):
        raise ResnetError(f"{_WHERE}.backbone: {params.backbone} gives no feature map, channels first, for an "
                          "image of any size; resnet10t does, as do other residual and convolutional networks")
    if params.weights is not None:
        _load_weights(backbone, Path(params.weights), str(params.weights_sha256))


def _backbone(name: str) -> Any:
    """A network of timm for one channel, without pooling and classifier, with random weights."""
    import timm  # takes three seconds, which other heads need not wait for

    return timm.create_model(name, pretrained=False, in_chans=1, num_classes=0, global_pool="")


def _gives_maps(backbone: Any) -> bool:
    """Whether an image of 48 by 255 becomes `[1, channels, rows, columns]`."""
    try:
        with torch.inference_mode():
            maps = backbone.eval().forward_features(torch.zeros(1, 1, 48, 255))
    except (AssertionError, RuntimeError):     # it takes images of one size only
        return False
    return isinstance(maps, Tensor) and maps.ndim == 4 and maps.shape[1] == int(backbone.num_features)


def _build(shape: dict[str, HyperparameterValue], hyperparameters: Hyperparameters) -> ResnetNetwork:
    network = ResnetNetwork(shape)
    if "weights" in hyperparameters:
        _load_weights(network.backbone, Path(str(hyperparameters["weights"])), str(hyperparameters["weights_sha256"]))
    return network


def _load_weights(backbone: Any, file: Path, sha256: str) -> None:
    """Load a safetensors file with timm's names; three input channels become one, and a classifier is left out.

    Raises:
        ResnetError: the file is missing, has another hash, or is of another backbone.
    """
    if not file.is_file():
        raise ResnetError(f"{_WHERE}.weights: {file} does not exist. Weights are not downloaded: put them there.")
    if (found := sha256_file(file)) != sha256:
        raise ResnetError(f"{_WHERE}.weights_sha256: {file} has {found}")
    from timm.models import adapt_input_conv

    config = backbone.pretrained_cfg
    first = f"{config['first_conv']}.weight"
    arrays = {key: value for key, value in load_file(file).items() if not key.startswith(f"{config['classifier']}.")}
    if first in arrays:
        arrays[first] = adapt_input_conv(1, arrays[first])
    try:
        backbone.load_state_dict(arrays)
    except RuntimeError as error:
        raise ResnetError(f"{_WHERE}.weights: {file} does not fit the backbone: {str(error)[:300]}") from None
