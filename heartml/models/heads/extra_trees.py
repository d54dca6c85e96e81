"""Extremely randomised trees (Geurts et al., 2006) on vectors: `[cases, features] -> [cases, classes]`.

scikit-learn fits them. They are saved and evaluated as plain arrays with the nodes of all trees. A leaf points to
itself.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads import FittedHead, HeadPrediction, HeadState, Hyperparameters, Inputs, Suggester, Targets
from heartml.models.heads.linear import Floats, case_weights, vectors_of, with_absent_classes
from heartml.models.heads.log_probabilities import SMALLEST

NAME = "extra_trees"
TAKES: Literal["vectors", "frames"] = "vectors"


@dataclass(frozen=True)
class Forest:
    """Nodes of all trees.

    Attributes:
        roots: first node of each tree `[trees]`.
        feature, threshold, left, right: `[nodes]`; a leaf is its own left and right child.
        value: probabilities `[nodes, present classes]`.
        present: class of each column of `value`.
        depth: of the deepest tree.
        classes: number of all classes.
    """

    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: Floats
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: NDArray[np.float32]
    present: NDArray[np.int64]
    depth: int
    classes: int

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """Vectors `[cases, features]` -> log-probabilities `[cases, classes]`."""
        x = vectors_of(inputs).astype(np.float32)     # what scikit-learn compares with its thresholds
        node = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        rows = np.arange(len(x))[:, None]
        for _ in range(self.depth):
            goes_left = x[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        mean = self.value[node].mean(axis=1, dtype=np.float64)
        return HeadPrediction(with_absent_classes(np.log(np.maximum(mean, SMALLEST)), self.present, self.classes))

    def state(self) -> HeadState:
        """The nodes, in small number types."""
        arrays: dict[str, NDArray[np.generic]] = {
            "roots": self.roots.astype(np.int32), "feature": self.feature.astype(np.int32),
            "threshold": self.threshold, "left": self.left.astype(np.int32), "right": self.right.astype(np.int32),
            "value": self.value, "present": self.present,
        }
        return HeadState(arrays, {"depth": self.depth, "classes": self.classes})


def space(trial: Suggester) -> Hyperparameters:
    """Number and depth of trees, share of features tried at a split, weight of rare classes."""
    return {
        "trees": trial.suggest_int("trees", 100, 400),
        "least_leaf": trial.suggest_int("least_leaf", 1, 6),
        "columns": trial.suggest_float("columns", 0.03, 0.3, log=True),
        "balance": trial.suggest_float("balance", 0.0, 1.0),
    }


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Hyperparameters: `trees`, `least_leaf`, `columns`, `balance`; see `Head.fit`."""
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(
        int(hyperparameters["trees"]), min_samples_leaf=int(hyperparameters["least_leaf"]),
        max_features=float(hyperparameters["columns"]), random_state=seed % 2**32, n_jobs=None,
    )
    weights = case_weights(targets, float(hyperparameters["balance"]))
    model.fit(vectors_of(inputs), targets.labels, sample_weight=weights)
    return flatten([one.tree_ for one in model.estimators_], np.asarray(model.classes_, np.int64), targets.classes)


def flatten(trees: list[Any], present: NDArray[np.int64], classes: int) -> Forest:
    """scikit-learn's trees (`tree_` of each estimator) as one `Forest`."""
    sizes = np.array([t.node_count for t in trees])
    roots = np.cumsum(sizes) - sizes
    leaf = np.concatenate([t.children_left < 0 for t in trees])
    own = np.arange(int(sizes.sum()))
    left = np.concatenate([t.children_left + r for t, r in zip(trees, roots, strict=True)])
    right = np.concatenate([t.children_right + r for t, r in zip(trees, roots, strict=True)])
    value = np.concatenate([t.value[:, 0] for t in trees])
    return Forest(
        roots, np.concatenate([np.maximum(t.feature, 0) for t in trees]).astype(np.int64),
        np.concatenate([t.threshold for t in trees]), np.where(leaf, own, left), np.where(leaf, own, right),
        (value / value.sum(axis=1, keepdims=True)).astype(np.float32), present, max(int(t.max_depth) for t in trees),
        classes,
    )


def load(state: HeadState) -> FittedHead:
    """The forest that `state` describes."""
    a = state.arrays
    whole = {name: np.asarray(a[name], np.int64) for name in ("roots", "feature", "left", "right", "present")}
    return Forest(whole["roots"], whole["feature"], np.asarray(a["threshold"], np.float64), whole["left"],
                  whole["right"], np.asarray(a["value"], np.float32), whole["present"],
                  int(str(state.scalars["depth"])), int(str(state.scalars["classes"])))
