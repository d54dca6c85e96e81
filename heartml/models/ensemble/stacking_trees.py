"""Boosted trees as a stacker: stacking features `[n, columns] -> log-probabilities [n, k]`, saved as an array of bytes.

With few patients logistic regression is better on these features, with many of them trees are, or the mean of both.
"""

import numpy as np
from numpy.typing import NDArray

from heartml.core.config import StackingTreesParams
from heartml.models.heads import HeadState
from heartml.models.heads import lightgbm as boosting
from heartml.models.heads.lightgbm import FittedBoosting

Floats = NDArray[np.float64]
TEXT = "lightgbm.txt"
_SEED = 0


def fit(columns: Floats, labels: NDArray[np.int64], gains: Floats, params: StackingTreesParams) -> FittedBoosting:
    """Fit to rows `[n, columns]` with labels `[n]`; a row weighs as much as the gain `[k]` of its class."""
    hyperparameters = params.model_dump(exclude={"from_units"})
    return boosting.boosted(columns, labels, len(gains), gains[labels], hyperparameters, _SEED)


def as_array(fitted: FittedBoosting) -> NDArray[np.uint8]:
    """The trees' text, uint8 `[bytes]`."""
    return np.frombuffer(fitted.state().texts[TEXT].encode(), np.uint8)


def from_array(stored: NDArray[np.generic]) -> FittedBoosting:
    """The trees that `as_array` gave."""
    text = np.asarray(stored, np.uint8).tobytes().decode()
    loaded = boosting.load(HeadState(texts={TEXT: text}))
    assert isinstance(loaded, FittedBoosting)
    return loaded
