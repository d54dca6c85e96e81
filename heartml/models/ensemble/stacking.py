"""Readings: how what members prediction about recordings becomes log-probabilities of units.

`direct`: it already is about units. `stack`: logistic regression on mean, maximum, minimum and mean of the two highest
log-probabilities over a patient's recordings. `segments`: the same with the soft segments of the sequence head.
Stacking per patient is worth .03 in mean recall over any fixed rule on CirCor. Readers of networks that were trained
on noisy crops are fitted to what these say of each unit as recorded and through noise: what a network says of noise is
read as what it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heartml.core.config import StackingParams
from heartml.core.tasks import Task
from heartml.models.ensemble.candidate import CandidateSpec, mean_prediction
from heartml.models.heads import HeadPrediction
from heartml.models.heads.softmax import Softmax
from heartml.models.pooling import rows_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ViewKind = Literal["direct", "stack", "segments"]
VIEW_KINDS: tuple[ViewKind, ...] = ("direct", "stack", "segments")


@dataclass(frozen=True, order=True)
class StackingView:
    """One way to read one trial, or a committee of trials whose predictions are averaged before they are read."""

    trials: tuple[int, ...]
    kind: ViewKind

    def __str__(self) -> str:
        return f"{'+'.join(map(str, self.trials))}-{self.kind}"


@dataclass(frozen=True)
class StackingFeatures:
    """What a view looks at: `[u, columns]` of units as recorded and, where stackers learn from it, through noise."""

    clean: Floats
    noisy: Floats | None = None

    def of(self, units: NDArray[np.bool_] | Ints) -> "StackingFeatures":
        """The same of some units."""
        return StackingFeatures(self.clean[units], None if self.noisy is None else self.noisy[units])

    def training_rows(self, labels: Ints) -> tuple[Floats, Ints]:
        """What a stacker is fitted to, and the labels `[u]` as often."""
        if self.noisy is None:
            return self.clean, labels
        return np.concatenate([self.clean, self.noisy]), np.concatenate([labels, labels])


def stacking_views(predictions: Mapping[int, HeadPrediction], specs: Mapping[int, CandidateSpec],
                   task: Task) -> list[StackingView]:
    """Every view of complete trials: each trial of vectors alone, those of frames of one head as a committee.

    Networks differ by chance: averaged, they say more than any of them, and there is nothing to choose by luck.
    """
    committees: dict[tuple[object, ...], list[int]] = {}
    for trial, spec in sorted(specs.items()):
        key = (spec.head, spec.encoder) if spec.family.TAKES == "frames" else (trial,)
        committees.setdefault(key, []).append(trial)
    return [StackingView(tuple(trials), kind) for trials in committees.values()
            for kind in view_kinds(specs[trials[0]], task, predictions[trials[0]])]


def prediction_of(view: StackingView, predictions: Mapping[int, HeadPrediction]) -> HeadPrediction:
    """The mean prediction of the trials that a view reads."""
    return mean_prediction([predictions[trial] for trial in view.trials])


def view_kinds(spec: CandidateSpec, task: Task, prediction: HeadPrediction) -> tuple[ViewKind, ...]:
    """The views that an prediction allows; the first one scores the trial."""
    first: ViewKind = "direct" if spec.level == "unit" or task.unit == "recording" else "stack"
    return (first,) if prediction.details is None else (first, "segments")


def features_of_views(
    wanted: Iterable[StackingView], predictions: Mapping[int, HeadPrediction], noisy: Mapping[int, HeadPrediction],
                      unit: Ints
) -> dict[StackingView, StackingFeatures]:
    """Evidence of views from their trials' predictions about the same recordings, as recorded and through noise."""
    return {r: stacking_features(r.kind, prediction_of(r, predictions), unit,
                        prediction_of(r, noisy) if set(r.trials) <= set(noisy) else None) for r in wanted}


def is_stacked(spec: CandidateSpec, task: Task, prediction: HeadPrediction) -> bool:
    """Whether a stacker is fitted to such predictions."""
    return view_kinds(spec, task, prediction) != ("direct",)


def stacking_features(kind: ViewKind, prediction: HeadPrediction, unit: Ints,
                      noisy: HeadPrediction | None = None) -> StackingFeatures:
    """Predictions `[r or u, k]`, unit of each recording `[r]`, predictions with noise -> `[u, columns]` of both."""
    read = None if noisy is None or kind == "direct" else feature_columns(kind, noisy, unit)
    return StackingFeatures(feature_columns(kind, prediction, unit), read)


def feature_columns(kind: ViewKind, prediction: HeadPrediction, unit: Ints) -> Floats:
    """What the view looks at in predictions about recordings or units: `[u, columns]`."""
    if kind == "direct":
        return prediction.log_p
    rows = rows_of(unit)
    stacked = np.stack([_over_recordings(prediction.log_p[r]) for r in rows])
    if kind == "stack" or prediction.details is None:
        return stacked
    details = prediction.details
    return np.hstack([stacked, np.stack([_summary(details[r]) for r in rows])])


def _over_recordings(log_p: Floats) -> Floats:
    """Mean, maximum, minimum, mean of the two highest: `[recordings, k] -> [4 k]`."""
    return np.concatenate([_summary(log_p), np.sort(log_p, axis=0)[-2:].mean(0)])


def _summary(values: Floats) -> Floats:
    return np.concatenate([values.mean(0), values.max(0), values.min(0)])


@dataclass(frozen=True)
class Stacker:
    """A fitted view; `direct` has nothing to fit."""

    softmax: Softmax | None

    @classmethod
    def fit(cls, kind: ViewKind, seen: StackingFeatures, labels: Ints, gains: Floats,
            params: StackingParams) -> "Stacker":
        """Fitted to features of `n` units, weighted by the gain of their class."""
        if kind == "direct":
            return cls(None)
        c = params.stack_c if kind == "stack" else params.segments_c
        rows, classes = seen.training_rows(labels)
        return cls(Softmax.fit(rows, classes, len(gains), gains[classes], c))

    def predict_log_proba(self, seen: Floats) -> Floats:
        """Evidence `[n, columns]` -> log-probabilities `[n, k]`."""
        return seen if self.softmax is None else self.softmax.predict_log_proba(seen)

    def arrays(self) -> Mapping[str, NDArray[np.generic]]:
        """For saving; `from_arrays` is the way back."""
        return {} if self.softmax is None else self.softmax.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "Stacker":
        """What `arrays` described."""
        return cls(Softmax.from_arrays(arrays) if arrays else None)


def out_of_fold_log_p(
    kind: ViewKind, seen: StackingFeatures, labels: Ints, parts: Ints, gains: Floats, params: StackingParams
) -> Floats:
    """Log-probabilities `[n, k]` of each fold as recorded, read by what the other folds taught."""
    if kind == "direct":
        return seen.clean
    log_p = np.zeros((len(labels), len(gains)))
    for part in np.unique(parts):
        here = parts == part
        log_p[here] = Stacker.fit(kind, seen.of(~here), labels[~here], gains,
                                  params).predict_log_proba(seen.clean[here])
    return log_p
