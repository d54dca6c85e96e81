"""Heads, the classifiers behind an encoder: pooled vectors or frames in, log-probabilities `[cases, classes]` out.

A head takes either `vectors` (float64 `[cases, features]`, one pooled vector for each recording or patient) or `frames`
(a list of float32 `[frames, dim]`, one array for each recording). It gives natural logarithms of probabilities; after
`exp` each row sums to one. A fitted head is saved as a `HeadState` of arrays, scalars and texts, never as a pickle. A
new head is one file and one line in `HEADS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from heartml.core.system import family
from heartml.core.tasks import Task

Inputs = NDArray[np.float64] | Sequence[NDArray[np.float32]]
HyperparameterValue = float | int | str | bool
Hyperparameters = Mapping[str, HyperparameterValue]


@dataclass(frozen=True)
class Targets:
    """Labels of the cases that a head is fitted to, and what else it needs to know about them.

    Attributes:
        labels: class of each case, integers `[cases]` in `0 .. classes-1`; a class may be absent.
        classes: number of classes.
        groups: group of each case, integers `[cases]`; inner folds of a head never divide a group.
        states: heart state of every frame of each case, int8 `[frames]`: index into `heartml.core.schema.STATES`, one
            more than the last index between annotations, -1 where nothing is known. `None` where the data set has no
            annotations. Only heads that take frames use it.
        frame_rate_hz: of the frames, or of the frames that were pooled.
        encoder: spec of the encoder as JSON (`EncoderSpec.to_json`); for a head that trains the encoder too.
        validation: cases `[cases]` that a head may choose by and is not trained on; `None`: it draws its own.
        task: what is predicted; for a head that is asked about it in words.
        probabilities: of the classes of each case `[cases, classes]`, which a network learns in the place of the labels
            (Hinton et al., Distilling the knowledge in a neural network, 2015); `None`: it learns the labels.
        described: for a head that learns the labels of a wider task (`learns_parent`), the number of classes of the
            task that it is for; everything else is about the wider task.
    """

    labels: NDArray[np.int64]
    classes: int
    groups: NDArray[np.int64]
    states: Sequence[NDArray[np.int8]] | None = None
    frame_rate_hz: float = 50.0
    encoder: Mapping[str, object] | None = None
    validation: NDArray[np.bool_] | None = None
    task: Task | None = None
    probabilities: NDArray[np.float64] | None = None
    described: int | None = None


@dataclass(frozen=True)
class HeadState:
    """A fitted head in a form that can be saved without pickle: arrays by name, JSON scalars by name, texts by name."""

    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    scalars: Mapping[str, object] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class Suggester(Protocol):
    """The part of an Optuna trial that a head's search space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...


@dataclass(frozen=True)
class HeadPrediction:
    """A head's prediction: log-probabilities `[cases, classes]` and, from some, features for a stacker.

    Attributes:
        details: `[cases, features]`, soft segments of the sequence head, what the head `related` hears; `None` for
            other heads.
    """

    log_p: NDArray[np.float64]
    details: NDArray[np.float64] | None = None


class FittedHead(Protocol):
    """A head after fitting."""

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """Predict `[cases]` inputs: log-probabilities `[cases, classes]`."""
        ...

    def state(self) -> HeadState:
        """Everything that `Head.load` needs to make a head with the same predictions."""
        ...


@runtime_checkable
class SegmentsHeartStates(Protocol):
    """A fitted head that can tell the heart state of each frame."""

    def frame_posteriors(self, frames: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Posteriors of heart states, one row for two frames: `[frames, dim] -> [frames / 2, 4 + classes]`.

        Columns as in `heartml.models.heads.segment_features`. `None` where the head was fitted without heart states.
        """
        ...


class Head(Protocol):
    """One kind of classifier; the members are the modules of this package."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - a module's constant
    @property
    def TAKES(self) -> Literal["vectors", "frames"]: ...  # noqa: N802

    def space(self, trial: Suggester) -> Hyperparameters:
        """Hyperparameters of one trial, drawn from this head's search space."""
        ...

    def fit(self, inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
        """Fit to `[cases]` inputs; the same arguments give the same bytes."""
        ...

    def load(self, state: HeadState) -> FittedHead:
        """The fitted head that `FittedHead.state` was called on."""
        ...


HEADS: dict[str, Callable[[], Head]] = family.members(__name__, [
    "logistic",
    "svm_rbf",
    "lightgbm",
    "extra_trees",
    "sequence",
    "resnet",
    "fcnn",
    "finetune",
    "describe",
    "related",
])


def learns_parent(head: Head) -> bool:
    """Whether a head is fitted to the task that its own one lies within (`Task.within`).

    Then its log-probabilities tell nothing, and only a stacker of its `details` does. Its module says `LEARNS_PARENT`.
    """
    return bool(getattr(head, "LEARNS_PARENT", False))
