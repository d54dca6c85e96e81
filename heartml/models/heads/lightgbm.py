"""LightGBM (Ke et al., 2017) on vectors: `[cases, features] -> [cases, classes]`; saved as its text."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads import FittedHead, HeadPrediction, HeadState, Hyperparameters, Inputs, Suggester, Targets
from heartml.models.heads.linear import Floats, case_weights, vectors_of
from heartml.models.heads.log_probabilities import SMALLEST, normalise

NAME = "lightgbm"
TAKES: Literal["vectors", "frames"] = "vectors"

_TEXT = "lightgbm.txt"
_FIXED = {"objective": "multiclass", "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1,
          "bagging_fraction": 0.8, "bagging_freq": 1, "feature_pre_filter": False, "max_bin": 63}


@dataclass(frozen=True)
class FittedBoosting:
    """A fitted `lightgbm.Booster`."""

    booster: Any

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """Vectors `[cases, features]` -> log-probabilities `[cases, classes]`."""
        scores = self.booster.predict(vectors_of(inputs), raw_score=True, num_threads=1)
        return HeadPrediction(normalise(np.asarray(scores, float), SMALLEST))

    def state(self) -> HeadState:
        """The trees as text."""
        return HeadState(texts={_TEXT: self.booster.model_to_string()})


def space(trial: Suggester) -> Hyperparameters:
    """Size and number of trees, share of features, weight of rare classes."""
    return {
        "trees": trial.suggest_int("trees", 40, 200),
        "leaves": trial.suggest_int("leaves", 4, 15),
        "rate": trial.suggest_float("rate", 0.03, 0.15, log=True),
        "columns": trial.suggest_float("columns", 0.05, 0.4, log=True),
        "least_cases": trial.suggest_int("least_cases", 5, 30),
        "balance": trial.suggest_float("balance", 0.0, 1.0),
    }


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Hyperparameters: `trees`, `leaves`, `rate`, `columns`, `least_cases`, `balance`; see `Head.fit`."""
    weights = case_weights(targets, float(hyperparameters["balance"]))
    return boosted(vectors_of(inputs), targets.labels, targets.classes, weights, hyperparameters, seed)


def boosted(vectors: Floats, labels: NDArray[np.int64], classes: int, weights: Floats,
            hyperparameters: Hyperparameters, seed: int) -> FittedBoosting:
    """Fit to vectors `[cases, features]` with labels and weights `[cases]`; hyperparameters as in `fit`."""
    import lightgbm

    data = lightgbm.Dataset(vectors, labels, weight=weights, free_raw_data=True,
                            params={"max_bin": _FIXED["max_bin"], "feature_pre_filter": False, "verbosity": -1})
    params = {**_FIXED, "num_class": classes, "num_leaves": int(hyperparameters["leaves"]),
              "learning_rate": float(hyperparameters["rate"]), "feature_fraction": float(hyperparameters["columns"]),
              "min_data_in_leaf": int(hyperparameters["least_cases"]), "seed": seed % 2**31}
    return FittedBoosting(lightgbm.train(params, data, int(hyperparameters["trees"])))


def load(state: HeadState) -> FittedHead:
    """The booster that `state` describes."""
    import lightgbm

    return FittedBoosting(lightgbm.Booster(model_str=state.texts[_TEXT]))
