"""Forests as ONNX's operator for ensembles of trees: vectors `[cases, features]` in, sums of leaves `[cases, k]` out.

A forest of this project is a set of plain arrays, which no converter reads. LightGBM's own description of its trees
becomes the same arrays, so that there is one way to write trees. A test compares both with the heads themselves.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import spox.opset.ai.onnx.ml.v3 as ml
from numpy.typing import NDArray
from spox import Var

from heartml.export.graph import ops


@dataclass(frozen=True)
class Trees:
    """Nodes of all trees; at a node the left child is next where `x[feature] <= threshold`.

    Attributes:
        tree, node: number of each node's tree, and its number in there `[nodes]`; the root is 0.
        feature, threshold, left, right: `[nodes]`; `left` and `right` are numbers in the tree.
        leaf: whether it is one `[nodes]`.
        value: of each node `[nodes, k]`; only leaves count.
    """

    tree: NDArray[np.int64]
    node: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    value: NDArray[np.float64]


def of_forest(forest: Any) -> Trees:
    """The trees of a `heartml.models.heads.extra_trees.Forest`, whose leaves hold probabilities of present classes."""
    own = np.arange(len(forest.feature))
    tree = np.searchsorted(forest.roots, own, side="right") - 1
    first = forest.roots[tree]
    return Trees(tree, own - first, forest.feature, forest.threshold, forest.left - first, forest.right - first,
                 forest.left == own, forest.value.astype(np.float64))


def of_booster(booster: Any) -> Trees:
    """The trees of a fitted `lightgbm.Booster`; tree t adds to class t % classes.

    Raises:
        ValueError: it decides by anything but `<=`, as for categories.
    """
    described = booster.dump_model()
    classes = int(described["num_tree_per_iteration"])
    rows: list[tuple[int, int, int, float, int, int, bool, float]] = []

    def add(tree: int, node: dict[str, Any], number: int, following: int) -> int:
        """Add a node and those below it; returns the next free number."""
        if "leaf_value" in node:
            rows.append((tree, number, 0, 0.0, number, number, True, float(node["leaf_value"])))
            return following
        if node["decision_type"] != "<=":
            raise ValueError(f"a tree decides by {node['decision_type']}")
        left, right = following, following + 1
        rows.append((tree, number, int(node["split_feature"]), float(node["threshold"]), left, right, False, 0.0))
        following = add(tree, node["left_child"], left, following + 2)
        return add(tree, node["right_child"], right, following)

    for number, one in enumerate(described["tree_info"]):
        add(number, one["tree_structure"], 0, 1)
    tree, node, feature, threshold, left, right, leaf, own = (np.array(column) for column in zip(*rows, strict=True))
    value = np.zeros((len(rows), classes))
    value[np.arange(len(rows)), tree % classes] = own
    return Trees(tree, node, feature, threshold, left, right, leaf, value)


def summed(vectors: Var, trees: Trees, *, average: bool) -> Var:
    """Sum (or mean) of the leaves that the vectors fall into: `[cases, features] -> [cases, k]`, double precision.

    ONNX compares in single precision. A threshold is therefore rounded down, so that every single-precision number lies
    on the same side of it as before.
    """
    rounded = trees.threshold.astype(np.float32)
    rounded = np.where(rounded > trees.threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    targets = trees.value.shape[1]
    leaf, target = np.nonzero(trees.leaf[:, None] & (trees.value != 0))
    scores = ml.tree_ensemble_regressor(
        ops.single(vectors), n_targets=targets, aggregate_function="SUM", post_transform="NONE",
        nodes_treeids=trees.tree.tolist(), nodes_nodeids=trees.node.tolist(), nodes_featureids=trees.feature.tolist(),
        nodes_values=rounded.tolist(), nodes_truenodeids=np.where(trees.leaf, 0, trees.left).tolist(),
        nodes_falsenodeids=np.where(trees.leaf, 0, trees.right).tolist(),
        nodes_modes=["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in trees.leaf],
        target_treeids=trees.tree[leaf].tolist(), target_nodeids=trees.node[leaf].tolist(),
        target_ids=target.tolist(), target_weights=trees.value[leaf, target].astype(np.float32).tolist())
    found = ops.double(scores)
    return found / float(trees.tree.max() + 1) if average else found


