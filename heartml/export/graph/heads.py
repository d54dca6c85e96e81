"""Heads as ONNX graphs: vectors `[cases, features]` or the frames of one recording in, log-probabilities out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from heartml.export.graph import ops, trees
from heartml.export.graph.ops import double, f64, stored
from heartml.models.ensemble.stacking import Stacker
from heartml.models.heads.linear import Scale
from heartml.models.heads.log_probabilities import SMALLEST
from heartml.models.heads.softmax import Softmax


def softmax(vectors: Var, fitted: Softmax) -> Var:
    """See `heartml.models.heads.softmax.Softmax.predict_log_proba`."""
    scores = op.matmul(scaled(vectors, fitted.scale), stored(fitted.coefficients.T)) + f64(fitted.intercepts)
    return _with_absent_classes(scores, fitted.present, fitted.classes)


def scaled(vectors: Var, scale: Scale) -> Var:
    """Standardised columns; one that never changes becomes zero."""
    return (vectors - f64(scale.mean)) * stored(1 / scale.deviation)


def _with_absent_classes(log_p: Var, present: "np.ndarray[Any, np.dtype[np.int64]]", classes: int) -> Var:
    if len(present) < classes:
        column = {int(which): number for number, which in enumerate(present)}
        absent = f64([[np.log(SMALLEST)]])
        spread = op.expand(absent, op.concat([op.shape(log_p, start=0, end=1), ops.i64([1])], axis=0))
        whole = op.concat([log_p, spread], axis=1)
        log_p = op.gather(whole, ops.i64([column.get(which, len(present)) for which in range(classes)]), axis=1)
    return ops.normalised(log_p, SMALLEST)


def stacker(vectors: Var, fitted: Stacker) -> Var:
    """See `heartml.models.ensemble.stacking.Stacker.predict_log_proba`."""
    found = [] if fitted.softmax is None else [softmax(vectors, fitted.softmax)]
    found += [] if fitted.trees is None else [_lightgbm(vectors, fitted.trees)]
    return found[0] if len(found) == 1 else ops.normalised((found[0] + found[1]) * 0.5)


def _logistic(vectors: Var, head: Any) -> Var:
    return softmax(vectors, head.softmax)


def _svm_rbf(vectors: Var, head: Any) -> Var:
    machines = head.machines
    x = scaled(vectors, machines.scale)
    support = double(op.const(machines.support.astype(np.float16)))     # standardised, so three digits are enough
    squared = (op.reduce_sum(x * x, ops.i64([1]), keepdims=1) + ops.row(ops.total(support * support, 1))
               - op.matmul(x, op.transpose(support)) * 2.0)
    kernel = op.exp(op.max([squared, f64(0.0)]) * -machines.gamma)
    return softmax(op.matmul(kernel, f64(machines.weights)) + f64(machines.offsets), head.softmax)


def _extra_trees(vectors: Var, head: Any) -> Var:
    return forest(vectors, head)


def forest(vectors: Var, head: Any) -> Var:
    """See `heartml.models.heads.extra_trees.Forest.predict_proba`."""
    mean = trees.summed(vectors, trees.of_forest(head), average=True)
    return _with_absent_classes(op.log(op.max([mean, f64(SMALLEST)])), head.present, head.classes)


def _lightgbm(vectors: Var, head: Any) -> Var:
    return ops.normalised(trees.summed(vectors, trees.of_booster(head.booster), average=False), SMALLEST)


OF_VECTORS: dict[str, Callable[[Var, Any], Var]] = {
    "logistic": _logistic,
    "svm_rbf": _svm_rbf,
    "lightgbm": _lightgbm,
    "extra_trees": _extra_trees,
}
