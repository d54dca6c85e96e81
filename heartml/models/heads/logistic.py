"""Multinomial logistic regression on standardised vectors: `[cases, features] -> [cases, classes]`."""

from dataclasses import dataclass
from typing import Literal

from heartml.models.heads import Answer, Fitted, Inputs, Numbers, State, Suggest, Targets
from heartml.models.heads.linear import case_weights, vectors_of
from heartml.models.heads.softmax import Softmax

NAME = "logistic"
TAKES: Literal["vectors", "frames"] = "vectors"


@dataclass(frozen=True)
class FittedLogistic:
    """One linear score a class."""

    softmax: Softmax

    def answer(self, inputs: Inputs) -> Answer:
        """`[cases, features] -> [cases, classes]`."""
        return Answer(self.softmax.log_probabilities(vectors_of(inputs)))

    def state(self) -> State:
        """Coefficients."""
        return State(self.softmax.arrays())


def space(trial: Suggest) -> Numbers:
    """Penalty, and how far rare classes are lifted."""
    return {"c": trial.suggest_float("c", 1e-4, 1.0, log=True), "balance": trial.suggest_float("balance", 0.0, 1.0)}


def fit(inputs: Inputs, targets: Targets, numbers: Numbers, seed: int) -> Fitted:
    """Numbers: `c`, `balance`."""
    weights, c = case_weights(targets, float(numbers["balance"])), float(numbers["c"])
    return FittedLogistic(Softmax.fit(vectors_of(inputs), targets.labels, targets.classes, weights, c))


def load(state: State) -> Fitted:
    """The scores behind a state."""
    return FittedLogistic(Softmax.from_arrays(state.arrays))
