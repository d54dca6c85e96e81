"""Stacking: predictions about `r` recordings in, log-probabilities of `u` units `[u, k]` out.

A view is one way to do this. `direct`: the predictions are about units already and are taken as they are. `stack`:
logistic regression on mean, maximum, minimum and mean of the two highest log-probabilities over a patient's recordings.
`segments`: the same with the soft segments of the sequence head as further columns. On CirCor, stacking for each
patient is worth .03 of mean recall over any fixed rule. With many patients boosted trees, or their mean with logistic
regression, can be better on the same columns; `heartml.models.ensemble.selection` chooses.

Some networks are trained on noisy crops. Their stackers are fitted to the predictions for each unit as recorded, and
once more to those with noise added, so that they learn how such a network predicts noisy recordings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heartml.core.config import StackingParams
from heartml.core.tasks import Task
from heartml.models.ensemble import stacking_trees
from heartml.models.ensemble.candidate import CandidateSpec, mean_prediction
from heartml.models.heads import HeadPrediction, learns_parent
from heartml.models.heads.lightgbm import FittedBoosting
from heartml.models.heads.log_probabilities import normalise
from heartml.models.heads.softmax import Softmax
from heartml.models.pooling import rows_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ViewKind = Literal["direct", "stack", "segments"]
StackerKind = Literal["logistic", "trees", "mean"]
STACKER_KINDS: tuple[StackerKind, ...] = ("logistic", "trees", "mean")
_BOOSTER, _SOFTMAX = "booster", "softmax."      # names of stored arrays
VIEW_KINDS: tuple[ViewKind, ...] = ("direct", "stack", "segments")


@dataclass(frozen=True, order=True)
class StackingView:
    """One way to make stacking features from one trial, or from several networks whose predictions are averaged."""

    trials: tuple[int, ...]
    kind: ViewKind

    def __str__(self) -> str:
        return f"{'+'.join(map(str, self.trials))}-{self.kind}"


@dataclass(frozen=True)
class StackingFeatures:
    """Inputs of a stacker `[u, columns]`: of units as recorded and, where it is fitted to them, with noise added."""

    clean: Floats
    noisy: Floats | None = None

    def subset(self, units: NDArray[np.bool_] | Ints) -> "StackingFeatures":
        """The features of some units."""
        return StackingFeatures(self.clean[units], None if self.noisy is None else self.noisy[units])

    def training_rows(self, labels: Ints) -> tuple[Floats, Ints]:
        """Rows to fit a stacker to, and their labels: units as recorded, then those with noise where there are any."""
        if self.noisy is None:
            return self.clean, labels
        return np.concatenate([self.clean, self.noisy]), np.concatenate([labels, labels])


def stacking_views(predictions: Mapping[int, HeadPrediction], specs: Mapping[int, CandidateSpec],
                   task: Task) -> list[StackingView]:
    """Every view of complete trials; trials of one network head on one encoder are averaged and share their views.

    Networks of one kind differ by chance. Their average is better than each of them, and choosing one of them would be
    luck.
    """
    members: dict[tuple[object, ...], list[int]] = {}
    for trial, spec in sorted(specs.items()):
        key = (spec.head, spec.encoder) if spec.head_module.TAKES == "frames" else (trial,)
        members.setdefault(key, []).append(trial)
    return [StackingView(tuple(trials), kind) for trials in members.values()
            for kind in view_kinds(specs[trials[0]], task, predictions[trials[0]])]


def prediction_of(view: StackingView, predictions: Mapping[int, HeadPrediction]) -> HeadPrediction:
    """The mean prediction of a view's trials."""
    return mean_prediction([predictions[trial] for trial in view.trials])


def view_kinds(spec: CandidateSpec, task: Task, prediction: HeadPrediction) -> tuple[ViewKind, ...]:
    """The kinds of view that a trial's prediction allows. The first one is used to score the trial."""
    if learns_parent(spec.head_module):
        return ("segments",)
    first: ViewKind = "direct" if spec.level == "unit" or task.unit == "recording" else "stack"
    return (first,) if prediction.details is None else (first, "segments")


def features_of_views(
    views: Iterable[StackingView], predictions: Mapping[int, HeadPrediction], noisy: Mapping[int, HeadPrediction],
    unit: Ints,
) -> dict[StackingView, StackingFeatures]:
    """Stacking features of views.

    Args:
        predictions: trial -> prediction about the recordings as they are.
        noisy: trial -> prediction about the same recordings with noise added; only of trials that have one.
        unit: index of each recording's unit `[r]`.
    """
    return {view: stacking_features(view.kind, prediction_of(view, predictions), unit,
                                    prediction_of(view, noisy) if set(view.trials) <= set(noisy) else None)
            for view in views}


