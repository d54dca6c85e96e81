"""Multinomial logistic regression on standardised vectors: `[cases, features] -> [cases, classes]`."""

from dataclasses import dataclass
from typing import Literal

from heartml.models.heads import FittedHead, HeadPrediction, HeadState, Hyperparameters, Inputs, Suggester, Targets
from heartml.models.heads.linear import case_weights, vectors_of
from heartml.models.heads.softmax import Softmax

NAME = "logistic"
TAKES: Literal["vectors", "frames"] = "vectors"


@dataclass(frozen=True)
class FittedLogistic:
    """A fitted softmax regression."""

    softmax: Softmax

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """Vectors `[cases, features]` -> log-probabilities `[cases, classes]`."""
        return HeadPrediction(self.softmax.predict_log_proba(vectors_of(inputs)))

    def state(self) -> HeadState:
        """Scaling and coefficients."""
        return HeadState(self.softmax.arrays())


def space(trial: Suggester) -> Hyperparameters:
    """Inverse of the penalty, and weight of rare classes."""
    return {"c": trial.suggest_float("c", 1e-4, 1.0, log=True), "balance": trial.suggest_float("balance", 0.0, 1.0)}


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Hyperparameters: `c`, `balance`; see `Head.fit`."""
    weights, c = case_weights(targets, float(hyperparameters["balance"])), float(hyperparameters["c"])
    return FittedLogistic(Softmax.fit(vectors_of(inputs), targets.labels, targets.classes, weights, c))


def load(state: HeadState) -> FittedHead:
    """The regression that `state` describes."""
    return FittedLogistic(Softmax.from_arrays(state.arrays))
