"""The sequence network of the task that this one lies within (`Task.within`): its hearing, without a decision.

A descriptor of a murmur has 60 to 140 patients, too few for a network. The murmur task has ten times as many. So the
network (`heartml.models.heads.sequence`) learns whether there is a murmur, from the recordings of all patients that the
fold leaves in. `details` are how it hears a recording: its soft segments, and its log-probabilities of the murmur's
classes. A stacker learns the descriptor from these.

`log_p` is the same for every class. The network knows nothing of the descriptor, and shares of its classes in the
folds that it heard would tell the stacker what the fold that it did not hear is made of. So nothing in a fitted network
depends on the descriptor but the number of its classes: one network serves every descriptor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads import (
    FittedHead,
    HeadPrediction,
    HeadState,
    Hyperparameters,
    HyperparameterValue,
    Inputs,
    Suggester,
    Targets,
    sequence,
)
from heartml.models.heads.sequence import FittedSequence, SequenceParams

NAME = "related"
TAKES: Literal["vectors", "frames"] = "frames"
LEARNS_PARENT = True
PARAMS = SequenceParams

_DESCRIBED = "described"      # scalar of a state: the number of classes of the task that is described


@dataclass(frozen=True)
class FittedRelated:
    """A network of the wider task, and the number of classes of the task that it helps to describe."""

    parent: FittedSequence
    described: int

    @property
    def shape(self) -> Mapping[str, HyperparameterValue]:
        """The values that are needed to build the network again."""
        return self.parent.shape

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """List of `[frames, dim]` -> the same log-probability everywhere `[cases, described]`, and `details`."""
        heard = self.parent.predict_proba(inputs)
        parts = [heard.log_p] if heard.details is None else [heard.details, heard.log_p]
        same = np.full((len(heard.log_p), self.described), -np.log(self.described))
        return HeadPrediction(same, np.hstack(parts))

    def frame_posteriors(self, frames: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """See `SegmentsHeartStates`."""
        return self.parent.frame_posteriors(frames)

    def state(self) -> HeadState:
        """Weights and shape of the network, and `described`."""
        return described_as(self.parent.state(), self.described)


def space(trial: Suggester) -> Hyperparameters:
    """As of the sequence head."""
    return sequence.space(trial)


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Fit the network to recordings of the wider task; see `Head.fit`.

    Args:
        inputs, targets: of the wider task; `targets.described` is the number of classes of the other one.
        hyperparameters: as of the sequence head.
    """
    network = cast(FittedSequence, sequence.fit(inputs, targets, hyperparameters, seed))
    return FittedRelated(network, targets.described or targets.classes)


def load(state: HeadState) -> FittedHead:
    """The network that `state` describes."""
    shape = {key: value for key, value in state.scalars.items() if key != _DESCRIBED}
    network = cast(FittedSequence, sequence.load(replace(state, scalars=shape)))
    return FittedRelated(network, int(cast(Mapping[str, int], state.scalars)[_DESCRIBED]))


def described_as(state: HeadState, classes: int) -> HeadState:
    """The state of the same network for a task of so many classes."""
    return replace(state, scalars={**state.scalars, _DESCRIBED: classes})
