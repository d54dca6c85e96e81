"""Log-probabilities `[cases, classes]` whose rows sum to one after `exp`."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SMALLEST = 1e-6       # no class is ever impossible: in a mean, a logarithm of zero would decide alone


def normalise(log_scores: Floats, smallest: float | None = None) -> Floats:
    """Scale the rows of log-scores so that their probabilities sum to one.

    Args:
        log_scores: `[cases, classes]`, natural logarithms up to a constant for each row.
        smallest: raise every probability to at least this (`SMALLEST`, for a head whose scores may be infinite).

    Returns:
        Log-probabilities `[cases, classes]`.

    >>> np.exp(normalise(np.log(np.array([[2.0, 6.0]])))).round(2).tolist()
    [[0.25, 0.75]]
    """
    if smallest is None:
        return np.asarray(log_scores - np.logaddexp.reduce(log_scores, axis=1, keepdims=True))
    probabilities = np.exp(log_scores - log_scores.max(axis=1, keepdims=True))
    probabilities = np.maximum(probabilities / probabilities.sum(axis=1, keepdims=True), smallest)
    return np.asarray(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)))
