"""The selected trials, fitted for the model; and the ensemble's out-of-fold predictions as a table."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.core import config, paths
from heartml.core.system import parallel
from heartml.core.system.progress import track
from heartml.metrics import METRICS
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.selection import EnsemblePrediction, FittedEnsemble
from heartml.models.ensemble.stacking import StackingView
from heartml.models.heads import HeadState
from heartml.training import fold_fits, search_results, search_space
from heartml.training.fold_fits import TrainingData
from heartml.training.training_set import TrainingSet


@dataclass(frozen=True)
class Refit:
    """Fit a spec on everything that is not held out."""

    name: str
    encoders: tuple[str, ...]
    root: Path
    seed: int


def heads_of(
    name: str, params: config.Params, used: Mapping[int, CandidateSpec], data: TrainingData
) -> dict[int, tuple[HeadState, ...]]:
    """Fitted heads of every used trial."""
    again = [trial for trial, spec in used.items() if spec.family.TAKES == "vectors"]
    refit = functools.partial(_refit, Refit(name, params.encoders, Path.cwd(), params.seed))
    with parallel.pool(1 if len(again) < 2 else parallel.available_workers(params.search.of(name).workers)) as pool:
        states = pool.map(refit, [(trial, used[trial]) for trial in again])
        fitted = dict(zip(again, track(states, "ensemble: fit", len(again)), strict=True))
    folder, folds = paths.search(name), data.train_set.folds
    return {trial: (fitted[trial],) if trial in fitted else search_results.stored_heads(folder, trial,
                                                                                        folds) for trial in used}


def _refit(context: Refit, member: tuple[int, CandidateSpec]) -> HeadState:
    trial, spec = member
    data = fold_fits.training_data(context.name, context.encoders, context.root)
    everything = np.ones(len(data.train_set.unit_ids), bool)
    return data.fit(spec, everything, search_space.derive_seed(context.seed, trial, data.train_set.folds)).state()


def encoder_specs(data: TrainingData, used: Mapping[int, CandidateSpec]) -> dict[str, dict[str, Any]]:
    """What made the frames of each encoder that is used."""
    return {encoder: dict(data.encoders[encoder].encoder) for encoder in sorted({s.encoder for s in used.values()})}


def out_of_fold_table(train_set: TrainingSet, verdicts: EnsemblePrediction) -> pd.DataFrame:
    """One row a unit: unit_id, group_id, label, part, decision, p_<class>, c_<class>."""
    classes = np.array(train_set.task.classes)
    table = pd.DataFrame({
        "unit_id": train_set.unit_ids, "group_id": train_set.group_ids, "label": classes[train_set.labels],
        "part": train_set.parts.astype(str), "decision": classes[verdicts.decisions],
    }).astype("string")
    for kind, values in (("p", np.exp(verdicts.log_p)), ("c", verdicts.calibrated)):
        table[[f"{kind}_{label}" for label in train_set.task.classes]] = values
    return table


def in_words(
    train_set: TrainingSet, specs: Mapping[int, CandidateSpec], combination: FittedEnsemble,
             verdicts: EnsemblePrediction
) -> str:
    """`16 trials in, 4 members out: ..., out of fold uar 0.71`."""
    metric = METRICS[train_set.task.metric]
    found = metric.function(train_set.labels, np.exp(verdicts.log_p), verdicts.decisions, train_set.task.classes)
    members = ", ".join(member_words(view, weight, specs) for view, weight in combination.weights.items())
    return f"{len(specs)} trials in, {members} out, {metric.name} {found:.3f} cross-fitted"


def member_words(view: StackingView, weight: float, specs: Mapping[int, CandidateSpec]) -> str:
    """`0.3 x sequence on logspec (trial 0, stack)`."""
    spec, trials = specs[view.trials[0]], view.trials
    which = f"trial {trials[0]}" if len(trials) == 1 else f"trials {', '.join(map(str, trials))}"
    return f"{weight:g} x {spec.head} on {spec.encoder} ({which}, {view.kind})"
