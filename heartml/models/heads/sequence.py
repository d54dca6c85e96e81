"""Temporal convolution network: a list of `[frames, dim]` -> log-probabilities, and the heart state of each frame.

Batch norm on bands, a convolution of width 5 with stride 2, six residual dilated blocks (Bai et al., An empirical
evaluation of generic convolutional and recurrent networks, 2018), the mean and two attention heads as pooling. Where
heart states are known, a second output is trained on them frame by frame. It divides systole by the recording's class,
because most murmurs are heard there. Trained on crops with SpecAugment (Park et al., 2019), see
`heartml.models.heads.network_training`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heartml.core.config import Count
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
from heartml.models.heads.segment_features import FIRST_SYSTOLE, UNANNOTATED, soft_segments
from heartml.models.residual_block import ResidualBlock

NAME = "sequence"
TAKES: Literal["vectors", "frames"] = "frames"


class SequenceParams(SteppedParams):
    """`channels`: of every convolution."""

    channels: Count


PARAMS = SequenceParams

_DILATIONS = (1, 2, 4, 8, 2, 16)


class SequenceNetwork(nn.Module):
    """`[batch, dim, frames] -> [batch, classes], [batch, 4 + classes, frames / 2]`: logits of recordings and frames."""

    def __init__(self, dim: int, classes: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)
        self.stem = nn.Conv1d(dim, channels, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(*(ResidualBlock(channels, d, dropout) for d in _DILATIONS))
        self.last = nn.BatchNorm1d(channels)
        self.attention = nn.Conv1d(channels, 2, 1)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(3 * channels, classes)
        self.frame = nn.Conv1d(channels, FIRST_SYSTOLE + classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = functional.relu(self.last(self.blocks(functional.relu(self.stem(self.norm(x))))))
        weights = torch.softmax(self.attention(hidden), dim=-1)
        attended = torch.einsum("bht,bct->bhc", weights, hidden).flatten(1)
        pooled = torch.cat([attended, hidden.mean(-1)], dim=1)
        return self.classify(self.dropout(pooled)), self.frame(hidden)


@dataclass(frozen=True)
class FittedSequence:
    """A trained network and the values that are needed to build it again."""

    network: SequenceNetwork
    shape: dict[str, HyperparameterValue]

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """List of `[frames, dim]` -> log-probabilities `[cases, classes]`.

        `details` are soft segments, where the network was trained on heart states.
        """
        frames = cast(Sequence[NDArray[np.float32]], inputs)
        if not self.shape["states"]:
            return HeadPrediction(np.stack([self.predict_recording(one)[0] for one in frames]))
        found = [self._with_segments(one) for one in frames]
        return HeadPrediction(np.stack([log_p for log_p, _ in found]), np.stack([segments for _, segments in found]))

    def _with_segments(self, frames: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        log_p, posteriors = self.predict_recording(frames)
        return log_p, soft_segments(frames, posteriors)

    def predict_recording(self, frames: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """One recording -> log-probabilities `[classes]` and frame posteriors `[frames / 2, 4 + classes]`."""
        chunks = split_chunks(centred(frames), cast(int | None, self.shape.get("inference_frames")))
        log_p, posteriors = predict_chunks(self.network, [repeated(chunk) for chunk in chunks])
        own = [p[: -(-len(chunk) // 2)] for p, chunk in zip(posteriors, chunks, strict=True)]
        return log_p, np.concatenate(own)

    def frame_posteriors(self, frames: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """See `SegmentsHeartStates`."""
        return self.predict_recording(frames)[1] if self.shape["states"] else None

    def state(self) -> HeadState:
        """Weights and shape."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        return HeadState(arrays, dict(self.shape))


def space(trial: Suggester) -> Hyperparameters:
    """Regularisation and learning rate; the recipe's other hyperparameters are set in `params.yaml`."""
    return {
        "dropout": trial.suggest_float("dropout", 0.1, 0.5),
        "rate": trial.suggest_float("rate", 1e-3, 6e-3, log=True),
        "frame_weight": trial.suggest_float("frame_weight", 0.1, 4.0, log=True),
        "strength": trial.suggest_float("strength", 0.5, 2.0),
    }


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Hyperparameters: `channels`, `dropout`, `frame_weight`, `strength`, and those of a `Recipe`; see `Head.fit`."""
    frames, recipe = cast(Sequence[NDArray[np.float32]], inputs), Recipe.of(hyperparameters)
    shape: dict[str, HyperparameterValue] = {
        "dim": frames[0].shape[1], "classes": targets.classes, "channels": hyperparameters["channels"],
        "dropout": hyperparameters["dropout"], "states": targets.states is not None}
    if (size := recipe.inference_frames(targets.frame_rate_hz)) is not None:
        shape["inference_frames"] = size
    crops = Crops.of((centred(f) for f in frames), targets, float(hyperparameters["strength"]), recipe.chunk_s,
                     recipe.noise())
    weight = float(hyperparameters["frame_weight"])
    network = train(lambda: _build(shape), crops, targets, recipe, seed,
                    lambda logits, states, labels: weight * frame_loss(logits, states, labels),
                    fitted=lambda network: FittedSequence(network, shape))
    return FittedSequence(network, shape)


def load(state: HeadState) -> FittedHead:
    """The network that `state` describes."""
    shape = cast(dict[str, HyperparameterValue], dict(state.scalars))
    network = _build(shape)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.arrays.items()})
    return FittedSequence(network.eval(), shape)


def _build(shape: dict[str, HyperparameterValue]) -> SequenceNetwork:
    return SequenceNetwork(int(shape["dim"]), int(shape["classes"]), int(shape["channels"]), float(shape["dropout"]))


def frame_loss(logits: Tensor, states: NDArray[np.int8], labels: NDArray[np.int64]) -> Tensor:
    """Cross-entropy of `[batch, 4 + classes, frames / 2]` for states `[batch, frames]`, where they are known."""
    known = torch.from_numpy(frame_targets(states, labels)).to(logits.device)
    flat = logits.transpose(1, 2).flatten(0, 1)     # with more dimensions, a GPU adds in no fixed order
    return functional.cross_entropy(flat, known.flatten(), ignore_index=-1)


def frame_targets(states: NDArray[np.int8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of every second frame: states `[batch, frames]`, labels `[batch]` -> `[batch, frames / 2]`.

    The states are 0 to 3 for S1, systole, S2 and diastole, 4 for unannotated and -1 for unknown. The classes are 0 for
    S1, 1 for diastole, 2 for S2, 3 for unannotated, `4 + c` for systole of a recording of class `c`, -1 for unknown.
    """
    codes = np.array([0, FIRST_SYSTOLE, 2, 1, UNANNOTATED, -1])
    found = codes[states[:, ::2]]
    return np.where(found == FIRST_SYSTOLE, FIRST_SYSTOLE + labels[:, None], found).astype(np.int64)
