"""Forests as ONNX graphs of plain operators: vectors `[cases, features]` in, sums of leaves `[cases, k]` out.

A forest of this project is a set of plain arrays, which no converter reads. LightGBM's own description of its trees
becomes the same arrays, so that there is one way to write trees. ONNX's operator for trees names the kind of every node
as a text and takes three times the room. Here all trees go down one level at a time, as
`heartml.models.heads.extra_trees.Forest` does. A test compares both kinds with the heads themselves.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op
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

    Children stand side by side, so a node stores how far it is to the left one: two bytes. The comparison is in single
    precision. A threshold is therefore rounded down, so that every single-precision number lies on the same side of it
    as before. A leaf's threshold is infinite and its left child is itself: whoever is there stays.
    """
    order, first_child, depth = _side_by_side(trees)
    leaf = trees.leaf[order]
    rounded = trees.threshold[order].astype(np.float32)
    above = rounded > trees.threshold[order]
    rounded = np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    jump = np.where(leaf, 0, first_child - np.arange(len(order)))
    narrow = np.uint16 if max(jump.max(), trees.feature.max()) < 2**16 else np.uint32
    threshold = op.const(np.where(leaf, np.float32(np.inf), rounded).astype(np.float32))
    feature = op.cast(op.const(np.where(leaf, 0, trees.feature[order]).astype(narrow)), to=np.int64)
    left = op.cast(op.const(jump.astype(narrow)), to=np.int64) + ops.numbers(ops.i64(len(order)))
    values = op.const(trees.value[order][leaf].astype(np.float32))
    row = op.cumsum(op.cast(op.const(leaf), to=np.int64), ops.i64(0)) - ops.i64(1)      # number of each leaf
    x = ops.single(vectors)
    roots = np.flatnonzero(trees.node[order] == 0)
    node = op.expand(ops.i64(roots[None]), ops.count(ops.length(vectors), len(roots)))   # [cases, trees]
    for _ in range(depth):
        own = op.gather_elements(x, op.gather(feature, node), axis=1)
        goes_right = op.cast(op.greater(own, op.gather(threshold, node)), to=np.int64)
        node = op.gather(left, node) + goes_right
    found = op.reduce_sum(ops.double(op.gather(values, op.gather(row, node))), ops.i64([1]), keepdims=0)
    return found / float(len(roots)) if average else found


def _side_by_side(trees: Trees) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Level by level within each tree, the children of a node side by side.

    Returns:
        The nodes in their new order `[nodes]`, the new place of each one's left child, and the depth of the deepest.
    """
    place = {(int(t), int(n)): row for row, (t, n) in enumerate(zip(trees.tree, trees.node, strict=True))}
    order: list[int] = []
    first_child: list[int] = []
    deepest = 0
    for tree in np.unique(trees.tree):
        level, depth = [place[int(tree), 0]], 0
        while level:
            free = len(order) + len(level)
            following: list[int] = []
            for row in level:
                order.append(row)
                first_child.append(free + len(following) if not trees.leaf[row] else -1)
                if not trees.leaf[row]:
                    following += [place[int(tree), int(trees.left[row])], place[int(tree), int(trees.right[row])]]
            level, depth = following, depth + bool(following)
        deepest = max(deepest, depth)
    return np.array(order), np.array(first_child), deepest
