"""Are these recordings like those? Two tables of independent groups in, one finding for each measure out. Pure.

Numbers are compared by the two-sample Kolmogorov-Smirnov test, decisions by permutation of their counts, embeddings by
a classifier two-sample test (Lopez-Paz & Oquab, ICLR 2017): a ridge classifier is cross-fitted to tell the sides apart,
its AUC is held against the same with the sides' names shuffled. The classifier is linear in the names, so that all
shuffles cost one product of matrices.

A drift is one that is both certain and large. Certain: p after Holm's correction below `alpha`. Holm (Scand. J. Stat.
1979) and not Benjamini-Yekutieli, because one false measure is a false alarm: it holds the chance of any of them below
`alpha`, however the measures depend on each other, and loses no harmonic sum on the smallest p. Large: the effect,
since on ten thousand recordings a p value falls for a difference that nobody would hear.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.config import MonitorParams

DRIFT, SMALL, SAME, FEW = "drift", "small", "none", "too few"
FOLDS = 5
COMPONENTS = 16              # principal components that the classifier hears
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """What is compared: a column of both tables, in words, with its unit; `kind`: signal, embedding, prediction.

    `step`: values are rounded to multiples of it; a converter's offset of a millionth is no difference.
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
    """What was found of one measure.

    Attributes:
        state: `DRIFT`, `SMALL` (certain, but too small to matter), `SAME` or `FEW` (not enough to say).
        effect: largest distance between the two distribution functions; of decisions the share that would have to
            change; of embeddings the AUC of telling the sides apart. `None` where there is not enough to say.
        threshold: of the effect.
        p, p_holm: before and after the correction.
        groups: independent groups of the reference, and new ones.
        reference, new: medians, or the share of each class; of embeddings nothing.
        scores: of embeddings what the classifier says of each group, reference and new; else `None`.
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
    """One finding for each of `MEASURES`.

    Args:
        reference, new: one row an independent group, columns as in heartml/inference/monitoring/reference.py.
    """
    sides = {m: (reference[m.column].dropna(), new[m.column].dropna()) for m in MEASURES}
    enough = [m for m in MEASURES if min(map(len, sides[m])) >= params.min_groups]
    tests = {m: _test(m, *sides[m], params, rng) for m in enough}
    corrected = dict(zip(enough, holm([tests[m].p for m in enough]), strict=True))
    return tuple(_finding(m, sides[m], tests.get(m), corrected.get(m), params) for m in MEASURES)


def _test(m: Measure, reference: "pd.Series", new: "pd.Series", params: MonitorParams,
          rng: np.random.Generator) -> _Test:
    if m.kind == "embedding":
        return embeddings(np.stack(list(reference)), np.stack(list(new)), params.permutations, rng)
    if m.column == "leaning":
        return decisions(list(reference), list(new), params.permutations, rng)
    return numbers(*(rounded(side.to_numpy(np.float64), m.step) for side in (reference, new)))


def rounded(values: Floats, step: float) -> Floats:
    """To multiples of `step`; as they are where it is 0."""
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
    """Holm's step-down correction: `[m] -> [m]`."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    corrected = np.empty(len(values))
    corrected[order] = stepped
    return [float(value) for value in corrected]


def numbers(reference: Floats, new: Floats) -> _Test:
    """Kolmogorov-Smirnov of `[r]` and `[n]`; with ties its p is too large, never too small."""
    from scipy.stats import ks_2samp

    found = ks_2samp(reference, new)
    return _Test(float(found.statistic), float(found.pvalue), float(np.median(reference)), float(np.median(new)))


def decisions(reference: Sequence[str], new: Sequence[str], permutations: int, rng: np.random.Generator) -> _Test:
    """Total variation distance of the classes' shares; p over the counts that shuffled sides would have."""
    classes = sorted({*reference, *new})
    counts = np.array([[side.count(name) for name in classes] for side in (list(reference), list(new))])
    total, n = counts.sum(0), int(counts[1].sum())
    shuffled = rng.multivariate_hypergeometric(total, n, size=permutations)
    observed = _distance(counts[1][None], total)[0]
    p = (1 + int((_distance(shuffled, total) >= observed - 1e-12).sum())) / (permutations + 1)
    shares = [dict(zip(classes, map(float, side / side.sum()), strict=True)) for side in counts]
    return _Test(float(observed), p, shares[0], shares[1])


def _distance(new: NDArray[np.int64], total: NDArray[np.int64]) -> Floats:
    """Total variation distance between shares in counts `new` [b, k] and in the rest of `total` [k]."""
    rest = total - new
    shares = new / new.sum(1, keepdims=True) - rest / rest.sum(1, keepdims=True)
    return np.asarray(np.abs(shares).sum(1) / 2)


def embeddings(reference: NDArray[np.floating], new: NDArray[np.floating], permutations: int,
               rng: np.random.Generator) -> _Test:
    """AUC of a cross-fitted classifier between `[r, d]` and `[n, d]`, and its p by shuffling the sides."""
    vectors = _components(np.concatenate([reference, new]).astype(np.float64))
    side = np.r_[np.zeros(len(reference)), np.ones(len(new))]
    judge = _cross_fitted(vectors, rng)
    shuffled = np.c_[side, rng.permuted(np.tile(side, (permutations, 1)), axis=1).T]
    said = judge @ (shuffled - side.mean())
    auc = _auc(said, shuffled)
    p = float((auc >= auc[0] - 1e-12).mean())
    return _Test(float(auc[0]), p, scores=(_plain(said[side == 0, 0]), _plain(said[side == 1, 0])))


def _plain(scores: Floats) -> tuple[float, ...]:
    return tuple(map(float, scores))


def _components(vectors: Floats) -> Floats:
    """Principal components of unit variance `[rows, k]`, of columns that are standardised; blind to the sides."""
    spread = vectors.std(0)
    scaled = (vectors - vectors.mean(0))[:, spread > 1e-9] / spread[spread > 1e-9]
    if not scaled.shape[1]:
        return np.zeros((len(vectors), 1))
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    count = max(1, min(COMPONENTS, len(vectors) // FOLDS, int((s > 1e-9 * s[0]).sum())))
    return np.asarray(u[:, :count] * np.sqrt(len(vectors)))


def _cross_fitted(vectors: Floats, rng: np.random.Generator) -> Floats:
    """`[rows, rows]`: times centred names of the sides it gives each row's score, by a ridge fit to the other folds.

    No intercept: it would tell a row how many of each side the other folds hold, and with that something of its own.
    """
    fold = rng.permutation(np.arange(len(vectors)) % FOLDS)
    judge = np.zeros((len(vectors), len(vectors)))
    for n in range(FOLDS):
        out, rest = np.flatnonzero(fold == n), np.flatnonzero(fold != n)
        x = vectors[rest]
        judge[np.ix_(out, rest)] = vectors[out] @ np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T)
    return judge


def _auc(scores: Floats, side: Floats) -> Floats:
    """Area under the ROC curve of each column: scores `[n, b]`, sides `[n, b]` -> `[b]`."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    ones = side[:, 0].sum()
    return np.asarray(((ranks * side).sum(0) - ones * (ones + 1) / 2) / (ones * (len(side) - ones)))
