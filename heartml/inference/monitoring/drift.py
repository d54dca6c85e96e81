"""Compares two tables of independent groups, reference and new: one finding for each measure. Pure.

Numbers are compared by the two-sample Kolmogorov-Smirnov test, decisions by a permutation test on their counts.
Embeddings are compared by a classifier two-sample test (Lopez-Paz & Oquab, ICLR 2017): a ridge classifier learns to
tell reference from new, and its out-of-fold AUC is compared with the AUCs for shuffled labels. The classifier is linear
in the labels, so all shuffles cost one product of matrices.

A difference counts as drift when it is both certain and large.
Certain: p is below `alpha` after Holm's correction (Scand. J. Stat. 1979). One false measure is already a false alarm.
Holm holds the chance of any false measure below `alpha`, however the measures depend on each other, and is less
strict on the smallest p than Benjamini-Yekutieli.
Large: the effect is at least a threshold. With ten thousand recordings p is small for differences that do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.config import MonitorParams

DRIFT, SMALL, SAME, FEW = "drift", "small", "none", "too few"
FOLDS = 5
COMPONENTS = 16              # principal components that the classifier gets
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """One thing that is compared.

    Attributes:
        column: of both tables.
        title: its name for people.
        kind: `signal`, `embedding` or `prediction`.
        unit: of its values.
        step: values are rounded to multiples of it, so that a converter's offset of a millionth is no difference.
    """

    column: str
    title: str
    kind: str
    unit: str = ""
    step: float = 0.0


MEASURES = (
    Measure("level_db", "Level", "signal", "dB", 0.1),
    Measure("bandwidth_hz", "Bandwidth", "signal", "Hz", 1.0),
    Measure("contrast_db", "Heart sounds over pauses", "signal", "dB", 0.1),
    Measure("clipped_share", "Clipped samples", "signal", "share", 0.001),
    Measure("silent_share", "Silent frames", "signal", "share", 0.01),
    Measure("dc", "Offset", "signal", "share", 0.001),
    Measure("seconds", "Length", "signal", "s", 0.01),
    Measure("sample_rate_hz", "Sample rate", "signal", "Hz"),
    Measure("embedding", "Embedding", "embedding"),
    Measure("confidence", "Confidence", "prediction"),
    Measure("leaning", "Decisions", "prediction"),
)


@dataclass(frozen=True)
class Finding:
    """The result for one measure.

    Attributes:
        state: `DRIFT`, `SMALL` (certain, but too small to matter), `SAME` or `FEW` (too few groups).
        effect: for numbers the largest distance between the two distribution functions; for decisions the share that
            would have to change; for embeddings the AUC of the classifier. `None` where there are too few groups.
        threshold: of the effect.
        p, p_holm: p value before and after Holm's correction.
        groups: number of independent groups, reference and new.
        reference, new: medians, or the share of each class; `None` for embeddings.
        scores: for embeddings the classifier's score of each group, reference and new; else `None`.
    """

    measure: Measure
    state: str
    effect: float | None
    threshold: float
    p: float | None
    p_holm: float | None
    groups: tuple[int, int]
    reference: float | dict[str, float] | None
    new: float | dict[str, float] | None
    scores: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True)
class _Test:
    effect: float
    p: float
    reference: float | dict[str, float] | None = None
    new: float | dict[str, float] | None = None
    scores: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def compare(reference: pd.DataFrame, new: pd.DataFrame, params: MonitorParams,
            rng: np.random.Generator) -> tuple[Finding, ...]:
    """Compare two tables; returns one finding for each of `MEASURES`.

    Args:
        reference, new: one row for each independent group, columns as in heartml/inference/monitoring/reference.py.
        params: thresholds, and the number of permutations.
        rng: for the permutations and folds.
    """
    sides = {m: (reference[m.column].dropna(), new[m.column].dropna()) for m in MEASURES}
    enough = [m for m in MEASURES if min(map(len, sides[m])) >= params.min_groups]
    tests = {m: _test(m, *sides[m], params, rng) for m in enough}
    corrected = dict(zip(enough, holm([tests[m].p for m in enough]), strict=True))
    return tuple(_finding(m, sides[m], tests.get(m), corrected.get(m), params) for m in MEASURES)


def _test(m: Measure, reference: "pd.Series", new: "pd.Series", params: MonitorParams,
          rng: np.random.Generator) -> _Test:
    if m.kind == "embedding":
        return compare_embeddings(np.stack(list(reference)), np.stack(list(new)), params.permutations, rng)
    if m.column == "leaning":
        return compare_decisions(list(reference), list(new), params.permutations, rng)
    return compare_numbers(*(rounded(side.to_numpy(np.float64), m.step) for side in (reference, new)))


def rounded(values: Floats, step: float) -> Floats:
    """Round `values` to multiples of `step`; 0 leaves them as they are."""
    return np.round(values / step) * step + 0.0 if step else values


def _finding(m: Measure, sides: "tuple[pd.Series, pd.Series]", test: _Test | None, p_holm: float | None,
             params: MonitorParams) -> Finding:
    threshold = params.embedding_auc if m.kind == "embedding" else params.effect
    groups = (len(sides[0]), len(sides[1]))
    if test is None or p_holm is None:
        return Finding(m, FEW, None, threshold, None, None, groups, None, None)
    state = SAME if p_holm >= params.alpha else DRIFT if test.effect >= threshold else SMALL
    return Finding(m, state, test.effect, threshold, test.p, p_holm, groups, test.reference, test.new, test.scores)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values: `[m] -> [m]`.

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    corrected = np.empty(len(values))
    corrected[order] = stepped
    return [float(value) for value in corrected]


def compare_numbers(reference: Floats, new: Floats) -> _Test:
    """Kolmogorov-Smirnov test of `[r]` and `[n]`; where values are tied, its p is too large, never too small."""
    from scipy.stats import ks_2samp

    found = ks_2samp(reference, new)
    return _Test(float(found.statistic), float(found.pvalue), float(np.median(reference)), float(np.median(new)))


def compare_decisions(
    reference: Sequence[str], new: Sequence[str], permutations: int, rng: np.random.Generator
) -> _Test:
    """Total variation distance between the shares of the classes; p by a permutation test."""
    classes = sorted({*reference, *new})
    counts = np.array([[side.count(name) for name in classes] for side in (list(reference), list(new))])
    total, n = counts.sum(0), int(counts[1].sum())
    shuffled = rng.multivariate_hypergeometric(total, n, size=permutations)
    observed = _distance(counts[1][None], total)[0]
    p = (1 + int((_distance(shuffled, total) >= observed - 1e-12).sum())) / (permutations + 1)
    shares = [dict(zip(classes, map(float, side / side.sum()), strict=True)) for side in counts]
    return _Test(float(observed), p, shares[0], shares[1])


def _distance(new: NDArray[np.int64], total: NDArray[np.int64]) -> Floats:
    """Total variation distance between the shares in counts `new` `[b, k]` and in the rest of `total` `[k]`: `[b]`."""
    rest = total - new
    shares = new / new.sum(1, keepdims=True) - rest / rest.sum(1, keepdims=True)
    return np.asarray(np.abs(shares).sum(1) / 2)


def compare_embeddings(reference: NDArray[np.floating], new: NDArray[np.floating], permutations: int,
                       rng: np.random.Generator) -> _Test:
    """Out-of-fold AUC of a classifier that tells `[r, d]` from `[n, d]`; p by shuffling the labels."""
    vectors = _components(np.concatenate([reference, new]).astype(np.float64))
    side = np.r_[np.zeros(len(reference)), np.ones(len(new))]
    scorer = _out_of_fold_scorer(vectors, rng)
    shuffled = np.c_[side, rng.permuted(np.tile(side, (permutations, 1)), axis=1).T]
    scores = scorer @ (shuffled - side.mean())
    auc = _auc(scores, shuffled)
    p = float((auc >= auc[0] - 1e-12).mean())
    return _Test(float(auc[0]), p, scores=(_plain(scores[side == 0, 0]), _plain(scores[side == 1, 0])))


def _plain(scores: Floats) -> tuple[float, ...]:
    return tuple(map(float, scores))


def _components(vectors: Floats) -> Floats:
    """Principal components `[rows, k]` of unit variance, of the standardised columns of both sides together."""
    spread = vectors.std(0)
    scaled = (vectors - vectors.mean(0))[:, spread > 1e-9] / spread[spread > 1e-9]
    if not scaled.shape[1]:
        return np.zeros((len(vectors), 1))
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    count = max(1, min(COMPONENTS, len(vectors) // FOLDS, int((s > 1e-9 * s[0]).sum())))
    return np.asarray(u[:, :count] * np.sqrt(len(vectors)))


def _out_of_fold_scorer(vectors: Floats, rng: np.random.Generator) -> Floats:
    """A matrix `[rows, rows]` that turns centred labels into the score of each row, by ridge fits to the other folds.

    There is no intercept. It would contain how many rows of each side are in the other folds, and so say something
    about the label of the row itself.
    """
    fold = rng.permutation(np.arange(len(vectors)) % FOLDS)
    scorer = np.zeros((len(vectors), len(vectors)))
    for n in range(FOLDS):
        out, rest = np.flatnonzero(fold == n), np.flatnonzero(fold != n)
        x = vectors[rest]
        scorer[np.ix_(out, rest)] = vectors[out] @ np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T)
    return scorer


def _auc(scores: Floats, side: Floats) -> Floats:
    """Area under the ROC curve of each column: scores `[n, b]`, sides `[n, b]` -> `[b]`."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    ones = side[:, 0].sum()
    return np.asarray(((ranks * side).sum(0) - ones * (ones + 1) / 2) / (ones * (len(side) - ones)))
