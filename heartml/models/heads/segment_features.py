"""Soft segments: how a recording sounds in systole compared with diastole, without hard boundaries between them.

Frames `[frames, dim]` and posteriors `[frames / 2, 4 + classes]` of one recording come in, one vector comes out. The
posteriors of the sequence head weight the band energies. A murmur is energy in systole that diastole does not have. The
first and second heart sounds around it tell where in systole it lies.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

S1, DIASTOLE, S2, UNANNOTATED, FIRST_SYSTOLE = 0, 1, 2, 3, 4
_GROUPS = 16           # of neighbouring bands
_NEAR_FRAMES = 3       # 120 ms at 25 Hz: length of early and of late systole
_QUANTILES = (0.5, 0.75, 0.9, 0.97)
_SURE = 0.8


def soft_segments(frames: NDArray[np.float32], posteriors: NDArray[np.float32]) -> Floats:
    """Features of one recording: `[6 * 16 + 5 * classes + 5]`.

    Args:
        frames: log band energies `[2 t, dim]` or `[2 t - 1, dim]`.
        posteriors: `[t, 4 + classes]`; columns are S1, diastole, S2, unannotated, and systole of each class.
    """
    energy = _grouped(frames[::2].astype(np.float64))
    p = posteriors.astype(np.float64)
    s1, diastole, s2, by_class = p[:, S1], p[:, DIASTOLE], p[:, S2], p[:, FIRST_SYSTOLE:]
    systole = by_class.sum(1)
    early, late = systole * _recent(s1), systole * _recent(s2[::-1])[::-1]
    middle = systole * (1 - _recent(s1)) * (1 - _recent(s2[::-1])[::-1])
    quiet, during = _mean(energy, diastole), _mean(energy, systole)
    contrasts = [during - quiet, *(_mean(energy, w) - quiet for w in (early, middle, late)),
                 _mean(energy, s1) - during, _mean(energy, s2) - during]
    odds = np.log(by_class + 1e-4) - np.log(systole[:, None] - by_class + 1e-4)
    entropy = -(p * np.log(p + 1e-6)).sum(1)
    return np.concatenate([
        *contrasts, _mean(odds, systole), np.quantile(by_class, _QUANTILES, axis=0).ravel(),
        [entropy.mean(), (p.max(1) > _SURE).mean(), p[:, UNANNOTATED].mean(), systole.mean(), diastole.mean()],
    ])


def size(dim: int, classes: int) -> int:
    """Number of features of `soft_segments`."""
    return 6 * min(_GROUPS, dim) + (1 + len(_QUANTILES)) * classes + 5


def _grouped(energy: Floats) -> Floats:
    """Mean over neighbouring bands: `[t, dim] -> [t, 16]`."""
    groups = np.array_split(np.arange(energy.shape[1]), min(_GROUPS, energy.shape[1]))
    return np.stack([energy[:, group].mean(1) for group in groups], axis=1)


def _mean(values: Floats, weights: Floats) -> Floats:
    """Weighted mean over time: `[t, n], [t] -> [n]`. No weight is zero, so that their sum is not zero either."""
    positive = weights + 1e-3
    return np.asarray((positive[:, None] * values).sum(0) / positive.sum())


def _recent(posterior: Floats) -> Floats:
    """Highest posterior among the frames just before each frame: `[t]`."""
    padded = np.concatenate([np.zeros(_NEAR_FRAMES), posterior])
    return np.asarray(np.max([padded[k : k + len(posterior)] for k in range(_NEAR_FRAMES)], axis=0))
