"""The published fully connected network for PASCAL, as a baseline: a list of `[frames, dim]` -> log-probabilities.

Source: github.com/akshaldhal/heartbeat-sound (`preprocessor1.py`, `preprocessor2.py`, `train.py`), "~73 %" on a random
split of four classes. Every recording is padded with zeros to the length of the longest one, and placed where it
differs least from that one. Every position is standardised. Layers of 64, 32 and 16 have ReLU, batch norm and a dropout
of one half. Training: Adam at .001, batches of 64, 50 epochs, cross-entropy.

This implementation differs in these points:

- Folds keep a patient's recordings together. 88 % of the published test files share their patient with training.
- Reference and scaling come from the training folds alone, there from all files.
- Artifacts are a fifth class.
- Sounds are read by `heartml.audio.sound_files` at one rate, level and pass band, there each at its own.
- The place is found from amplitude and kHz, there from amplitude and Hz, which means from frequency alone.
- The learning rate is constant. The published schedule uses the loss of the test part.
- Recordings longer than the longest one of the training folds are cut.
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
from heartml.models.heads.network_params import SteppedParams
from heartml.models.heads.network_training import Recipe, predict_chunks, split_chunks, train

NAME = "fcnn"
TAKES: Literal["vectors", "frames"] = "frames"
PARAMS = SteppedParams

_HIDDEN = (64, 32, 16)


class FcnnNetwork(nn.Module):
    """`[batch, dim, frames] -> [batch, classes]`, logits; frames are not classified."""

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
    """Turns a recording of any length into an input of one size.

    Attributes:
        reference: the longest recording of the training folds `[size, dim]`.
        mean, deviation: of each position over the training recordings `[size, dim]`.
    """

    reference: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def fit(cls, frames: Sequence[NDArray[np.float32]], most: int) -> Self:
        """Fit to recordings `[frames, dim]`; inputs get the length of the longest, but at most `most` frames."""
        reference = np.array(max(frames, key=len)[:most])
        placed = np.stack([place(one, reference) for one in frames])
        deviation = placed.std(0)
        return cls(reference, placed.mean(0), np.where(deviation > 0, deviation, np.float32(1)))

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Place and standardise `[frames, dim] -> [size, dim]`."""
        return np.asarray((place(frames, self.reference) - self.mean) / self.deviation, np.float32)


def place(frames: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pad with zeros: `[frames, dim] -> [size, dim]`, at the place with the least squared difference to `reference`."""
    from scipy.signal import correlate

    cut = frames[: len(reference)].astype(np.float64)
    products = sum(correlate(r, c, "valid", "fft") for r, c in zip(reference.T.astype(np.float64), cut.T, strict=True))
    energy = np.concatenate([[0.0], np.cumsum((reference.astype(np.float64) ** 2).sum(1))])
    start = int(np.argmin(energy[len(cut) :] - energy[: len(energy) - len(cut)] - 2 * products))
    return np.pad(cut.astype(np.float32), ((start, len(reference) - len(cut) - start), (0, 0)))


@dataclass(frozen=True)
class _Placed:
    """All training recordings, placed `[cases, size, dim]`; nothing is drawn at random."""

    placed: NDArray[np.float32]

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.float32], None]:
        return self.placed[rows], None


@dataclass(frozen=True)
class FittedFcnn:
    """A trained network, how recordings are placed, and the values that are needed to build it again."""

    network: FcnnNetwork
    placing: Placing
    shape: dict[str, HyperparameterValue]

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """List of `[frames, dim]` -> log-probabilities `[cases, classes]`."""
        recordings = cast(Sequence[NDArray[np.float32]], inputs)
        return HeadPrediction(np.stack([self._predict_recording(one) for one in recordings]))

    def _predict_recording(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        chunks = split_chunks(frames, cast(int | None, self.shape.get("inference_frames")))
        return predict_chunks(self.network, [self.placing(chunk) for chunk in chunks])[0]

    def state(self) -> HeadState:
        """Weights, reference, scaling and shape."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        placing = {"reference": self.placing.reference, "mean": self.placing.mean, "deviation": self.placing.deviation}
        return HeadState({**arrays, **placing}, dict(self.shape))


def space(trial: Suggester) -> Hyperparameters:
    """Dropout and learning rate, around the published ones."""
    return {
        "dropout": trial.suggest_float("dropout", 0.3, 0.7),
        "rate": trial.suggest_float("rate", 3e-4, 3e-3, log=True),
    }


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Hyperparameters: `dropout`, and those of a `Recipe`, whose `chunk_s` is the greatest length of an input."""
    frames, recipe = list(cast(Sequence[NDArray[np.float32]], inputs)), Recipe.of(hyperparameters)
    placing = Placing.fit(frames, round(recipe.chunk_s * targets.frame_rate_hz))
    placed = _Placed(np.stack([placing(one) for one in frames]))
    shape: dict[str, HyperparameterValue] = {
        "inputs": placing.reference.size, "classes": targets.classes, "dropout": hyperparameters["dropout"]}
    if (size := recipe.inference_frames(targets.frame_rate_hz)) is not None:
        shape["inference_frames"] = size
    network = train(lambda: _build(shape), placed, targets, recipe, seed,
                    fitted=lambda network: FittedFcnn(network, placing, shape))
    return FittedFcnn(network, placing, shape)


def load(state: HeadState) -> FittedHead:
    """The network and the placing that `state` describes."""
    shape = cast(dict[str, HyperparameterValue], dict(state.scalars))
    arrays = {name: np.array(array) for name, array in state.arrays.items()}
    placing = Placing(arrays.pop("reference"), arrays.pop("mean"), arrays.pop("deviation"))
    network = _build(shape)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return FittedFcnn(network.eval(), placing, shape)


def _build(shape: dict[str, HyperparameterValue]) -> FcnnNetwork:
    return FcnnNetwork(int(shape["inputs"]), int(shape["classes"]), float(shape["dropout"]))
