"""Whether a murmur is described better with the murmur task's networks: one draw of folds for both tasks.

    python benchmarks/descriptor_networks.py [--json FILE]      # in a project with features of circor-murmur

Each descriptor of CirCor's systolic murmurs is predicted on the folds of circor-murmur, so that no network has heard
the patient it describes. Three recipes stand beside each other, out of fold: pooled heads as the product has them; soft
segments and probabilities of the murmur's three sequence networks (benchmarks/network_committees.py trains them, or
has trained them) under a stacker; and both. Differences to the pooled heads are paired over groups.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from network_committees import TODAY, interval, recipes

from heartml.core import config, folds, paths, schema
from heartml.core.config import Params
from heartml.core.system.errors import HeartMLError
from heartml.core.system.parallel import single_thread
from heartml.core.tasks import GROUPS, resolve
from heartml.data.splitting.units import without_rare
from heartml.metrics import METRICS, paired_bootstrap
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet
from heartml.models.ensemble.selection import EnsembleTerms, out_of_fold
from heartml.models.ensemble.stacking import StackingFeatures, StackingView, stacking_features, view_kinds
from heartml.models.heads import HeadPrediction
from heartml.models.pooling import Grid
from heartml.training import fold_fits, search_run, search_space, training_set
from heartml.training.fold_fits import TrainingData
from heartml.training.training_set import TrainingSet

MURMUR, PREFIX = "circor-murmur", "circor-"
POOLED, SEGMENTS, BOTH = "pooled heads", "segments of the murmur's networks", "both"
SPECS = (
    CandidateSpec("logspec", "logistic", "unit", "modulation", {"c": 5.0e-4, "balance": 1.0}),
    CandidateSpec("logspec", "logistic", "recording", "everything", {"c": 3.0e-3, "balance": 0.5}),
    CandidateSpec("logspec", "svm_rbf", "recording", "everything", {"c": 3.0, "gamma": 0.3, "balance": 0.5}),
    CandidateSpec("logspec", "extra_trees", "recording", "everything",
                  {"trees": 200, "least_leaf": 2, "columns": 0.1, "balance": 0.5}),
)


def described(name: str, params: Params) -> TrainingSet:
    """The training set of a descriptor on the folds of the murmur task; rare classes are left out.

    Raises:
        StageError: fewer than two classes have enough patients.
    """
    assignment, recordings = resolve(name), pd.read_parquet(paths.RECORDINGS)
    table = folds.load(paths.folds(MURMUR))
    label = recordings.set_index("recording_id")[schema.label_column(assignment.task.label)]
    own = table.assign(label=label.reindex(table["recording_id"]).to_numpy())
    known = own[own["label"].isin(assignment.task.classes)]
    kept = without_rare(known, assignment, params.validate_.min_class_groups)      # counted in all data, as in `split`
    return training_set.build(name, kept[kept["part"] != folds.TEST], recordings)


def pooled_views(data: TrainingData, own: TrainingSet, seed: int) -> dict[StackingView, StackingFeatures]:
    """Out-of-fold views of the pooled heads."""
    frames = data.encoders["logspec"]
    features = FeatureSet({"logspec": frames.of(own.recording_ids)}, {"logspec": frames.frame_rate_hz},
                          {"logspec": Grid.of(frames.encoder)}, own.unit)
    views = {}
    for number, spec in enumerate(SPECS):
        parts = []
        for fold in range(own.folds):
            here = own.parts == fold
            fitted = fold_fits.fit_candidate(spec, own, features, ~here, search_space.derive_seed(seed, number, fold))
            rows = own.recordings_of(here) if spec.level == "recording" else np.flatnonzero(here)
            parts.append(fitted.predict_proba(features.inputs(spec, rows)))
        prediction = search_run.joined_folds(spec, parts, own)
        kind = view_kinds(spec, own.task, prediction)[0]
        views[StackingView((number,), kind)] = stacking_features(kind, prediction, own.unit)
    return views


def network_views(murmur: HeadPrediction, ids: Mapping[str, int], own: TrainingSet
                  ) -> dict[StackingView, StackingFeatures]:
    """The view of what the murmur's networks say of the recordings `own`."""
    rows = [ids[recording_id] for recording_id in own.recording_ids]
    assert murmur.details is not None
    prediction = HeadPrediction(murmur.log_p[rows], murmur.details[rows])
    return {StackingView((len(SPECS),), "segments"): stacking_features("segments", prediction, own.unit)}


