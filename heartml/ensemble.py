"""Stage `ensemble`: from trials to one fitted model, and to what it would have said about units that it never saw.

In: the search's trials, frames, folds, recordings. Out: `artifacts/<task>/model/` (see `heartml.model`), and
`artifacts/<task>/out_of_fold.parquet`, in which selection, readers, decision rule and calibration of every fold were
fitted on the other folds.

Members whose heads were kept by the search (the sequence head) go in as the bag of their folds' networks: averaging
them costs no fit and beats one network on all data. The others are fitted once more, on everything not held out.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.core import config, files, parallel, paths
from heartml.core.progress import track
from heartml.core.stage import stage
from heartml.heads import State
from heartml.learning import bench, space, trial_files
from heartml.learning.bench import Bench
from heartml.learning.combination import Combination, Terms, Verdicts, cross_fitted, fit
from heartml.learning.members import Spec
from heartml.learning.problem import Problem
from heartml.learning.readings import Reading
from heartml.metrics import METRICS
from heartml.model import Model


def run(name: str) -> None:
    """Build the ensemble of one task."""
    params = config.load()
    with stage("ensemble", task=name) as log:
        data = bench.opened(name, params.encoders, Path.cwd())
        specs = trial_files.read_specs(paths.search(name))
        seen = trial_files.read_evidence(paths.search(name), specs, data.problem)
        terms = Terms(data.problem.task, params.stacking, params.ensemble.of(name))
        verdicts = cross_fitted(seen, data.problem.labels, data.problem.parts, terms)
        combination = fit(seen, data.problem.labels, data.problem.parts, terms)
        used = {trial: specs[trial] for trial in sorted({t for reading in combination.weights for t in reading.trials})}
        heads = heads_of(name, params, used, data)
        with files.replacing_folder(paths.model(name)) as folder:
            refer_below = params.decision.of(name).refer_below
            Model.assemble(name, used, heads, combination, encoder_specs(data, used), refer_below).save(folder)
        files.write_parquet(paths.out_of_fold(name), out_of_fold_table(data.problem, verdicts))
        log.say(in_words(data.problem, specs, combination, verdicts))


@dataclass(frozen=True)
class Refit:
    """Fit a spec on everything that is not held out."""

    name: str
    encoders: tuple[str, ...]
    root: Path
    seed: int


def heads_of(
    name: str, params: config.Params, used: Mapping[int, Spec], data: Bench
) -> dict[int, tuple[State, ...]]:
    """Fitted heads of every used trial."""
    again = [trial for trial, spec in used.items() if spec.family.TAKES == "vectors"]
    refit = functools.partial(_refit, Refit(name, params.encoders, Path.cwd(), params.seed))
    with parallel.pool(1 if len(again) < 2 else parallel.available_workers(params.search.of(name).workers)) as pool:
        states = pool.map(refit, [(trial, used[trial]) for trial in again])
        fitted = dict(zip(again, track(states, "ensemble: fit", len(again)), strict=True))
    folder, folds = paths.search(name), data.problem.folds
    return {trial: (fitted[trial],) if trial in fitted else trial_files.kept(folder, trial, folds) for trial in used}


def _refit(context: Refit, member: tuple[int, Spec]) -> State:
    trial, spec = member
    data = bench.opened(context.name, context.encoders, context.root)
    everything = np.ones(len(data.problem.unit_ids), bool)
    return data.fit(spec, everything, space.derive(context.seed, trial, data.problem.folds)).state()


def encoder_specs(data: Bench, used: Mapping[int, Spec]) -> dict[str, dict[str, Any]]:
    """What made the frames of each encoder that is used."""
    return {encoder: dict(data.encoders[encoder].encoder) for encoder in sorted({s.encoder for s in used.values()})}


def out_of_fold_table(problem: Problem, verdicts: Verdicts) -> pd.DataFrame:
    """One row a unit: unit_id, group_id, label, part, decision, p_<class>, c_<class>."""
    classes = np.array(problem.task.classes)
    table = pd.DataFrame({
        "unit_id": problem.unit_ids, "group_id": problem.group_ids, "label": classes[problem.labels],
        "part": problem.parts.astype(str), "decision": classes[verdicts.decisions],
    }).astype("string")
    for kind, values in (("p", np.exp(verdicts.log_p)), ("c", verdicts.calibrated)):
        table[[f"{kind}_{label}" for label in problem.task.classes]] = values
    return table


def in_words(
    problem: Problem, specs: Mapping[int, Spec], combination: Combination, verdicts: Verdicts
) -> str:
    """`16 trials in, 4 members out: ..., out of fold uar 0.71`."""
    metric = METRICS[problem.task.metric]
    found = metric.function(problem.labels, np.exp(verdicts.log_p), verdicts.decisions, problem.task.classes)
    members = ", ".join(member_words(reading, weight, specs) for reading, weight in combination.weights.items())
    return f"{len(specs)} trials in, {members} out, {metric.name} {found:.3f} cross-fitted"


def member_words(reading: Reading, weight: float, specs: Mapping[int, Spec]) -> str:
    """`0.3 x sequence on logspec (trial 0, stack)`."""
    spec, trials = specs[reading.trials[0]], reading.trials
    which = f"trial {trials[0]}" if len(trials) == 1 else f"trials {', '.join(map(str, trials))}"
    return f"{weight:g} x {spec.head} on {spec.encoder} ({which}, {reading.kind})"

