"""Final fits: the selected trials in, their fitted heads for the model out; and the out-of-fold predictions as a table.

The search has stored the network heads, one for each fold. Other heads are fitted once more, to everything that is not
held out.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.core import config, paths
from heartml.core.system import parallel
from heartml.core.system.progress import track
from heartml.metrics import METRICS
from heartml.models.applicability import Finding, checks_column
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.selection import EnsemblePrediction, FittedEnsemble
from heartml.models.ensemble.stacking import StackerKind, StackingView
from heartml.models.heads import HeadState
from heartml.training import fold_fits, search_results, search_space
from heartml.training.fold_fits import TrainingData
from heartml.training.training_set import TrainingSet


@dataclass(frozen=True)
class Refit:
    """What a worker process needs to fit any spec to everything that is not held out."""

    name: str
    encoders: tuple[str, ...]
    root: Path
    seed: int


def fit_heads(
    name: str, params: config.Params, used: Mapping[int, CandidateSpec], data: TrainingData
) -> dict[int, tuple[HeadState, ...]]:
    """Fitted heads of every used trial: one, or of a network those of the folds."""
    to_fit = [trial for trial, spec in used.items() if spec.head_module.TAKES == "vectors"]
    refit = functools.partial(_refit, Refit(name, params.encoders, Path.cwd(), params.seed))
    count = 1 if len(to_fit) < 2 else parallel.available_workers(params.search.for_task(name).workers)
    with parallel.pool(count) as workers:
        states = workers.map(refit, [(trial, used[trial]) for trial in to_fit])
        fitted = dict(zip(to_fit, track(states, "ensemble: fit", len(to_fit)), strict=True))
    folder, folds = paths.search(name), data.train_set.folds
    return {trial: (fitted[trial],) if trial in fitted else search_results.stored_heads(folder, trial, folds)
            for trial in used}


def _refit(context: Refit, member: tuple[int, CandidateSpec]) -> HeadState:
    trial, spec = member
    data = fold_fits.training_data(context.name, context.encoders, context.root, shared=True)
    everything = np.ones(len(data.train_set.unit_ids), bool)
    return data.fit(spec, everything, search_space.derive_seed(context.seed, trial, data.train_set.folds)).state()


def encoder_specs(data: TrainingData, used: Mapping[int, CandidateSpec]) -> dict[str, dict[str, Any]]:
    """The saved spec of each encoder that a used trial needs, see `Model.encoder_specs`."""
    names = sorted({spec.encoder for spec in used.values()})
    return {encoder: dict(data.encoders[encoder].encoder) for encoder in names}


def out_of_fold_table(
    train_set: TrainingSet, prediction: EnsemblePrediction, reasons: Sequence[Sequence[Finding]] | None = None
) -> pd.DataFrame:
    """One row for each unit: unit_id, group_id, label, part, decision, p_<class>, c_<class> (calibrated).

    Args:
        reasons: why each unit `[u]` is referred whatever the confidence. They become the column `referred_for`.
    """
    classes = np.array(train_set.task.classes)
    table = pd.DataFrame({
        "unit_id": train_set.unit_ids, "group_id": train_set.group_ids, "label": classes[train_set.labels],
        "part": train_set.parts.astype(str), "decision": classes[prediction.decisions],
    }).astype("string")
    for kind, values in (("p", np.exp(prediction.log_p)), ("c", prediction.calibrated)):
        table[[f"{kind}_{label}" for label in train_set.task.classes]] = values
    return table if reasons is None else table.assign(referred_for=checks_column(reasons))


def summary_line(
    train_set: TrainingSet, specs: Mapping[int, CandidateSpec], ensemble: FittedEnsemble, prediction: EnsemblePrediction
) -> str:
    """`16 trials in, 0.3 x sequence on logspec (trial 0, stack), ... out, uar 0.710 out of fold`."""
    metric = METRICS[train_set.task.metric]
    found = metric.function(train_set.labels, np.exp(prediction.log_p), prediction.decisions, train_set.task.classes)
    members = ", ".join(describe_member(view, weight, specs, ensemble.stackers[view].kind)
                        for view, weight in ensemble.weights.items())
    return f"{len(specs)} trials in, {members} out, {metric.name} {found:.3f} out of fold"


def describe_member(view: StackingView, weight: float, specs: Mapping[int, CandidateSpec],
                    stacker: StackerKind = "logistic") -> str:
    """`0.3 x sequence on logspec (trial 0, stack)`; `stack, trees` where the stacker is no logistic regression."""
    spec, trials = specs[view.trials[0]], view.trials
    by = "" if stacker == "logistic" else f", {stacker}"
    which = f"trial {trials[0]}" if len(trials) == 1 else f"trials {', '.join(map(str, trials))}"
    return f"{weight:g} x {spec.head} on {spec.encoder} ({which}, {view.kind}{by})"
