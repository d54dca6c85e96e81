"""Support vector machine with a Gaussian kernel: `[cases, features] -> [cases, classes]`.

One machine a class against the rest. Its scores become probabilities by a softmax regression on scores of inner,
grouped folds (Platt 1999, for more than two classes at once). Prediction is our own sum over support vectors, so that
only arrays are saved; a test holds it against scikit-learn.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from heartml.heads import Fitted, Inputs, Numbers, State, Suggest, Targets
from heartml.heads.estimators import Floats, Scale, case_weights, vectors_of
from heartml.heads.softmax import Softmax

NAME = "svm_rbf"
TAKES: Literal["vectors", "frames"] = "vectors"

_INNER_FOLDS = 5
_SOFTMAX_C = 1.0


@dataclass(frozen=True)
class Machines:
    """One machine a class: `scores = exp(-gamma |x - support|^2) @ weights + offsets`, `[cases, classes]`."""

    scale: Scale
    support: Floats
    weights: Floats
    offsets: Floats
    gamma: float

    def scores(self, vectors: Floats) -> Floats:
        """`[cases, features] -> [cases, classes]`, positive where the machine says yes."""
        x = self.scale(vectors)
        squared = (x**2).sum(1)[:, None] + (self.support**2).sum(1)[None] - 2 * x @ self.support.T
        return np.asarray(np.exp(-self.gamma * np.maximum(squared, 0)) @ self.weights + self.offsets)


@dataclass(frozen=True)
class FittedSvm:
    """Machines, and the softmax that turns their scores into probabilities."""

    machines: Machines
    softmax: Softmax

    def log_probabilities(self, inputs: Inputs) -> Floats:
        """`[cases, features] -> [cases, classes]`."""
        return self.softmax.log_probabilities(self.machines.scores(vectors_of(inputs)))

    def state(self) -> State:
        """Support vectors and their weights."""
        m = self.machines
        own = {**m.scale.arrays(), "support": m.support, "weights": m.weights, "offsets": m.offsets}
        inner = {f"softmax.{name}": array for name, array in self.softmax.arrays().items()}
        return State({**own, **inner}, {"gamma": m.gamma})


def space(trial: Suggest) -> Numbers:
    """Penalty, width of the kernel in units of one over the number of features, lift of rare classes."""
    return {
        "c": trial.suggest_float("c", 0.3, 30.0, log=True),
        "gamma": trial.suggest_float("gamma", 0.1, 3.0, log=True),
        "balance": trial.suggest_float("balance", 0.0, 1.0),
    }


def fit(inputs: Inputs, targets: Targets, numbers: Numbers, seed: int) -> Fitted:
    """Numbers: `c`, `gamma`, `balance`."""
    vectors = vectors_of(inputs)
    scores = np.zeros((len(vectors), targets.classes))
    for train, test in inner_folds(targets, seed):
        scores[test] = _machines(vectors[train], _part(targets, train), numbers).scores(vectors[test])
    softmax = Softmax.fit(scores, targets, c=_SOFTMAX_C, balance=float(numbers["balance"]))
    return FittedSvm(_machines(vectors, targets, numbers), softmax)


def load(state: State) -> Fitted:
    """The machines behind a state."""
    a = {name: np.asarray(array, np.float64) for name, array in state.arrays.items() if not name.startswith("softmax.")}
    inner = {name.removeprefix("softmax."): v for name, v in state.arrays.items() if name.startswith("softmax.")}
    gamma = float(str(state.numbers["gamma"]))
    machines = Machines(Scale(a["mean"], a["deviation"]), a["support"], a["weights"], a["offsets"], gamma)
    return FittedSvm(machines, Softmax.from_arrays(inner))


def inner_folds(targets: Targets, seed: int) -> "list[tuple[np.ndarray, np.ndarray]]":
    """Stratified folds that no group crosses."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(min(_INNER_FOLDS, len(np.unique(targets.groups))), shuffle=True, random_state=seed)
    return list(folds.split(targets.labels, targets.labels, targets.groups))


def _part(targets: Targets, rows: "np.ndarray") -> Targets:
    return Targets(targets.labels[rows], targets.classes, targets.groups[rows])


def _machines(vectors: Floats, targets: Targets, numbers: Numbers) -> Machines:
    from sklearn.svm import SVC

    scale = Scale.of(vectors)
    x, gamma = scale(vectors), float(numbers["gamma"]) / vectors.shape[1]
    weights, offsets = np.zeros((len(x), targets.classes)), np.full(targets.classes, -1.0)
    cases = case_weights(targets, float(numbers["balance"]))
    for c in np.unique(targets.labels):
        yes = targets.labels == c
        if yes.all():
            offsets[c] = 1.0
            continue
        machine = SVC(C=float(numbers["c"]), gamma=gamma).fit(x, yes, sample_weight=cases)
        weights[machine.support_, c] = machine.dual_coef_[0]
        offsets[c] = float(machine.intercept_[0])
    used = np.flatnonzero(weights.any(axis=1))
    return Machines(scale, x[used], weights[used], offsets, gamma)
