"""Heads: from what an encoder says about recordings to class probabilities.

A head takes either `vectors` (float64 `[cases, features]`, one pooled vector a recording or a patient) or `frames`
(a list of float32 `[frames, dim]`, one array a recording) and gives natural logarithms of probabilities
`[cases, classes]`, each row summing to one after `exp`. What is fitted is saved as a `State`: arrays, numbers and
texts, never a pickle. A new head is one file and one line in `HEADS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from heartml.core.system import family

Inputs = NDArray[np.float64] | Sequence[NDArray[np.float32]]
HyperparameterValue = float | int | str | bool
Hyperparameters = Mapping[str, HyperparameterValue]


@dataclass(frozen=True)
class Targets:
    """What a head is fitted to.

    Attributes:
        labels: class of each case, integers `[cases]` in `0 .. classes-1`; a class may be absent.
        classes: number of classes.
        groups: group of each case, integers `[cases]`; inner folds of a head never cross them.
        states: heart state of every frame of each case, int8 `[frames]` (index into `heartml.core.schema.STATES`, -1
            where unknown); `None` where the data set has no annotations. Only heads that take frames look at it.
        frame_rate_hz: of the frames, or of the frames behind the pooled vectors.
    """

    labels: NDArray[np.int64]
    classes: int
    groups: NDArray[np.int64]
    states: Sequence[NDArray[np.int8]] | None = None
    frame_rate_hz: float = 50.0


@dataclass(frozen=True)
class HeadState:
    """A fitted head as what can be written without pickle: arrays by name, JSON hyperparameters, texts by name."""

    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    scalars: Mapping[str, object] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class Suggester(Protocol):
    """The part of an Optuna trial that a head's search space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...


@dataclass(frozen=True)
class HeadPrediction:
    """What a fitted head says: log-probabilities `[cases, classes]`, and `[cases, details]` figures for a stacker."""

    log_p: NDArray[np.float64]
    details: NDArray[np.float64] | None = None


class FittedHead(Protocol):
    """A head after fitting."""

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """What it says about `[cases]` inputs."""
        ...

    def state(self) -> HeadState:
        """Everything that `Head.load` needs to predict the same."""
        ...


@runtime_checkable
class SegmentsHeartStates(Protocol):
    """A fitted head that may say what each frame is."""

    def frame_posteriors(self, frames: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """`[frames, dim]` -> `[frames / 2, 4 + classes]`, columns as in `soft_segments`, one for two frames.

        `None` where the head was fitted without heart states.
        """
        ...


class Head(Protocol):
    """One kind of classifier; the members are the modules of this package."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - a module's constant
    @property
    def TAKES(self) -> Literal["vectors", "frames"]: ...  # noqa: N802

    def space(self, trial: Suggester) -> Hyperparameters:
        """The numbers of one trial, drawn from this head's search space."""
        ...

    def fit(self, inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
        """Fit to `[cases]` inputs; the same arguments give the same bytes."""
        ...

    def load(self, state: HeadState) -> FittedHead:
        """The fitted head that `Fitted.state` described."""
        ...


HEADS: dict[str, Callable[[], Head]] = family.members(__name__, [
    "logistic",
    "svm_rbf",
    "lightgbm",
    "extra_trees",
    "sequence",
    "resnet",
    "fcnn",
])
