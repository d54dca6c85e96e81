"""The published fully connected network for PASCAL, as the baseline that it is: `[frames, dim]` -> log-probabilities.

Source: github.com/akshaldhal/heartbeat-sound (`preprocessor1.py`, `preprocessor2.py`, `train.py`), "~73 %" on a random
split of four classes: every recording is filled up with zeros to the longest one, at the place where it differs least
from that one; every position is standardised; layers of 64, 32 and 16 with ReLU, batch norm and dropout of one half;
Adam at .001, batches of 64, 50 epochs, cross-entropy.

Where this deviates: folds keep a patient's recordings together (88 % of the published test files share their patient
with training); reference and scaling come from the training folds alone, the published ones from all files; artifacts
are kept, a fifth class; feature_set come through `heartml.audio.sound_files`, at one rate, level and pass band, the
published ones at
their own; the place is found from amplitude and kHz, there from amplitude and Hz, that is from frequency; the rate
stays, where the published schedule looks at the loss of the test part; recordings longer than the longest are cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
from heartml.models.heads.network_params import NetworkParams
from heartml.models.heads.network_training import Recipe, ask, parts, train

NAME = "fcnn"
TAKES: Literal["vectors", "frames"] = "frames"
PARAMS = NetworkParams

_HIDDEN = (64, 32, 16)


class FcnnNetwork(nn.Module):
    """`[batch, dim, frames] -> [batch, classes]`, logits; and nothing about frames."""

    def __init__(self, inputs: int, classes: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for width, hidden in zip((inputs, *_HIDDEN), _HIDDEN, strict=False):
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(_HIDDEN[-1], classes))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.layers(x), None


@dataclass(frozen=True)
class Placing:
    """How a recording of any length becomes one picture.

    Attributes:
        reference: the longest recording of the training folds, `[size, dim]`. mean, deviation: of each position.
    """

    reference: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, frames: Sequence[NDArray[np.float32]], most: int) -> Self:
        """Fitted to recordings `[frames, dim]`; pictures are as long as the longest, `most` frames at most."""
        reference = np.array(max(frames, key=len)[:most])
        placed = np.stack([place(one, reference) for one in frames])
        deviation = placed.std(0)
        return cls(reference, placed.mean(0), np.where(deviation > 0, deviation, np.float32(1)))

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray((place(frames, self.reference) - self.mean) / self.deviation, np.float32)


def place(frames: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[frames, dim] -> [size, dim]`: among zeros, where the squared difference to the reference is least."""
    from scipy.signal import correlate

    cut = frames[: len(reference)].astype(np.float64)
    alike = sum(correlate(r, c, "valid", "fft") for r, c in zip(reference.T.astype(np.float64), cut.T, strict=True))
    energy = np.concatenate([[0.0], np.cumsum((reference.astype(np.float64) ** 2).sum(1))])
    start = int(np.argmin(energy[len(cut) :] - energy[: len(energy) - len(cut)] - 2 * alike))
    return np.pad(cut.astype(np.float32), ((start, len(reference) - len(cut) - start), (0, 0)))


@dataclass(frozen=True)
class _Pictures:
    """All recordings, placed: `[cases, size, dim]`; nothing is drawn at random."""

    placed: NDArray[np.float32]

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.float32], None]:
        return self.placed[rows], None


@dataclass(frozen=True)
class FittedFcnn:
    """A trained network, how recordings are placed, and the numbers that rebuild it."""

    network: FcnnNetwork
    placing: Placing
    shape: dict[str, HyperparameterValue]

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """List of `[frames, dim]` -> `[cases, classes]`."""
        return HeadPrediction(np.stack([self._whole(one) for one in cast(Sequence[NDArray[np.float32]], inputs)]))

    def _whole(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        pieces = parts(frames, cast(int | None, self.shape.get("inference_frames")))
        return ask(self.network, [self.placing(piece) for piece in pieces])[0]

    def state(self) -> HeadState:
        """Weights, reference, scaling and shape."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        placing = {"reference": self.placing.reference, "mean": self.placing.mean, "deviation": self.placing.deviation}
        return HeadState({**arrays, **placing}, dict(self.shape))


def space(trial: Suggester) -> Hyperparameters:
    """Dropout and rate, around the published ones."""
    return {
        "dropout": trial.suggest_float("dropout", 0.3, 0.7),
        "rate": trial.suggest_float("rate", 3e-4, 3e-3, log=True),
    }


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Numbers: `dropout`, and those of a `Recipe`, whose `chunk_s` is the longest that a picture may be."""
    frames, recipe = list(cast(Sequence[NDArray[np.float32]], inputs)), Recipe.of(hyperparameters)
    placing = Placing.of(frames, round(recipe.chunk_s * targets.frame_rate_hz))
    pictures = _Pictures(np.stack([placing(one) for one in frames]))
    shape: dict[str, HyperparameterValue] = {"inputs": placing.reference.size, "classes": targets.classes,
                               "dropout": hyperparameters["dropout"]}
    if (size := recipe.inference_frames(targets.frame_rate_hz)) is not None:
        shape["inference_frames"] = size
    return FittedFcnn(train(lambda: _build(shape), pictures, targets, recipe, seed), placing, shape)


def load(state: HeadState) -> FittedHead:
    """The network and the placing behind a state."""
    shape = cast(dict[str, HyperparameterValue], dict(state.scalars))
    arrays = {name: np.array(array) for name, array in state.arrays.items()}
    placing = Placing(arrays.pop("reference"), arrays.pop("mean"), arrays.pop("deviation"))
    network = _build(shape)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return FittedFcnn(network.eval(), placing, shape)


def _build(shape: dict[str, HyperparameterValue]) -> FcnnNetwork:
    return FcnnNetwork(int(shape["inputs"]), int(shape["classes"]), float(shape["dropout"]))