def rows_of(name: str, own: TrainingSet, recipe_views: Mapping[str, Any], params: Params) -> list[dict[str, Any]]:
    """A row for each recipe: macro-F1, UAR and log-likelihood, and the paired differences to the pooled heads."""
    terms = EnsembleTerms(own.task, params.stacking, params.ensemble.for_task(name))
    found = {recipe: out_of_fold(views, own.labels, own.groups, own.parts, terms)
             for recipe, views in recipe_views.items()}
    told = {recipe: np.log(np.clip(one.calibrated[np.arange(len(own.labels)), own.labels], 1e-12, None))
            for recipe, one in found.items()}
    rows = []
    for recipe, one in found.items():
        difference_of_log = told[recipe] - told[POOLED]
        row: dict[str, Any] = {
            "task": name, "units": len(own.labels), "recipe": recipe, "log_likelihood": float(told[recipe].mean()),
            "log_likelihood_minus_pooled": [float(difference_of_log.mean()), *interval(difference_of_log, own.groups)]}
        for metric in ("macro_f1", "uar"):
            def pair(of: Any) -> tuple[Any, Any]:
                return np.exp(of.log_p), of.decisions

            difference = paired_bootstrap(METRICS[metric], own.labels, pair(one), pair(found[POOLED]), own.task.classes,
                                          list(own.groups), resamples=2000, confidence=0.95,
                                          rng=np.random.default_rng(0))
            row[metric] = float(METRICS[metric].function(own.labels, *pair(one), own.task.classes))
            row[f"{metric}_minus_pooled"] = [difference.value, difference.low, difference.high]
        rows.append(row)
    return rows


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    single_thread()
    params = config.load()
    data = fold_fits.training_data(MURMUR, ("logspec",), Path.cwd())
    search = params.search.for_task(MURMUR)
    base, folder = search_space.fixed_hyperparameters(search, "sequence"), paths.STATE / "benchmark"
    murmur = dict(recipes(data, base, search.network_trials["sequence"], (), folder / f"committees-{MURMUR}"))[TODAY]
    ids = {recording_id: row for row, recording_id in enumerate(data.train_set.recording_ids)}
    rows = []
    for label in GROUPS["descriptors"]:
        name = f"{PREFIX}{label}"
        try:
            own = described(name, params)
        except HeartMLError as error:
            print(f"{name}: {str(error)[:120]}")
            continue
        pooled, networks = pooled_views(data, own, params.seed), network_views(murmur, ids, own)
        rows += rows_of(name, own, {POOLED: pooled, SEGMENTS: networks, BOTH: {**pooled, **networks}}, params)
    for row in rows:
        f1, uar, log = (row[f"{what}_minus_pooled"] for what in ("macro_f1", "uar", "log_likelihood"))
        print(f"{row['task']:<26} {row['units']:>3} {row['recipe']:<34} F1 {row['macro_f1']:.3f} {f1[0]:+.3f} "
              f"[{f1[1]:+.3f}, {f1[2]:+.3f}]  UAR {row['uar']:.3f} {uar[0]:+.3f} [{uar[1]:+.3f}, {uar[2]:+.3f}]  "
              f"log-likelihood {row['log_likelihood']:.3f} {log[0]:+.3f} [{log[1]:+.3f}, {log[2]:+.3f}]")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
