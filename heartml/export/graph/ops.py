"""Small operations on the variables of an ONNX graph, in double precision where nothing else is said.

`operators()` makes `+ - * /` work on variables; every function of this package is called inside of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import ArrayLike
from spox import Var
from spox._future import TypeWarningLevel, operator_overloading, type_warning_level


@contextmanager
def operators() -> Iterator[None]:
    """Inside of it, variables can be added, subtracted, multiplied and divided; numbers become constants."""
    quiet = type_warning_level(TypeWarningLevel.NONE)      # about lengths that are only known when the graph runs
    with operator_overloading(op, type_promotion=True, constant_promotion=True), quiet:
        yield


def f64(value: ArrayLike) -> Var:
    """A constant of double precision."""
    return op.const(np.asarray(value, np.float64))


def stored(value: ArrayLike) -> Var:
    """A fitted array: stored in single precision (half the size, seven digits), used in double."""
    return double(op.const(np.asarray(value, np.float32)))


def i64(value: ArrayLike) -> Var:
    """A constant of whole numbers."""
    return op.const(np.asarray(value, np.int64))


def double(x: Var) -> Var:
    """In double precision."""
    return op.cast(x, to=np.float64)


def single(x: Var) -> Var:
    """In single precision."""
    return op.cast(x, to=np.float32)


def whole(x: Var) -> Var:
    """As a whole number, cut towards zero."""
    return op.cast(x, to=np.int64)


def mean(x: Var, axis: int) -> Var:
    """Mean over one axis, which is dropped."""
    return op.reduce_mean(x, i64([axis]), keepdims=0)


def total(x: Var, axis: int) -> Var:
    """Sum over one axis, which is dropped."""
    return op.reduce_sum(x, i64([axis]), keepdims=0)


def greatest(x: Var, axis: int) -> Var:
    """Maximum over one axis, which is dropped."""
    return op.reduce_max(x, i64([axis]), keepdims=0)


def least(x: Var, axis: int) -> Var:
    """Minimum over one axis, which is dropped."""
    return op.reduce_min(x, i64([axis]), keepdims=0)


def deviation(x: Var, axis: int) -> Var:
    """Standard deviation (of the population) over one axis, which is dropped."""
    centre = op.reduce_mean(x, i64([axis]), keepdims=1)
    away = x - centre
    return op.sqrt(mean(away * away, axis))


def length(x: Var, axis: int = 0) -> Var:
    """Number of entries along one axis: a whole number, shape `[]`."""
    return op.squeeze(op.shape(x, start=axis, end=axis + 1), i64([0]))


def count(*values: Var | int) -> Var:
    """A shape `[n]` of whole numbers from scalars."""
    parts = [op.reshape(v if isinstance(v, Var) else i64(v), i64([1])) for v in values]
    return op.concat(parts, axis=0)


def numbers(stop: Var) -> Var:
    """0, 1, 2, ... below `stop`, whole numbers."""
    return op.range(i64(0), stop, i64(1))


def column(x: Var) -> Var:
    """`[n] -> [n, 1]`."""
    return op.unsqueeze(x, i64([1]))


def row(x: Var) -> Var:
    """`[n] -> [1, n]`."""
    return op.unsqueeze(x, i64([0]))


def part(x: Var, start: Var | int, stop: Var | int, axis: int = 0) -> Var:
    """`x[start:stop]` along one axis."""
    return op.slice(x, count(start), count(stop), i64([axis]))


def end_padded(x: Var, size: Var) -> Var:
    """Zeros added at the end of the first axis until it has at least `size` entries; for one or two axes."""
    missing = op.max([size - length(x), i64(0)])
    axes = len(x.unwrap_tensor().shape or ())
    return op.pad(x, count(*[0] * axes, missing, *[0] * (axes - 1)))


def median(x: Var) -> Var:
    """Median of `[n]`; not a number where there is nothing."""
    ordered = sorted_up(x, 0)
    n = length(x)
    safe = op.concat([ordered, f64([np.nan, np.nan])], axis=0)
    low, high = op.max([(n - 1) // i64(2), i64(0)]), n // i64(2)
    found = (op.gather(safe, low) + op.gather(safe, high)) * 0.5
    return op.where(op.equal(n, i64(0)), f64(np.nan), found)


def sorted_up(x: Var, axis: int) -> Var:
    """Sorted along one axis, smallest first."""
    values, _ = op.top_k(x, op.shape(x, start=axis, end=axis + 1), axis=axis, largest=0)
    return values


def quantiles(x: Var, shares: Sequence[float]) -> Var:
    """Quantiles over the first axis with linear interpolation: `[n, ...] -> [shares, ...]`."""
    ordered = sorted_up(x, 0)
    last = length(x) - i64(1)
    place = f64(shares) * double(last)
    low = whole(op.floor(place))
    high = op.min([low + i64(1), last])
    share = place - op.floor(place)
    axes = len(x.unwrap_tensor().shape or ())
    share = op.reshape(share, i64([-1, *[1] * (axes - 1)]))
    below, above = op.gather(ordered, low), op.gather(ordered, high)
    return below + (above - below) * share


def normalised(log_scores: Var, smallest: float | None = None) -> Var:
    """See `heartml.models.heads.log_probabilities.normalise`; over the last axis."""
    if smallest is None:
        return op.log_softmax(log_scores, axis=-1)
    raised = op.max([op.softmax(log_scores, axis=-1), f64(smallest)])
    return op.log(raised / op.reduce_sum(raised, i64([-1]), keepdims=1))
