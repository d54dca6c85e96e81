"""How well a number is read from vectors: ridge regression that never sees the person it predicts. Pure.

In: vectors `[n, f]`, a number for each `[n]`, persons `[n]`. Out: predictions `[n]`. Each person is predicted by a fit
on all others. Columns are standardised, and the penalty is chosen by folds of persons, inside those others.
"""

import numpy as np
from numpy.typing import NDArray

PENALTIES = tuple(10.0**power for power in range(-1, 6))
INNER_FOLDS = 3
MOST_ALONE = 100          # beyond so many persons several are predicted by one fit
FOLDS = 20

Floats = NDArray[np.float64]
Groups = NDArray[np.str_]


def left_out(groups: Groups) -> list[NDArray[np.int64]]:
    """The rows that are predicted together: those of one person, or of one of `FOLDS` folds where there are many.

    >>> [rows.tolist() for rows in left_out(np.array(["b", "a", "b"]))]
    [[1], [0, 2]]
    """
    from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

    persons = len(set(groups))
    dealt = LeaveOneGroupOut() if persons <= MOST_ALONE else GroupKFold(FOLDS)
    return [np.asarray(rows, np.int64) for _, rows in dealt.split(groups, groups=groups)]


def predict(vectors: Floats, values: Floats, groups: Groups) -> Floats:
    """Prediction for each row by a fit without its person: `[n]`. There must be more than `INNER_FOLDS` persons."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.zeros(len(values))
    for rows in left_out(groups):
        others = np.setdiff1d(np.arange(len(values)), rows)
        search = GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": PENALTIES},
                              cv=GroupKFold(INNER_FOLDS), scoring="neg_mean_absolute_error")
        search.fit(vectors[others], values[others], groups=groups[others])
        found[rows] = search.predict(vectors[rows])
    return found


def mean_of_others(values: Floats, groups: Groups) -> Floats:
    """The baseline: the mean number of all other persons' recordings, `[n]`.

    >>> mean_of_others(np.array([1.0, 2.0, 6.0]), np.array(["a", "b", "b"])).tolist()
    [4.0, 1.0, 1.0]
    """
    found = np.zeros(len(values))
    for rows in left_out(groups):
        found[rows] = np.delete(values, rows).mean()
    return found
