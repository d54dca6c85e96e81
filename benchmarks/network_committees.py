"""What committees of networks, snapshots, averaged weights and crops at test time are worth, in the same time.

    python benchmarks/network_committees.py TASK [--times 2 4] [--json FILE]      # in a project with features

Each recipe trains sequence networks on each fold, for the same number of steps in all: the networks of `params.yaml`
(CirCor: three of 600 steps), twice as many of half the steps, and four times as many (`--times`). Those of
`params.yaml` also give their snapshots after 60, 80 and 100 % of the steps, whose predictions or weights are averaged,
and predict recordings in crops of five seconds. Each recipe is stacked as the product does it, out of fold, but not in
noise. The log-likelihood of the units decides, with paired intervals over groups.

The left-out fold is predicted only. What a fold gave is kept in .heartml/benchmark, so that a killed run goes on.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heartml.core import config, paths
from heartml.core.system.parallel import single_thread
from heartml.metrics import METRICS
from heartml.models.ensemble.candidate import CandidateSpec, mean_prediction
from heartml.models.ensemble.selection import EnsembleTerms, out_of_fold
from heartml.models.ensemble.stacking import StackingView, stacking_features
from heartml.models.heads import FittedHead, HeadPrediction, Hyperparameters
from heartml.models.heads.network_training import learning_curve
from heartml.models.heads.sequence import FittedSequence
from heartml.training import fold_fits, search_space
from heartml.training.fold_fits import TrainingData

DRAWN: tuple[Hyperparameters, ...] = (
    {"dropout": 0.2, "rate": 4.0e-3, "frame_weight": 1.0, "strength": 1.0},
    {"dropout": 0.3, "rate": 2.5e-3, "frame_weight": 0.5, "strength": 0.6},
)
CROP_S = 5.0
TODAY, SNAPSHOTS, AVERAGED, CROPS, ONE = ("as in params.yaml", "the same, last three snapshots",
                                          "the same, weights of the last three averaged",
                                          "the same, predicted in crops of 5 s", "one of these networks alone")


def plans(count: int, steps: int, multiples: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Recipe -> number of networks, and steps of each.

    >>> plans(3, 600, (2, 4))
    {'as in params.yaml': (3, 600), '6 networks of 300 steps': (6, 300), '12 networks of 150 steps': (12, 150)}
    """
    more = [(count * times, steps // times) for times in multiples]
    return {TODAY: (count, steps), **{f"{own} networks of {of} steps": (own, of) for own, of in more}}


def spec_of(base: Hyperparameters, number: int, steps: int) -> CandidateSpec:
    """The network `number` of a committee: as the product's initial trials, in turn."""
    return CandidateSpec("logspec", "sequence", "recording", None,
                         {**base, **DRAWN[number % len(DRAWN)], "steps": steps})


def predictions(data: TrainingData, base: Hyperparameters, number: int, steps: int, fold: int
                ) -> dict[str, list[HeadPrediction]]:
    """Kind of prediction -> what one network says of its left-out fold; snapshots of those as in params.yaml."""
    today = steps == base["steps"]
    spec, here = spec_of(base, number, steps), data.train_set.parts == fold
    kept: list[FittedSequence] = []

    def keep(fitted: FittedHead) -> float:
        assert isinstance(fitted, FittedSequence)
        kept.append(_copy(fitted))
        return 0.0

    with learning_curve(keep if today else None):
        fitted = data.fit(spec, ~here, search_space.derive_seed(7, number, steps, fold))
    assert isinstance(fitted, FittedSequence)
    found = {TODAY: [data.predict_proba(fitted, spec, here)]}
    if today:
        last = kept[-3:]
        frames = round(CROP_S * data.encoders["logspec"].frame_rate_hz)
        found[SNAPSHOTS] = [data.predict_proba(one, spec, here) for one in last]
        found[AVERAGED] = [data.predict_proba(_averaged(last), spec, here)]
        found[CROPS] = [data.predict_proba(replace(fitted, shape={**fitted.shape, "inference_frames": frames}), spec,
                                           here)]
    return found


def _copy(fitted: FittedSequence) -> FittedSequence:
    return replace(fitted, network=copy.deepcopy(fitted.network))


def _averaged(networks: Sequence[FittedSequence]) -> FittedSequence:
    """The mean of weights and of the statistics of batch norm."""
    mean = _copy(networks[-1])
    states = [one.network.state_dict() for one in networks]
    mean.network.load_state_dict({name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
                                  for name, value in states[-1].items()})
    return replace(mean, network=mean.network.eval())


def joined(data: TrainingData, folds: Sequence[Sequence[HeadPrediction]]) -> HeadPrediction:
    """One prediction of all recordings from those of the folds, each averaged over its networks."""
    cases, first = len(data.train_set.recording_ids), folds[0][0]
    log_p = np.zeros((cases, first.log_p.shape[1]))
    details = None if first.details is None else np.zeros((cases, first.details.shape[1]))
    for fold, networks in enumerate(folds):
        rows, mean = data.train_set.recordings_of(data.train_set.parts == fold), mean_prediction(networks)
        log_p[rows] = mean.log_p
        if details is not None and mean.details is not None:
            details[rows] = mean.details
    return HeadPrediction(log_p, details)


def stacked(data: TrainingData, prediction: HeadPrediction, terms: EnsembleTerms) -> tuple[Any, Any]:
    """Log-probability of each unit's class `[u]`, and the decisions, of the views that the product would have."""
    kinds = ["direct" if terms.task.unit == "recording" else "stack"]
    kinds += [] if prediction.details is None else ["segments"]
    features = {StackingView((0,), kind): stacking_features(kind, prediction, data.train_set.unit)   # type: ignore[arg-type]
                for kind in kinds}
    labels = data.train_set.labels
    found = out_of_fold(features, labels, data.train_set.groups, data.train_set.parts, terms)
    return found.calibrated, found.decisions


def recipes(data: TrainingData, base: Hyperparameters, networks: int, multiples: Sequence[int], folder: Path
            ) -> Iterator[tuple[str, HeadPrediction]]:
    """Each recipe and its out-of-fold prediction of all recordings."""
    kinds: dict[str, list[list[HeadPrediction]]] = {}
    plan = plans(networks, int(base["steps"]), multiples)
    started, done, whole = time.monotonic(), 0, sum(count * data.train_set.folds for count, _ in plan.values())
    for name, (count, steps) in plan.items():
        for fold in range(data.train_set.folds):
            of_fold: dict[str, list[HeadPrediction]] = {}
            for number in range(count):
                made = _kept(folder / f"{steps}-{number}-{fold}.npz",
                             partial(predictions, data, base, number, steps, fold))
                for kind, some in made.items():
                    of_fold.setdefault(name if kind == TODAY else kind, []).extend(some)
                if name == TODAY and number == 0:
                    of_fold[ONE] = list(made[TODAY])
                done += 1
                print(f"network {done} of {whole}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            for kind, some in of_fold.items():
                kinds.setdefault(kind, []).append(some)
    for kind, folds in kinds.items():
        yield kind, joined(data, folds)


def _kept(file: Path, make: Callable[[], dict[str, list[HeadPrediction]]]) -> dict[str, list[HeadPrediction]]:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"{kind}|{row}|{field}": value for kind, some in make().items() for row, one in enumerate(some)
                  for field, value in (("log_p", one.log_p), ("details", one.details)) if value is not None}
        temporary = file.with_suffix(".part.npz")
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        temporary.rename(file)
    found: dict[str, list[HeadPrediction]] = {}
    with np.load(file) as stored:
        for key in sorted(key for key in stored.files if key.endswith("|log_p")):
            details = key.replace("|log_p", "|details")
            found.setdefault(key.split("|")[0], []).append(
                HeadPrediction(stored[key], stored[details] if details in stored.files else None))
    return found


def run(name: str, multiples: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each recipe: log-likelihood per unit, the task's metric, and the paired difference to `TODAY`."""
    params = config.load()
    data = fold_fits.training_data(name, ("logspec",), Path.cwd())
    base = search_space.fixed_hyperparameters(params.search.for_task(name), "sequence")
    terms = EnsembleTerms(data.train_set.task, params.stacking, params.ensemble.for_task(name))
    task, labels, groups = data.train_set.task, data.train_set.labels, data.train_set.groups
    found = {kind: stacked(data, prediction, terms)
             for kind, prediction in recipes(data, base, params.search.for_task(name).network_trials["sequence"],
                                             multiples, paths.STATE / "benchmark" / f"committees-{name}")}
    rows, metric = [], METRICS[task.metric]
    told = {kind: np.log(np.clip(p[np.arange(len(labels)), labels], 1e-12, None)) for kind, (p, _) in found.items()}
    for kind, (p, decisions) in found.items():
        difference = told[kind] - told[TODAY]
        low, high = interval(difference, groups)
        rows.append({"task": name, "recipe": kind, "log_likelihood": float(told[kind].mean()),
                     "metric": float(metric.function(labels, p, decisions, task.classes)),
                     "minus_today": [float(difference.mean()), low, high]})
    return rows


def interval(values: Any, groups: Any, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean of paired differences `[u]`: groups are drawn with replacement."""
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(sums), (draws, len(sums)))
    low, high = np.quantile(sums[rows].sum(1) / counts[rows].sum(1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", help="for instance circor-murmur")
    parser.add_argument("--times", type=int, nargs="*", default=[2, 4], help="how many times as many networks")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    single_thread()
    rows = run(given.task, given.times)
    for row in sorted(rows, key=lambda row: -row["log_likelihood"]):
        mean, low, high = row["minus_today"]
        print(f"{row['recipe']:<40} {row['log_likelihood']:.3f}  {mean:+.3f} [{low:+.3f}, {high:+.3f}]  "
              f"{row['metric']:.3f}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
