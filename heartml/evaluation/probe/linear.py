"""A linear probe: pooled vectors of recordings in, out-of-fold probabilities of units out. Pure.

Logistic regression on standardised columns, fitted to recordings; a unit's probabilities are the mean of its
recordings'. Its penalty is chosen inside the training folds, which are dealt into three inner folds. Where an encoder
has several poolings or layers, the one to use is chosen there too. So no choice sees the fold that is predicted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads.softmax import Softmax
from heartml.training.training_set import TrainingSet

CS = (1e-4, 1e-3, 1e-2, 1e-1)      # inverse penalties
INNER_FOLDS = 3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Probed:
    """Out-of-fold predictions of the units `[u]` of a task.

    Attributes:
        probabilities: name of a pooling -> `[u, k]`.
        inner_losses: name of a pooling -> mean log loss in the inner folds, for each fold `[folds]`.
        priors: shares of the classes among the training units of each unit `[u, k]`.
    """

    probabilities: Mapping[str, Floats]
    inner_losses: Mapping[str, Floats]
    priors: Floats

    def chosen(self, parts: Ints) -> Floats:
        """For each unit the probabilities of the pooling that was best in the inner folds: `[u, k]`."""
        names = list(self.probabilities)
        best = np.argmin([self.inner_losses[name] for name in names], axis=0)
        return np.stack([self.probabilities[names[best[part]]][unit] for unit, part in enumerate(parts)])

    def decisions(self, probabilities: Floats) -> Ints:
        """The class whose probability exceeds its share in training the most: `[u]`, which mean recall asks for."""
        return np.asarray((probabilities / self.priors).argmax(1))


def out_of_fold(vectors: Mapping[str, Floats], train_set: TrainingSet) -> Probed:
    """Probe every pooling.

    Args:
        vectors: name of a pooling -> one vector for each recording `[r, f]`.
    """
    classes = len(train_set.task.classes)
    priors = np.stack([np.bincount(train_set.labels[train_set.parts != part], minlength=classes) + 0.5
                       for part in train_set.parts])
    probabilities, losses = {}, {}
    for name, own in vectors.items():
        found = np.zeros((len(train_set.unit_ids), classes))
        of_fold = np.zeros(train_set.folds)
        for fold in range(train_set.folds):
            here = train_set.parts == fold
            c, of_fold[fold] = choose(own, train_set, ~here)
            found[here] = predict(fit(own, train_set, ~here, c), own, train_set, here)
        probabilities[name], losses[name] = found, of_fold
    return Probed(probabilities, losses, priors / priors.sum(1, keepdims=True))


def choose(vectors: Floats, train_set: TrainingSet, units: NDArray[np.bool_]) -> tuple[float, float]:
    """The inverse penalty with the lowest log loss in the inner folds of `units` `[u]`, and that loss."""
    rank = {part: number for number, part in enumerate(np.unique(train_set.parts[units]))}
    inner = np.array([rank.get(part, -1) % INNER_FOLDS if part in rank else -1 for part in train_set.parts])
    losses = []
    for c in CS:
        total = 0.0
        for number in range(INNER_FOLDS):
            inside = inner == number
            p = predict(fit(vectors, train_set, units & ~inside, c), vectors, train_set, inside)
            total -= np.log(np.maximum(p[np.arange(len(p)), train_set.labels[inside]], 1e-3)).sum()
        losses.append(total / units.sum())
    best = int(np.argmin(losses))
    return CS[best], losses[best]


def fit(vectors: Floats, train_set: TrainingSet, units: NDArray[np.bool_], c: float) -> Softmax:
    """The regression fitted to the recordings of the `units` `[u]`."""
    rows = train_set.recordings_of(units)
    return Softmax.fit(vectors[rows], train_set.recording_labels[rows], len(train_set.task.classes), np.ones(len(rows)),
                       c)


def predict(model: Softmax, vectors: Floats, train_set: TrainingSet, units: NDArray[np.bool_]) -> Floats:
    """Mean over the recordings of each of the `units`: `[units, k]`."""
    rows = train_set.recordings_of(units)
    p = np.exp(model.predict_log_proba(vectors[rows]))
    number = np.cumsum(units) - 1
    of_unit = number[train_set.unit[rows]]
    sums = np.zeros((int(units.sum()), p.shape[1]))
    np.add.at(sums, of_unit, p)
    return np.asarray(sums / np.bincount(of_unit, minlength=len(sums))[:, None])
