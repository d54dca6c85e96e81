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
    """One linear score a class."""

    softmax: Softmax

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """`[cases, features] -> [cases, classes]`."""
        return HeadPrediction(self.softmax.predict_log_proba(vectors_of(inputs)))

    def state(self) -> HeadState:
        """Coefficients."""
        return HeadState(self.softmax.arrays())


def space(trial: Suggester) -> Hyperparameters:
    """Penalty, and how far rare classes are lifted."""
    return {"c": trial.suggest_float("c", 1e-4, 1.0, log=True), "balance": trial.suggest_float("balance", 0.0, 1.0)}


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Numbers: `c`, `balance`."""
    weights, c = case_weights(targets, float(hyperparameters["balance"])), float(hyperparameters["c"])
    return FittedLogistic(Softmax.fit(vectors_of(inputs), targets.labels, targets.classes, weights, c))


def load(state: HeadState) -> FittedHead:
    """The scores behind a state."""
    return FittedLogistic(Softmax.from_arrays(state.arrays))
