"""Distillation: the out-of-fold probabilities of an ensemble in, one small network that learnt them out.

The student is a network of the head `sequence` on `logspec`. It learns the ensemble's calibrated probabilities in the
place of the labels (Hinton et al., Distilling the knowledge in a neural network, 2015), each of them made by models
that had not seen the unit. Stackers, decision rule and calibration are then fitted as those of an ensemble, to its own
out-of-fold predictions and the true labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.config import SearchParams
from heartml.core.system.errors import HeartMLError
from heartml.core.system.progress import track
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.selection import EnsemblePrediction, EnsembleTerms, FittedEnsemble, fit, out_of_fold
from heartml.models.ensemble.stacking import StackingView, features_of_views, view_kinds
from heartml.models.heads import HeadState
from heartml.training import search_results
from heartml.training.fold_fits import TrainingData
from heartml.training.search_run import joined_folds
from heartml.training.search_space import derive_seed, fixed_hyperparameters

ENCODER, HEAD = "logspec", "sequence"
TRIAL = 0       # its number in the student's model


class CannotDistil(HeartMLError):  # noqa: N818 - names what is the case
    """There is nothing that a student could be made from; the message says what is missing."""


@dataclass(frozen=True)
class Student:
    """A fitted student.

    Attributes:
        spec, head: its network.
        ensemble: its stackers, decision rule and calibration.
        out_of_fold: its predictions for the units of the training set, each by a network that was fitted without the
            unit's fold.
    """

    spec: CandidateSpec
    head: HeadState
    ensemble: FittedEnsemble
    out_of_fold: EnsemblePrediction


def student_spec(search: Path, params: SearchParams) -> CandidateSpec:
    """The network to train: the best one of the search, else the first initial trial of that kind in `params.yaml`.

    Args:
        search: folder of the search's outputs.

    Raises:
        CannotDistil: there is neither.
    """
    table = pd.read_parquet(search / "trials.parquet")
    of_kind = table[(table["state"] == "COMPLETE") & (table["head"] == HEAD) & (table["encoder"] == ENCODER)]
    if len(of_kind):
        best = of_kind.sort_values(["value", "trial"], ascending=[False, True]).iloc[0]
        return search_results.spec_of(best.to_dict())
    for one in params.initial_trials:
        if (one.head, one.encoder) == (HEAD, ENCODER):
            numbers = {**one.hyperparameters, **fixed_hyperparameters(params, HEAD)}
            return CandidateSpec(ENCODER, HEAD, "recording", None, numbers)
    raise CannotDistil(f"params.yaml: a student is a network `{HEAD}` on {ENCODER}, and search.initial_trials has "
                       f"none: add a line `encoder={ENCODER} level=recording head={HEAD} dropout=0.2 rate=4.0e-3 "
                       "frame_weight=1.0 strength=1.0`")


def train(data: TrainingData, taught: NDArray[np.float64], spec: CandidateSpec, terms: EnsembleTerms,
          seed: int) -> Student:
    """Train a student, and one without each fold to know how it does.

    Args:
        taught: the ensemble's out-of-fold probabilities of every unit `[u, k]`.
    """
    train_set = data.train_set
    clean, noisy = [], []
    for fold in track(range(train_set.folds), "distil", train_set.folds):
        here = train_set.parts == fold
        fitted = data.fit(spec, ~here, derive_seed(seed, fold), probabilities=taught)
        found, in_noise = data.predict_with_noise(fitted, spec, here, here)
        clean.append(found)
        noisy += [] if in_noise is None else [in_noise]
    predictions = {TRIAL: joined_folds(spec, clean, train_set)}
    in_noise_too = {TRIAL: joined_folds(spec, noisy, train_set)} if noisy else {}
    views = [StackingView((TRIAL,), kind) for kind in view_kinds(spec, train_set.task, predictions[TRIAL])]
    features = features_of_views(views, predictions, in_noise_too, train_set.unit)
    of_units = train_set.labels, train_set.groups, train_set.parts, terms
    everything = np.ones(len(train_set.unit_ids), bool)
    head = data.fit(spec, everything, derive_seed(seed, train_set.folds), probabilities=taught)
    return Student(spec, head.state(), fit(features, *of_units), out_of_fold(features, *of_units))