def is_stacked(spec: CandidateSpec, task: Task, prediction: HeadPrediction) -> bool:
    """Whether a stacker is fitted to such predictions."""
    return view_kinds(spec, task, prediction) != ("direct",)


def stacking_features(kind: ViewKind, prediction: HeadPrediction, unit: Ints,
                      noisy: HeadPrediction | None = None) -> StackingFeatures:
    """Stacking features of one view: see `feature_columns`; `noisy` is the prediction with noise added."""
    in_noise = None if noisy is None or kind == "direct" else feature_columns(kind, noisy, unit)
    return StackingFeatures(feature_columns(kind, prediction, unit), in_noise)


def feature_columns(kind: ViewKind, prediction: HeadPrediction, unit: Ints) -> Floats:
    """The columns of one view: predictions `[r, k]` (of `direct`: `[u, k]`), units `[r]` -> `[u, columns]`."""
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
    """The fitted model of one view: logistic regression, trees, or both, whose log-probabilities are averaged.

    Both are `None` for `direct`, which has nothing to fit.
    """

    softmax: Softmax | None
    trees: FittedBoosting | None = None

    @property
    def kind(self) -> StackerKind:
        """Which of `STACKER_KINDS` it is; `logistic` also where there is nothing to fit."""
        if self.trees is None:
            return "logistic"
        return "trees" if self.softmax is None else "mean"

    @classmethod
    def fit(cls, kind: ViewKind, features: StackingFeatures, labels: Ints, gains: Floats,
            params: StackingParams, model: StackerKind = "logistic") -> "Stacker":
        """Fit to features of `n` units with labels `[n]`; a unit weighs as much as the gain `[k]` of its class."""
        if kind == "direct":
            return cls(None)
        c = params.stack_c if kind == "stack" else params.segments_c
        rows, classes = features.training_rows(labels)
        softmax = None if model == "trees" else Softmax.fit(rows, classes, len(gains), gains[classes], c)
        if model == "logistic" or params.trees is None:
            return cls(softmax)
        return cls(softmax, stacking_trees.fit(rows, classes, gains, params.trees))

    def predict_log_proba(self, columns: Floats) -> Floats:
        """Stacking features `[n, columns]` -> log-probabilities `[n, k]`."""
        found = [] if self.softmax is None else [self.softmax.predict_log_proba(columns)]
        found += [] if self.trees is None else [self.trees.predict_proba(columns).log_p]
        if not found:
            return columns
        return found[0] if len(found) == 1 else mean_of_stackers(*found)

    def arrays(self) -> Mapping[str, NDArray[np.generic]]:
        """The fitted arrays, for saving; `from_arrays` reads them.

        Where there are trees, those of the logistic regression have other names, so that an older version of this
        project refuses the model instead of reading half of it.
        """
        own = {} if self.softmax is None else self.softmax.arrays()
        if self.trees is None:
            return own
        return {_BOOSTER: stacking_trees.as_array(self.trees), **{f"{_SOFTMAX}{key}": one for key, one in own.items()}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "Stacker":
        """The stacker that `arrays` was called on."""
        if _BOOSTER not in arrays:
            return cls(Softmax.from_arrays(arrays) if arrays else None)
        own = {key.removeprefix(_SOFTMAX): one for key, one in arrays.items() if key.startswith(_SOFTMAX)}
        return cls(Softmax.from_arrays(own) if own else None, stacking_trees.from_array(arrays[_BOOSTER]))


def mean_of_stackers(logistic: Floats, trees: Floats) -> Floats:
    """The mean of two stackers' log-probabilities `[n, k]`, normalised."""
    return normalise((logistic + trees) / 2)


def out_of_fold_log_p(
    kind: ViewKind, features: StackingFeatures, labels: Ints, parts: Ints, gains: Floats, params: StackingParams,
    model: StackerKind = "logistic",
) -> Floats:
    """Log-probabilities `[n, k]` of units as recorded; each fold `parts` `[n]` by a stacker fitted on the others."""
    if kind == "direct":
        return features.clean
    log_p = np.zeros((len(labels), len(gains)))
    for part in np.unique(parts):
        here = parts == part
        fitted = Stacker.fit(kind, features.subset(~here), labels[~here], gains, params, model)
        log_p[here] = fitted.predict_log_proba(features.clean[here])
    return log_p
